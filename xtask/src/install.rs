//! Debian packages that the build and the test bed need.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::shell::run;

/// `redis-tools` holds the server's binary; the package `redis-server` would add a daemon that the host starts.
const PACKAGES: [&str; 4] = ["libhwloc-dev", "libudev-dev", "pkg-config", "redis-tools"];

/// Installs what is missing.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
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
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"]).args(arguments);
        // Standard output belongs to the caller's own lines.
        command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command
    };
    run(&mut apt(&["update"]))?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    run(install.args(&missing))
}

fn installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}
