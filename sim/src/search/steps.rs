//! The shipped steps, each distinct call made once.
//!
//! A step knows nothing but its own pod and node, and what it was told of others it does not keep. So it is driven under
//! names of its own: its pod is `own`, the others are numbered, every version and generation that it is told of has one
//! name (it can only hand it back; the world knows how old it is). Then equal situations of different pods, nodes and
//! extenders are one call, and a state of a step is one small number.
use super::world::{Entry, NONE, PODS};
use fairlead_placement::{
    Beside, BindOutcome, BindRequest, Event, PatchOutcome, PlacementFacts, PlacementRead, PodFacts, PodRead, PodRef,
    Promise, Reason, Request, Reservation, TouchOutcome, bind, reap,
};
use fairlead_topology::{
    ContainerCpus, CoreDescription, CpuMask, CpuRequest, Machine, MachineDescription, NumaDescription,
    PackageDescription, Surroundings,
};
use foldhash::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A pod as a step is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeenPod {
    /// It is there under its UID.
    pub exists: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// It has ended.
    pub terminal: bool,
    /// Unbound, bound here, or bound elsewhere.
    pub bound: SeenBound,
    /// How many CPUs of its own it wishes.
    pub wish: u8,
}

/// Where a pod is bound, from where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeenBound {
    /// Nowhere.
    No,
    /// To the node of the step.
    Here,
    /// To another.
    Elsewhere,
}

/// What a step is told. Pods are numbered from the step's own, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// A bind begins; the pod as the watch shows it.
    Start(SeenPod),
    /// A withdrawal begins, also if the pod is merely unbound; with it of another pod, or [`NONE`].
    Withdraw(u8),
    /// The live pod that was asked for, by its number.
    Pod(u8, SeenPod),
    /// The NodePlacement: its entries, what live pods carry beside them, what this process promised, and whether nothing
    /// was written to it yet.
    Placement {
        /// In their order.
        entries: [Entry; PODS],
        /// What live pods carry.
        carried: [u8; PODS],
        /// It was never written.
        is_new: bool,
    },
    /// There is none that counts.
    NoPlacement,
    /// What a patch came to.
    Patched(Outcome),
    /// What a touch came to.
    Touched(Outcome),
    /// What a Binding came to.
    Bound(Outcome),
    /// The time is up.
    DeadlineNear,
}

impl Told {
    /// Whether it is of a write that is to be tried again.
    #[must_use]
    pub const fn is_in_vain(&self) -> bool {
        let (Self::Patched(outcome) | Self::Touched(outcome) | Self::Bound(outcome)) = self else { return false };
        matches!(outcome, Outcome::Conflict | Outcome::Lost)
    }
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Done,
    /// Somebody else wrote first.
    Conflict,
    /// There is no such object.
    Gone,
    /// No answer.
    Lost,
    /// Refused for another reason.
    Refused,
}

/// What a step asks for next. Pods are numbered from the step's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The live pod of that number.
    ReadPod(u8),
    /// The NodePlacement.
    ReadPlacement {
        /// Live.
        live: bool,
        /// With what live pods carry.
        bound: bool,
    },
    /// A reservation.
    Reserve {
        /// Index or [`NONE`].
        replaces: u8,
        /// The CPUs.
        cpus: u8,
        /// It has a later time than what it was shown.
        renewed: bool,
        /// What is restored besides.
        restored: [Entry; PODS - 1],
    },
    /// A release: whose entries, and in the place of the CPUs their indices.
    Release([Entry; 2]),
    /// A touch of the pod of that number.
    Touch(u8),
    /// A Binding.
    Bind {
        /// The CPUs it carries; none: it carries nothing.
        cpus: u8,
    },
    /// Nothing: it is over; whether the pod is bound as asked.
    Over(bool),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "each is kept once, by number")]
enum Step {
    Idle,
    Binding(bind::State),
    Reaping(reap::State),
}

/// States of steps by number, for all threads.
#[derive(Debug)]
pub struct Numbers {
    known: Mutex<(HashMap<Step, u32>, Vec<Step>)>,
    machine: Arc<Machine>,
    setup: Setup,
}

/// The machines and the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// CPUs of a node, one thread each.
    pub cpus: u8,
    /// CPUs that pods of the shared pool take on each node, as the steps are told.
    pub foreign_cpus: u8,
    /// Parts of the memory of a node.
    pub memory: u8,
    /// Parts that each pod asks for.
    pub pod_memory: u8,
    /// The steps are told what others hold of the memory.
    pub others_memory: bool,
}

const NODE: &str = "here";
const STAMP_MS: u64 = 10_000;
const GENERATION: i64 = 7;
/// One part of the memory.
const PART_BYTES: u64 = 100;

