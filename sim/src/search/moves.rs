//! What can happen next: the API server, the agent and the people around the shipped steps.
use super::calls::{Calls, Fence};
use super::steps::{Next, Outcome, SeenBound, SeenPod, Steps, Told};
use super::world::{Ask, Attempt, Entry, NODES, NONE, PODS, Placement, Pod, World, Write, WriteKind};
use super::{Guard, Setting};

/// What happened in one move, in the numbers of the state it began in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// What.
    pub what: What,
    /// Who, or [`NONE`].
    pub extender: u8,
    /// Which pod, or [`NONE`].
    pub pod: u8,
    /// Which node, or [`NONE`].
    pub node: u8,
    /// It is part of a bind, no withdrawal.
    pub binds: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A bind or a withdrawal begins.
    Begins {
        /// The watch is behind.
        behind: bool,
    },
    /// The pod is read.
    ReadsPod {
        /// By a watch that is behind.
        behind: bool,
    },
    /// The NodePlacement is read.
    ReadsPlacement {
        /// Live.
        live: bool,
        /// By a watch that is behind.
        behind: bool,
        /// Pods bound there that the watch does not show.
        unseen: u8,
    },
    /// A write gets its answer.
    Writes(WriteKind, Outcome),
    /// A write whose answer nobody hears arrives.
    Arrives(WriteKind, Outcome),
    /// A write is under way and its answer will not be heard.
    Loses(WriteKind),
    /// The deadline ends it.
    Deadline,
    /// The process dies.
    Crashes,
    /// The pod is gone.
    PodGoes,
    /// The pod gets a deletion timestamp.
    PodDeleting,
    /// The pod ends.
    PodEnds,
    /// The pod wishes otherwise.
    WishChanges {
        /// By its WorkerPool; else by its own annotation.
        pool: bool,
    },
    /// Somebody else writes to the pod.
    PodWritten,
    /// The Node is deleted.
    NodeGoes,
    /// Its NodePlacement is collected.
    Collected,
    /// A Node of that name is there again.
    NodeReturns,
    /// The agent makes the NodePlacement.
    Made,
    /// The agent lets the container run.
    Runs,
}

/// One thread's view of a search.
pub struct Moves<'a> {
    /// The search.
    pub setting: &'a Setting,
    /// The shipped steps.
    pub steps: Steps<'a>,
    /// The API server.
    calls: Calls,
    /// Moves not made for want of room in a state.
    pub pruned: usize,
}

pub(super) type Out<'o> = &'o mut dyn FnMut(Move, World);

impl<'a> Moves<'a> {
    /// Of a thread that has made no call yet.
    #[must_use]
    pub fn new(setting: &'a Setting, steps: Steps<'a>) -> Self {
        Self { setting, steps, calls: Calls::default(), pruned: 0 }
    }
}

