//! The release protocol of one tenant, sans-I/O: [`step`] takes a state and an event and gives the next state and the
//! requests to carry out. Whatever crashes, overlaps, is delayed or lost, the pods that are let out never exceed what the
//! caller admitted, because of five rules on the order of writes:
//!
//! 1. **Intent first**: an intent is written to the ledger by compare-and-swap before the gate is removed.
//! 2. **Bump, then list**: a new leader raises the epoch, and only then lists the pods, consistently.
//! 3. **Precondition**: the gate removal carries the pod's version as it was known when the intent was written.
//! 4. **Guarded resend**: a gate removal is sent again only after reading that the ledger is still at our epoch.
//! 5. **Touch to cancel**: an intent that may still be under way is dropped only after another write has changed the
//!    pod's version, so that the old removal can no longer succeed.
//!
//! ## Carrying it out
//! - Keep one [`State`] a tenant. Tell it [`Event::Lead`] when the lease is won and [`Event::StepDown`] when it is lost.
//! - Carry out every [`Request`] and report each exactly once, also when it timed out ([`Failure::Lost`]). At most one
//!   ledger or list request is under way; removals and touches run beside each other.
//! - Feed every watch event of the tenant's pods ([`Event::Observed`], [`Event::Gone`]), in the order of the watch. What a
//!   re-list no longer shows is [`Event::Gone`] only if that list was consistent (`resourceVersion` unset).
//! - Send [`Event::Tick`] every second or so: every retry waits for it, so nothing runs hot while the API is away.
//! - While [`State::is_ready`]: count [`State::usage`] as used, offer [`State::pending`] to the plan, and hand what it
//!   releases to [`Event::Want`] before any other event. If a UID of `usage` is not in the caller's own snapshot yet, its
//!   size is unknown: do not plan for this tenant until it is.
mod state;
mod step;
mod takeover;

use std::sync::Arc;

pub use state::{Operation, State, Trouble};
pub use step::{Rules, step, step_with};

/// Most intents a ledger holds (the schema's bound); further wants wait for room.
pub const MAX_INTENTS: usize = 1024;

/// Removals whose answer was lost before the intent is cancelled by a touch.
pub const MAX_SENDS: u8 = 3;

/// UID of a pod.
pub type Uid = Arc<str>;

/// A `resourceVersion`: a decimal number, larger for later writes. The API guarantees that since Kubernetes 1.35
/// (KEP-5504); servers before it, on etcd, do the same.
pub type Version = u64;

/// Reads a `resourceVersion`.
///
/// # Errors
/// [`VersionError`] when the text is no decimal number: versions could not be compared then, and nothing may be released.
pub fn parse_version(text: &str) -> Result<Version, VersionError> {
    text.parse().map_err(|source| VersionError { text: text.to_owned(), source })
}

/// A `resourceVersion` that is no number.
#[derive(Debug, thiserror::Error)]
#[error("resourceVersion {text:?} is not a decimal number: this API server's versions cannot be compared")]
pub struct VersionError {
    /// What was read.
    pub text: String,
    #[source]
    source: std::num::ParseIntError,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// Behind our gate.
    Gated,
    /// Our gate is gone and the pod has not ended: it counts, bound or not, also while it is being deleted.
    Released,
    /// `Succeeded` or `Failed`.
    Ended,
}

/// A pod at one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodView {
    /// Its `resourceVersion`.
    pub version: Version,
    /// Where it stood then.
    pub standing: Standing,
}

/// A pod whose gate is about to be removed, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Intent {
    /// The pod.
    pub uid: Uid,
    /// The pod's version that the removal carries as precondition.
    pub version: Version,
}

/// A ledger as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// The ledger object's own `resourceVersion`.
    pub version: Version,
    /// Its epoch.
    pub epoch: u64,
    /// Its intents.
    pub intents: Vec<Intent>,
}

/// All pods of the tenant at one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodList {
    /// `metadata.resourceVersion` of the list.
    pub version: Version,
    /// The pods, each at its own version.
    pub pods: Vec<(Uid, PodView)>,
}

/// Why a request did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// 409, or a failed `test` of a patch: the object has another version. It says nothing about who changed it: the
    /// answer to an earlier copy of the same request may have been lost.
    Conflict,
    /// 404, or the name is now another UID's.
    NotFound,
    /// Refused for certain and without effect: 401, 403, 422, 429.
    Forbidden,
    /// No answer, or one that leaves open whether it was done: time-out, broken connection, 5xx.
    Lost,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// This process leads now.
    Lead,
    /// It no longer does. Answers that are still on their way may be dropped or reported.
    StepDown,
    /// Time for retries.
    Tick,
    /// Answer to [`Request::ReadLedger`]; `None` when there is no such object.
    LedgerRead {
        /// The request's.
        round: u64,
        /// What was read.
        result: Result<Option<Ledger>, Failure>,
    },
    /// Answer to [`Request::WriteLedger`]: the ledger's new version.
    LedgerWritten {
        /// The request's.
        round: u64,
        /// The new version.
        result: Result<Version, Failure>,
    },
    /// Answer to [`Request::ListPods`].
    Listed {
        /// The request's.
        round: u64,
        /// What was listed.
        result: Result<PodList, Failure>,
    },
    /// Answer to [`Request::Ungate`]: the pod as the patch left it.
    Ungated {
        /// The pod.
        uid: Uid,
        /// Its new version and standing.
        result: Result<PodView, Failure>,
    },
    /// Answer to [`Request::Touch`]: the pod as the patch left it.
    Touched {
        /// The pod.
        uid: Uid,
        /// Its new version and standing.
        result: Result<PodView, Failure>,
    },
    /// A watch event that shows a pod of the tenant.
    Observed {
        /// The pod.
        uid: Uid,
        /// Its version and standing.
        view: PodView,
    },
    /// The pod was deleted.
    Gone {
        /// The pod.
        uid: Uid,
    },
    /// Release these. The caller has admitted them on top of [`State::usage`]; what is not in [`State::pending`] is
    /// left out.
    Want {
        /// The pods.
        uids: Vec<Uid>,
    },
    /// Do not release these after all, where that is still possible: the limit was cut below [`State::usage`].
    Cancel {
        /// The pods.
        uids: Vec<Uid>,
    },
}

/// What to do. Every request is to be reported back by its event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Read the tenant's ledger, consistently.
    ReadLedger {
        /// To be repeated in the answer.
        round: u64,
    },
    /// Replace epoch and intents of the ledger if it still has the version `expect`; `None`: create it.
    WriteLedger {
        /// To be repeated in the answer.
        round: u64,
        /// Version that the ledger must have.
        expect: Option<Version>,
        /// The epoch to write.
        epoch: u64,
        /// All intents, by UID.
        intents: Vec<Intent>,
    },
    /// List all pods of the tenant, consistently (`resourceVersion` unset: the API server must ask the store).
    ListPods {
        /// To be repeated in the answer.
        round: u64,
    },
    /// Remove the gate and write the released annotation in one patch, if the pod has this UID and this version.
    Ungate {
        /// The pod.
        uid: Uid,
        /// Version that the pod must have.
        version: Version,
        /// For the annotation.
        epoch: u64,
    },
    /// Change the pod in a way that changes its version, whatever version it has now (but only this UID).
    Touch {
        /// The pod.
        uid: Uid,
    },
}
