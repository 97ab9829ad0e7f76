//! Builds the genuine parts from pinned Go modules, each once.

use std::fs::{File, TryLockError};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell::{Checkout, read};

/// One binary.
struct Part {
    name: &'static str,
    /// Folder with its `go.mod` under `e2e/upstream`.
    module: &'static str,
    package: &'static str,
    tags: &'static str,
    /// Calls C, which is linked in: the binary runs where no shared library is.
    calls_c: bool,
}

const fn part(name: &'static str, module: &'static str, package: &'static str) -> Part {
    Part { name, module, package, tags: "", calls_c: false }
}

/// Drivers that need C libraries or kernel features the guest has no use for are left out.
const fn runtime(name: &'static str, package: &'static str) -> Part {
    Part { tags: "no_btrfs no_devmapper no_zfs", ..part(name, "containerd", package) }
}

const PARTS: [Part; 13] = [
    part("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    part("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    part("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    part("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    part("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    part("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    part("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    part("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    runtime("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    runtime("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    runtime("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    // Without seccomp it refuses every pod: the kubelet asks for a profile.
    Part { tags: "seccomp netgo osusergo", calls_c: true, ..part("runc", "runc", "github.com/opencontainers/runc") },
    // The only one whose program is ours; it calls the kubelet's packages.
    part(RIVAL, "kubelet-packing", "."),
];

/// The control plane and what is beside it.
pub(crate) const ALL: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "etcd", "helm", "kwok"];

/// The kubelet's choice of CPUs, for the bench beside ours.
pub(crate) const RIVAL: &str = "kubelet-packing";

/// What a genuine node runs.
pub(crate) const NODE: [&str; 5] = ["kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc"];

/// Builds those of `names` that are not built yet from the same sources with the same flags and the same Go.
pub(crate) fn build(checkout: &Checkout, names: &[&str]) -> Result<()> {
    let go_version = read(checkout.command("go".as_ref()).arg("version").env("GOTOOLCHAIN", "local"))
        .context("Go is needed to build the genuine parts")?;
    let stamps = checkout.target.join("upstream/stamps");
    std::fs::create_dir_all(&stamps)?;
    std::fs::create_dir_all(checkout.upstream_bin())?;
    let _alone = lock(&checkout.target.join("upstream/lock"))?;
    let mut stale = Vec::new();
    for part in PARTS.iter().filter(|part| names.contains(&part.name)) {
        let wanted = stamp(checkout, part, &go_version)?;
        let file = stamps.join(part.name);
        if !checkout.upstream_bin().join(part.name).is_file()
            || std::fs::read_to_string(&file).ok().as_ref() != Some(&wanted)
        {
            stale.push((part, file, wanted));
        }
    }
    let count = stale.len();
    for (index, (part, file, wanted)) in stale.into_iter().enumerate() {
        compile(checkout, part, index + 1, count)?;
        std::fs::write(file, wanted)?;
    }
    Ok(())
}

/// Two builds at once would rename each other's files away. The lock ends with the file, also when we are killed.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("{}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("another cargo xtask is building the same: waiting for it");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    Ok(file)
}

/// All that decides what the binary is; kept whole, as nothing is shorter and surer.
fn stamp(checkout: &Checkout, part: &Part, go_version: &str) -> Result<String> {
    let module = checkout.root.join("e2e/upstream").join(part.module);
    let read =
        |name: &str| std::fs::read_to_string(module.join(name)).with_context(|| format!("{}/{name}", module.display()));
    let flags = link_flags(&module, part.calls_c)?;
    let own = if part.package == "." { read("main.go")? } else { String::new() };
    Ok([go_version, part.package, part.tags, &flags, &read("go.mod")?, &read("go.sum")?, &own].join("\n"))
}

/// Kubernetes does not know its own version unless it is told; `kubectl version` fails without.
fn link_flags(module: &Path, calls_c: bool) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    if calls_c {
        flags.push_str(" -linkmode external -extldflags -static");
    }
    let text = std::fs::read_to_string(module.join("go.mod"))?;
    let required =
        text.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix("k8s.io/kubernetes v"));
    if let Some(version) = required {
        let version = version.split_whitespace().next().unwrap_or_default();
        let mut numbers = version.split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        for (name, value) in
            [("gitVersion", format!("v{version}")), ("gitMajor", major.to_owned()), ("gitMinor", minor.to_owned())]
        {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
        }
    }
    Ok(flags)
}

fn compile(checkout: &Checkout, part: &Part, number: usize, count: usize) -> Result<()> {
    let module = checkout.root.join("e2e/upstream").join(part.module);
    let output = checkout.upstream_bin().join(part.name);
    let fresh = output.with_extension("fresh");
    let mut command = Command::new("go");
    command.args(["build", "-trimpath", "-tags", part.tags, "-ldflags", &link_flags(&module, part.calls_c)?, "-o"]);
    command.arg(&fresh).arg(part.package);
    command.env("CGO_ENABLED", if part.calls_c { "1" } else { "0" });
    command.current_dir(&module).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().context("start go")?;
    let mut line = Progress::new(format!("building {}, {number} of {count}", part.name));
    let status = loop {
        line.show(began.elapsed());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    line.end(began.elapsed());
    if !status.success() {
        bail!("building {} failed: {status}", part.name);
    }
    // A half-written binary never has the final name.
    Ok(std::fs::rename(fresh, output)?)
}

/// One line that counts: rewritten on a terminal, repeated now and then elsewhere.
struct Progress {
    text: String,
    rewritten: bool,
    shown: Option<Duration>,
}

impl Progress {
    fn new(text: String) -> Self {
        Self { text, rewritten: std::io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, elapsed: Duration) {
        let pause = Duration::from_secs(if self.rewritten { 1 } else { 30 });
        if self.shown.is_some_and(|shown| elapsed < shown + pause) {
            return;
        }
        self.shown = Some(elapsed);
        let end = if self.rewritten { "\r" } else { "\n" };
        let mut stderr = std::io::stderr();
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(stderr, "{}, {}{end}", self.text, clock(elapsed)).and_then(|()| stderr.flush());
    }

    fn end(&self, elapsed: Duration) {
        eprintln!("{}, {} ", self.text, clock(elapsed));
    }
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{:02}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(clock(Duration::from_secs(59)), "59s");
        assert_eq!(clock(Duration::from_secs(100)), "1m40s");
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/upstream");
        assert!(link_flags(&module.join("kubernetes"), false).unwrap().contains("version.gitVersion=v1.36.3 "));
        assert_eq!(link_flags(&module.join("etcd"), false).unwrap(), "-s -w");
        assert!(link_flags(&module.join("runc"), true).unwrap().ends_with("-extldflags -static"));
    }

    #[test]
    fn every_name_is_a_part() {
        let known = |name: &&str| PARTS.iter().any(|part| part.name == *name);
        assert!(ALL.iter().chain(&NODE).chain([&RIVAL]).all(known));
        assert_eq!(ALL.len() + NODE.len() + 1, PARTS.len());
    }
}