impl Moves<'_> {
    pub(super) fn off(&self, guard: Guard) -> bool {
        self.setting.without == Some(guard)
    }

    /// Every state that can follow.
    pub fn next(&mut self, world: &World, out: Out<'_>) {
        self.begin(world, out);
        for index in 0..world.attempts.len() {
            if world.attempts[index].is_some() {
                self.go_on(world, index, out);
            }
        }
        for index in 0..world.late.len() {
            let write = world.late[index];
            if write.kind != WriteKind::None {
                let mut after = *world;
                after.late[index] = Write::NONE;
                let outcome = self.write(&mut after, &write, None);
                out(moved(What::Arrives(write.kind, outcome), NONE, write.pod, write.node, true), after);
            }
        }
        self.around(world, out);
    }

    fn begin(&mut self, world: &World, out: Out<'_>) {
        let setting = self.setting;
        let Some(slot) = world.attempts.iter().position(|attempt| !attempt.is_some()) else {
            self.pruned += usize::from(world.budget.binds + world.budget.withdrawals > 0);
            return;
        };
        for (extender, pod, node) in setting.everybody() {
            let known = |attempt: &&Attempt| attempt.extender == extender && attempt.pod == pod;
            if world.budget.binds > 0 && !world.attempts.iter().filter(known).any(|attempt| attempt.binds) {
                let (now, before) = (world.pods[usize::from(pod)], world.pods_before[usize::from(pod)]);
                for (seen, behind) in views(now, before) {
                    // What is not shown as bindable is not scheduled.
                    if !seen.exists || seen.deleting || seen.terminal || seen.node != NONE {
                        continue;
                    }
                    let mut after = *world;
                    after.budget.binds -= 1;
                    let of = Attempt { extender, binds: true, pod, at: pod, node, ..Attempt::NONE };
                    let attempt = Attempt { pod_current: !behind, ..of };
                    after.attempts[slot] = attempt;
                    self.tell(&mut after, slot, Told::Start(seen_pod(seen, node)));
                    out(moved(What::Begins { behind }, extender, pod, node, true), after);
                }
            }
            let placement = world.nodes[usize::from(node)].placement;
            if world.budget.withdrawals == 0 || placement.index_of(pod).is_none() {
                continue;
            }
            let others =
                (pod + 1..setting.pods).filter(|other| setting.together && placement.index_of(*other).is_some());
            for also in std::iter::once(NONE).chain(others) {
                let mut after = *world;
                after.budget.withdrawals -= 1;
                after.attempts[slot] = Attempt { extender, pod, also, at: pod, node, ..Attempt::NONE };
                self.tell(&mut after, slot, Told::Withdraw(relative(also, pod)));
                out(moved(What::Begins { behind: false }, extender, pod, node, false), after);
            }
        }
    }

    /// Tells a step, and notes what it asks for next.
    fn tell(&mut self, world: &mut World, slot: usize, told: Told) {
        let mut attempt = world.attempts[slot];
        if told.is_in_vain() {
            attempt.refused += 1;
            if attempt.refused > self.setting.rounds {
                world.attempts[slot] = Attempt::NONE;
                return;
            }
        }
        let (state, next) = self.steps.tell(attempt.state, told);
        attempt.state = state;
        let next = self.without_guard(world, &mut attempt, next);
        let patch = |kind, current| Write {
            kind,
            pod: attempt.pod,
            node: attempt.node,
            current,
            former: attempt.former,
            generation: attempt.generation,
        };
        let of_pod = |kind, pod| Write { pod, former: false, generation: 0, ..patch(kind, attempt.pod_current) };
        let named = |entry| absolute(entry, attempt.pod);
        let number = |of| named(Entry { pod: of, cpus: 0 }).pod;
        let (ask, keeps_pod, keeps_placement) = match next {
            Next::Over(_) => {
                world.attempts[slot] = Attempt::NONE;
                return;
            }
            // A withdrawal knows the generation from before it reads the pods.
            Next::ReadPod(of) => {
                attempt.at = number(of);
                (Ask::ReadPod, false, true)
            }
            Next::ReadPlacement { live, bound } => (Ask::ReadPlacement { live, bound }, true, false),
            Next::Reserve { replaces, cpus, renewed, restored } => {
                let kind = WriteKind::Reserve { replaces, cpus, renewed, restored: restored.map(named) };
                (Ask::Write(patch(kind, attempt.placement_current)), true, false)
            }
            Next::Release(entries) => {
                let kind = WriteKind::Release { entries: entries.map(named) };
                (Ask::Write(patch(kind, attempt.placement_current)), false, false)
            }
            Next::Touch(of) => (Ask::Write(of_pod(WriteKind::Touch, number(of))), false, true),
            Next::Bind { cpus } => (Ask::Write(of_pod(WriteKind::Bind { cpus }, attempt.pod)), false, false),
        };
        attempt.ask = ask;
        attempt.pod_current &= keeps_pod;
        if !keeps_placement {
            (attempt.placement_current, attempt.former, attempt.generation) = (false, false, 0);
        }
        world.attempts[slot] = attempt;
    }

    /// What it would ask for without the guard that is off.
    fn without_guard(&mut self, world: &World, attempt: &mut Attempt, mut next: Next) -> Next {
        let placement = &world.nodes[usize::from(attempt.node)].placement;
        let index = placement.index_of(attempt.pod).and_then(|index| u8::try_from(index).ok()).unwrap_or(NONE);
        let Next::Reserve { replaces, cpus, renewed, .. } = &mut next else { return next };
        if self.off(Guard::KeepPromised) {
            *replaces = index;
            *renewed = index != NONE;
        }
        let is_there = placement.entries.get(usize::from(index)).is_some_and(|entry| entry.cpus == *cpus);
        if self.off(Guard::RenewalWrites) && *replaces != NONE && is_there {
            (attempt.state, next) = self.steps.tell(attempt.state, Told::Patched(Outcome::Done));
        }
        next
    }

    fn go_on(&mut self, world: &World, slot: usize, out: Out<'_>) {
        let attempt = world.attempts[slot];
        let says = |what| moved(what, attempt.extender, attempt.pod, attempt.node, attempt.binds);
        match attempt.ask {
            Ask::ReadPod => {
                let (now, before) = (world.pods[usize::from(attempt.at)], world.pods_before[usize::from(attempt.at)]);
                let by_watch = !attempt.binds && self.off(Guard::LiveRead);
                // A watch may also not have heard of the pod yet.
                let unheard = (Pod { exists: false, ..Pod::WAITING }, true);
                let seen = views(now, before).chain(std::iter::once(unheard));
                for (seen, behind) in seen.take(if by_watch { 3 } else { 1 }) {
                    let mut after = *world;
                    after.attempts[slot].pod_current = !behind;
                    let of = relative(attempt.at, attempt.pod);
                    self.tell(&mut after, slot, Told::Pod(of, seen_pod(seen, attempt.node)));
                    out(says(What::ReadsPod { behind }), after);
                }
            }
            Ask::ReadPlacement { live, bound } => self.read_placement(world, slot, live, bound, out),
            Ask::Write(write) => {
                let write = self.just_read(world, write);
                let mut after = *world;
                let outcome = self.write(&mut after, &write, Some(slot));
                let reserves = matches!(write.kind, WriteKind::Reserve { .. });
                if reserves && outcome == Outcome::Conflict && self.off(Guard::ChooseAnew) {
                    self.same_again(&mut after, slot, write);
                } else {
                    self.tell(&mut after, slot, answer(&write, outcome));
                }
                out(says(What::Writes(write.kind, outcome)), after);
                self.faults(world, slot, &write, out);
            }
        }
        if world.budget.faults > 0 {
            let mut after = *world;
            after.budget.faults -= 1;
            let left = match attempt.ask {
                Ask::Write(write) => after.leave(write),
                _ => true,
            };
            if left {
                self.tell(&mut after, slot, Told::DeadlineNear);
                out(says(What::Deadline), after);
            } else {
                self.pruned += 1;
            }
        }
    }

    /// A write that names what was read only just before it, where the rule that forbids that is off.
    fn just_read(&self, world: &World, mut write: Write) -> Write {
        match &mut write.kind {
            WriteKind::Bind { .. } if self.off(Guard::VersionFromBefore) => write.current = true,
            WriteKind::Release { entries } if self.off(Guard::PlacementFirst) => {
                let placement = &world.nodes[usize::from(write.node)].placement;
                for entry in entries.iter_mut().filter(|entry| entry.pod != NONE) {
                    entry.cpus =
                        placement.index_of(entry.pod).and_then(|index| u8::try_from(index).ok()).unwrap_or(NONE);
                }
                (write.current, write.former) = (true, false);
            }
            _ => {}
        }
        write
    }

    fn same_again(&self, world: &mut World, slot: usize, mut write: Write) {
        let placement = world.nodes[usize::from(write.node)].placement;
        if let WriteKind::Reserve { replaces, .. } = &mut write.kind {
            *replaces = placement.index_of(write.pod).and_then(|index| u8::try_from(index).ok()).unwrap_or(NONE);
        }
        (write.current, write.former, write.generation) = (true, false, placement.generation);
        world.attempts[slot].ask = Ask::Write(write);
    }

    /// A write that is refused, and one whose answer is lost: it may have happened, may yet happen, or never.
    fn faults(&mut self, world: &World, slot: usize, write: &Write, out: Out<'_>) {
        if world.budget.faults == 0 {
            return;
        }
        let attempt = world.attempts[slot];
        let says = |what| moved(what, attempt.extender, attempt.pod, attempt.node, attempt.binds);
        let mut refused = *world;
        refused.budget.faults -= 1;
        let mut lost = refused;
        self.tell(&mut refused, slot, answer(write, Outcome::Refused));
        out(says(What::Writes(write.kind, Outcome::Refused)), refused);
        if lost.leave(*write) {
            self.tell(&mut lost, slot, answer(write, Outcome::Lost));
            out(says(What::Loses(write.kind)), lost);
        } else {
            self.pruned += 1;
        }
    }

    fn read_placement(&mut self, world: &World, slot: usize, live: bool, bound: bool, out: Out<'_>) {
        let attempt = world.attempts[slot];
        // Within one process binds to one node take turns from the reading to the writing.
        let turn = |other: &Attempt| {
            matches!(other.ask, Ask::Write(Write { kind: WriteKind::Reserve { .. }, .. }))
                && (other.extender, other.node) == (attempt.extender, attempt.node)
        };
        if attempt.binds && world.attempts.iter().any(turn) {
            return;
        }
        let node = world.nodes[usize::from(attempt.node)];
        let says = |what| moved(what, attempt.extender, attempt.pod, attempt.node, attempt.binds);
        let former = !node.placement.exists || (node.before.orphan && !node.placement.orphan);
        for behind in [false, true] {
            let placement = if behind { node.before } else { node.placement };
            if behind && (live || node.before == node.placement || !node.before.exists) {
                continue;
            }
            if !placement.exists {
                let mut after = *world;
                self.tell(&mut after, slot, Told::NoPlacement);
                out(says(What::ReadsPlacement { live, behind, unseen: 0 }), after);
                continue;
            }
            let carrying = (0..PODS).filter(|&pod| {
                let bound = world.pods[pod];
                bound.is_bound() && bound.node == attempt.node && placement.index_of(number(pod)).is_none()
            });
            let carrying = carrying.fold(0u8, |all, pod| all | 1 << pod);
            for unseen in (0..=carrying).filter(|unseen| unseen & !carrying == 0 && (!bound || *unseen == 0)) {
                let mut after = *world;
                let known = &mut after.attempts[slot];
                known.placement_current = !behind;
                known.former = behind && former;
                known.generation = placement.generation;
                known.disturbed &= !live;
                let told = self.placement_told(world, &attempt, &placement, carrying & !unseen);
                self.tell(&mut after, slot, told);
                out(says(What::ReadsPlacement { live, behind, unseen }), after);
            }
        }
    }

    fn placement_told(&self, world: &World, attempt: &Attempt, placement: &Placement, carrying: u8) -> Told {
        let mut entries = [Entry::NONE; PODS];
        let shared = world.pods[usize::from(attempt.pod)].wish == 0;
        let hides_own =
            attempt.binds && (self.off(Guard::KeepPromised) || (shared && self.off(Guard::FreeBeforeShared)));
        let shown = placement.listed().filter(|entry| !(hides_own && entry.pod == attempt.pod));
        for (slot, entry) in entries.iter_mut().zip(shown) {
            *slot = Entry { pod: relative(entry.pod, attempt.pod), ..entry };
        }
        let mut carried = [0; PODS];
        for pod in (0..PODS).filter(|pod| carrying & (1 << pod) != 0) {
            carried[usize::from(relative(number(pod), attempt.pod))] = world.pods[pod].cpus;
        }
        Told::Placement { entries, carried, is_new: placement.is_new && !self.off(Guard::Restore) }
    }

    /// Carries a write out as the API server does; `by` is the attempt that waits for the answer, if one does.
    fn write(&mut self, world: &mut World, write: &Write, by: Option<usize>) -> Outcome {
        if write.is_patch() {
            return self.patch(world, write, by);
        }
        let pod = world.pods[usize::from(write.pod)];
        let binds = matches!(write.kind, WriteKind::Bind { .. });
        if !binds && pod.exists && self.off(Guard::Touch) {
            return Outcome::Done;
        }
        let names_version = !(binds && self.off(Guard::VersionInBinding));
        let fence = Fence { uid: Some(true), version: names_version.then_some(write.current) };
        let came = self.calls.pod(&pod, write, fence);
        if came.changed {
            world.age_pod(write.pod);
            world.pods[usize::from(write.pod)] = came.after;
        }
        if came.outcome == Outcome::Done && matches!(write.kind, WriteKind::Bind { cpus: 0 }) {
            let held = world.nodes[usize::from(write.node)].placement.index_of(write.pod).is_some();
            // What was reserved by another after it looked nobody could see.
            world.left_behind |= held && by.is_some_and(|slot| !world.attempts[slot].disturbed);
        }
        came.outcome
    }

    fn patch(&mut self, world: &mut World, write: &Write, by: Option<usize>) -> Outcome {
        let placement = world.nodes[usize::from(write.node)].placement;
        let by_number = self.off(Guard::UidTest);
        let same = if by_number { write.generation == placement.generation } else { write.current };
        let fence = Fence {
            uid: (!by_number).then_some(!write.former),
            version: (!self.off(Guard::GenerationTest)).then_some(same),
        };
        let mut came = self.calls.patch(&placement, write, fence);
        if !came.changed {
            return came.outcome;
        }
        world.age_placement(write.node, false);
        if by_number {
            came.after.generation = placement.generation.saturating_add(1);
        }
        world.nodes[usize::from(write.node)].placement = came.after;
        // Of use only where somebody may bind it to the shared pool.
        if matches!(write.kind, WriteKind::Reserve { .. }) && self.setting.budget.wishes > 0 {
            let others = world.attempts.iter_mut().enumerate().filter(|(slot, _)| Some(*slot) != by);
            let of_pod = others.filter(|(_, attempt)| attempt.binds && attempt.pod == write.pod);
            of_pod.for_each(|(_, attempt)| attempt.disturbed = true);
        }
        came.outcome
    }
}

