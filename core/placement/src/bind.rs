//! One bind, without I/O: read, reserve, bind, and after a failure take the reservation back.
use crate::keep::{may_renew, serves};
pub use crate::wire::{BindError, BindOutcome, BindRequest, Event, PatchOutcome, Request, TouchOutcome, Withdrawal};
use crate::{Held, reservation::PodRef};
use crate::{PlacementFacts, PlacementRead, PodFacts, PodRead, Reason, Reservation, Room, withdraw};
use fairlead_topology::{CpuRequest, Machine, Verdict, choose};

/// So many times it is tried anew after a conflict or a lost answer.
pub const MAX_ROUNDS: u8 = 8;

/// Two writes of one reservation differ at least by this, since the wire has whole seconds: a write that changes nothing
/// would not raise the generation.
const RENEWAL_STEP_MS: u64 = 1_000;

/// Pause after the first write without an answer; it doubles from one to the next, up to eight times as long.
pub(crate) const LOST_PAUSE_MS: u64 = 100;

const CONTENDED: BindError = BindError::Contended { rounds: MAX_ROUNDS };
const UNANSWERED: BindError = BindError::Unanswered { rounds: MAX_ROUNDS };

/// One bind: [`State::default`] waits for [`Event::Start`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    phase: Phase,
    conflicts: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Idle,
    ReadingPod(Job),
    ReadingPlacement(Job, Pinned, Freshness),
    Reserving(Job, Pinned, Reservation),
    /// With what was asked for: it is asked again if the API server did nothing.
    Binding(Job, Box<Request>),
    /// What comes after the pause.
    Pausing(Box<Phase>, Box<Request>),
    Withdrawing(withdraw::State, Then),
    Done,
}

/// What comes after a withdrawal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Then {
    Fail(BindError),
    /// The pod is read again: it was touched, and is another version now.
    ReadPod(Job),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Job {
    request: BindRequest,
    now_ms: u64,
    rounds: u8,
    /// This attempt sent a reservation.
    reserved: bool,
    /// False once the pod is known to be none that CPUs can have been reserved for by an earlier attempt.
    may_hold: bool,
}

/// What the attempt rests on: the version of the pod, and what that version asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pinned {
    pub(crate) resource_version: String,
    pub(crate) wanted: CpuRequest,
    pub(crate) shared_milli: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freshness {
    Watch,
    Live,
    /// Live, and with what the live pods bound there carry.
    WithBound,
}

impl State {
    /// Whether the answer was given; further events change nothing.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// How many writes were refused because somebody else had written; for the metric.
    #[must_use]
    pub fn conflicts(&self) -> u8 {
        self.conflicts
    }

    fn go(&self, phase: Phase, request: Request) -> (Self, Vec<Request>) {
        (Self { phase, conflicts: self.conflicts }, vec![request])
    }

    fn counted(&self) -> Self {
        Self { conflicts: self.conflicts.saturating_add(1), ..self.clone() }
    }

    fn answer(&self, result: Result<(), BindError>) -> (Self, Vec<Request>) {
        self.go(Phase::Done, Request::Answer(result))
    }

    /// Ends with an error; first takes back what may be held for the pod on this node.
    fn fail(&self, job: &Job, error: BindError) -> (Self, Vec<Request>) {
        if !(job.may_hold || job.reserved) {
            return self.answer(Err(error));
        }
        self.withdraw(job, Then::Fail(error))
    }

    fn withdraw(&self, job: &Job, then: Then) -> (Self, Vec<Request>) {
        let (inner, requests) = withdraw::State::start(job.request.node.clone(), [(job.request.pod.clone(), true)]);
        (Self { phase: Phase::Withdrawing(inner, then), conflicts: self.conflicts }, requests)
    }

    /// Takes back what is held for the pod by a former wish, then begins anew with the pod.
    fn free_former(&self, job: &Job, pinned: &Pinned, fresh: Freshness) -> (Self, Vec<Request>) {
        if fresh == Freshness::Watch {
            return self.read_placement(job.clone(), pinned.clone(), Freshness::Live);
        }
        match job.next_round() {
            Some(next) => self.withdraw(job, Then::ReadPod(next)),
            None => self.fail(job, CONTENDED),
        }
    }

    fn read_pod(&self, job: Job) -> (Self, Vec<Request>) {
        let request = Request::ReadPod { pod: job.request.pod.clone() };
        self.go(Phase::ReadingPod(job), request)
    }

