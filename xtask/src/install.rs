//! Debian packages that the build and the test bed need.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::shell::run;

/// `redis-tools` holds the server's binary; the package `redis-server` would add a daemon that the host starts.
const PACKAGES: [&str; 4] = ["libhwloc-dev", "libudev-dev", "pkg-config", "redis-tools"];

/// What static binaries need beside those: a C compiler for musl, and what unpacks and builds hwloc's source package.
const IMAGE_PACKAGES: [&str; 6] = ["musl-tools", "gcc", "make", "dpkg-dev", "bzip2", "xz-utils"];

/// What a genuine node in a guest needs beside those: the emulator with its firmware, the guest's shell, the tool that
/// makes its disk, and the library that runc links.
const NODE_PACKAGES: [&str; 6] =
    ["qemu-system-x86", "seabios", "ipxe-qemu", "busybox-static", "e2fsprogs", "libseccomp-dev"];

/// Installs what is missing.
pub(crate) fn install() -> Result<()> {
    missing(&PACKAGES)
}

/// The same for images.
pub(crate) fn install_image() -> Result<()> {
    missing(&IMAGE_PACKAGES)
}

/// The same for a genuine node.
pub(crate) fn install_node() -> Result<()> {
    missing(&NODE_PACKAGES)
}

fn missing(packages: &[&'static str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these Debian packages are missing and only root can install them: apt-get install --no-install-recommends {list}"
        );
    }
    eprintln!("installing {list}");
    run(&mut apt_get(&["update"]))?;
    let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
    run(install.args(&missing))
}

/// `apt-get` that asks nobody and waits for another one.
pub(crate) fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"]).args(arguments);
    // Standard output belongs to the caller's own lines.
    command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command
}

fn installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}
