//! `search`: builds the exhaustive searches and starts them as a process of their own.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::shell::{Checkout, run, words};

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Reserve, bind and withdraw: no CPU is promised twice.
    Placement,
}

/// What is searched.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    protocol: Protocol,
    /// Small: what the test command searches.
    #[arg(long, conflicts_with = "long")]
    bounded: bool,
    /// Large: for hours and much memory.
    #[arg(long)]
    long: bool,
    /// Switch a rule off; a double promise must be found, and the exit status is then 1.
    #[arg(long, value_name = "GUARD")]
    without: Option<String>,
    /// Name the rules that can be switched off.
    #[arg(long)]
    list: bool,
}

/// Runs a search; its exit status is ours.
pub(crate) fn search(checkout: &Checkout, arguments: &Arguments) -> Result<ExitCode> {
    let Protocol::Placement = arguments.protocol;
    let mut command = built(checkout)?;
    for (flag, given) in [("--bounded", arguments.bounded), ("--long", arguments.long), ("--list", arguments.list)] {
        command.args(given.then_some(flag));
    }
    command.args(arguments.without.iter().flat_map(|guard| ["--without", guard]));
    let status = command.status().with_context(|| format!("start `{}`", words(&command)))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).context("the search was killed")?;
    Ok(ExitCode::from(code))
}

/// The part of the test command.
pub(crate) fn bounded(checkout: &Checkout) -> Result<()> {
    let status = built(checkout)?.arg("--bounded").status().context("start the search")?;
    if !status.success() {
        bail!("`search placement --bounded`: {status}");
    }
    Ok(())
}

/// With the workspace's features, as the other tiers build: nothing is built anew for it.
fn built(checkout: &Checkout) -> Result<Command> {
    run(&mut checkout.cargo(&["build", "--quiet", "--workspace", "--bin", "fairlead-search"]))?;
    Ok(checkout.command(checkout.target.join("debug/fairlead-search").as_os_str()))
}