    /// Reads the pod anew after a conflict or a lost answer, unless it was too often.
    fn retry_pod(&self, job: &Job, too_often: BindError) -> (Self, Vec<Request>) {
        match job.next_round() {
            Some(job) => self.read_pod(job),
            None => self.fail(job, too_often),
        }
    }

    /// Waits before the attempt goes on; what has come to its end is not held up.
    fn pause(&self, pause_ms: u64, (next, mut requests): (Self, Vec<Request>)) -> (Self, Vec<Request>) {
        match (&next.phase, requests.pop()) {
            (Phase::Done | Phase::Withdrawing(..), Some(request)) => (next, vec![request]),
            (_, Some(request)) => {
                self.go(Phase::Pausing(Box::new(next.phase), Box::new(request)), Request::Pause { pause_ms })
            }
            (_, None) => (next, Vec::new()),
        }
    }

    /// Once more after the time that the API server asks for. Nothing is taken back: that would be more for it to do.
    fn wait(&self, job: &Job, after_ms: u64, again: impl FnOnce(Job) -> (Self, Vec<Request>)) -> (Self, Vec<Request>) {
        match job.next_round() {
            Some(job) => self.pause(after_ms, again(job)),
            None => self.answer(Err(BindError::Throttled)),
        }
    }

    fn read_placement(&self, job: Job, pinned: Pinned, freshness: Freshness) -> (Self, Vec<Request>) {
        let (live, bound) = (freshness != Freshness::Watch, freshness == Freshness::WithBound);
        let request = Request::ReadPlacement { node: job.request.node.clone(), live, bound };
        self.go(Phase::ReadingPlacement(job, pinned, freshness), request)
    }

    fn retry_placement(&self, job: &Job, pinned: &Pinned, too_often: BindError) -> (Self, Vec<Request>) {
        match job.next_round() {
            Some(job) => self.read_placement(job, pinned.clone(), Freshness::Live),
            None => self.fail(job, too_often),
        }
    }

    fn on_start(&self, request: &BindRequest, pod: Option<&PodFacts>, now_ms: u64) -> (Self, Vec<Request>) {
        let job = Job { request: request.clone(), now_ms, rounds: 0, reserved: false, may_hold: true };
        // A gate, a refusal, another UID or an end seen by the watch may be old news or not yet the news: the live pod decides.
        match pod {
            Some(facts)
                if facts.uid == request.pod.uid
                    && facts.node.is_none()
                    && !(facts.gated || facts.deleting || facts.terminal)
                    && facts.refused.is_none() =>
            {
                self.on_bindable(job, facts)
            }
            _ => self.read_pod(job),
        }
    }

    fn on_pod(&self, job: &Job, read: &PodRead) -> (Self, Vec<Request>) {
        let facts = match read {
            PodRead::Found(facts) => facts,
            PodRead::Missing => return self.fail(job, BindError::PodGone),
            PodRead::Failed(message) => {
                return self.answer(Err(BindError::Unreadable { what: "pod", message: message.clone() }));
            }
        };
        if facts.uid != job.request.pod.uid {
            return self.fail(job, BindError::PodReplaced);
        }
        let job = &Job { may_hold: facts.exclusive.is_some() || facts.may_hold, ..job.clone() };
        match &facts.node {
            _ if facts.terminal => self.fail(job, BindError::PodTerminal),
            Some(node) if *node == job.request.node => self.answer(Ok(())),
            Some(node) => self.fail(job, BindError::BoundElsewhere { node: node.clone() }),
            None if facts.deleting => self.fail(job, BindError::PodDeleting),
            // It was never un-gated, so nothing was ever reserved for it.
            None if facts.gated => self.answer(Err(BindError::PodGated)),
            None => match facts.refused {
                Some(reason) => self.fail(job, BindError::Node(reason)),
                None => self.on_bindable(job.clone(), facts),
            },
        }
    }

    fn on_bindable(&self, job: Job, facts: &PodFacts) -> (Self, Vec<Request>) {
        let pinned = Pinned {
            resource_version: facts.resource_version.clone(),
            wanted: facts.exclusive.clone().unwrap_or_default(),
            shared_milli: facts.shared_milli,
        };
        if facts.exclusive.is_some() {
            let freshness = if job.rounds == 0 { Freshness::Watch } else { Freshness::Live };
            return self.read_placement(job, pinned, freshness);
        }
        let job = Job { may_hold: facts.may_hold, ..job };
        // Its wish may have changed since CPUs were reserved for it, and the watch may not show that yet.
        if job.may_hold || job.reserved {
            return self.read_placement(job, pinned, Freshness::Live);
        }
        if pinned.shared_milli == 0 {
            return self.bind_shared(&job, &pinned);
        }
        self.read_placement(job, pinned, Freshness::Watch)
    }

