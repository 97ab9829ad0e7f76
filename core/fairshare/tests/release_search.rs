//! Bounded exhaustive search over the release protocol: two leaders that may both believe they lead, crashes before and
//! after every write, delayed and lost patches, late watches, pods that finish. The shipped `step` is driven; only the API
//! server is a model. Law: released, live pods never exceed the limit.
#![allow(clippy::expect_used, reason = "helpers of tests may panic as tests do")]
use fairlead_fairshare::protocol::{
    Event, Failure, Ledger, PodList, PodView, Request, Rules, Standing, State, Uid, Version, step_with,
};
use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

const LEADERS: usize = 2;

/// What a search may do, and how often.
#[derive(Clone, Copy)]
struct Bounds {
    pods: usize,
    limit: usize,
    terms: u8,
    ticks: u8,
    losses: u8,
    cancels: u8,
}

#[derive(Clone)]
struct World {
    /// Newest version of any pod.
    version: Version,
    ledger: Option<Ledger>,
    /// The versions of every pod that a watch may still deliver, and the newest, oldest first.
    pods: Vec<Vec<PodView>>,
    leaders: [Leader; LEADERS],
    /// Writes whose sender crashed or gave up waiting: they may still arrive, or never.
    adrift: Vec<Request>,
    terms: u8,
    ticks: u8,
    losses: u8,
    cancels: u8,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Leader {
    state: State,
    asked: Vec<Request>,
    /// Version up to which its watch has delivered; what its list has shown it ignores anyway.
    seen: Version,
}

struct Search {
    rules: Rules,
    bounds: Bounds,
    uids: Vec<Uid>,
}

impl Search {
    fn new(rules: Rules, bounds: Bounds) -> Self {
        Self { rules, bounds, uids: (0..bounds.pods).map(|i| Uid::from(format!("p{i}"))).collect() }
    }

    /// States seen, and the first one found that breaks the law.
    fn run(&self) -> (usize, Option<World>) {
        let first = self.start();
        let mut seen = HashSet::from([fingerprint(&first)]);
        let mut queue = VecDeque::from([first]);
        while let Some(world) = queue.pop_front() {
            for mut next in self.successors(&world) {
                forget_history(&mut next);
                if self.released(&next) > self.bounds.limit {
                    return (seen.len(), Some(next));
                }
                if seen.insert(fingerprint(&next)) {
                    queue.push_back(next);
                }
            }
        }
        (seen.len(), None)
    }

    fn start(&self) -> World {
        let pods: Vec<Vec<PodView>> =
            (1..=self.bounds.pods as u64).map(|version| vec![PodView { version, standing: Standing::Gated }]).collect();
        World {
            version: pods.len() as u64,
            ledger: None,
            pods,
            leaders: Default::default(),
            adrift: Vec::new(),
            terms: 0,
            ticks: 0,
            losses: 0,
            cancels: 0,
        }
    }

    fn released(&self, world: &World) -> usize {
        world.pods.iter().filter(|pod| now(pod).standing == Standing::Released).count()
    }

    fn successors(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for leader in 0..LEADERS {
            self.terms(world, leader, &mut next);
            self.answers(world, leader, &mut next);
            self.watch(world, leader, &mut next);
            self.wishes(world, leader, &mut next);
        }
        for i in 0..world.adrift.len() {
            let mut arrived = world.clone();
            let request = arrived.adrift.remove(i);
            self.serve(&mut arrived, &request);
            next.push(arrived);
        }
        for pod in 0..world.pods.len() {
            if now(&world.pods[pod]).standing == Standing::Released {
                let mut finished = world.clone();
                write(&mut finished, pod, Standing::Ended);
                next.push(finished);
            }
        }
        next
    }

    fn tell(&self, world: &mut World, leader: usize, event: &Event) {
        let (state, requests) = step_with(&self.rules, &world.leaders[leader].state, event);
        world.leaders[leader].state = state;
        world.leaders[leader].asked.extend(requests);
        world.leaders[leader].asked.sort();
    }

    /// A process starts to lead, or crashes with everything it knows and starts to lead again; what it has sent is on its
    /// way. A crash for good needs no step of its own: a process may do nothing any more at any time.
    fn terms(&self, world: &World, leader: usize, next: &mut Vec<World>) {
        if world.terms < self.bounds.terms {
            let mut leading = world.clone();
            leading.terms += 1;
            leading.leaders[leader].state = State::default();
            leading.leaders[leader].seen = leading.version;
            let asked = std::mem::take(&mut leading.leaders[leader].asked);
            leading.adrift.extend(asked.into_iter().filter(is_write));
            leading.adrift.sort();
            self.tell(&mut leading, leader, &Event::Lead);
            next.push(leading);
        }
    }

