//! `cargo xtask`: the one front door of this repository.

mod bench;
mod charts;
mod cluster;
mod generate;
mod image;
mod install;
mod node;
mod reference;
mod search;
mod shell;
mod tidy;
mod tiers;
mod upstream;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::image::{Image, Profile};
use crate::shell::Checkout;
use crate::tiers::Tier;

/// Builds, shows, tests and measures Fairlead.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play the story on a genuine control plane, on a terminal view.
    Demo {
        /// Without a terminal: one JSON object per line for each milestone; exit status 0 only if all were seen.
        #[arg(long)]
        script: bool,
    },
    /// Leave a genuine cluster with Fairlead running and print its KUBECONFIG.
    Up,
    /// End what `up` left running.
    Down,
    /// Run everything that CI runs, in tiers.
    Test {
        /// Run this tier only; may be given again.
        #[arg(long, value_name = "NAME")]
        tier: Vec<Tier>,
        /// Leave this tier out; may be given again.
        #[arg(long, value_name = "NAME")]
        without_tier: Vec<Tier>,
    },
    /// Measure: a table for people, target/bench/NAME.json for machines.
    Bench {
        /// Which bench; all without.
        name: Option<String>,
    },
    /// Make OCI images of the programs, as archives, without a container engine.
    Image {
        /// This image only; may be given again.
        #[arg(long, value_name = "NAME")]
        only: Vec<Image>,
        /// How the programs are compiled.
        #[arg(long, value_enum, default_value_t = Profile::Release)]
        profile: Profile,
        /// Where archives and SBOMs go; target/images/PROFILE without.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Search every state of a protocol that its budget allows, on the shipped steps.
    Search(search::Arguments),
    /// Write CRDs, reference pages and the chart's README from their sources.
    Generate {
        /// Write nothing; fail when a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Check imports between our crates, budgets, and what may not be committed.
    Tidy,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let checkout = Checkout::find()?;
    match Arguments::parse().command {
        Command::Demo { script } => {
            if !script && !std::io::stdout().is_terminal() {
                bail!("the view needs a terminal: `cargo xtask demo --script` tells the story without one");
            }
            let mut arguments = vec!["demo"];
            arguments.extend(script.then_some("--script"));
            return Err(cluster::exec(&checkout, &arguments)?);
        }
        Command::Up => return Err(cluster::exec(&checkout, &["up"])?),
        Command::Down => return Err(cluster::exec(&checkout, &["down"])?),
        Command::Test { tier, without_tier } => return tiers::test(&checkout, &tier, &without_tier),
        Command::Bench { name } => bench::bench(&checkout, name.as_deref())?,
        Command::Image { only, profile, output } => image::image(&checkout, &only, profile, output.as_deref())?,
        Command::Search(arguments) => return search::search(&checkout, &arguments),
        Command::Generate { check } => generate::generate(&checkout, check)?,
        Command::Tidy => tidy::tidy(&checkout)?,
    }
    Ok(ExitCode::SUCCESS)
}