    fn bind_shared(&self, job: &Job, pinned: &Pinned) -> (Self, Vec<Request>) {
        let request = bind(job, pinned, None);
        self.go(Phase::Binding(job.clone(), Box::new(request.clone())), request)
    }

    /// For a pod that runs in the shared pool wholly. Between its filter and its bind others may have filled the pool.
    fn on_pool(&self, job: &Job, pinned: &Pinned, fresh: Freshness, read: &PlacementRead) -> (Self, Vec<Request>) {
        let uid = &job.request.pod.uid;
        let admitted = match read {
            // Reserved before its wish changed. Left there it would be held for as long as the pod lives.
            PlacementRead::Found(facts) if own(job, facts).is_some() => return self.free_former(job, pinned, fresh),
            PlacementRead::Found(facts) => admits(pinned, facts, uid),
            PlacementRead::Refused(Reason::NodeUnknown) => Err(Reason::NodeUnknown),
            // What cannot be read may hold CPUs for it, and would for as long as it lives.
            PlacementRead::Refused(Reason::NodeDistrusted) if job.may_hold || job.reserved => {
                Err(Reason::NodeDistrusted)
            }
            // Where nothing can be promised kube-scheduler's own count of the node holds.
            PlacementRead::Refused(_) => Ok(()),
            PlacementRead::Failed(message) => {
                return self.answer(Err(BindError::Unreadable { what: "NodePlacement", message: message.clone() }));
            }
        };
        match admitted {
            Ok(()) => self.bind_shared(job, pinned),
            Err(_) if fresh == Freshness::Watch => self.read_placement(job.clone(), pinned.clone(), Freshness::Live),
            Err(reason) => self.answer(Err(BindError::Node(reason))),
        }
    }

    fn on_placement(&self, job: &Job, pinned: &Pinned, fresh: Freshness, read: &PlacementRead) -> (Self, Vec<Request>) {
        if pinned.wanted.containers.is_empty() {
            return self.on_pool(job, pinned, fresh, read);
        }
        match read {
            // Made anew, perhaps in the place of one that was lost, and the watch may not show what runs there.
            PlacementRead::Found(facts) if facts.is_new() && fresh != Freshness::WithBound => {
                self.read_placement(job.clone(), pinned.clone(), Freshness::WithBound)
            }
            // Bound by another attempt meanwhile. Promised anew, it could get other CPUs than it runs on.
            PlacementRead::Found(facts) if facts.is_carried_by(&job.request.pod.uid) => self.retry_pod(job, CONTENDED),
            // Promised for another wish. A Binding that carries those CPUs may be under way: it is made to fail first.
            PlacementRead::Found(facts) if own(job, facts).is_some_and(|(_, held)| !serves(held, pinned, facts)) => {
                self.free_former(job, pinned, fresh)
            }
            PlacementRead::Found(facts) => match promise(job, pinned, facts) {
                Ok(promise) => self.reserve(job, pinned, facts, promise),
                // What the watch shows may have been freed since.
                Err(_) if fresh == Freshness::Watch => {
                    self.read_placement(job.clone(), pinned.clone(), Freshness::Live)
                }
                // Filter judges the pod as if it held nothing: the two would never agree while it holds what it may not keep.
                Err(_) if facts.machine.is_ok() && own(job, facts).is_some() => self.free_former(job, pinned, fresh),
                Err(reason) => self.answer(Err(BindError::Node(reason))),
            },
            PlacementRead::Refused(_) if fresh == Freshness::Watch => {
                self.read_placement(job.clone(), pinned.clone(), Freshness::Live)
            }
            PlacementRead::Refused(reason) => self.answer(Err(BindError::Node(*reason))),
            PlacementRead::Failed(message) => {
                self.answer(Err(BindError::Unreadable { what: "NodePlacement", message: message.clone() }))
            }
        }
    }

    fn reserve(&self, job: &Job, pinned: &Pinned, facts: &PlacementFacts, promise: Promised) -> (Self, Vec<Request>) {
        let Promised { replaces, reservation, restores } = promise;
        let job = Job { reserved: true, ..job.clone() };
        let request = Request::Reserve {
            node: job.request.node.clone(),
            uid: facts.uid.clone(),
            generation: facts.generation,
            replaces,
            reservation: reservation.clone(),
            restores,
            shared_milli: pinned.shared_milli,
        };
        self.go(Phase::Reserving(job, pinned.clone(), reservation), request)
    }

