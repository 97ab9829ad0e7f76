//! The events and requests that the steps exchange with who carries them out.
use crate::{PlacementRead, PodFacts, PodRead, PodRef, Reason, Reservation};

/// What kube-scheduler asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindRequest {
    /// The pod.
    pub pod: PodRef,
    /// The node it shall be bound to.
    pub node: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bind begins.
    Start {
        /// What is asked for.
        request: BindRequest,
        /// The pod as the watch shows it, if it does: saves the live read. The Binding names its `resourceVersion`, so
        /// what is stale here fails there.
        pod: Option<PodFacts>,
        /// Now, ms since the Unix epoch.
        now_ms: u64,
    },
    /// Answer to [`Request::ReadPod`].
    Pod(PodRead),
    /// Answer to [`Request::ReadPlacement`].
    Placement(PlacementRead),
    /// Answer to [`Request::Reserve`] and [`Request::Release`].
    Patched(PatchOutcome),
    /// Answer to [`Request::Touch`].
    Touched(TouchOutcome),
    /// Answer to [`Request::Bind`].
    Bound(BindOutcome),
    /// A [`Request::Pause`] is over.
    Paused,
    /// The scheduler will not wait much longer. The attempt ends with the answers that are there.
    DeadlineNear,
}

/// What is to be done. Never more than one is under way for one state; [`Request::Answer`] and [`Request::Finished`] end it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the live pod.
    ReadPod {
        /// Which; the UID is compared by the step.
        pod: PodRef,
    },
    /// Read the NodePlacement: from the API server if `live`, else the watch will do.
    ReadPlacement {
        /// Which node.
        node: String,
        /// Whether the watch is known to be behind.
        live: bool,
        /// Whether what the pods bound there carry is to be listed live as well: first the pods, then the NodePlacement.
        bound: bool,
    },
    /// Write the reservation by JSON patch, with a `test` on `/metadata/uid` and `/metadata/generation`: `add` at
    /// `/spec/reservations/-`, or `replace` at an index.
    Reserve {
        /// Which node.
        node: String,
        /// UID that the NodePlacement must have.
        uid: String,
        /// Generation that it must have.
        generation: i64,
        /// Index of the pod's own reservation that this one replaces.
        replaces: Option<usize>,
        /// What is promised.
        reservation: Reservation,
        /// What live pods carry and the NodePlacement has lost: appended by the same patch.
        restores: Vec<Reservation>,
        /// Milli-CPU that the pod takes from the shared pool besides: counts from now on.
        shared_milli: u64,
    },
    /// Remove reservations by one JSON patch, with a `test` on `/metadata/uid`, `/metadata/generation` and each entry's
    /// `podUID`.
    Release {
        /// Which node.
        node: String,
        /// UID that the NodePlacement must have.
        uid: String,
        /// Generation that it must have.
        generation: i64,
        /// Index and pod UID of each reservation, none twice. The indices are of one list: of two the higher goes first.
        entries: Vec<(usize, String)>,
    },
    /// Change an annotation of the pod (to `resource_version`, so that it does change), with that UID and
    /// `resourceVersion` as precondition.
    Touch {
        /// Which pod.
        pod: PodRef,
        /// `resourceVersion` it must have.
        resource_version: String,
    },
    /// POST the Binding, with the pod's UID.
    Bind {
        /// Which pod.
        pod: PodRef,
        /// To which node.
        node: String,
        /// `metadata.resourceVersion` of the Binding: the API server binds only that version of the pod.
        resource_version: String,
        /// What the placement annotation of the Binding says; none for a pod without CPUs of its own.
        placement: Option<Reservation>,
        /// Milli-CPU that the pod takes from the shared pool: counts from now on, also for the next bind to the node.
        shared_milli: u64,
    },
    /// Wait; the API server is in trouble or says so.
    Pause {
        /// So long.
        pause_ms: u64,
    },
    /// The bind is over: tell the scheduler.
    Answer(Result<(), BindError>),
    /// The withdrawal is over: what became of each pod's reservation.
    Finished(Vec<(PodRef, Withdrawal)>),
}

/// What a JSON patch of a NodePlacement came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PatchOutcome {
    /// Written.
    Done {
        /// The generation it has now.
        generation: i64,
    },
    /// A `test` failed (the API server answers 422 with a bare message) or 409: nothing was written.
    Conflict,
    /// The API server asks to wait: nothing was written.
    Throttled {
        /// So long.
        after_ms: u64,
    },
    /// There is no such object: nothing was written.
    Gone,
    /// No answer came: it may have been written, or may yet be.
    Lost,
    /// Refused for another reason: nothing was written.
    Refused(String),
}

/// What a touch of a pod came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TouchOutcome {
    /// Written.
    Done,
    /// The pod has another `resourceVersion`: nothing was written.
    Conflict,
    /// The API server asks to wait: nothing was written.
    Throttled {
        /// So long.
        after_ms: u64,
    },
    /// There is no such pod.
    Gone,
    /// No answer came.
    Lost,
    /// Refused for another reason.
    Refused(String),
}

/// What a POST of a Binding came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindOutcome {
    /// Bound.
    Done,
    /// 409: the pod is bound, gated, being deleted, or another version; the message.
    Conflict(String),
    /// The API server asks to wait: nothing was bound.
    Throttled {
        /// So long.
        after_ms: u64,
    },
    /// 404.
    NotFound,
    /// No answer came: it may have been bound, or may yet be.
    Lost,
    /// Refused for another reason; the message.
    Refused(String),
}

/// How a withdrawal ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// The reservation was removed.
    Released,
    /// There is none.
    NothingHeld,
    /// It stays; why.
    Kept(&'static str),
}

/// Why a pod was not bound. The texts are fixed but for names and what the API server said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BindError {
    /// There is no such pod (any more).
    #[error("pod does not exist any more")]
    PodGone,
    /// A pod of that name exists, but it is another.
    #[error("pod was replaced by another of the same name")]
    PodReplaced,
    /// It is being deleted.
    #[error("pod is being deleted")]
    PodDeleting,
    /// It has ended.
    #[error("pod has ended")]
    PodTerminal,
    /// It has a scheduling gate.
    #[error("pod has a scheduling gate")]
    PodGated,
    /// It is bound to another node.
    #[error("pod is bound to another node, {node}")]
    BoundElsewhere {
        /// Where.
        node: String,
    },
    /// The node cannot take it (any more).
    #[error("{0}")]
    Node(Reason),
    /// It asks for no CPUs of its own any more, and those that an earlier bind reserved for it there cannot be freed.
    #[error("cannot free the CPUs reserved for the pod before its wish changed: {why}")]
    StillHeld {
        /// Why.
        why: &'static str,
    },
    /// Others wrote to the same node or pod each time.
    #[error("gave up after {rounds} conflicting writes")]
    Contended {
        /// How often.
        rounds: u8,
    },
    /// The API server answered no write.
    #[error("gave up after {rounds} writes without an answer")]
    Unanswered {
        /// How many.
        rounds: u8,
    },
    /// The API server asked to wait each time.
    #[error("the API server is overloaded and asks to wait")]
    Throttled,
    /// The time ran out.
    #[error("no answer from the API server in time")]
    Deadline,
    /// The pod or the node's reservations could not be read.
    #[error("cannot read {what}: {message}")]
    Unreadable {
        /// `pod` or `NodePlacement`.
        what: &'static str,
        /// What the client said.
        message: String,
    },
    /// The API server refused the write.
    #[error("{what} refused: {message}")]
    Refused {
        /// `reservation` or `binding`.
        what: &'static str,
        /// What the API server said.
        message: String,
    },
}
