//! Parses arguments, starts the logs, runs.
use clap::Parser;
use fairlead_extender::args::Args;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    fairlead_runtime::init_logs(&args.logs)?;
    // One thread answers while the other applies events; more would only contend with kube-scheduler.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(fairlead_extender::run(args))?;
    Ok(())
}