impl Setting {
    fn everybody(&self) -> impl Iterator<Item = (u8, u8, u8)> + use<> {
        let Self { pods, nodes, extenders, .. } = *self;
        (0..extenders)
            .flat_map(move |extender| (0..pods).flat_map(move |pod| (0..nodes).map(move |node| (extender, pod, node))))
    }
}

pub(super) const fn moved(what: What, extender: u8, pod: u8, node: u8, binds: bool) -> Move {
    Move { what, extender, pod, node, binds }
}

fn views(now: Pod, before: Pod) -> impl Iterator<Item = (Pod, bool)> {
    std::iter::once((now, false)).chain((before != now).then_some((before, true)))
}

fn seen_pod(pod: Pod, node: u8) -> SeenPod {
    let bound = match pod.node {
        NONE => SeenBound::No,
        there if there == node => SeenBound::Here,
        _ => SeenBound::Elsewhere,
    };
    SeenPod { exists: pod.exists, deleting: pod.deleting, terminal: pod.terminal, bound, wish: pod.wish }
}

fn answer(write: &Write, outcome: Outcome) -> Told {
    match write.kind {
        WriteKind::Touch => Told::Touched(outcome),
        WriteKind::Bind { .. } => Told::Bound(outcome),
        _ => Told::Patched(outcome),
    }
}

/// Numbers that fit: there are three pods.
fn number(pod: usize) -> u8 {
    u8::try_from(pod).unwrap_or(NONE)
}

/// A pod's number from where another stands: that one is 0, the others follow in their order.
fn relative(pod: u8, own: u8) -> u8 {
    match pod {
        NONE => NONE,
        pod if pod == own => 0,
        pod if pod < own => pod + 1,
        pod => pod,
    }
}

fn absolute(entry: Entry, own: u8) -> Entry {
    let pod = match entry.pod {
        NONE => NONE,
        0 => own,
        relative if relative <= own => relative - 1,
        relative => relative,
    };
    Entry { pod, ..entry }
}

const _: () = assert!(NODES <= 8 && PODS <= 8, "masks are bytes");
