//! Exhaustive search over the shipped steps: extenders that overlap, lost and refused writes, writes that arrive late,
//! crashes, a watch that is one write behind, pods that go, end or are being deleted, a reaper. In every state reached no
//! CPU is in two reservations, and no pod that may run is without a reservation that holds exactly the CPUs its
//! annotation names.
//!
//! The bound: histories of at most `max_writes` writes (states beyond are checked and not followed), so many faults as a
//! search says, all pods and NodePlacements there from the start. Pauses take no time of their own: whatever they leave
//! room for is among the orders searched. A NodePlacement that is lost is not in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_placement::reap::Candidate;
use fairlead_placement::{
    Beside, BindOutcome, BindRequest, Event, Held, PatchOutcome, PlacementFacts, PlacementRead, PodFacts, PodRead,
    Request, Reservation, TouchOutcome, bind, reap,
};
use fairlead_topology::{CpuMask, Machine, Surroundings};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use support::{cpus, machine, pod};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ApiPod {
    exists: bool,
    gated: bool,
    deleting: bool,
    terminal: bool,
    version: u32,
    bound: Option<(String, Vec<(String, CpuMask)>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ApiPlacement {
    generation: i64,
    reservations: Vec<Reservation>,
}

/// Somebody who carries requests out for one step machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Actor {
    Waiting(Job),
    Binding(bind::State),
    Reaping(reap::State),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    Bind { pod: usize, node: usize },
    Reap { pod: usize, node: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    pods: Vec<ApiPod>,
    nodes: Vec<ApiPlacement>,
    /// As they were before their last change: what a watch that is behind shows.
    pods_before: Vec<ApiPod>,
    nodes_before: Vec<ApiPlacement>,
    actors: Vec<(Actor, Option<Request>)>,
    /// Writes whose answer nobody hears; each may yet happen.
    late: Vec<Request>,
    faults_left: u8,
}

impl World {
    /// How often something was written, pods and nodes together.
    fn writes(&self) -> i64 {
        let pods: i64 = self.pods.iter().map(|pod| i64::from(pod.version) - 1).sum();
        let nodes: i64 = self.nodes.iter().map(|node| node.generation - 1).sum();
        pods + nodes
    }
}

/// What does not change during a search.
struct Setting {
    machine: Arc<Machine>,
    cpus_per_pod: u32,
    pods_may_go: bool,
    /// The first pod has a gate at first.
    gated: bool,
    /// The watch may be behind.
    stale: bool,
    /// The API server compares the Binding's resourceVersion; off only to show that the search would notice.
    fenced: bool,
}

fn uid(index: usize) -> String {
    format!("u{index}")
}

fn node(index: usize) -> String {
    format!("n{index}")
}

fn index_in(name: &str) -> usize {
    name[1..].parse().unwrap()
}

impl Setting {
    fn pod_read(&self, api: &ApiPod, index: usize) -> PodRead {
        if !api.exists {
            return PodRead::Missing;
        }
        PodRead::Found(PodFacts {
            uid: uid(index),
            resource_version: api.version.to_string(),
            node: api.bound.as_ref().map(|(node, _)| node.clone()),
            deleting: api.deleting,
            gated: api.gated,
            terminal: api.terminal,
            exclusive: Some(cpus(self.cpus_per_pod)),
            shared_milli: 0,
        })
    }

    /// The write generation a patch must meet, as the API server does it: a patch that changes nothing raises nothing.
    fn patch(world: &mut World, name: &str, expected: i64, change: impl FnOnce(&mut Vec<Reservation>)) -> Event {
        let placement = &mut world.nodes[index_in(name)];
        if placement.generation != expected {
            return Event::Patched(PatchOutcome::Conflict);
        }
        let before = placement.reservations.clone();
        change(&mut placement.reservations);
        // The wire has whole seconds.
        for held in &mut placement.reservations {
            held.reserved_at_ms -= held.reserved_at_ms % 1_000;
        }
        placement.generation += i64::from(placement.reservations != before);
        Event::Patched(PatchOutcome::Done { generation: placement.generation })
    }

    fn bind(&self, world: &mut World, request: &Request) -> Event {
        let Request::Bind { pod, node, resource_version, placement, .. } = request else { panic!("{request:?}") };
        let api = &mut world.pods[index_in(&pod.uid)];
        if !api.exists {
            return Event::Bound(BindOutcome::NotFound);
        }
        let other_version = resource_version.as_ref().is_some_and(|version| *version != api.version.to_string());
        if api.bound.is_some() || api.gated || api.deleting || (self.fenced && other_version) {
            return Event::Bound(BindOutcome::Conflict("bound or another version".into()));
        }
        api.version += 1;
        api.bound = Some((node.clone(), placement.as_ref().unwrap().containers.clone()));
        Event::Bound(BindOutcome::Done)
    }

    fn placement_read(&self, placement: &ApiPlacement) -> Event {
        Event::Placement(PlacementRead::Found(PlacementFacts {
            uid: "np".into(),
            generation: placement.generation,
            reservations: placement.reservations.clone(),
            machine: Ok(Arc::clone(&self.machine)),
            beside: Beside::default(),
            around: Surroundings::default(),
        }))
    }

    /// Changes the world, and remembers how it was.
    fn change<T>(world: &mut World, change: impl FnOnce(&mut World) -> T) -> T {
        let (pods, nodes) = (world.pods.clone(), world.nodes.clone());
        let answer = change(world);
        for (index, before) in
            pods.into_iter().enumerate().filter(|(index, pod)| world.pods[*index] != *pod).collect::<Vec<_>>()
        {
            world.pods_before[index] = before;
        }
        for (index, before) in
            nodes.into_iter().enumerate().filter(|(index, node)| world.nodes[*index] != *node).collect::<Vec<_>>()
        {
            world.nodes_before[index] = before;
        }
        answer
    }

    fn execute(&self, world: &mut World, request: &Request) -> Event {
        Self::change(world, |world| self.serve(world, request))
    }

    /// Carries a request out as the API server would.
    fn serve(&self, world: &mut World, request: &Request) -> Event {
        match request {
            Request::ReadPod { pod } => {
                let index = index_in(&pod.uid);
                Event::Pod(self.pod_read(&world.pods[index], index))
            }
            Request::ReadPlacement { node, .. } => self.placement_read(&world.nodes[index_in(node)]),
            Request::Reserve { node, generation, replaces, reservation, .. } => {
                Self::patch(world, node, *generation, |all| match replaces {
                    Some(index) => all[*index] = reservation.clone(),
                    None => all.push(reservation.clone()),
                })
            }
            Request::Release { node, generation, index, pod_uid, .. } => {
                Self::patch(world, node, *generation, |all| assert_eq!(&all.remove(*index).pod.uid, pod_uid))
            }
            Request::Touch { pod, resource_version } => {
                let api = &mut world.pods[index_in(&pod.uid)];
                Event::Touched(match api {
                    ApiPod { exists: false, .. } => TouchOutcome::Gone,
                    api if api.version.to_string() == *resource_version => {
                        api.version += 1;
                        TouchOutcome::Done
                    }
                    _ => TouchOutcome::Conflict,
                })
            }
            Request::Bind { .. } => self.bind(world, request),
            Request::Pause { .. } | Request::Answer(_) | Request::Finished(_) => panic!("{request:?} asks for nothing"),
        }
    }

    fn next(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for (index, (actor, pending)) in world.actors.iter().enumerate() {
            match (actor, pending) {
                (Actor::Waiting(job), _) => self.start(world, index, *job, &mut next),
                (_, Some(request)) => self.carry_out(world, index, request, &mut next),
                (_, None) => {}
            }
        }
        for index in 0..world.late.len() {
            let mut after = world.clone();
            let request = after.late.remove(index);
            self.execute(&mut after, &request);
            next.push(after);
        }
        self.pod_changes(world, &mut next);
        next
    }

    /// What others do to the first pod.
    fn pod_changes(&self, world: &World, next: &mut Vec<World>) {
        let mut change = |faults: u8, change: fn(&mut ApiPod)| {
            let mut after = world.clone();
            after.faults_left -= faults;
            Self::change(&mut after, |after| {
                after.pods[0].version += 1;
                change(&mut after.pods[0]);
            });
            next.push(after);
        };
        let pod = &world.pods[0];
        if pod.exists && pod.gated {
            change(0, |pod| pod.gated = false);
        }
        if !self.pods_may_go || world.faults_left == 0 || !pod.exists {
            return;
        }
        change(1, |pod| (pod.exists, pod.bound) = (false, None));
        if !pod.deleting {
            change(1, |pod| pod.deleting = true);
        }
        if !pod.terminal {
            change(1, |pod| pod.terminal = true);
        }
    }

    fn start(&self, world: &World, actor: usize, job: Job, next: &mut Vec<World>) {
        let mut begin = |state, asked| {
            let mut after = world.clone();
            settle(&mut after, actor, state, asked);
            next.push(after);
        };
        match job {
            Job::Bind { pod: index, node: target } => {
                let (now, before) = (&world.pods[index], &world.pods_before[index]);
                let shown = std::iter::once(now).chain((self.stale && before != now).then_some(before));
                for api in shown {
                    let seen = match self.pod_read(api, index) {
                        PodRead::Found(facts) => Some(facts),
                        _ => None,
                    };
                    let request = BindRequest { pod: pod(&uid(index)), node: node(target) };
                    let event = Event::Start { request, pod: seen, now_ms: 10_000 };
                    let (state, asked) = bind::step(&bind::State::default(), &event);
                    begin(Actor::Binding(state), asked);
                }
            }
            Job::Reap { pod: index, node: target } => {
                let candidate = Candidate { node: node(target), pod: pod(&uid(index)), even_unbound: true };
                let (state, asked) = reap::start(candidate);
                begin(Actor::Reaping(state), asked);
            }
        }
    }

    fn carry_out(&self, world: &World, actor: usize, request: &Request, next: &mut Vec<World>) {
        let mut answered = world.clone();
        let event = self.execute(&mut answered, request);
        tell(&mut answered, actor, &event);
        next.push(answered);
        if let Request::ReadPlacement { node, live: false } = request
            && self.stale
            && world.nodes[index_in(node)] != world.nodes_before[index_in(node)]
        {
            let mut behind = world.clone();
            let event = self.placement_read(&world.nodes_before[index_in(node)]);
            tell(&mut behind, actor, &event);
            next.push(behind);
        }
        if world.faults_left == 0 {
            return;
        }
        let mut faulty = world.clone();
        faulty.faults_left -= 1;
        let why = String::from("no");
        let (lost, refused) = match request {
            Request::Reserve { .. } | Request::Release { .. } => {
                (Event::Patched(PatchOutcome::Lost), Event::Patched(PatchOutcome::Refused(why)))
            }
            Request::Bind { .. } => (Event::Bound(BindOutcome::Lost), Event::Bound(BindOutcome::Refused(why))),
            Request::Touch { .. } => (Event::Touched(TouchOutcome::Lost), Event::Touched(TouchOutcome::Refused(why))),
            _ => {
                // Nothing but a crash can go wrong with a read.
                faulty.actors[actor] = (Actor::Over, None);
                next.push(faulty);
                return;
            }
        };
        let mut declined = faulty.clone();
        tell(&mut declined, actor, &refused);
        next.push(declined);
        // The answer is lost after the write.
        let mut after_write = faulty.clone();
        self.execute(&mut after_write, request);
        tell(&mut after_write, actor, &lost);
        next.push(after_write);
        // The answer is lost and the write comes later, or never.
        faulty.late.push(request.clone());
        let mut late = faulty.clone();
        tell(&mut late, actor, &lost);
        next.push(late);
        // The process dies, the write comes later, or never.
        faulty.actors[actor] = (Actor::Over, None);
        next.push(faulty);
    }

    fn check(&self, world: &World) -> Result<(), String> {
        for placement in &world.nodes {
            Held::of(&self.machine, &placement.reservations).map_err(|fault| fault.to_string())?;
        }
        for (index, api) in world.pods.iter().enumerate() {
            let Some((node, containers)) = api.bound.as_ref().filter(|_| api.exists && !api.terminal) else { continue };
            let held = world.nodes[index_in(node)].reservations.iter().find(|held| held.pod.uid == uid(index));
            if held.map(|held| &held.containers) != Some(containers) {
                return Err(format!("{} is bound with {containers:?}, reserved is {held:?}", uid(index)));
            }
        }
        Ok(())
    }
}

fn tell(world: &mut World, actor: usize, event: &Event) {
    let (state, asked) = match &world.actors[actor].0 {
        Actor::Binding(state) => {
            let (state, asked) = bind::step(state, event);
            (Actor::Binding(state), asked)
        }
        Actor::Reaping(state) => {
            let (state, asked) = reap::step(state, event);
            (Actor::Reaping(state), asked)
        }
        other => panic!("{other:?} hears {event:?}"),
    };
    settle(world, actor, state, asked);
}

fn settle(world: &mut World, actor: usize, state: Actor, mut asked: Vec<Request>) {
    assert_eq!(asked.len(), 1, "one request at a time: {asked:?}");
    world.actors[actor] = match asked.remove(0) {
        // The others may be as slow as they like already.
        Request::Pause { .. } => {
            world.actors[actor] = (state, None);
            return tell(world, actor, &Event::Paused);
        }
        Request::Answer(_) | Request::Finished(_) => (Actor::Over, None),
        request => (state, Some(request)),
    };
}

/// Histories with more writes than this are cut off: conflicts can go in circles until the rounds run out. Four hold
/// reserve, touch, release, and a Binding that comes too late. `FAIRLEAD_SEARCH_WRITES=6` takes minutes.
fn max_writes() -> i64 {
    std::env::var("FAIRLEAD_SEARCH_WRITES").map_or(4, |text| text.parse().unwrap())
}

/// What a search found.
#[derive(Default)]
struct Found {
    states: usize,
    /// Most pods bound in a state where nothing more can happen.
    most_bound: usize,
    /// An end in which a pod that is not bound holds nothing, and nothing else is held.
    clean_end: bool,
    violation: Option<String>,
}

fn search(setting: &Setting, pods: usize, nodes: usize, jobs: &[Job], faults: u8) -> Found {
    let fresh = ApiPod { exists: true, gated: false, deleting: false, terminal: false, version: 1, bound: None };
    let mut all_pods = vec![fresh; pods];
    all_pods[0].gated = setting.gated;
    let empty = vec![ApiPlacement { generation: 1, reservations: Vec::new() }; nodes];
    let first = World {
        pods_before: all_pods.clone(),
        nodes_before: empty.clone(),
        pods: all_pods,
        nodes: empty,
        actors: jobs.iter().map(|&job| (Actor::Waiting(job), None)).collect(),
        late: Vec::new(),
        faults_left: faults,
    };
    let limit = max_writes();
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        if !seen.insert(hasher.finish()) {
            continue;
        }
        found.states += 1;
        if let Err(violation) = setting.check(&world) {
            found.violation = Some(format!("{violation}\n{world:#?}"));
            return found;
        }
        if world.writes() > limit {
            continue;
        }
        let next = setting.next(&world);
        if next.is_empty() {
            let bound = world.pods.iter().filter(|pod| pod.bound.is_some()).count();
            let held: usize = world.nodes.iter().map(|node| node.reservations.len()).sum();
            found.most_bound = found.most_bound.max(bound);
            found.clean_end |= held == bound;
        }
        open.extend(next);
    }
    found
}

fn setting(cores: u32, cpus_per_pod: u32) -> Setting {
    Setting { machine: machine(cores), cpus_per_pod, pods_may_go: false, gated: false, stale: true, fenced: true }
}

fn holds(found: &Found) {
    assert!(found.violation.is_none(), "after {} states: {}", found.states, found.violation.as_ref().unwrap());
    assert!(found.clean_end);
}

#[test]
fn two_extenders_and_two_pods_race_for_the_last_cores() {
    let jobs = [0, 1, 0, 1].map(|pod| Job::Bind { pod, node: 0 });
    let found = search(&setting(3, 2), 2, 1, &jobs, 1);
    holds(&found);
    assert_eq!(found.most_bound, 1, "the node has room for one");
    assert!(found.states > 1_000, "{}", found.states);
}

#[test]
fn two_pods_find_room_side_by_side() {
    let jobs = [Job::Bind { pod: 0, node: 0 }, Job::Bind { pod: 1, node: 0 }];
    let found = search(&setting(4, 2), 2, 1, &jobs, 2);
    holds(&found);
    assert_eq!(found.most_bound, 2);
}

#[test]
fn a_reaper_never_frees_under_a_binding() {
    let jobs = [Job::Bind { pod: 0, node: 0 }, Job::Bind { pod: 0, node: 0 }, Job::Reap { pod: 0, node: 0 }];
    holds(&search(&setting(3, 2), 1, 1, &jobs, 1));
}

#[test]
fn two_extenders_send_one_pod_to_two_nodes() {
    let jobs = [Job::Bind { pod: 0, node: 0 }, Job::Bind { pod: 0, node: 1 }, Job::Reap { pod: 0, node: 0 }];
    let found = search(&Setting { pods_may_go: true, ..setting(2, 2) }, 1, 2, &jobs, 1);
    holds(&found);
    assert_eq!(found.most_bound, 1);
}

#[test]
fn the_search_notices_a_binding_without_fence() {
    let jobs = [Job::Bind { pod: 0, node: 0 }, Job::Bind { pod: 0, node: 0 }, Job::Reap { pod: 0, node: 0 }];
    let found = search(&Setting { fenced: false, ..setting(3, 2) }, 1, 1, &jobs, 1);
    assert!(found.violation.is_some_and(|violation| violation.contains("is bound with")));
}

#[test]
fn a_pod_that_is_let_out_goes_away_or_ends_while_it_is_bound() {
    let jobs = [Job::Bind { pod: 0, node: 0 }, Job::Bind { pod: 0, node: 0 }, Job::Reap { pod: 0, node: 0 }];
    let found = search(&Setting { pods_may_go: true, gated: true, ..setting(2, 2) }, 1, 1, &jobs, 1);
    holds(&found);
    assert_eq!(found.most_bound, 1);
}