    fn on_patched(
        &self,
        job: &Job,
        pinned: &Pinned,
        promised: &Reservation,
        outcome: &PatchOutcome,
    ) -> (Self, Vec<Request>) {
        match outcome {
            PatchOutcome::Done { .. } => {
                let request = bind(job, pinned, Some(promised.clone()));
                self.go(Phase::Binding(job.clone(), Box::new(request.clone())), request)
            }
            PatchOutcome::Conflict => self.counted().retry_placement(job, pinned, CONTENDED),
            PatchOutcome::Lost => self.pause(job.lost_pause_ms(), self.retry_placement(job, pinned, UNANSWERED)),
            PatchOutcome::Throttled { after_ms } => {
                self.wait(job, *after_ms, |job| self.read_placement(job, pinned.clone(), Freshness::Watch))
            }
            PatchOutcome::Gone => self.answer(Err(BindError::Node(Reason::NoPlacementObject))),
            PatchOutcome::Refused(message) => {
                self.fail(job, BindError::Refused { what: "reservation", message: message.clone() })
            }
        }
    }

    fn on_bound(&self, job: &Job, asked: &Request, outcome: &BindOutcome) -> (Self, Vec<Request>) {
        match outcome {
            BindOutcome::Done => self.answer(Ok(())),
            BindOutcome::Conflict(_) => self.counted().retry_pod(job, CONTENDED),
            BindOutcome::NotFound => self.retry_pod(job, CONTENDED),
            BindOutcome::Lost => self.pause(job.lost_pause_ms(), self.retry_pod(job, UNANSWERED)),
            BindOutcome::Throttled { after_ms } => {
                self.wait(job, *after_ms, |job| self.go(Phase::Binding(job, Box::new(asked.clone())), asked.clone()))
            }
            BindOutcome::Refused(message) => {
                self.fail(job, BindError::Refused { what: "binding", message: message.clone() })
            }
        }
    }

    fn on_deadline(&self) -> (Self, Vec<Request>) {
        match &self.phase {
            Phase::Idle | Phase::Done => (self.clone(), Vec::new()),
            Phase::Withdrawing(_, Then::Fail(error)) => self.answer(Err(error.clone())),
            // What may be held stays: the pod comes again, or the reaper frees it.
            _ => self.answer(Err(BindError::Deadline)),
        }
    }

    fn on_withdrawal(&self, inner: &withdraw::State, then: &Then, event: &Event) -> (Self, Vec<Request>) {
        let (inner, requests) = withdraw::step(inner, event);
        let ended = requests.iter().find_map(|request| match request {
            Request::Finished(told) => Some(told.first().map(|(_, how)| how)),
            _ => None,
        });
        match (ended, then) {
            (None, _) => (Self { phase: Phase::Withdrawing(inner, then.clone()), conflicts: self.conflicts }, requests),
            (Some(_), Then::Fail(error)) => self.answer(Err(error.clone())),
            // Bound here meanwhile: read again, that is seen.
            (Some(Some(Withdrawal::Kept(why))), Then::ReadPod(_)) if *why != withdraw::RUNS_THERE => {
                self.answer(Err(BindError::StillHeld { why }))
            }
            (Some(_), Then::ReadPod(job)) => self.read_pod(job.clone()),
        }
    }
}

impl Job {
    fn next_round(&self) -> Option<Self> {
        let rounds = self.rounds + 1;
        (rounds < MAX_ROUNDS).then(|| Self { rounds, ..self.clone() })
    }

    fn lost_pause_ms(&self) -> u64 {
        LOST_PAUSE_MS << self.rounds.min(3)
    }
}

/// Of the very version that was judged: one whose wish changed since is not bound by it.
fn bind(job: &Job, pinned: &Pinned, placement: Option<Reservation>) -> Request {
    let BindRequest { pod, node } = job.request.clone();
    let Pinned { resource_version, shared_milli, .. } = pinned.clone();
    Request::Bind { pod, node, resource_version, placement, shared_milli }
}

/// What one patch writes.
struct Promised {
    /// Index of the pod's own reservation that the new one replaces.
    replaces: Option<usize>,
    reservation: Reservation,
    restores: Vec<Reservation>,
}

