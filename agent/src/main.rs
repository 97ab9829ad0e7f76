//! Parses arguments, starts the logs, runs.
use clap::Parser;
use fairlead_agent::args::Args;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    fairlead_runtime::init_logs(&args.logs)?;
    // One loop and two watches: a second thread would only cost memory on every node.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fairlead_agent::run(args))?;
    Ok(())
}
