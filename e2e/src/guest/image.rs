//! The guest's disk and its first file system, made of the genuine parts without starting anything.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::archive::{Image, output};
use super::cpio::Cpio;
use super::{PAUSE_IMAGE, WORKER_IMAGE};
use crate::control_plane::kubeconfig_json;
use crate::parts::Parts;

/// Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";
const RUNTIME: [&str; 5] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet"];
const FOLDERS: [&str; 20] = [
    "bin",
    "sbin",
    "usr/bin",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "images",
    "srv/cgi-bin",
    "opt/cni/bin",
    "etc/cni/net.d",
    "etc/containerd",
    "etc/kubernetes",
    "var/log",
    "var/lib/kubelet",
    "var/lib/containerd",
    "lib",
    "mnt",
];
const DISK_BYTES: u64 = 1 << 30;

/// What is on the disk beside the genuine parts.
pub(super) struct Content<'a> {
    pub(super) node: &'a str,
    /// Port of the API server on the host's loopback.
    pub(super) api_port: u16,
    pub(super) ca_file: &'a Path,
    /// Kubeconfig of the node's own identity; its token is taken over.
    pub(super) kubeconfig: &'a Path,
    /// Image archives to import beside those of the bed.
    pub(super) archives: &'a [PathBuf],
}

/// Writes the initial file system that holds the drivers and hands over to the disk.
pub(super) fn write_initrd(kernel: &Path, file: &Path) -> Result<()> {
    let mut cpio = Cpio::default();
    for folder in ["bin", "dev", "proc", "sys", "disk", "modules"] {
        cpio.folder(folder);
    }
    let order = kernel.join("modules/order");
    let order = std::fs::read_to_string(&order).with_context(|| format!("{}", order.display()))?;
    for module in order.lines() {
        cpio.program(&format!("modules/{module}.ko"), &std::fs::read(kernel.join(format!("modules/{module}.ko")))?);
    }
    cpio.program("modules/order", format!("{order}\n").as_bytes());
    cpio.program("bin/busybox", &busybox()?);
    cpio.program("init", include_bytes!("files/first"));
    Ok(std::fs::write(file, cpio.finish())?)
}

/// Writes the disk; `folder` is scratch space beside it.
pub(super) fn write_disk(parts: &Parts, content: &Content, folder: &Path, disk: &Path) -> Result<()> {
    let root = folder.join("root");
    for path in FOLDERS {
        std::fs::create_dir_all(root.join(path))?;
    }
    std::os::unix::fs::symlink("/run", root.join("var/run"))?;
    program(&root.join("bin/busybox"), &busybox()?)?;
    for applet in output(Command::new(BUSYBOX).arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    for name in RUNTIME {
        let (from, to) = (parts.upstream(name)?, root.join("usr/bin").join(name));
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
    }
    program(&root.join("sbin/init"), include_bytes!("files/init"))?;
    program(&root.join("srv/cgi-bin/ask"), include_bytes!("files/ask"))?;
    program(&root.join("opt/cni/bin/bed"), include_bytes!("files/cni"))?;
    write_settings(&root, content)?;
    let images = root.join("images");
    let busybox = ("bin/busybox", PathBuf::from(BUSYBOX));
    let links = [("bin/sh", "busybox"), ("bin/sleep", "busybox"), ("bin/nproc", "busybox"), ("bin/grep", "busybox")];
    let forever = ["/bin/busybox", "sleep", "1000000"];
    let files = [busybox];
    Image { name: PAUSE_IMAGE, entrypoint: &forever, files: &files, links: &[] }.write(&images, "pause")?;
    Image { name: WORKER_IMAGE, entrypoint: &forever, files: &files, links: &links }.write(&images, "worker")?;
    for archive in content.archives {
        let name = archive.file_name().context("an archive without a name")?;
        std::fs::copy(archive, images.join(name)).with_context(|| format!("copy {}", archive.display()))?;
    }
    std::fs::File::create(disk)?.set_len(DISK_BYTES)?;
    // The tool lies where only root's PATH may lead.
    let mut make = Command::new("/usr/sbin/mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"]);
    output(make.arg(&root).arg(disk))?;
    Ok(std::fs::remove_dir_all(root)?)
}

fn write_settings(root: &Path, content: &Content) -> Result<()> {
    let write = |path: &str, text: &str| std::fs::write(root.join(path), text);
    write("etc/containerd/config.toml", include_str!("files/containerd.toml"))?;
    let network = json!({ "cniVersion": "1.0.0", "name": "bed", "plugins": [{ "type": "bed" }] });
    write("etc/cni/net.d/10-bed.conflist", &network.to_string())?;
    write(
        "etc/guest",
        &format!("NODE_NAME={}\nAPI_PORT={}\nSERVICE_ADDRESS=10.0.0.1\n", content.node, content.api_port),
    )?;
    write("etc/hostname", content.node)?;
    write("etc/hosts", "127.0.0.1 localhost\n")?;
    write("etc/resolv.conf", "nameserver 10.0.2.3\n")?;
    write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
    write("etc/group", "root:x:0:\n")?;
    write("etc/machine-id", "5f0d3a1c9b7e4c2d8a6f1e0b3c5d7a90\n")?;
    std::fs::copy(content.ca_file, root.join("etc/kubernetes/ca.crt"))?;
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(content.kubeconfig)?)?;
    let own = kubeconfig_json(
        "https://10.0.0.1:443",
        Path::new("/etc/kubernetes/ca.crt"),
        "default",
        &config["users"][0]["user"],
    );
    write("etc/kubernetes/kubelet.conf", &own)?;
    write("var/lib/kubelet/config.yaml", &kubelet_config().to_string())?;
    Ok(())
}

/// JSON is YAML. Nothing is evicted and no packet filter is touched; the CPU manager is off, so that another may pin.
fn kubelet_config() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cpuManagerPolicy": "none",
        "systemReserved": { "cpu": "2", "memory": "512Mi" },
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn busybox() -> Result<Vec<u8>> {
    std::fs::read(BUSYBOX).with_context(|| format!("{BUSYBOX} of the package busybox-static"))
}

fn program(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
