//! Taking a reservation back: only after reading the live pod, and in an order that no Binding under way can overtake.
use crate::{Event, PatchOutcome, PlacementRead, PodFacts, PodRead, PodRef, Request, TouchOutcome, Withdrawal};

/// So many writes may fail before the withdrawal gives up; the next look at the node finds the reservation again.
const MAX_ROUNDS: u8 = 8;

/// One withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    node: String,
    pod: PodRef,
    /// Whether the reservation of a live, unbound pod is taken back too.
    even_unbound: bool,
    phase: Phase,
    rounds: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    ReadingPlacement,
    ReadingPod(Entry),
    Touching(Entry),
    Releasing,
    Done,
}

/// Where the reservation is; read before the pod is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    uid: String,
    generation: i64,
    index: usize,
}

impl State {
    pub(crate) fn start(node: String, pod: PodRef, even_unbound: bool) -> (Self, Vec<Request>) {
        let state = Self { node, pod, even_unbound, phase: Phase::ReadingPlacement, rounds: 0 };
        let requests = vec![state.read_placement()];
        (state, requests)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    fn read_placement(&self) -> Request {
        Request::ReadPlacement { node: self.node.clone(), live: true }
    }

    fn read_pod(&self) -> Request {
        Request::ReadPod { pod: self.pod.clone() }
    }

    fn go(&self, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        (Self { phase, ..self.clone() }, vec![request])
    }

    fn finish(&self, how: Withdrawal) -> (Self, Vec<Request>) {
        self.go(Phase::Done, Request::Finished(how))
    }

    /// Once more from the start, unless it was too often.
    fn again(&self, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        let rounds = self.rounds + 1;
        if rounds >= MAX_ROUNDS {
            return self.finish(Withdrawal::Kept("others write to the node or the pod"));
        }
        (Self { phase, rounds, ..self.clone() }, vec![request])
    }

    fn on_placement(&self, read: &PlacementRead) -> (Self, Vec<Request>) {
        let facts = match read {
            PlacementRead::Found(facts) => facts,
            PlacementRead::Refused(_) => {
                return self.finish(Withdrawal::Kept("the node's reservations are not trusted"));
            }
            PlacementRead::Failed(_) => return self.finish(Withdrawal::Kept("the NodePlacement cannot be read")),
        };
        let Some(index) = facts.reservations.iter().position(|held| held.pod.uid == self.pod.uid) else {
            return self.finish(Withdrawal::NothingHeld);
        };
        let entry = Entry { uid: facts.uid.clone(), generation: facts.generation, index };
        self.go(Phase::ReadingPod(entry), self.read_pod())
    }

    fn on_pod(&self, entry: &Entry, read: &PodRead) -> (Self, Vec<Request>) {
        let facts = match read {
            PodRead::Found(facts) if facts.uid == self.pod.uid => facts,
            PodRead::Found(_) | PodRead::Missing => return self.release(entry),
            PodRead::Failed(_) => return self.finish(Withdrawal::Kept("the pod cannot be read")),
        };
        match fate(facts, &self.node) {
            Fate::Here => self.finish(Withdrawal::Kept("the pod runs there")),
            Fate::NeverHere => self.release(entry),
            Fate::Open if self.even_unbound => self.go(
                Phase::Touching(entry.clone()),
                Request::Touch { pod: self.pod.clone(), resource_version: facts.resource_version.clone() },
            ),
            Fate::Open => self.finish(Withdrawal::Kept("the pod may yet be bound")),
        }
    }

    fn release(&self, entry: &Entry) -> (Self, Vec<Request>) {
        let request = Request::Release {
            node: self.node.clone(),
            uid: entry.uid.clone(),
            generation: entry.generation,
            index: entry.index,
            pod_uid: self.pod.uid.clone(),
        };
        self.go(Phase::Releasing, request)
    }
}

/// Whether a pod runs on a node, or can still come to run there.
enum Fate {
    Here,
    /// It is not there, and no Binding can bring it there.
    NeverHere,
    Open,
}

fn fate(facts: &PodFacts, node: &str) -> Fate {
    match &facts.node {
        _ if facts.terminal => Fate::NeverHere,
        Some(bound) if bound == node => Fate::Here,
        Some(_) => Fate::NeverHere,
        None if facts.deleting => Fate::NeverHere,
        None => Fate::Open,
    }
}

/// One step. An event that answers nothing asked for changes nothing.
pub(crate) fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    match (&state.phase, event) {
        (Phase::ReadingPlacement, Event::Placement(read)) => state.on_placement(read),
        (Phase::ReadingPod(entry), Event::Pod(read)) => state.on_pod(entry, read),
        (Phase::Touching(entry), Event::Touched(outcome)) => match outcome {
            TouchOutcome::Done | TouchOutcome::Gone => state.release(entry),
            TouchOutcome::Conflict | TouchOutcome::Lost => {
                state.again(Phase::ReadingPod(entry.clone()), state.read_pod())
            }
            TouchOutcome::Refused(_) => state.finish(Withdrawal::Kept("the pod cannot be touched")),
        },
        (Phase::Releasing, Event::Patched(outcome)) => match outcome {
            PatchOutcome::Done { .. } => state.finish(Withdrawal::Released),
            PatchOutcome::Gone => state.finish(Withdrawal::NothingHeld),
            PatchOutcome::Conflict | PatchOutcome::Lost => state.again(Phase::ReadingPlacement, state.read_placement()),
            PatchOutcome::Refused(_) => state.finish(Withdrawal::Kept("the NodePlacement cannot be written")),
        },
        (Phase::Done, _) => (state.clone(), Vec::new()),
        (_, Event::DeadlineNear) => state.finish(Withdrawal::Kept("the time ran out")),
        _ => (state.clone(), Vec::new()),
    }
}
