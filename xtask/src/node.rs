//! What the node tier needs beside the control plane: a kernel, containerd, runc, kubelet.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{Checkout, read, run};
use crate::{image, install, upstream};

/// Its newest version is what the guest runs.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Drivers that are no part of the kernel itself, in the order in which they must be loaded.
const MODULES: [&str; 11] = [
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "overlay",
    "veth",
];
/// The guest's own memory and what QEMU, the control plane and a build beside it take.
const MEMORY_BYTES: u64 = 5 << 30;

/// Fails with the reason where this machine cannot run the guest; else installs, downloads and builds what is missing.
pub(crate) fn ready(checkout: &Checkout) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the guest is an x86-64 Linux with our own binaries in it: it is tested on such a machine only");
    }
    let available = available_memory_bytes(&std::fs::read_to_string("/proc/meminfo")?)?;
    if available < MEMORY_BYTES {
        bail!(
            "the guest and its cluster need {} MiB of free memory, this machine has {}",
            MEMORY_BYTES >> 20,
            available >> 20
        );
    }
    install::install_node()?;
    kernel(&checkout.target.join("upstream/kernel"))?;
    // First, as it brings the C compiler that runc needs too.
    image::agent(checkout)?;
    upstream::build(checkout, &upstream::NODE)
}

fn available_memory_bytes(meminfo: &str) -> Result<u64> {
    let line =
        meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("meminfo without MemAvailable")?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("MemAvailable")?;
    Ok(kibibytes << 10)
}

/// Unpacks the distribution's kernel into `folder`: `vmlinuz`, `modules/NAME.ko`, and `modules/order`.
fn kernel(folder: &Path) -> Result<()> {
    let (stamp, order) = (folder.join("stamp"), MODULES.join("\n"));
    let wanted = format!("{KERNEL}\n{order}");
    if std::fs::read_to_string(&stamp).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let unpacked = folder.join("unpacked");
    std::fs::create_dir_all(&unpacked)?;
    let package = kernel_package()?;
    eprintln!("downloading {package}");
    // Only root may become apt's own user, who could not write here.
    let mut download = install::apt_get(&["-o", "APT::Sandbox::User=root", "download", &package]);
    run(download.current_dir(folder))?;
    let archive = only_file(folder, ".deb")?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    std::fs::remove_file(archive)?;
    std::fs::rename(only_file(&unpacked.join("boot"), "vmlinuz-")?, folder.join("vmlinuz"))?;
    std::fs::create_dir(folder.join("modules"))?;
    for module in MODULES {
        let file = format!("{module}.ko");
        let found = find(&unpacked.join("lib/modules"), &file)?.with_context(|| format!("{package} has no {file}"))?;
        std::fs::rename(found, folder.join("modules").join(file))?;
    }
    std::fs::write(folder.join("modules/order"), order)?;
    std::fs::remove_dir_all(&unpacked)?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

/// The unsigned package of the kernel that [`KERNEL`] names: the same files without the firmware's signature.
fn kernel_package() -> Result<String> {
    let depends = || {
        let text = read(Command::new("apt-cache").args(["depends", KERNEL]).env("LC_ALL", "C"))?;
        Ok(text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(|name| format!("{name}-unsigned"))))
    };
    let known: Result<Option<String>> = depends();
    if let Ok(Some(name)) = known {
        return Ok(name);
    }
    run(&mut install::apt_get(&["update"])).with_context(|| format!("apt knows no {KERNEL}"))?;
    depends()?.with_context(|| format!("apt knows no {KERNEL}"))
}

fn only_file(folder: &Path, part_of_name: &str) -> Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(part_of_name)) {
            return Ok(path);
        }
    }
    bail!("no file *{part_of_name}* in {}", folder.display())
}

fn find(folder: &Path, name: &str) -> Result<Option<std::path::PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(available_memory_bytes(text).unwrap(), 1 << 20);
        assert!(available_memory_bytes("MemTotal: 1 kB\n").is_err());
    }
}
