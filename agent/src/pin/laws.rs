//! Laws of the pinning, on random histories against a model of the runtime that carries out what is asked.
use std::collections::{BTreeMap, BTreeSet};

use fairlead_topology::CpuMask;
use proptest::prelude::*;

use super::{Cores, Event, Link, Place, Promise, Promises, Request, Seen, State, Version, step};

const CPUS: u32 = 12;
const PODS: u8 = 8;

#[derive(Debug, Clone)]
enum Op {
    /// These pods have promises now.
    Promise(BTreeSet<u8>),
    /// The API server answers reads with the promises of now, or fails.
    Read(bool),
    /// A container of that pod is created; of pods from [`PODS`] on without a promise ever.
    Create(u8),
    /// The kubelet changes the n-th container.
    Update(usize),
    /// The n-th container ends.
    End(usize),
    /// The update under way lands; refused for the n-th container.
    Land(Option<usize>),
    /// The runtime goes away.
    Lose,
    /// It comes back and tells all it has.
    Return,
    /// The agent starts again, with or without its checkpoint.
    Restart(bool),
    /// These CPUs are offline.
    Offline(BTreeSet<u32>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => proptest::collection::btree_set(0..PODS, 0..6).prop_map(Op::Promise),
        2 => any::<bool>().prop_map(Op::Read),
        8 => (0..PODS + 4).prop_map(Op::Create),
        3 => (0..32_usize).prop_map(Op::Update),
        4 => (0..32_usize).prop_map(Op::End),
        6 => proptest::option::weighted(0.2, 0..32_usize).prop_map(Op::Land),
        1 => Just(Op::Lose),
        3 => Just(Op::Return),
        1 => any::<bool>().prop_map(Op::Restart),
        1 => proptest::collection::btree_set(0..CPUS, 0..2).prop_map(Op::Offline),
    ]
}

/// What a pod is promised, if it is: two CPUs; every fourth pod contradicts the one before it.
fn promised(pod: u8) -> CpuMask {
    let first = u32::from(if pod % 4 == 3 { pod - 1 } else { pod }) % 5 * 2;
    CpuMask::from_ids([first, first + 1])
}

#[derive(Debug, Clone)]
struct Actual {
    seen: Seen,
    /// None: everywhere.
    place: Option<Place>,
    /// What it ran on when it was first pinned.
    pinned_on: Option<CpuMask>,
}

struct World {
    state: State,
    now_ms: u64,
    generation: i64,
    promises: Promises,
    actual: BTreeMap<String, Actual>,
    next_id: u32,
    next_call: u32,
    calls: BTreeMap<u32, Seen>,
    flight: Option<Vec<(String, Place)>>,
    reads: usize,
    there: bool,
    remembered: super::Remembered,
}

