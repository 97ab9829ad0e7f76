//! kubectl fairlead: why a pod is where it is or why it waits (`explain`), who uses how much (`top`), what would happen
//! (`simulate`), and leaving Fairlead without leftovers (`drain`).
//!
//! Everything that is shown is computed from objects that the user may read, by the very functions that operator and
//! extender decide with; no port of theirs is asked.
mod access;
mod amount;
mod args;
mod drain;
mod drawing;
mod error;
mod explain;
#[cfg(test)]
mod fake_server;
mod gather;
mod scheduler_config;
mod simulate;
mod table;
mod top;

pub use args::Args;
pub use error::CliError;
pub use simulate::SimulateError;

use access::Access;
use args::{Command, Explain, Simulate};
use std::io::Write as _;
use std::process::ExitCode;

/// Runs one command. Results go to stdout, errors to stderr with their causes; the status is 0 only on success.
pub async fn run(args: Args) -> ExitCode {
    match dispatch(args).await {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough: `kubectl fairlead top | head`.
        Err(CliError::Output { source }) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {}", error::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(args: Args) -> Result<(), CliError> {
    let access = || Access::new(&args.cluster);
    match &args.command {
        Command::Simulate(Simulate::Placement(placement)) => Ok(simulate::placement(placement)?),
        Command::Explain(Explain::Pod(pod)) => explain::pod(&access().await?, pod).await,
        Command::Explain(Explain::Node(node)) => explain::node(&access().await?, node).await,
        Command::Top(top) => top::run(&access().await?, top).await,
        Command::Drain(drain) => drain::run(&access().await?, drain).await,
        Command::SchedulerConfig(config) => scheduler_config::run(config),
    }
}

/// One line of the result.
fn say(line: &str) -> Result<(), CliError> {
    writeln!(std::io::stdout(), "{line}").map_err(|source| CliError::Output { source })
}

/// One line about the result, to stderr; when that is gone, nothing is left to tell it to.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
