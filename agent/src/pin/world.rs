//! A model of the container runtime that carries out what is asked, as containerd does, and the laws that hold in it.
use std::collections::{BTreeMap, BTreeSet};

use fairlead_topology::CpuMask;

use super::laws::{CPUS, Op, PODS, promised};
use super::{Cores, Event, Link, Place, Promise, Promises, Remembered, Request, Seen, State, Version, observed, step};

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Answered, and not in the runtime's store: changes to it are skipped, and reported as made.
    Answered,
    /// Stored: changes are noted, and in force once it starts.
    Stored,
    /// Its cgroup is made: changes are noted, and not in force.
    Starting,
    /// Changes are in force at once.
    Started,
}

#[derive(Debug, Clone)]
struct Actual {
    seen: Seen,
    phase: Phase,
    /// What the runtime has noted; none: everywhere.
    place: Option<Place>,
    /// What is in force, from [`Phase::Starting`] on.
    in_force: Option<Place>,
    /// What it ran on when it was first pinned.
    pinned_on: Option<CpuMask>,
}

impl Actual {
    fn new(seen: Seen, phase: Phase) -> Self {
        Self { seen, phase, place: None, in_force: None, pinned_on: None }
    }

    fn runs(&self) -> Option<&Place> {
        if self.phase < Phase::Starting { self.place.as_ref() } else { self.in_force.as_ref() }
    }

    fn note(&mut self, place: Place) {
        if self.phase == Phase::Started {
            self.in_force = Some(place.clone());
        }
        self.place = Some(place);
    }
}

pub(super) struct World {
    state: State,
    now_ms: u64,
    generation: i64,
    promises: Promises,
    actual: BTreeMap<String, Actual>,
    next_id: u32,
    next_call: u32,
    calls: BTreeMap<u32, Seen>,
    flight: Option<Vec<(String, Place)>>,
    /// Changes by the kubelet that were answered and are not carried out.
    changes: Vec<(String, Option<Place>)>,
    reads: usize,
    there: bool,
    /// The checkpoint.
    remembered: Remembered,
    /// What is being written to it.
    unsaved: Option<Remembered>,
    /// The checkpoint was lost: what this agent did before is not known from what somebody else did.
    lost_checkpoint: bool,
}

fn cores(offline: &BTreeSet<u32>) -> Cores {
    let all = CpuMask::from_ids((0..CPUS).filter(|cpu| !offline.contains(cpu)));
    Cores { usable: all.clone(), shared: all, memory_nodes: CpuMask::from_ids([0, 1]) }
}