fn cores(offline: &BTreeSet<u32>) -> Cores {
    let all = CpuMask::from_ids((0..CPUS).filter(|cpu| !offline.contains(cpu)));
    Cores { usable: all.clone(), shared: all, memory_nodes: CpuMask::from_ids([0, 1]) }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(false, None),
            now_ms: 0,
            generation: 0,
            promises: Promises::new(),
            actual: BTreeMap::new(),
            next_id: 0,
            next_call: 0,
            calls: BTreeMap::new(),
            flight: None,
            reads: 0,
            there: false,
            remembered: super::Remembered::default(),
        };
        world.tell(Event::Machine(cores(&BTreeSet::new())));
        world
    }

    fn tell(&mut self, event: Event) {
        self.now_ms += 1;
        let (state, requests) = step(std::mem::take(&mut self.state), self.now_ms, event);
        self.state = state;
        for request in requests {
            self.carry_out(request);
        }
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Remember => self.remembered = self.state.to_remember(),
            Request::ReadPlacement => self.reads += 1,
            Request::Refuse { call, .. } => drop(self.calls.remove(&call)),
            Request::Adjust { call, place, others, .. } => {
                let seen = self.calls.remove(&call).unwrap();
                for (id, place) in others {
                    self.set(&id, place);
                }
                let id = seen.id.clone();
                self.actual.insert(id.clone(), Actual { seen, place: None, pinned_on: None });
                if let Some(place) = place {
                    self.set(&id, place);
                }
            }
            Request::Correct { id, place, .. } => {
                if let Some(place) = place {
                    self.set(&id, place);
                }
            }
            Request::UpdateContainers(places) => {
                assert!(self.flight.is_none() && self.there, "one update at a time");
                self.flight = Some(places);
            }
        }
    }

    fn set(&mut self, id: &str, place: Place) {
        let Some(actual) = self.actual.get_mut(id) else { return };
        assert!(!place.cpus.is_empty() && !place.memory_nodes.is_empty());
        if place.unlimited {
            actual.pinned_on.get_or_insert_with(|| place.cpus.clone());
        }
        // Never unpinned, and never moved: a pod's promise never changes here.
        assert!(actual.pinned_on.as_ref().is_none_or(|pinned| *pinned == place.cpus), "{actual:?} to {place:?}");
        actual.place = Some(place);
        self.pods_are_apart();
    }

    /// Whatever is under way, pinned containers of different pods share no CPU.
    fn pods_are_apart(&self) {
        let pinned: Vec<&Actual> = self.actual.values().filter(|actual| actual.pinned_on.is_some()).collect();
        for (at, one) in pinned.iter().enumerate() {
            for other in pinned.iter().skip(at + 1).filter(|other| other.seen.pod_uid != one.seen.pod_uid) {
                let both = one.pinned_on.as_ref().unwrap().intersect(other.pinned_on.as_ref().unwrap());
                assert!(both.is_empty(), "{one:?} and {other:?}");
            }
        }
    }

    fn container(&mut self, pod: u8) -> Seen {
        self.next_id += 1;
        let placed = pod < PODS;
        let annotated = placed.then(|| Place {
            cpus: promised(pod),
            memory_nodes: CpuMask::from_ids([u32::from(pod) % 2]),
            unlimited: true,
        });
        Seen {
            id: format!("c{:04}", self.next_id),
            sandbox: format!("s{pod}"),
            pod_uid: format!("u{pod}"),
            namespace: "ns".into(),
            pod_name: format!("p{pod}"),
            name: "c".into(),
            placed,
            annotated,
            runs: None,
        }
    }

    fn nth(&self, number: usize) -> Option<String> {
        self.actual.keys().nth(number % self.actual.len().max(1)).cloned()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Promise(pods) => {
                let promise = |pod: &u8| {
                    let containers = [("c".to_owned(), promised(*pod))].into();
                    let memory_nodes = CpuMask::from_ids([u32::from(*pod) % 2]);
                    (
                        format!("u{pod}"),
                        Promise { cpus: promised(*pod), containers, memory_nodes, ..Promise::default() },
                    )
                };
                self.promises = pods.iter().map(promise).collect();
                self.generation += 1;
                self.tell(Event::Promises { version: self.version(), promises: self.promises.clone() });
            }
            Op::Read(succeeds) if self.reads > 0 => {
                self.reads -= 1;
                let outcome = Ok((self.version(), self.promises.clone()));
                self.tell(Event::Read(if succeeds { outcome } else { Err("away".into()) }));
            }
            Op::Create(pod) => {
                let seen = self.container(pod);
                if !self.there {
                    // Without the plugin it runs everywhere.
                    self.actual.insert(seen.id.clone(), Actual { seen, place: None, pinned_on: None });
                    return;
                }
                self.next_call += 1;
                self.calls.insert(self.next_call, seen.clone());
                self.tell(Event::Create { call: self.next_call, seen, until_ms: self.now_ms + 20 });
            }
            Op::Update(number) if self.there => {
                let Some(id) = self.nth(number) else { return };
                self.next_call += 1;
                let seen = self.shown(&self.actual[&id]);
                self.tell(Event::Update { call: self.next_call, seen });
            }
            Op::End(number) => {
                let Some(id) = self.nth(number) else { return };
                self.actual.remove(&id);
                if self.there {
                    self.tell(Event::Gone(id));
                }
            }
            Op::Land(refused) => self.land(refused),
            Op::Lose => self.lose(),
            Op::Return if !self.there => {
                self.there = true;
                let list = self.actual.values().map(|actual| self.shown(actual)).collect();
                self.tell(Event::Synchronized(list));
            }
            Op::Restart(with_checkpoint) => {
                self.lose();
                self.reads = 0;
                let cores = self.state.cores.clone();
                self.state = State::new(false, None);
                self.tell(Event::Machine(cores));
                if with_checkpoint {
                    self.tell(Event::Remembered(self.remembered.clone()));
                }
            }
            Op::Offline(cpus) => self.tell(Event::Machine(cores(&cpus))),
            Op::Read(_) | Op::Update(_) | Op::Return => {}
        }
    }

    fn version(&self) -> Version {
        Version { uid: "p".into(), generation: self.generation }
    }

    fn shown(&self, actual: &Actual) -> Seen {
        Seen { runs: actual.place.clone(), ..actual.seen.clone() }
    }

    fn lose(&mut self) {
        (self.there, self.flight) = (false, None);
        self.calls.clear();
        self.tell(Event::Lost);
    }

    fn land(&mut self, refused: Option<usize>) {
        let Some(flight) = self.flight.take() else { return };
        let refused = refused.map(|number| flight[number % flight.len()].0.clone());
        for (id, place) in flight {
            if refused.as_ref() != Some(&id) {
                self.set(&id, place);
            }
        }
        self.tell(Event::Updated(refused.map(|_| "no".into())));
    }

    /// Nothing new happens, and everything that is asked for succeeds.
    fn come_to_rest(&mut self) {
        self.apply(Op::Offline(BTreeSet::new()));
        self.apply(Op::Return);
        self.apply(Op::Promise(self.promises.keys().filter_map(|uid| uid[1..].parse().ok()).collect()));
        for _ in 0..200 {
            self.apply(Op::Read(true));
            self.land(None);
            let Some(due_ms) = self.state.due_ms() else { continue };
            self.now_ms = self.now_ms.max(due_ms);
            self.tell(Event::Tick);
        }
        assert!(self.flight.is_none() && self.state.due_ms().is_none() && self.calls.is_empty(), "it comes to rest");
    }

    fn shared_are_apart_from_pinned(&self) {
        let everywhere = cores(&BTreeSet::new()).usable;
        for one in self.actual.values().filter(|actual| actual.pinned_on.is_some()) {
            for other in self.actual.values().filter(|other| other.seen.pod_uid != one.seen.pod_uid) {
                let cpus = other.place.as_ref().map_or(&everywhere, |place| &place.cpus);
                let both = one.pinned_on.as_ref().unwrap().intersect(cpus);
                assert!(both.is_empty(), "{one:?} and {other:?} in {:?}", self.state);
            }
        }
    }

    /// Whoever has a promise that contradicts nobody's is pinned on it.
    fn promises_are_kept(&self) {
        for actual in self.actual.values() {
            let Some(promise) = self.promises.get(&actual.seen.pod_uid) else { continue };
            let theirs = |other: &Actual| {
                other.seen.pod_uid != actual.seen.pod_uid
                    && other.pinned_on.as_ref().is_some_and(|on| on.intersects(&promise.cpus))
            };
            if !self.actual.values().any(theirs) {
                let blocked = self.state.containers[&actual.seen.id].blocked.as_ref();
                let empty = blocked.is_some_and(|why| why.contains("no CPU to the shared pool"));
                assert!(empty || actual.pinned_on.as_ref() == Some(&promise.cpus), "{actual:?} {blocked:?}");
            }
        }
        let Link::Synchronized = self.state.link else { panic!("{:?}", self.state.link) };
    }
}

proptest! {
    #[test]
    fn no_history_breaks_a_promise(history in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in history {
            world.apply(op);
        }
        world.come_to_rest();
        world.shared_are_apart_from_pinned();
        world.promises_are_kept();
    }
}
