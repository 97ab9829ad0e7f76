//! The work in a queue, as far as it is known.
use serde::{Deserialize, Serialize};

/// The work in a queue. Unknown is a value, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Backlog {
    /// The source answered.
    #[serde(rename_all = "camelCase")]
    Known {
        /// Items not handed to a worker yet. For a Redis stream: the group's lag.
        length: u64,
        /// Items handed out and not finished. For a Redis stream: the group's pending entries.
        in_flight: u64,
        /// When the source was asked.
        at_ms: u64,
    },
    /// There is no answer that may be used.
    Unknown {
        /// Why.
        why: UnknownReason,
    },
}

/// Why a backlog is unknown: a closed list, also used as reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnknownReason {
    /// Nothing was asked yet.
    NotAskedYet,
    /// The last answer is older than the source's staleness bound.
    Stale,
    /// No connection, or no answer in time.
    Unreachable,
    /// The queue refused the credentials.
    WrongCredentials,
    /// The Secret with the credentials, or its key, does not exist.
    SecretMissing,
    /// The operator may not read the Secret.
    SecretNotGranted,
    /// The address is not on the operator's allow-list.
    AddressNotAllowed,
    /// The queue or its consumer group does not exist.
    NotFound,
    /// There is something else under the queue's name.
    WrongType,
    /// The answer has no usable number in it.
    BadAnswer,
}

impl UnknownReason {
    /// The reason as conditions and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAskedYet => "NotAskedYet",
            Self::Stale => "Stale",
            Self::Unreachable => "Unreachable",
            Self::WrongCredentials => "WrongCredentials",
            Self::SecretMissing => "SecretMissing",
            Self::SecretNotGranted => "SecretNotGranted",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::NotFound => "NotFound",
            Self::WrongType => "WrongType",
            Self::BadAnswer => "BadAnswer",
        }
    }
}
