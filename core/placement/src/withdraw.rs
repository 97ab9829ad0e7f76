//! Taking reservations of one node back: only after reading each live pod, and in an order that no Binding under way can
//! overtake; all that may go goes in one write.
use crate::bind::LOST_PAUSE_MS;
use crate::{Event, PatchOutcome, PlacementRead, PodFacts, PodRead, PodRef, Request, TouchOutcome, Withdrawal};

/// So many writes may fail before the withdrawal gives up; the next look at the node finds the reservations again.
const MAX_ROUNDS: u8 = 8;

/// Why the reservation of a pod of which nothing was heard in time stays.
const OUT_OF_TIME: &str = "the time ran out";

/// Why the reservation of a pod that is bound stays.
pub(crate) const RUNS_THERE: &str = "the pod runs there";

/// One withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    node: String,
    holders: Vec<Holder>,
    phase: Phase,
    rounds: u8,
}

/// A pod whose reservation is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    pod: PodRef,
    /// Whether it is taken back also from a live, unbound pod.
    even_unbound: bool,
    fate: Option<Fate>,
}

/// What became of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fate {
    /// It is not there and no Binding can bring it there, ever.
    NeverHere,
    /// It was touched after the list that is decided on was read: whoever binds it writes to a later one.
    Touched,
    /// Nothing more happens to its reservation.
    Settled(Withdrawal),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    ReadingPlacement,
    ReadingPod(Listing, usize),
    Touching(Listing, usize),
    Releasing,
    /// What comes after the pause.
    Pausing(Box<Phase>, Box<Request>),
    Done,
}

/// Where the reservations are; read before any pod is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listing {
    uid: String,
    generation: i64,
    /// Index in `spec.reservations` by holder.
    at: Vec<Option<usize>>,
}

