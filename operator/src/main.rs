//! Parses arguments, wires, runs.
use anyhow::Context;
use clap::Parser;
use fairlead_operator::{Args, run};
use fairlead_runtime::{Shutdown, init_logs};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    init_logs(&args.log).context("failed to start logging")?;
    let shutdown = Shutdown::install().context("failed to listen for signals")?;
    run(args, shutdown).await.context("the operator failed")
}