    /// A request is carried out and answered; carried out with the answer lost; or given up while it is on its way.
    fn answers(&self, world: &World, leader: usize, next: &mut Vec<World>) {
        for i in 0..world.leaders[leader].asked.len() {
            let mut served = world.clone();
            let request = served.leaders[leader].asked.remove(i);
            let mut lost = served.clone();
            let answer = self.serve(&mut served, &request);
            if matches!(request, Request::ListPods { .. }) {
                served.leaders[leader].seen = served.version;
            }
            let mut silent = served.clone();
            self.tell(&mut served, leader, &answer);
            next.push(served);
            if world.losses < self.bounds.losses && is_write(&request) {
                silent.losses += 1;
                self.tell(&mut silent, leader, &no_answer(&request));
                next.push(silent);
                lost.losses += 1;
                lost.adrift.push(request.clone());
                lost.adrift.sort();
                self.tell(&mut lost, leader, &no_answer(&request));
                next.push(lost);
            }
        }
    }

    /// The watch catches up.
    fn watch(&self, world: &World, leader: usize, next: &mut Vec<World>) {
        let seen = world.leaders[leader].seen;
        if !world.leaders[leader].state.is_ready() || seen == world.version {
            return;
        }
        let mut caught_up = world.clone();
        caught_up.leaders[leader].seen = world.version;
        for (uid, history) in self.uids.iter().zip(&world.pods) {
            for &view in history.iter().filter(|view| view.version > seen) {
                self.tell(&mut caught_up, leader, &Event::Observed { uid: uid.clone(), view });
            }
        }
        if caught_up.leaders[leader].state != world.leaders[leader].state {
            next.push(caught_up);
        }
    }

    /// What the operator asks for: a release that the limit admits, a cancellation, a tick.
    fn wishes(&self, world: &World, leader: usize, next: &mut Vec<World>) {
        let state = &world.leaders[leader].state;
        if state.is_ready() && state.usage().len() < self.bounds.limit {
            for uid in state.pending() {
                let mut wanted = world.clone();
                self.tell(&mut wanted, leader, &Event::Want { uids: vec![uid.clone()] });
                next.push(wanted);
            }
        }
        if state.is_ready() && state.in_flight() > 0 && world.cancels < self.bounds.cancels {
            for uid in &self.uids {
                let mut cancelled = world.clone();
                cancelled.cancels += 1;
                self.tell(&mut cancelled, leader, &Event::Cancel { uids: vec![uid.clone()] });
                if cancelled.leaders[leader] != world.leaders[leader] {
                    next.push(cancelled);
                }
            }
        }
        if state.is_leading() && world.ticks < self.bounds.ticks {
            let mut ticked = world.clone();
            ticked.ticks += 1;
            self.tell(&mut ticked, leader, &Event::Tick);
            if ticked.leaders[leader] != world.leaders[leader] {
                next.push(ticked);
            }
        }
    }

    /// The API server.
    fn serve(&self, world: &mut World, request: &Request) -> Event {
        match request {
            Request::ReadLedger { round } => Event::LedgerRead { round: *round, result: Ok(world.ledger.clone()) },
            Request::WriteLedger { round, expect, epoch, intents } => {
                let fits = world.ledger.as_ref().map(|ledger| ledger.version) == *expect;
                let version = world.ledger.as_ref().map_or(1, |ledger| ledger.version + 1);
                if fits {
                    world.ledger = Some(Ledger { version, epoch: *epoch, intents: intents.clone() });
                }
                let result = if fits { Ok(version) } else { Err(Failure::Conflict) };
                Event::LedgerWritten { round: *round, result }
            }
            Request::ListPods { round } => {
                let pods = self.uids.iter().zip(&world.pods).map(|(uid, pod)| (uid.clone(), now(pod))).collect();
                Event::Listed { round: *round, result: Ok(PodList { version: world.version, pods }) }
            }
            Request::Ungate { uid, version, .. } => {
                let result =
                    self.patch(world, uid, |found| *version == 0 || *version == found.version, Standing::Released);
                Event::Ungated { uid: uid.clone(), result }
            }
            Request::Touch { uid } => {
                let result = self.patch(world, uid, |_| true, Standing::Gated);
                Event::Touched { uid: uid.clone(), result }
            }
        }
    }