/// The reservation to write. CPUs once promised to the pod stay the same (what is reserved for another wish of it was freed
/// before): a Binding that carries them may still be under way.
fn promise(job: &Job, pinned: &Pinned, facts: &PlacementFacts) -> Result<Promised, Reason> {
    let pod = &job.request.pod;
    let machine = facts.machine.as_ref().map_err(|reason| *reason)?;
    if let Some((index, held)) = own(job, facts) {
        may_renew(machine, held, pinned, facts)?;
        let renewed = held.reserved_at_ms.saturating_add(RENEWAL_STEP_MS).max(job.now_ms);
        let reservation = Reservation { reserved_at_ms: renewed, ..held.clone() };
        let restores = restores(machine, job, facts, Some(index), &reservation);
        return Ok(Promised { replaces: Some(index), reservation, restores });
    }
    let room = room(machine, pinned, facts, &pod.uid)?;
    match choose(machine, &room.as_node(), &pinned.wanted, &facts.around) {
        Verdict::Fits(choice) => {
            let reservation = Reservation::of_choice(PodRef::clone(pod), job.now_ms, choice);
            let restores = restores(machine, job, facts, None, &reservation);
            Ok(Promised { replaces: None, reservation, restores })
        }
        Verdict::DoesNotFit(no) => Err(Reason::from(no)),
    }
}

/// What is reserved for the pod already, and its index.
fn own<'a>(job: &Job, facts: &'a PlacementFacts) -> Option<(usize, &'a Reservation)> {
    facts.reservations.iter().enumerate().find(|(_, held)| held.pod.uid == job.request.pod.uid)
}

/// What live pods carry and no reservation says, as far as all of it can stand beside the others and the new one. What
/// cannot stays held beside the list for as long as its pod lives ([`Room`]).
fn restores(
    machine: &Machine,
    job: &Job,
    facts: &PlacementFacts,
    own: Option<usize>,
    reservation: &Reservation,
) -> Vec<Reservation> {
    let mut missing = facts.beside.unrestored(&facts.reservations, &job.request.pod.uid).peekable();
    if missing.peek().is_none() {
        return Vec::new();
    }
    let others = facts.reservations.iter().enumerate().filter(|(index, _)| Some(*index) != own);
    let mut listed: Vec<Reservation> = others.map(|(_, held)| held.clone()).collect();
    listed.push(reservation.clone());
    let before = listed.len();
    for carried in missing {
        listed.push(Reservation { reserved_at_ms: job.now_ms, ..carried.clone() });
        if Held::of(machine, &listed).is_err() {
            listed.pop();
        }
    }
    listed.split_off(before)
}

pub(crate) fn room(machine: &Machine, pinned: &Pinned, facts: &PlacementFacts, own: &str) -> Result<Room, Reason> {
    let room = Room::of(machine, &facts.reservations, &facts.beside, own, pinned.shared_milli);
    room.map_err(|_| Reason::NodeDistrusted)
}

/// Whether the shared pool has room for a pod that runs in it wholly.
fn admits(pinned: &Pinned, facts: &PlacementFacts, own: &str) -> Result<(), Reason> {
    let Ok(machine) = &facts.machine else { return Ok(()) };
    match room(machine, pinned, facts, own) {
        Ok(room) if room.shared_reserve > room.pool_cpus(machine) => Err(Reason::SharedPoolTooSmall),
        _ => Ok(()),
    }
}

/// One step. An event that answers nothing asked for changes nothing.
#[must_use]
pub fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    match (&state.phase, event) {
        (_, Event::DeadlineNear) => state.on_deadline(),
        (Phase::Idle, Event::Start { request, pod, now_ms }) => state.on_start(request, pod.as_ref(), *now_ms),
        (Phase::ReadingPod(job), Event::Pod(read)) => state.on_pod(job, read),
        (Phase::ReadingPlacement(job, pinned, fresh), Event::Placement(read)) => {
            state.on_placement(job, pinned, *fresh, read)
        }
        (Phase::Reserving(job, pinned, promised), Event::Patched(outcome)) => {
            state.on_patched(job, pinned, promised, outcome)
        }
        (Phase::Binding(job, asked), Event::Bound(outcome)) => state.on_bound(job, asked, outcome),
        (Phase::Pausing(next, request), Event::Paused) => state.go(Phase::clone(next), Request::clone(request)),
        (Phase::Withdrawing(inner, then), event) => state.on_withdrawal(inner, then, event),
        _ => (state.clone(), Vec::new()),
    }
}
