//! Why a turn of the loop came to nothing.
use fairlead_runtime::{ApiError, causes};

use crate::machine::MachineError;

/// Why a turn came to nothing; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("failed to read the machine: the reader died")]
    Reader(#[source] tokio::task::JoinError),
    #[error("there is no Node {0} yet")]
    NoNode(String),
    #[error("the NodePlacement belongs to an earlier Node of this name; waiting for the garbage collector")]
    EarlierNode,
    #[error("nothing is written: {0}")]
    SecondAgent(String),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl TurnError {
    /// What was tried, for the counter.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Machine(_) | Self::Reader(_) => "read machine",
            Self::NoNode(_) => "read Node",
            Self::SecondAgent(_) => "take the node",
            Self::EarlierNode => "create NodePlacement",
            Self::Api(error) => error.operation(),
        }
    }

    /// This error and its causes on one line.
    pub(crate) fn chain(&self) -> String {
        match self {
            Self::Api(error) => error.chain(),
            other => causes(other),
        }
    }
}