    fn patch(
        &self,
        world: &mut World,
        uid: &Uid,
        fits: impl Fn(PodView) -> bool,
        to: Standing,
    ) -> Result<PodView, Failure> {
        let pod = self.uids.iter().position(|known| known == uid).ok_or(Failure::NotFound)?;
        let found = now(&world.pods[pod]);
        if !fits(found) {
            return Err(Failure::Conflict);
        }
        write(world, pod, found.standing.max(to));
        Ok(now(&world.pods[pod]))
    }
}

fn now(pod: &[PodView]) -> PodView {
    *pod.last().expect("a pod has a version")
}

fn write(world: &mut World, pod: usize, standing: Standing) {
    world.version += 1;
    world.pods[pod].push(PodView { version: world.version, standing });
}

/// What every watch has delivered is not needed any more.
fn forget_history(world: &mut World) {
    let leading = world.leaders.iter().filter(|leader| leader.state.is_leading());
    let seen = leading.map(|leader| leader.seen).min().unwrap_or(world.version);
    for pod in &mut world.pods {
        let keep = pod.len() - 1;
        let old = pod.iter().take(keep).filter(|view| view.version <= seen).count();
        pod.drain(..old);
    }
}

fn is_write(request: &Request) -> bool {
    !matches!(request, Request::ReadLedger { .. } | Request::ListPods { .. })
}

fn no_answer(request: &Request) -> Event {
    let lost = Failure::Lost;
    match request {
        Request::ReadLedger { round } => Event::LedgerRead { round: *round, result: Err(lost) },
        Request::WriteLedger { round, .. } => Event::LedgerWritten { round: *round, result: Err(lost) },
        Request::ListPods { round } => Event::Listed { round: *round, result: Err(lost) },
        Request::Ungate { uid, .. } => Event::Ungated { uid: uid.clone(), result: Err(lost) },
        Request::Touch { uid } => Event::Touched { uid: uid.clone(), result: Err(lost) },
    }
}

/// States are kept as 64-bit hashes: of a million states, two share one with a chance of one in ten million. The leaders
/// are alike, so a state and its mirror image are one.
fn fingerprint(world: &World) -> u64 {
    let mirrored = world.leaders.iter().rev();
    hash(world, world.leaders.iter()).min(hash(world, mirrored))
}

fn hash<'a>(world: &World, leaders: impl Iterator<Item = &'a Leader>) -> u64 {
    let World { version, ledger, pods, leaders: _, adrift, terms, ticks, losses, cancels } = world;
    let mut hasher = DefaultHasher::new();
    (version, ledger, pods, adrift, terms, ticks, losses, cancels).hash(&mut hasher);
    leaders.for_each(|leader| leader.hash(&mut hasher));
    hasher.finish()
}

fn search(rule_left_out: u8, [terms, ticks, losses, cancels]: [u8; 4]) -> (usize, Option<World>) {
    let bounds = Bounds { pods: 2, limit: 1, terms, ticks, losses, cancels };
    Search::new(Rules::without(rule_left_out), bounds).run()
}

fn keeps_the_limit(bounds: [u8; 4], at_least: usize) {
    let (states, broken) = search(0, bounds);
    assert!(broken.is_none(), "more pods released than the limit admits");
    assert!(states >= at_least, "{states} states only: the search did not get anywhere");
}

#[test]
fn one_leader_that_loses_answers_and_cancels_keeps_the_limit() {
    keeps_the_limit([1, 1, 1, 1], 10_000);
}

#[test]
fn two_leaders_that_retry_keep_the_limit() {
    keeps_the_limit([2, 1, 0, 0], 10_000);
}

#[test]
fn two_leaders_that_cancel_keep_the_limit() {
    keeps_the_limit([2, 0, 0, 1], 40_000);
}

#[test]
fn a_leader_that_crashes_and_leads_again_keeps_the_limit() {
    keeps_the_limit([3, 0, 0, 0], 20_000);
}

#[test]
fn two_leaders_that_retry_and_lose_answers_keep_the_limit() {
    keeps_the_limit([2, 1, 1, 0], 100_000);
}

#[test]
fn each_rule_is_needed() {
    for (rule, bounds) in
        [(1, [1, 0, 0, 0]), (2, [2, 1, 0, 0]), (3, [1, 1, 1, 1]), (4, [1, 1, 1, 1]), (5, [1, 0, 0, 1])]
    {
        let (states, broken) = search(rule, bounds);
        assert!(broken.is_some(), "no violation without rule {rule} in {states} states");
    }
}