impl Numbers {
    /// No state yet but the one before everything, which has the number 0.
    ///
    /// # Errors
    /// A machine that is none.
    pub fn new(setup: Setup) -> Result<Self, fairlead_topology::MachineError> {
        let all: CpuMask = (0..u32::from(setup.cpus)).collect();
        let core = |id| CoreDescription { id, cpus: CpuMask::from_ids([id]) };
        let memory = NumaDescription {
            id: 0,
            cpus: all.clone(),
            memory_bytes: PART_BYTES * u64::from(setup.memory),
            distances: Vec::new(),
            ..NumaDescription::default()
        };
        let description = MachineDescription {
            packages: vec![PackageDescription { id: 0, cpus: all }],
            numa_nodes: vec![memory],
            cores: (0..u32::from(setup.cpus)).map(core).collect(),
            ..MachineDescription::default()
        };
        let machine = Arc::new(Machine::new(&description)?);
        let known = Mutex::new((std::iter::once((Step::Idle, 0)).collect(), vec![Step::Idle]));
        Ok(Self { known, machine, setup })
    }

    fn step(&self, number: u32) -> Step {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.get(number as usize).cloned().unwrap_or(Step::Idle)
    }

    fn number(&self, step: Step) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.0.get(&step) {
            return *number;
        }
        let number = u32::try_from(known.1.len()).unwrap_or(u32::MAX);
        known.1.push(step.clone());
        known.0.insert(step, number);
        number
    }

    /// How many states were met.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).1.len()
    }

    /// Whether none was met but the first.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= 1
    }
}

/// The calls one thread has made.
#[derive(Debug)]
pub struct Steps<'a> {
    numbers: &'a Numbers,
    made: HashMap<(u32, Told), (u32, Next)>,
}

impl<'a> Steps<'a> {
    /// None yet.
    #[must_use]
    pub fn new(numbers: &'a Numbers) -> Self {
        Self { numbers, made: HashMap::default() }
    }

    /// One step of the shipped code: the state it is in then, and what it asks for. Pauses take no time: whatever they
    /// leave room for is among the orders searched.
    pub fn tell(&mut self, state: u32, told: Told) -> (u32, Next) {
        if let Some(made) = self.made.get(&(state, told)) {
            return *made;
        }
        let made = self.make(state, told);
        self.made.insert((state, told), made);
        made
    }

    fn make(&self, state: u32, told: Told) -> (u32, Next) {
        let (mut step, mut requests) = match told {
            Told::Withdraw(also) => {
                let numbers = [0, also].into_iter().filter(|number| *number != NONE);
                let (state, requests) = reap::start(NODE.to_owned(), numbers.map(|number| (pod(number), true)));
                (Step::Reaping(state), requests)
            }
            _ => advance(&self.numbers.step(state), &self.numbers.event(told)),
        };
        while let Some(Request::Pause { .. }) = requests.last() {
            (step, requests) = advance(&step, &Event::Paused);
        }
        // One that asks for nothing had ended before.
        let next = requests.pop().map_or(Next::Over(false), |request| next_of(&request));
        (self.numbers.number(step), next)
    }
}

/// The shipped step.
fn advance(step: &Step, event: &Event) -> (Step, Vec<Request>) {
    match step {
        Step::Idle => {
            let (state, requests) = bind::step(&bind::State::default(), event);
            (Step::Binding(state), requests)
        }
        Step::Binding(state) => {
            let (state, requests) = bind::step(state, event);
            (Step::Binding(state), requests)
        }
        Step::Reaping(state) => {
            let (state, requests) = reap::step(state, event);
            (Step::Reaping(state), requests)
        }
    }
}

impl Numbers {
    fn event(&self, told: Told) -> Event {
        match told {
            Told::Start(seen) => Event::Start {
                request: BindRequest { pod: pod(0), node: NODE.to_owned() },
                pod: self.pod_facts(0, seen),
                now_ms: STAMP_MS,
            },
            Told::Pod(of, seen) => Event::Pod(self.pod_facts(of, seen).map_or(PodRead::Missing, PodRead::Found)),
            Told::Placement { entries, carried, is_new } => {
                Event::Placement(PlacementRead::Found(self.placement_facts(&entries, carried, is_new)))
            }
            Told::NoPlacement => Event::Placement(PlacementRead::Refused(Reason::NoPlacementObject)),
            Told::Patched(outcome) => Event::Patched(match outcome {
                Outcome::Done => PatchOutcome::Done { generation: GENERATION + 1 },
                Outcome::Conflict => PatchOutcome::Conflict,
                Outcome::Gone => PatchOutcome::Gone,
                Outcome::Lost => PatchOutcome::Lost,
                Outcome::Refused => PatchOutcome::Refused(String::new()),
            }),
            Told::Touched(outcome) => Event::Touched(match outcome {
                Outcome::Done => TouchOutcome::Done,
                Outcome::Conflict => TouchOutcome::Conflict,
                Outcome::Gone => TouchOutcome::Gone,
                Outcome::Lost => TouchOutcome::Lost,
                Outcome::Refused => TouchOutcome::Refused(String::new()),
            }),
            Told::Bound(outcome) => Event::Bound(match outcome {
                Outcome::Done => BindOutcome::Done,
                Outcome::Conflict => BindOutcome::Conflict(String::new()),
                Outcome::Gone => BindOutcome::NotFound,
                Outcome::Lost => BindOutcome::Lost,
                Outcome::Refused => BindOutcome::Refused(String::new()),
            }),
            Told::DeadlineNear | Told::Withdraw(_) => Event::DeadlineNear,
        }
    }

