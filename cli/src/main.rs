//! kubectl fairlead: parses arguments, runs, turns the outcome into an exit status.
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    fairlead_cli::run(fairlead_cli::Args::parse()).await
}
