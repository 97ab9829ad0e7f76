//! Flags of fairlead-agent.
use std::path::PathBuf;

use fairlead_runtime::{AdminArgs, ClientArgs, LogArgs};

/// The node agent of Fairlead: publishes the machine of its node and pins containers to the CPUs reserved for them
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "fairlead-agent", version)]
pub struct Args {
    #[allow(missing_docs)]
    #[command(flatten)]
    pub logs: LogArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub admin: AdminArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub client: ClientArgs,
    /// Name of the Node this agent runs on
    #[arg(long, env = "NODE_NAME", value_parser = node_name)]
    pub node_name: String,
    /// Folder of simulated machines: a file named as the node holds an hwloc synthetic description, which then takes the
    /// place of the machine itself
    #[arg(long, env = "FAIRLEAD_MACHINE_DIR", value_name = "DIR")]
    pub machine_dir: Option<PathBuf>,
    /// Where sysfs is mounted; what hwloc says is checked against it
    #[arg(long, env = "FAIRLEAD_SYSFS_ROOT", value_name = "DIR", default_value = "/sys")]
    pub sysfs_root: PathBuf,
    /// Seconds between two looks at the machine; CPUs and memory may come and go while it runs
    #[arg(long, env = "FAIRLEAD_REFRESH_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub refresh_seconds: u64,
    /// Socket on which the container runtime takes plugins (NRI); without one there the agent publishes and does not pin
    #[arg(long, env = "FAIRLEAD_NRI_SOCKET", value_name = "FILE", default_value = "/var/run/nri/nri.sock")]
    pub nri_socket: PathBuf,
    /// Folder of the agent's own, kept over restarts: what was promised and who runs on it, and the lock that keeps a
    /// second agent from pinning
    #[arg(long, env = "FAIRLEAD_CHECKPOINT_DIR", value_name = "DIR", default_value = "/var/lib/fairlead")]
    pub checkpoint_dir: PathBuf,
    /// The kubelet's configuration, where there is one; the agent pins only where the kubelet does not
    #[arg(long, env = "FAIRLEAD_KUBELET_CONFIG", value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// State file of the kubelet's CPU manager
    #[arg(
        long,
        env = "FAIRLEAD_KUBELET_CPU_STATE",
        value_name = "FILE",
        default_value = "/host/kubelet/cpu_manager_state"
    )]
    pub kubelet_cpu_state: PathBuf,
    /// State file of the kubelet's memory manager
    #[arg(
        long,
        env = "FAIRLEAD_KUBELET_MEMORY_STATE",
        value_name = "FILE",
        default_value = "/host/kubelet/memory_manager_state"
    )]
    pub kubelet_memory_state: PathBuf,
    /// Permit containers on isolated CPUs to use real-time scheduling (RLIMIT_RTPRIO); it is never set for them
    #[arg(long, env = "FAIRLEAD_PERMIT_SCHED_FIFO")]
    pub permit_sched_fifo: bool,
    /// UID of the agent's own pod: its cgroup keeps all CPUs, because an agent with fewer would see a
    /// smaller machine; its threads keep off CPUs that containers own
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
}

/// A node's name is a DNS subdomain; here it must not be able to leave --machine-dir.
fn node_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    let fits = bytes.len() <= 253 && bytes.iter().copied().all(allowed);
    if fits && ends(bytes.first().copied()) && ends(bytes.last().copied()) {
        return Ok(text.to_owned());
    }
    Err("a node's name has lower case letters, digits, '-' and '.', at most 253, and begins and ends with one of the first two".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn names_that_are_no_nodes_are_refused() {
        for name in ["", "..", "a/b", "A", "-a", &"a".repeat(254)] {
            assert!(Args::try_parse_from(["x", &format!("--node-name={name}")]).is_err(), "{name}");
        }
        let args = Args::try_parse_from(["x", "--node-name=node-1.example"]).unwrap();
        assert_eq!(args.sysfs_root, PathBuf::from("/sys"));
    }
}
