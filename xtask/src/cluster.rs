//! Everything that runs on the genuine parts: installs, builds, then hands over to `fairlead-e2e`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::shell::{Checkout, run, words};
use crate::{install, upstream};

/// Packages, genuine parts, our binaries and the stand-in for the runtime of simulated nodes; progress goes to standard
/// error. `targets` are `--bins`, and `--tests` where tests are built anyway.
pub(crate) fn ready(checkout: &Checkout, targets: &[&str]) -> Result<()> {
    install::install()?;
    upstream::build(checkout, &upstream::ALL)?;
    eprintln!("building Fairlead");
    let mut build = checkout.cargo(&["build", "--workspace", "--example", "nri-runtime"]);
    run(build.args(targets).stdout(Stdio::null()))
}

/// Becomes `fairlead-e2e` with these arguments: it gets our signals and its exit status is ours. Returns only on failure.
pub(crate) fn exec(checkout: &Checkout, arguments: &[&str]) -> Result<anyhow::Error> {
    let build = arguments != ["down"] || !checkout.target.join("debug/fairlead-e2e").is_file();
    if build {
        ready(checkout, &["--bins"])?;
    }
    let mut command = e2e(checkout, "debug");
    command.args(arguments);
    let error = command.exec();
    Err(error).with_context(|| format!("start `{}`", words(&command)))
}

/// `fairlead-e2e` of a profile, told where everything is.
pub(crate) fn e2e(checkout: &Checkout, profile: &str) -> Command {
    let binaries = checkout.target.join(profile);
    let mut command = checkout.command(binaries.join("fairlead-e2e").as_os_str());
    environment(checkout, profile, &mut command);
    command
}

/// What `e2e/src/parts.rs` reads.
pub(crate) fn environment(checkout: &Checkout, profile: &str, command: &mut Command) {
    command
        .env("FAIRLEAD_ROOT", &checkout.root)
        .env("FAIRLEAD_TARGET", &checkout.target)
        .env("FAIRLEAD_UPSTREAM_BIN", checkout.upstream_bin())
        .env("FAIRLEAD_BIN", checkout.target.join(profile));
}
