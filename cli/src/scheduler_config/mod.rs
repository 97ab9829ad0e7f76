//! `kubectl fairlead scheduler-config`: what a kube-scheduler of one's own needs to call the extender, printed or checked.
//! No cluster is asked.
mod check;
mod duration;
mod print;

use crate::args::SchedulerConfigArgs;
use crate::{CliError, say};
use std::path::PathBuf;

/// Why a KubeSchedulerConfiguration was not found good.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("{} is no YAML of one document", path.display())]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// Something is wrong with it; told line by line before.
    #[error("{} fault(s) in {}", count, path.display())]
    Faults {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
}

/// Runs the command.
pub(crate) fn run(args: &SchedulerConfigArgs) -> Result<(), CliError> {
    let Some(path) = &args.check else {
        return say(print::block(args).trim_end());
    };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    let config: serde_json::Value = serde_saphyr::from_str(&text)
        .map_err(|source| ConfigError::Yaml { path: path.clone(), source: Box::new(source) })?;
    let faults = check::faults(&config, &print::url_prefix(args));
    for fault in &faults {
        say(&format!("{}: {}", fault.at, fault.text))?;
    }
    match faults.len() {
        0 => say("nothing wrong found"),
        count => Err(ConfigError::Faults { path: path.clone(), count }.into()),
    }
}
