//! The binary of the bed: parses arguments and runs what `cargo xtask` asks for.

use anyhow::Result;
use clap::{Parser, Subcommand};
use fairlead_e2e::{bench, demo, up};

/// The genuine cluster: demo, up, down, bench.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play the story: a surge for two tenants, on a terminal view.
    Demo {
        /// Without a terminal: one JSON object per line for each milestone.
        #[arg(long)]
        script: bool,
    },
    /// Leave a cluster running with Fairlead in it, and print its KUBECONFIG.
    Up,
    /// End what `up` left running.
    Down,
    /// Measure on the genuine control plane: pipeline, scheduler.
    Bench {
        /// Which bench.
        name: String,
    },
    /// Hold the cluster of `up`.
    #[command(hide = true)]
    Supervise,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fairlead_e2e::init_logs();
    match arguments.command {
        Command::Demo { script } => demo::demo(script).await,
        Command::Up => up::up().await,
        Command::Down => up::down().await,
        Command::Bench { name } => bench::bench(&name).await,
        Command::Supervise => up::supervise().await,
    }
}