    fn pod_facts(&self, of: u8, seen: SeenPod) -> Option<PodFacts> {
        let node = match seen.bound {
            SeenBound::No => None,
            SeenBound::Here => Some(NODE.to_owned()),
            SeenBound::Elsewhere => Some("elsewhere".to_owned()),
        };
        let main = ContainerCpus { name: "main".into(), cpus: seen.wish.into(), ..ContainerCpus::default() };
        let wanted = CpuRequest { containers: vec![main], memory_bytes: self.pod_bytes(), ..CpuRequest::default() };
        seen.exists.then(|| PodFacts {
            uid: pod(of).uid,
            resource_version: "v".to_owned(),
            node,
            deleting: seen.deleting,
            gated: false,
            terminal: seen.terminal,
            exclusive: (seen.wish != 0).then_some(wanted),
            may_hold: true,
            refused: None,
            shared_milli: 0,
        })
    }

    fn pod_bytes(&self) -> u64 {
        PART_BYTES * u64::from(self.setup.pod_memory)
    }

    fn reservation(&self, of: u8, cpus: u8) -> Reservation {
        let mask: CpuMask = (0..8).filter(|id| cpus & (1 << id) != 0).collect();
        let bytes = if of == 0 || self.setup.others_memory { self.pod_bytes() } else { 0 };
        Reservation {
            pod: pod(of),
            reserved_at_ms: STAMP_MS,
            containers: vec![("main".into(), mask.clone())],
            cpus: mask,
            memory: vec![(0, bytes)],
            huge_pages: Vec::new(),
            isolated: false,
        }
    }

    fn placement_facts(&self, entries: &[Entry; PODS], carried: [u8; PODS], is_new: bool) -> PlacementFacts {
        let listed = entries.iter().take_while(|entry| entry.pod != NONE);
        let carried = (0u8..).zip(carried).filter(|(_, cpus)| *cpus != 0);
        let beside = Beside {
            carried: carried.map(|(of, cpus)| self.reservation(of, cpus)).collect(),
            promises: Vec::<Promise>::new(),
            shared_milli: u64::from(self.setup.foreign_cpus) * 1_000,
            ..Beside::default()
        };
        PlacementFacts {
            uid: "np".to_owned(),
            generation: if is_new { 1 } else { GENERATION },
            reservations: listed.map(|entry| self.reservation(entry.pod, entry.cpus)).collect(),
            machine: Ok(Arc::clone(&self.machine)),
            beside,
            around: Surroundings::default(),
        }
    }
}

fn pod(number: u8) -> PodRef {
    let uid = if number == 0 { "own".to_owned() } else { number.to_string() };
    PodRef { namespace: "ns".into(), name: uid.clone(), uid }
}

/// The number of a pod, from its UID.
fn number_of(uid: &str) -> u8 {
    if uid == "own" { 0 } else { uid.parse().unwrap_or(NONE) }
}

fn bits(mask: &CpuMask) -> u8 {
    mask.iter().fold(0, |bits, id| bits | 1 << id)
}

fn next_of(request: &Request) -> Next {
    match request {
        Request::ReadPod { pod } => Next::ReadPod(number_of(&pod.uid)),
        Request::ReadPlacement { live, bound, .. } => Next::ReadPlacement { live: *live, bound: *bound },
        Request::Reserve { replaces, reservation, restores, .. } => {
            let mut restored = [Entry::NONE; PODS - 1];
            for (slot, held) in restored.iter_mut().zip(restores) {
                *slot = Entry { pod: number_of(&held.pod.uid), cpus: bits(&held.cpus) };
            }
            let index = replaces.map(|index| u8::try_from(index).unwrap_or(NONE));
            Next::Reserve {
                replaces: index.unwrap_or(NONE),
                cpus: bits(&reservation.cpus),
                renewed: reservation.reserved_at_ms != STAMP_MS,
                restored,
            }
        }
        Request::Release { entries, .. } => {
            let mut released = [Entry::NONE; 2];
            for (slot, (index, uid)) in released.iter_mut().zip(entries) {
                *slot = Entry { pod: number_of(uid), cpus: u8::try_from(*index).unwrap_or(NONE) };
            }
            Next::Release(released)
        }
        Request::Touch { pod, .. } => Next::Touch(number_of(&pod.uid)),
        Request::Bind { placement, .. } => Next::Bind { cpus: placement.as_ref().map_or(0, |held| bits(&held.cpus)) },
        Request::Pause { .. } | Request::Finished(_) => Next::Over(false),
        Request::Answer(answer) => Next::Over(answer.is_ok()),
    }
}