impl State {
    pub(crate) fn start(node: String, pods: impl IntoIterator<Item = (PodRef, bool)>) -> (Self, Vec<Request>) {
        let holder = |(pod, even_unbound)| Holder { pod, even_unbound, fate: None };
        let holders = pods.into_iter().map(holder).collect();
        let state = Self { node, holders, phase: Phase::ReadingPlacement, rounds: 0 };
        let requests = vec![state.read_placement()];
        (state, requests)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    fn read_placement(&self) -> Request {
        Request::ReadPlacement { node: self.node.clone(), live: true, bound: false }
    }

    fn go(&self, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        (Self { phase, ..self.clone() }, vec![request])
    }

    fn settle(&self, holder: usize, fate: Fate) -> Self {
        let mut after = self.clone();
        if let Some(holder) = after.holders.get_mut(holder) {
            holder.fate = Some(fate);
        }
        after
    }

    /// Those of whom nothing is known yet keep what they hold.
    fn leave_open(&self) -> Self {
        let mut after = self.clone();
        for holder in after.holders.iter_mut().filter(|holder| holder.fate.is_none()) {
            holder.fate = Some(Fate::Settled(Withdrawal::Kept(OUT_OF_TIME)));
        }
        after
    }

    /// Ends it; `rest` is what became of those that nothing is known of.
    fn finish(&self, rest: &Withdrawal) -> (Self, Vec<Request>) {
        let told = |holder: &Holder| {
            let how = match &holder.fate {
                Some(Fate::Settled(how)) => how.clone(),
                _ => rest.clone(),
            };
            (holder.pod.clone(), how)
        };
        self.go(Phase::Done, Request::Finished(self.holders.iter().map(told).collect()))
    }

    /// Once more, unless it was too often.
    fn again(&self, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        let rounds = self.rounds + 1;
        if rounds >= MAX_ROUNDS {
            let why = "every write failed; others write too, or the API server does not answer";
            return self.finish(&Withdrawal::Kept(why));
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

    /// Another list: who was touched before it was read may be on its way by now.
    fn relist(&self) -> Self {
        let mut after = self.clone();
        for holder in after.holders.iter_mut().filter(|holder| holder.fate == Some(Fate::Touched)) {
            holder.fate = None;
        }
        after
    }

    fn on_placement(&self, read: &PlacementRead) -> (Self, Vec<Request>) {
        let facts = match read {
            PlacementRead::Found(facts) => facts,
            PlacementRead::Refused(_) => {
                return self.finish(&Withdrawal::Kept("the node's reservations are not trusted"));
            }
            PlacementRead::Failed(_) => return self.finish(&Withdrawal::Kept("the NodePlacement cannot be read")),
        };
        let mut after = self.clone();
        let index_of = |holder: &Holder| facts.reservations.iter().position(|held| held.pod.uid == holder.pod.uid);
        let at: Vec<Option<usize>> = after.holders.iter().map(index_of).collect();
        for (holder, index) in after.holders.iter_mut().zip(&at) {
            if index.is_none() && !matches!(holder.fate, Some(Fate::Settled(_))) {
                holder.fate = Some(Fate::Settled(Withdrawal::NothingHeld));
            }
        }
        after.go_on(Listing { uid: facts.uid.clone(), generation: facts.generation, at })
    }

    /// The next pod to look at, or the write, or the end.
    fn go_on(&self, listing: Listing) -> (Self, Vec<Request>) {
        let open = self.holders.iter().position(|holder| holder.fate.is_none());
        if let Some((at, holder)) = open.and_then(|at| Some((at, self.holders.get(at)?))) {
            return self.go(Phase::ReadingPod(listing, at), Request::ReadPod { pod: holder.pod.clone() });
        }
        let goes = |(holder, index): (&Holder, &Option<usize>)| match holder.fate {
            Some(Fate::NeverHere | Fate::Touched) => Some(((*index)?, holder.pod.uid.clone())),
            _ => None,
        };
        let entries: Vec<(usize, String)> = self.holders.iter().zip(&listing.at).filter_map(goes).collect();
        if entries.is_empty() {
            return self.finish(&Withdrawal::NothingHeld);
        }
        let Listing { uid, generation, .. } = listing;
        let request = Request::Release { node: self.node.clone(), uid, generation, entries };
        self.go(Phase::Releasing, request)
    }

    fn on_pod(&self, listing: &Listing, at: usize, read: &PodRead) -> (Self, Vec<Request>) {
        let Some(holder) = self.holders.get(at) else { return self.go_on(listing.clone()) };
        let kept = |why| Fate::Settled(Withdrawal::Kept(why));
        let fate = match read {
            PodRead::Found(facts) if facts.uid == holder.pod.uid => match where_is(facts, &self.node) {
                Whereabouts::NeverHere => Fate::NeverHere,
                Whereabouts::Here => kept(RUNS_THERE),
                Whereabouts::Open if holder.even_unbound => {
                    let (pod, resource_version) = (holder.pod.clone(), facts.resource_version.clone());
                    let request = Request::Touch { pod, resource_version };
                    return self.go(Phase::Touching(listing.clone(), at), request);
                }
                Whereabouts::Open => kept("the pod may yet be bound"),
            },
            PodRead::Found(_) | PodRead::Missing => Fate::NeverHere,
            PodRead::Failed(_) => kept("the pod cannot be read"),
        };
        self.settle(at, fate).go_on(listing.clone())
    }

    fn on_touched(&self, listing: &Listing, at: usize, outcome: &TouchOutcome) -> (Self, Vec<Request>) {
        let Some(holder) = self.holders.get(at) else { return self.go_on(listing.clone()) };
        let (phase, request) = (Phase::ReadingPod(listing.clone(), at), Request::ReadPod { pod: holder.pod.clone() });
        match outcome {
            TouchOutcome::Done => self.settle(at, Fate::Touched).go_on(listing.clone()),
            TouchOutcome::Gone => self.settle(at, Fate::NeverHere).go_on(listing.clone()),
            TouchOutcome::Conflict => self.again(phase, request),
            TouchOutcome::Lost => self.again_after(LOST_PAUSE_MS, phase, request),
            TouchOutcome::Throttled { after_ms } => self.again_after(*after_ms, phase, request),
            TouchOutcome::Refused(_) => {
                let kept = Fate::Settled(Withdrawal::Kept("the pod cannot be touched"));
                self.settle(at, kept).go_on(listing.clone())
            }
        }
    }

    fn on_released(&self, outcome: &PatchOutcome) -> (Self, Vec<Request>) {
        let (look, read) = (Phase::ReadingPlacement, self.read_placement());
        match outcome {
            PatchOutcome::Done { .. } => self.finish(&Withdrawal::Released),
            PatchOutcome::Gone => self.finish(&Withdrawal::NothingHeld),
            PatchOutcome::Conflict => self.relist().again(look, read),
            PatchOutcome::Lost => self.relist().again_after(LOST_PAUSE_MS, look, read),
            PatchOutcome::Throttled { after_ms } => self.relist().again_after(*after_ms, look, read),
            PatchOutcome::Refused(_) => self.finish(&Withdrawal::Kept("the NodePlacement cannot be written")),
        }
    }
}

/// Whether a pod runs on a node, or can still come to run there.
enum Whereabouts {
    Here,
    /// It is not there, and no Binding can bring it there.
    NeverHere,
    Open,
}

fn where_is(facts: &PodFacts, node: &str) -> Whereabouts {
    match &facts.node {
        _ if facts.terminal => Whereabouts::NeverHere,
        Some(bound) if bound == node => Whereabouts::Here,
        Some(_) => Whereabouts::NeverHere,
        None if facts.deleting => Whereabouts::NeverHere,
        None => Whereabouts::Open,
    }
}

/// One step. An event that answers nothing asked for changes nothing.
pub(crate) fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    match (&state.phase, event) {
        (Phase::ReadingPlacement, Event::Placement(read)) => state.on_placement(read),
        (Phase::ReadingPod(listing, at), Event::Pod(read)) => state.on_pod(listing, *at, read),
        (Phase::Touching(listing, at), Event::Touched(outcome)) => state.on_touched(listing, *at, outcome),
        (Phase::Releasing, Event::Patched(outcome)) => state.on_released(outcome),
        (Phase::Pausing(next, request), Event::Paused) => state.go(Phase::clone(next), Request::clone(request)),
        (Phase::Done, _) => (state.clone(), Vec::new()),
        // What is known by now is written; of the others nothing is.
        (Phase::ReadingPod(listing, _) | Phase::Touching(listing, _), Event::DeadlineNear) => {
            state.leave_open().go_on(listing.clone())
        }
        (_, Event::DeadlineNear) => state.finish(&Withdrawal::Kept(OUT_OF_TIME)),
        _ => (state.clone(), Vec::new()),
    }
}
