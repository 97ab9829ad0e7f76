//! Which policies the node's kubelet runs with, from its configuration and its state files.
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// A kubelet's files are a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A kubelet that restarts a container forgets how often it did after this time.
const REMOUNT_PAUSE: Duration = Duration::from_secs(600);
/// The policy that leaves cpusets alone; configurations and state files spell it in lower and upper case.
const NONE: &str = "none";

/// The files.
#[derive(Debug, Clone)]
pub struct KubeletFiles {
    /// `KubeletConfiguration`; none where the distribution has no such file.
    pub config: Option<PathBuf>,
    /// The CPU manager's state.
    pub cpu_state: PathBuf,
    /// The memory manager's state.
    pub memory_state: PathBuf,
}

/// What they say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeletPolicies {
    /// Of the CPU manager, if any file tells.
    pub cpu: Option<String>,
    /// Of the memory manager, if any file tells.
    pub memory: Option<String>,
    /// A file is not the kubelet's any more, so its policy may be another by now.
    pub replaced: bool,
    /// Why files could not be read.
    pub problems: Vec<String>,
}

/// Why a file tells nothing.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {bytes} bytes are too many", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    #[error("{}: the kubelet has replaced it since it was mounted: a restart of the agent sees the new one", path.display())]
    Replaced { path: PathBuf },
    #[error("{}: {message}", path.display())]
    Parse { path: PathBuf, message: String },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    cpu_manager_policy: Option<String>,
    memory_manager_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagerState {
    policy_name: String,
}

impl KubeletPolicies {
    /// Reads the files. Blocks for a moment.
    #[must_use]
    pub fn read(files: &KubeletFiles) -> Self {
        let (mut problems, mut replaced) = (Vec::new(), false);
        let mut note = |error: FileError| {
            replaced |= matches!(error, FileError::Replaced { .. });
            problems.push(error.to_string());
        };
        let config = files.config.as_ref().and_then(|path| config(path).map_err(&mut note).ok());
        let cpu_state = policy_in_force(&files.cpu_state).map_err(&mut note).ok();
        let memory_state = policy_in_force(&files.memory_state).map_err(&mut note).ok();
        let configured =
            |policy: Option<String>| policy.filter(|policy| !policy.is_empty()).unwrap_or_else(|| NONE.to_owned());
        let (cpu, memory) = match config {
            Some(config) => {
                (Some(configured(config.cpu_manager_policy)), Some(configured(config.memory_manager_policy)))
            }
            None => (None, None),
        };
        Self { cpu: stricter(cpu, cpu_state), memory: stricter(memory, memory_state), replaced, problems }
    }

    /// The policy under which the kubelet itself writes cpusets.
    #[must_use]
    pub fn writer(&self) -> Option<(&'static str, &str)> {
        let writes = |policy: &&String| !policy.eq_ignore_ascii_case(NONE);
        let cpu = self.cpu.as_ref().filter(writes).map(|policy| ("CPU manager", policy.as_str()));
        cpu.or_else(|| self.memory.as_ref().filter(writes).map(|policy| ("memory manager", policy.as_str())))
    }

    /// Whether only a new container of the agent can read the files again: a new container has new mounts. Not more often
    /// than every [`REMOUNT_PAUSE`] where a kubelet writes its state again and again, as one does that writes cpusets.
    #[must_use]
    pub fn want_remount(&self, before: Option<&Self>, running: Duration) -> bool {
        let was_calm = before.is_some_and(|before| before.known() && before.writer().is_none());
        self.replaced && (was_calm || running >= REMOUNT_PAUSE)
    }

    /// Whether it is known that the kubelet leaves cpusets alone: the memory manager never acts without being named, and
    /// a kubelet that was never given a policy has no state file of it.
    #[must_use]
    pub fn known(&self) -> bool {
        self.cpu.is_some() && !self.replaced
    }
}

/// Of what the configuration says and what the state file says, the one that writes cpusets: the kubelet may have been
/// started with a flag, or not yet been started again since its configuration changed.
fn stricter(configured: Option<String>, in_force: Option<String>) -> Option<String> {
    let writes = |policy: &String| !policy.eq_ignore_ascii_case(NONE);
    in_force.clone().filter(writes).or_else(|| configured.clone().filter(writes)).or(in_force).or(configured)
}

fn config(path: &Path) -> Result<Config, FileError> {
    let parsed = serde_saphyr::from_str::<Config>(&text(path)?);
    parsed.map_err(|error| FileError::Parse { path: path.to_owned(), message: error.to_string() })
}

