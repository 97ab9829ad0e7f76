//! Freeing what the watch shows to be held for nobody: candidates, then one withdrawal for those of a node.
use crate::life::{Due, Phase};
pub use crate::withdraw::State;
use crate::{Event, PodRef, Request, Reservation, withdraw};

/// A reservation that seems to be held for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: PodRef,
    /// The pod is there but unbound, and the grace is over: take it back all the same.
    pub even_unbound: bool,
}

/// The reservation in its phase as a candidate, if it is one. A pod that is merely unbound may be on its way here: its
/// reservation is one from `grace_ms` on, longer than any bind may take, so that no Binding under way is spoiled for nothing
/// (safety does not depend on it). `known_ms` says how long this process has known the reservation as it is; the time
/// written in it is of another's clock.
pub fn candidate(
    node: &str,
    held: &Reservation,
    phase: Phase,
    grace_ms: u64,
    known_ms: impl FnOnce(&Reservation) -> u64,
) -> Option<Candidate> {
    let even_unbound = match phase.withdrawal() {
        Due::Never => return None,
        Due::AtOnce => false,
        Due::AfterGrace if known_ms(held) < grace_ms => return None,
        Due::AfterGrace => true,
    };
    Some(Candidate { node: node.to_owned(), pod: held.pod.clone(), even_unbound })
}

/// Begins to take some of one node back, each pod with whether it may be merely unbound. The state ends with
/// [`Request::Finished`].
#[must_use]
pub fn start(node: String, pods: impl IntoIterator<Item = (PodRef, bool)>) -> (State, Vec<Request>) {
    State::start(node, pods)
}

/// One step: NodePlacement read live, then each pod read live and (an unbound one) touched, then all freed in one write with
/// a test on the generation read first. A request never frees by itself.
#[must_use]
pub fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    withdraw::step(state, event)
}
