//! Queues: what they answer, how looking at them fails, and which of several sources is believed.
pub mod redis;
pub mod sampler;
pub mod secret;

use super::allow::{Address, AddressError};
use fairlead_scaling::{Backlog, UnknownReason};
use std::sync::Arc;

/// One answer of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Items not handed out.
    pub length: u64,
    /// Items handed out and not acknowledged.
    pub in_flight: u64,
    /// Items ever added, if counted.
    pub added_total: Option<u64>,
    /// Items ever finished, if counted.
    pub done_total: Option<u64>,
    /// When the queue was asked, by the clock of the sampling.
    pub at_ms: u64,
}

/// Why a look at a queue failed. Nothing that a queue answered is repeated here beyond its error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The address cannot be read.
    #[error("spec.queueSources address {source}")]
    Address {
        /// How.
        #[source]
        source: AddressError,
    },
    /// The operator may not dial it.
    #[error(
        "address {address} is not on the operator's allow-list: whoever installed Fairlead adds it to the chart's operator.queueAllow"
    )]
    NotAllowed {
        /// The address.
        address: Address,
    },
    /// No connection, or it broke, or no answer in time.
    #[error("{address}: {what}")]
    Unreachable {
        /// The address.
        address: Address,
        /// What happened, as the operating system says.
        what: String,
    },
    /// The password was refused, or one is needed.
    #[error("{address} refused the credentials ({code}): check redisStream.passwordSecretRef")]
    WrongCredentials {
        /// The address.
        address: Address,
        /// The queue's error code.
        code: String,
    },
    /// There is no such Secret, or no such key in it.
    #[error("Secret {namespace}/{name} {what}: create it, or correct redisStream.passwordSecretRef")]
    SecretMissing {
        /// Namespace.
        namespace: String,
        /// Secret.
        name: String,
        /// "does not exist" or what its key lacks.
        what: String,
    },
    /// The operator may not read the Secret.
    #[error(
        "the operator may not read Secret {namespace}/{name}; whoever owns namespace {namespace} grants it with: {command}"
    )]
    SecretNotGranted {
        /// Namespace.
        namespace: String,
        /// Secret.
        name: String,
        /// The commands to type.
        command: String,
    },
    /// The API server did not give the Secret for another reason.
    #[error("Secret {namespace}/{name} could not be read: {what}")]
    SecretUnread {
        /// Namespace.
        namespace: String,
        /// Secret.
        name: String,
        /// What the client says.
        what: String,
    },
    /// There is no stream of that name.
    #[error("{address} has no stream {stream:?}: create it with its group (XGROUP CREATE … MKSTREAM)")]
    NoStream {
        /// The address.
        address: Address,
        /// The key.
        stream: String,
    },
    /// The stream has no such group.
    #[error("stream {stream:?} at {address} has no group {group:?}: create it (XGROUP CREATE)")]
    NoGroup {
        /// The address.
        address: Address,
        /// The key.
        stream: String,
        /// The group.
        group: String,
    },
    /// Something else is under that key.
    #[error("key {stream:?} at {address} is not a stream")]
    WrongType {
        /// The address.
        address: Address,
        /// The key.
        stream: String,
    },
    /// The queue sends elsewhere.
    #[error("{address} answered with a redirect ({code}), which is not followed: name the node that holds the stream")]
    Redirect {
        /// The address.
        address: Address,
        /// The queue's error code.
        code: String,
    },
    /// An answer without the numbers.
    #[error("{address}: {what}")]
    BadAnswer {
        /// The address.
        address: Address,
        /// What is missing.
        what: String,
    },
}

impl SourceError {
    /// The closed reason.
    #[must_use]
    pub fn reason(&self) -> UnknownReason {
        match self {
            Self::Address { .. } | Self::NotAllowed { .. } => UnknownReason::AddressNotAllowed,
            Self::Unreachable { .. } | Self::SecretUnread { .. } => UnknownReason::Unreachable,
            Self::WrongCredentials { .. } => UnknownReason::WrongCredentials,
            Self::SecretMissing { .. } => UnknownReason::SecretMissing,
            Self::SecretNotGranted { .. } => UnknownReason::SecretNotGranted,
            Self::NoStream { .. } | Self::NoGroup { .. } => UnknownReason::NotFound,
            Self::WrongType { .. } => UnknownReason::WrongType,
            Self::Redirect { .. } | Self::BadAnswer { .. } => UnknownReason::BadAnswer,
        }
    }

    /// The queue may be as it was, only out of reach: the last answer holds until it is stale. Every other error says
    /// something about the queue, and an older answer is worth nothing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::SecretUnread { .. })
    }
}

/// What a sampler has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// The last answer that may still be used.
    pub sample: Option<Sample>,
    /// Why the last look failed, if it did.
    pub error: Option<Arc<SourceError>>,
}