impl World {
    pub(super) fn new() -> Self {
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
            changes: Vec::new(),
            reads: 0,
            there: false,
            remembered: Remembered::default(),
            unsaved: None,
            lost_checkpoint: false,
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
            Request::Remember => self.unsaved = Some(self.state.to_remember()),
            Request::ReadPlacement => self.reads += 1,
            Request::Refuse { call, .. } => drop(self.calls.remove(&call)),
            Request::Adjust { call, place, others, .. } => {
                let seen = self.calls.remove(&call).unwrap();
                for (id, place) in others {
                    self.set(&id, place);
                }
                let id = seen.id.clone();
                let mut actual = Actual::new(Seen { marked: place.is_some(), ..seen }, Phase::Answered);
                actual.pinned_on = place.as_ref().filter(|place| place.unlimited).map(|place| place.cpus.clone());
                actual.place = place;
                self.actual.insert(id, actual);
                self.pods_are_apart();
            }
            Request::Correct { id, place, .. } => self.changes.push((id, place)),
            Request::UpdateContainers(places) => {
                assert!(self.flight.is_none() && self.there, "one update at a time");
                self.flight = Some(places);
            }
        }
    }

    fn set(&mut self, id: &str, place: Place) {
        let Some(actual) = self.actual.get_mut(id).filter(|actual| actual.phase > Phase::Answered) else { return };
        assert!(!place.cpus.is_empty() && !place.memory_nodes.is_empty());
        if place.unlimited {
            actual.pinned_on.get_or_insert_with(|| place.cpus.clone());
        }
        // Never unpinned, and never moved: a pod's promise never changes here.
        assert!(actual.pinned_on.as_ref().is_none_or(|pinned| *pinned == place.cpus), "{actual:?} to {place:?}");
        actual.note(place);
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
            ..Seen::default()
        }
    }

    fn nth(&self, number: usize) -> Option<String> {
        self.actual.keys().nth(number % self.actual.len().max(1)).cloned()
    }

    #[allow(clippy::too_many_lines, reason = "a line or two for each operation")]
    pub(super) fn apply(&mut self, op: Op) {
        if !matches!(op, Op::Restart(_)) {
            self.remembered = self.unsaved.take().unwrap_or_else(|| std::mem::take(&mut self.remembered));
        }
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
                // A kubelet waits for the answer before it creates the container anew.
                let uid = format!("u{pod}");
                let under_way = |one: &Actual| one.seen.pod_uid == uid && one.phase == Phase::Answered;
                if self.calls.values().any(|seen| seen.pod_uid == uid) || self.actual.values().any(under_way) {
                    return;
                }
                let seen = self.container(pod);
                if !self.there {
                    // Without the plugin it runs everywhere.
                    self.actual.insert(seen.id.clone(), Actual::new(seen, Phase::Started));
                    return;
                }
                self.next_call += 1;
                self.calls.insert(self.next_call, seen.clone());
                self.tell(Event::Create { call: self.next_call, seen, until_ms: self.now_ms + 20 });
            }
            Op::Update(number) if self.there => {
                let Some(id) = self.nth(number) else { return };
                let under_way = self.changes.iter().any(|(changing, _)| *changing == id);
                if under_way || self.actual[&id].phase == Phase::Answered {
                    return;
                }
                self.next_call += 1;
                let seen = self.shown(&self.actual[&id]);
                self.tell(Event::Update { call: self.next_call, seen, asked: None });
            }
            Op::Advance(number) => {
                let waiting = |(id, one): (&String, &Actual)| (one.phase < Phase::Started).then(|| id.clone());
                let waiting: Vec<String> = self.actual.iter().filter_map(waiting).collect();
                if let Some(id) = waiting.get(number % waiting.len().max(1)) {
                    self.advance(&id.clone());
                }
            }
            Op::Change(succeeds) if !self.changes.is_empty() => self.change(succeeds),
            Op::End(number) => {
                let Some(id) = self.nth(number) else { return };
                self.actual.remove(&id);
                self.changes.retain(|(changing, _)| *changing != id);
                if self.there {
                    self.tell(Event::Gone(id));
                }
            }
            Op::Land(refused) => self.land(refused),
            Op::Lose => self.lose(),
            Op::Return if !self.there => {
                // containerd registers nobody while it creates or changes a container (BlockPluginSync).
                for actual in self.actual.values_mut() {
                    actual.phase = actual.phase.max(Phase::Stored);
                }
                while !self.changes.is_empty() {
                    self.change(true);
                }
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
                // What this agent did not create bears no mark of it: its place may be in the checkpoint only.
                let is_behind = self.unsaved.take().is_some_and(|unsaved| unsaved != self.remembered);
                self.lost_checkpoint |=
                    is_behind && self.actual.values().any(|one| !one.seen.marked && one.place.is_some());
                if with_checkpoint {
                    self.tell(Event::Remembered(self.remembered.clone()));
                } else {
                    self.lost_checkpoint = true;
                }
            }
            Op::Offline(cpus) => self.tell(Event::Machine(cores(&cpus))),
            Op::Read(_) | Op::Update(_) | Op::Change(_) | Op::Return => {}
        }
    }

    /// The next thing that happens to a container that was not started yet.
    fn advance(&mut self, id: &str) {
        let Some(actual) = self.actual.get_mut(id) else { return };
        let event = match actual.phase {
            Phase::Answered => {
                actual.phase = Phase::Stored;
                let seen = self.shown(&self.actual[id]);
                Some(Event::Created(seen))
            }
            Phase::Stored => {
                (actual.phase, actual.in_force) = (Phase::Starting, actual.place.clone());
                None
            }
            Phase::Starting | Phase::Started => {
                actual.phase = Phase::Started;
                Some(Event::Started(id.to_owned()))
            }
        };
        if let Some(event) = event.filter(|_| self.there) {
            self.tell(event);
        }
    }

    /// The oldest change by the kubelet is carried out, or fails.
    fn change(&mut self, succeeds: bool) {
        let (id, place) = self.changes.remove(0);
        if !succeeds {
            return;
        }
        if let Some(place) = place {
            self.set(&id, place);
        }
        if self.there {
            let seen = self.shown(&self.actual[&id]);
            self.tell(Event::Changed(seen));
        }
    }

    fn version(&self) -> Version {
        Version { uid: "p".into(), generation: self.generation }
    }

    fn shown(&self, actual: &Actual) -> Seen {
        Seen { runs: actual.place.clone(), started: actual.phase == Phase::Started, ..actual.seen.clone() }
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
    pub(super) fn come_to_rest(&mut self) {
        self.apply(Op::Offline(BTreeSet::new()));
        self.apply(Op::Return);
        self.apply(Op::Promise(self.promises.keys().filter_map(|uid| uid[1..].parse().ok()).collect()));
        for round in 0..300 {
            self.apply(Op::Read(true));
            self.apply(Op::Change(round % 2 == 0));
            self.apply(Op::Advance(0));
            self.land(None);
            let Some(due_ms) = self.state.due_ms() else { continue };
            self.now_ms = self.now_ms.max(due_ms);
            self.tell(Event::Tick);
        }
        assert!(self.flight.is_none() && self.state.due_ms().is_none() && self.calls.is_empty(), "it comes to rest");
    }

    /// What holds when everything has come to rest.
    pub(super) fn check(&self) {
        if self.state.rival().is_none() {
            self.shared_are_apart_from_pinned();
            self.promises_are_kept();
            return;
        }
        assert!(self.lost_checkpoint, "nobody else sets cpusets here: {:?}", self.state);
        // It stands back, and says so, as far as the runtime tells.
        let overlap = self.pinned_and_others(|other| other.place.as_ref()).any(|(one, other)| one.intersects(&other));
        assert!(!overlap || observed(&self.state).pinned.status == Some(false), "{:?}", self.state);
    }

    /// CPUs of pinned containers, each with those of each container of another pod.
    fn pinned_and_others(&self, on: fn(&Actual) -> Option<&Place>) -> impl Iterator<Item = (CpuMask, CpuMask)> {
        let all = cores(&BTreeSet::new()).usable;
        self.actual.values().filter_map(|one| Some((one, one.pinned_on.clone()?))).flat_map(move |(one, pinned)| {
            let all = all.clone();
            let others = self.actual.values().filter(|other| other.seen.pod_uid != one.seen.pod_uid);
            others.map(move |other| (pinned.clone(), on(other).map_or_else(|| all.clone(), |place| place.cpus.clone())))
        })
    }

    fn shared_are_apart_from_pinned(&self) {
        for one in self.actual.values().filter(|actual| actual.pinned_on.is_some()) {
            assert_eq!(one.runs().map(|on| &on.cpus), one.pinned_on.as_ref(), "{one:?} in {:?}", self.state);
        }
        for (one, other) in self.pinned_and_others(Actual::runs) {
            assert!(!one.intersects(&other), "{one} and {other}: {:?} in {:?}", self.actual, self.state);
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
