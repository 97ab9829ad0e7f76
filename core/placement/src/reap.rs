//! Freeing what the watch shows to be held for nobody: candidates, then one withdrawal each.
pub use crate::withdraw::State;
use crate::{Event, PodRef, Request, Reservation, withdraw};

/// A pod as the watch shows it, as far as its reservation is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is no pod of that UID, it has ended, or it is bound to another node.
    NotHere,
    /// It is bound to the node.
    Here,
    /// It is not bound.
    Unbound,
}

/// A reservation that seems to be held for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: PodRef,
    /// The pod is there but unbound, and the promise is older than the grace: take it back all the same.
    pub even_unbound: bool,
}

/// The candidates among the reservations of one node. `grace_ms` is for pods that are being bound: longer than any bind
/// may take, so that no Binding under way is spoiled for nothing (safety does not depend on it).
pub fn candidates<'a>(
    node: &'a str,
    reservations: &'a [Reservation],
    now_ms: u64,
    grace_ms: u64,
    seen: impl Fn(&str) -> Seen + 'a,
) -> impl Iterator<Item = Candidate> + 'a {
    reservations.iter().filter_map(move |held| {
        let young = now_ms.saturating_sub(held.reserved_at_ms) < grace_ms;
        let even_unbound = match seen(&held.pod.uid) {
            Seen::Here => return None,
            _ if young => return None,
            Seen::NotHere => false,
            Seen::Unbound => true,
        };
        Some(Candidate { node: node.to_owned(), pod: held.pod.clone(), even_unbound })
    })
}

/// Begins to take one back. The state ends with [`Request::Finished`].
#[must_use]
pub fn start(candidate: Candidate) -> (State, Vec<Request>) {
    State::start(candidate.node, candidate.pod, candidate.even_unbound)
}

/// One step: NodePlacement read live, then the pod read live, then (for an unbound pod) touched, then freed with a test
/// on the generation read first. A request never frees by itself.
#[must_use]
pub fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    withdraw::step(state, event)
}
