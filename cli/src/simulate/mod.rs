//! `simulate placement`: what if these pods came to these nodes? The shipped decisions, on files, without a cluster.
mod devices;
mod error;
mod machines;
mod manifests;
mod placement;
mod render;
#[cfg(test)]
mod simulate_test;
mod world;

pub use error::SimulateError;
pub(crate) use machines::NodeArg;

use crate::args::{Output, SimulatePlacementArgs};
use crate::error::CliError;
use crate::say;

/// Runs the simulation and prints it.
pub(crate) fn placement(args: &SimulatePlacementArgs) -> Result<(), CliError> {
    if let (Some(file), Some((namespace, name)), Output::Json) = (&args.from_dump, &args.pod, args.output) {
        return say(&placement::explained(file, namespace, name)?);
    }
    let run = placement::run(args)?;
    let text = match args.output {
        Output::Json => {
            serde_json::to_string_pretty(&run).map_err(|source| CliError::Output { source: source.into() })?
        }
        Output::Table => render::text(&run),
    };
    say(text.trim_end())
}
