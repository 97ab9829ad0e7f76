//! Taking a reservation back: only after reading the live pod, and in an order that no Binding under way can overtake.
use crate::bind::LOST_PAUSE_MS;
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
    /// What comes after the pause.
    Pausing(Box<Phase>, Box<Request>),
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
        Request::ReadPlacement { node: self.node.clone(), live: true, bound: false }
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
            return self
                .finish(Withdrawal::Kept("every write failed; others write too, or the API server does not answer"));
        }
        (Self { phase, rounds, ..self.clone() }, vec![request])
    }

    /// As [`State::again`], after a pause.
    fn again_after(&self, pause_ms: u64, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        let (next, mut requests) = self.again(phase, request);
        match requests.pop() {
            Some(request) if !next.is_done() => {
                let phase = Phase::Pausing(Box::new(next.phase.clone()), Box::new(request));
                (Self { phase, ..next }, vec![Request::Pause { pause_ms }])
            }
            ended => (next, ended.into_iter().collect()),
        }
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

    fn on_touched(&self, entry: &Entry, outcome: &TouchOutcome) -> (Self, Vec<Request>) {
        let look = Phase::ReadingPod(entry.clone());
        match outcome {
            TouchOutcome::Done | TouchOutcome::Gone => self.release(entry),
            TouchOutcome::Conflict => self.again(look, self.read_pod()),
            TouchOutcome::Lost => self.again_after(LOST_PAUSE_MS, look, self.read_pod()),
            TouchOutcome::Throttled { after_ms } => self.again_after(*after_ms, look, self.read_pod()),
            TouchOutcome::Refused(_) => self.finish(Withdrawal::Kept("the pod cannot be touched")),
        }
    }

    fn on_released(&self, outcome: &PatchOutcome) -> (Self, Vec<Request>) {
        let look = Phase::ReadingPlacement;
        match outcome {
            PatchOutcome::Done { .. } => self.finish(Withdrawal::Released),
            PatchOutcome::Gone => self.finish(Withdrawal::NothingHeld),
            PatchOutcome::Conflict => self.again(look, self.read_placement()),
            PatchOutcome::Lost => self.again_after(LOST_PAUSE_MS, look, self.read_placement()),
            PatchOutcome::Throttled { after_ms } => self.again_after(*after_ms, look, self.read_placement()),
            PatchOutcome::Refused(_) => self.finish(Withdrawal::Kept("the NodePlacement cannot be written")),
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
        (Phase::Touching(entry), Event::Touched(outcome)) => state.on_touched(entry, outcome),
        (Phase::Releasing, Event::Patched(outcome)) => state.on_released(outcome),
        (Phase::Pausing(next, request), Event::Paused) => state.go(Phase::clone(next), Request::clone(request)),
        (Phase::Done, _) => (state.clone(), Vec::new()),
        (_, Event::DeadlineNear) => state.finish(Withdrawal::Kept("the time ran out")),
        _ => (state.clone(), Vec::new()),
    }
}