impl SourceState {
    /// Takes the outcome of one look.
    pub fn take(&mut self, outcome: Result<Sample, SourceError>) {
        match outcome {
            Ok(sample) => *self = Self { sample: Some(sample), error: None },
            Err(error) => {
                if !error.is_transient() {
                    self.sample = None;
                }
                self.error = Some(Arc::new(error));
            }
        }
    }
}

/// What the sources say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The backlog.
    pub backlog: Backlog,
    /// Which source is used, and its sample.
    pub used: Option<(usize, Sample)>,
    /// Why the backlog is unknown, or why an earlier source is passed over.
    pub message: String,
}

/// The first source with a fresh answer is used. `sources` are the age in milliseconds above which an answer is stale, and
/// what was found, in the order of the pool's spec.
#[must_use]
pub fn judge(sources: &[(u64, SourceState)], now_ms: u64) -> Judgement {
    let fresh = sources.iter().enumerate().find_map(|(index, (stale_ms, state))| {
        let sample = state.sample.filter(|sample| now_ms.saturating_sub(sample.at_ms) <= *stale_ms)?;
        Some((index, sample))
    });
    if let Some((index, sample)) = fresh {
        let Sample { length, in_flight, at_ms, .. } = sample;
        return Judgement {
            backlog: Backlog::Known { length, in_flight, at_ms },
            used: Some((index, sample)),
            message: format!("source {} of {} answers", index + 1, sources.len()),
        };
    }
    let failed = sources.iter().find_map(|(_, state)| state.error.as_ref());
    let (why, message) = match failed {
        Some(error) => (error.reason(), error.to_string()),
        None if sources.iter().any(|(_, state)| state.sample.is_some()) => {
            (UnknownReason::Stale, "the last answer is too old".to_owned())
        }
        None => (UnknownReason::NotAskedYet, "the queue has not answered yet".to_owned()),
    };
    Judgement { backlog: Backlog::Unknown { why }, used: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        "redis.a:6379".parse().unwrap()
    }

    fn sample(length: u64, at_ms: u64) -> Sample {
        Sample { length, in_flight: 0, added_total: None, done_total: None, at_ms }
    }

    fn known(length: u64, at_ms: u64) -> (u64, SourceState) {
        (10_000, SourceState { sample: Some(sample(length, at_ms)), error: None })
    }

    #[test]
    fn the_first_fresh_source_wins_and_unknown_is_not_zero() {
        let judgement = judge(&[known(7, 0), known(3, 5_000)], 9_000);
        assert_eq!(judgement.used.unwrap().0, 0);
        let judgement = judge(&[known(7, 0), known(3, 5_000)], 11_000);
        assert_eq!(judgement.backlog, Backlog::Known { length: 3, in_flight: 0, at_ms: 5_000 });
        let judgement = judge(&[known(7, 0)], 60_000);
        assert_eq!(judgement.backlog, Backlog::Unknown { why: UnknownReason::Stale });
        assert_eq!(judge(&[Default::default()], 0).backlog, Backlog::Unknown { why: UnknownReason::NotAskedYet });
    }

    #[test]
    fn out_of_reach_keeps_the_last_answer_until_it_is_stale() {
        let mut state = SourceState::default();
        state.take(Ok(sample(5, 0)));
        state.take(Err(SourceError::Unreachable { address: address(), what: "connection refused".into() }));
        assert_eq!(judge(&[(10_000, state.clone())], 10_000).used.unwrap().1.length, 5);
        let late = judge(&[(10_000, state.clone())], 10_001);
        assert_eq!(late.backlog, Backlog::Unknown { why: UnknownReason::Unreachable });
        assert!(late.message.contains("connection refused"));
        state.take(Err(SourceError::WrongType { address: address(), stream: "s".into() }));
        assert_eq!(judge(&[(10_000, state)], 1).backlog, Backlog::Unknown { why: UnknownReason::WrongType });
    }

    #[test]
    fn every_error_has_its_reason_and_says_what_to_do() {
        let a = address;
        let cases = [
            (SourceError::NotAllowed { address: a() }, "AddressNotAllowed", "queueAllow"),
            (
                SourceError::WrongCredentials { address: a(), code: "WRONGPASS".into() },
                "WrongCredentials",
                "passwordSecretRef",
            ),
            (SourceError::NoStream { address: a(), stream: "s".into() }, "NotFound", "MKSTREAM"),
            (SourceError::NoGroup { address: a(), stream: "s".into(), group: "g".into() }, "NotFound", "XGROUP CREATE"),
            (SourceError::Redirect { address: a(), code: "MOVED".into() }, "BadAnswer", "not followed"),
        ];
        for (error, reason, hint) in cases {
            assert_eq!(error.reason().as_str(), reason);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
