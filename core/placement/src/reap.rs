//! Freeing what the watch shows to be held for nobody: candidates, then one withdrawal each.
pub use crate::life::Seen;
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

/// The candidates among the reservations of one node. A pod that is merely unbound may be on its way here: its reservation
/// is one from `grace_ms` on, longer than any bind may take, so that no Binding under way is spoiled for nothing (safety
/// does not depend on it). `known_ms` says how long this process has known a reservation as it is; the time written in it
/// is of another's clock.
pub fn candidates<'a>(
    node: &'a str,
    reservations: &'a [Reservation],
    grace_ms: u64,
    seen: impl Fn(&str) -> Seen + 'a,
    mut known_ms: impl FnMut(&Reservation) -> u64 + 'a,
) -> impl Iterator<Item = Candidate> + 'a {
    reservations.iter().filter_map(move |held| {
        let even_unbound = match Phase::of(true, seen(&held.pod.uid), false).withdrawal() {
            Due::Never => return None,
            Due::AtOnce => false,
            Due::AfterGrace if known_ms(held) < grace_ms => return None,
            Due::AfterGrace => true,
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
