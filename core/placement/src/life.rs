//! The life of one reservation: reserved, bound, observed, lapsed, released.

/// A pod as the watch (or the API server) shows it, as far as its reservation on one node is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// There is no pod of that UID, it has ended, or it is bound to another node.
    NotHere,
    /// It is bound to the node.
    Here,
    /// It is not bound.
    Unbound,
}

/// How far the reservation of one pod (by its UID) on one node has come. It is kept nowhere: it follows from what is
/// there, so telling the same twice changes nothing, and a restart finds what was known before.
///
/// ```text
///             bind            seen pinned          pod ends
///  Reserved --------> Bound --------------> Observed ------> Lapsed -----> Released
///     |                 |                                      ^  withdrawal (live pod read)
///     |                 +----------- pod ends -----------------+
///     +------ pod gone, ended, bound elsewhere ----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Written, the pod is not bound: a Binding may be under way.
    Reserved,
    /// Its pod is bound to the node.
    Bound,
    /// Its pod is bound, and each of its containers was seen on exactly the promised CPUs.
    Observed,
    /// Still written, for a pod that runs there no more and never will: to be withdrawn.
    Lapsed,
    /// Not there (any more).
    Released,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Reserved, Self::Bound, Self::Observed, Self::Lapsed, Self::Released];

    /// The name, as metrics label it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "Reserved",
            Self::Bound => "Bound",
            Self::Observed => "Observed",
            Self::Lapsed => "Lapsed",
            Self::Released => "Released",
        }
    }

    /// Where it is, by what is seen: whether it is `held` (among the reservations of the node, or carried by its live pod
    /// though the NodePlacement lost it), the pod, and whether all its containers were seen `pinned` as promised.
    #[must_use]
    pub const fn of(held: bool, seen: Seen, pinned: bool) -> Self {
        match (held, seen) {
            (false, _) => Self::Released,
            (true, Seen::NotHere) => Self::Lapsed,
            (true, Seen::Unbound) => Self::Reserved,
            (true, Seen::Here) if pinned => Self::Observed,
            (true, Seen::Here) => Self::Bound,
        }
    }

    /// Whether it may be withdrawn once the live pod was read: at once, only after it stayed so for longer than any bind
    /// takes, or never.
    #[must_use]
    pub const fn withdrawal(self) -> Due {
        match self {
            Self::Lapsed => Due::AtOnce,
            Self::Reserved => Due::AfterGrace,
            Self::Bound | Self::Observed | Self::Released => Due::Never,
        }
    }
}

/// When a reservation may be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Due {
    /// Once the live pod was read.
    AtOnce,
    /// As well, but not before the grace is over.
    AfterGrace,
    /// Never.
    Never,
}