fn policy_in_force(path: &Path) -> Result<String, FileError> {
    let parsed = serde_json::from_str::<ManagerState>(&text(path)?);
    let state = parsed.map_err(|error| FileError::Parse { path: path.to_owned(), message: error.to_string() })?;
    Ok(state.policy_name)
}

fn text(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    // Each file is mounted by itself, and a kubelet writes by renaming a fresh one over it: the mount keeps the old one,
    // which has no name any more.
    if metadata.nlink() == 0 {
        return Err(FileError::Replaced { path: path.to_owned() });
    }
    let bytes = metadata.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::TooLong { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Option<&str>, cpu: Option<&str>, memory: Option<&str>) -> KubeletPolicies {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: Option<&str>| {
            let path = dir.path().join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            path
        };
        let files = KubeletFiles {
            config: config.map(|text| file("config.yaml", Some(text))),
            cpu_state: file("cpu_manager_state", cpu),
            memory_state: file("memory_manager_state", memory),
        };
        KubeletPolicies::read(&files)
    }

    const KIND: &str = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
    const NONE_STATE: &str = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;

    #[test]
    fn a_kubelet_that_leaves_cpusets_alone_is_known_from_either_file() {
        for (config, state) in [(Some(KIND), None), (None, Some(NONE_STATE)), (Some(KIND), Some(NONE_STATE))] {
            let policies = read(config, state, None);
            assert_eq!((policies.known(), policies.writer()), (true, None), "{policies:?}");
            assert_eq!(policies.cpu.as_deref(), Some("none"));
        }
    }

    #[test]
    fn a_policy_that_writes_wins_wherever_it_is_named() {
        let config = format!("{KIND}cpuManagerPolicy: static\n");
        let state = NONE_STATE.replace("none", "static");
        for (config, state) in
            [(Some(config.as_str()), Some(NONE_STATE)), (Some(KIND), Some(state.as_str())), (None, Some(&state))]
        {
            assert_eq!(read(config, state, None).writer(), Some(("CPU manager", "static")));
        }
        let memory = r#"{"policyName":"Static","machineState":{},"checksum":1}"#;
        assert_eq!(read(Some(KIND), Some(NONE_STATE), Some(memory)).writer(), Some(("memory manager", "Static")));
        let none = memory.replace("Static", "None");
        assert_eq!(read(Some(KIND), Some(NONE_STATE), Some(&none)).writer(), None);
    }

    #[test]
    fn unreadable_files_are_named_and_known_to_nobody() {
        let policies = read(None, Some("{\"policyName\": 7}"), None);
        assert!(!policies.known());
        assert_eq!(policies.problems.len(), 2);
        assert!(
            policies.problems.iter().any(|problem| problem.contains("cpu_manager_state: invalid type")),
            "{policies:?}"
        );
        let long = " ".repeat(2 << 20);
        assert!(read(Some(&long), None, None).problems[0].contains("2097152 bytes"));
    }

    /// As a mount of the file alone keeps it.
    #[test]
    fn a_file_that_was_replaced_tells_nothing() {
        use std::os::fd::AsRawFd as _;

        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let state = file("cpu_manager_state", NONE_STATE);
        let mounted = std::fs::File::open(&state).unwrap();
        let files = KubeletFiles {
            config: Some(file("config.yaml", KIND)),
            cpu_state: PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd())),
            memory_state: dir.path().join("none"),
        };
        assert!(KubeletPolicies::read(&files).known());
        let fresh = file("fresh", &NONE_STATE.replace("none", "static"));
        std::fs::rename(fresh, &state).unwrap();
        let policies = KubeletPolicies::read(&files);
        assert!(!policies.known(), "{policies:?}");
        let calm = KubeletPolicies { cpu: Some(NONE.to_owned()), ..KubeletPolicies::default() };
        let writes = KubeletPolicies { cpu: Some("static".to_owned()), ..KubeletPolicies::default() };
        let (early, late) = (Duration::from_secs(1), REMOUNT_PAUSE);
        assert!(policies.want_remount(Some(&calm), early) && policies.want_remount(Some(&writes), late));
        assert!(!policies.want_remount(Some(&writes), early) && !policies.want_remount(None, early));
        assert!(!calm.want_remount(Some(&calm), late));
        assert!(policies.problems[0].ends_with("a restart of the agent sees the new one"), "{policies:?}");
    }
}
