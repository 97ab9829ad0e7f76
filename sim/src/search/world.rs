//! One state of the world as a small flat value: what the API server has, what is under way, and how much may still happen.
//!
//! Versions are kept by age only: whoever holds one holds the current one or an old one, since nobody can do more with it
//! than compare it. So histories of any length fit into finitely many states.

/// Most pods.
pub const PODS: usize = 3;
/// Most nodes.
pub const NODES: usize = 2;
/// Most extenders.
pub const EXTENDERS: usize = 2;
/// Most steps under way at once.
pub const ATTEMPTS: usize = 5;
/// Most writes without an owner.
pub const LATE: usize = 4;
/// No pod, node or index.
pub const NONE: u8 = u8::MAX;

/// A pod as the API server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    /// False once it is gone.
    pub exists: bool,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its phase is Succeeded or Failed.
    pub terminal: bool,
    /// The node it is bound to.
    pub node: u8,
    /// The CPUs that its Binding carried; none for one that runs in the shared pool.
    pub cpus: u8,
    /// How many CPUs of its own it wishes; none: it wishes to run in the shared pool.
    pub wish: u8,
}

impl Pod {
    /// Unbound and well.
    pub const WAITING: Self = Self { exists: true, deleting: false, terminal: false, node: NONE, cpus: 0, wish: 1 };

    /// Whether it has a claim to anything.
    #[must_use]
    pub const fn is_live(self) -> bool {
        self.exists && !self.terminal
    }

    /// Whether it is bound and runs or will run.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        self.is_live() && self.node != NONE
    }
}

/// One reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// Whose; [`NONE`]: there is no entry.
    pub pod: u8,
    /// All CPUs.
    pub cpus: u8,
}

impl Entry {
    /// None.
    pub const NONE: Self = Self { pod: NONE, cpus: 0 };
}

/// A NodePlacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Placement {
    /// False: there is no such object.
    pub exists: bool,
    /// Its owner is a Node that is gone.
    pub orphan: bool,
    /// Nothing was written to it yet.
    pub is_new: bool,
    /// The generation, counted only where the UID is not compared ([`crate::search::Guard::UidTest`]).
    pub generation: u8,
    /// `spec.reservations`, in its order.
    pub entries: [Entry; PODS],
}

impl Placement {
    /// Absent.
    pub const ABSENT: Self =
        Self { exists: false, orphan: false, is_new: false, generation: 0, entries: [Entry::NONE; PODS] };
    /// As the agent makes it.
    pub const NEW: Self =
        Self { exists: true, orphan: false, is_new: true, generation: 1, entries: [Entry::NONE; PODS] };

    /// The entries that are there.
    pub fn listed(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().copied().take_while(|entry| entry.pod != NONE)
    }

    /// The index of a pod's entry.
    #[must_use]
    pub fn index_of(&self, pod: u8) -> Option<usize> {
        self.listed().position(|entry| entry.pod == pod)
    }
}

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The Node object is there.
    pub up: bool,
    /// Its NodePlacement was lost once.
    pub lost: bool,
    /// Its NodePlacement.
    pub placement: Placement,
    /// The same before the last change: what a watch that is behind shows.
    pub before: Placement,
}

/// A write that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    /// What.
    pub kind: WriteKind,
    /// Of which pod.
    pub pod: u8,
    /// On which node.
    pub node: u8,
    /// The version it names (of the NodePlacement or of the pod) is still the current one.
    pub current: bool,
    /// The NodePlacement it means was deleted.
    pub former: bool,
    /// The generation it names, where that is counted.
    pub generation: u8,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteKind {
    /// Nothing; fills an array.
    None,
    /// A reservation: appended, or put in the place of another.
    Reserve {
        /// Index, or [`NONE`].
        replaces: u8,
        /// The CPUs.
        cpus: u8,
        /// It differs from what it replaces at least by its time.
        renewed: bool,
        /// What is restored in front of it.
        restored: [Entry; PODS - 1],
    },
    /// Reservations are removed.
    Release {
        /// Whose, and in the place of the CPUs the index.
        entries: [Entry; 2],
    },
    /// The pod is changed.
    Touch,
    /// The pod is bound.
    Bind {
        /// The CPUs that it carries; none: it carries nothing.
        cpus: u8,
    },
}

impl Write {
    /// None.
    pub const NONE: Self =
        Self { kind: WriteKind::None, pod: NONE, node: NONE, current: false, former: false, generation: 0 };

    /// Whether it goes to the NodePlacement (and not to the pod).
    #[must_use]
    pub const fn is_patch(&self) -> bool {
        matches!(self.kind, WriteKind::Reserve { .. } | WriteKind::Release { .. })
    }
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ask {
    /// The live pod.
    ReadPod,
    /// The NodePlacement, live or as the watch shows it.
    ReadPlacement {
        /// Live.
        live: bool,
        /// With what live pods carry, listed live.
        bound: bool,
    },
    /// A write.
    Write(Write),
}

/// One bind or withdrawal under way, driven by an extender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt {
    /// Whose; [`NONE`]: there is none.
    pub extender: u8,
    /// It is a bind, no withdrawal.
    pub binds: bool,
    /// The pod.
    pub pod: u8,
    /// Of a withdrawal: another pod of that node, in the same write; or [`NONE`].
    pub also: u8,
    /// Which of them was read last, or is touched.
    pub at: u8,
    /// The node.
    pub node: u8,
    /// The state of the shipped step, by number ([`crate::search::steps::Steps`]).
    pub state: u32,
    /// What it waits for.
    pub ask: Ask,
    /// How many of its writes came to nothing.
    pub refused: u8,
    /// The version that it knows of the pod read last is the current one.
    pub pod_current: bool,
    /// Somebody else reserved for its pod since it last read the NodePlacement live.
    pub disturbed: bool,
    /// The generation that it knows is the current one.
    pub placement_current: bool,
    /// The NodePlacement that it knows was deleted.
    pub former: bool,
    /// The generation that it knows, where that is counted.
    pub generation: u8,
}

impl Attempt {
    /// None.
    pub const NONE: Self = Self {
        extender: NONE,
        binds: false,
        pod: NONE,
        also: NONE,
        at: NONE,
        node: NONE,
        state: 0,
        ask: Ask::ReadPod,
        refused: 0,
        pod_current: false,
        disturbed: false,
        placement_current: false,
        former: false,
        generation: 0,
    };

    /// Whether there is one.
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.extender != NONE
    }
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// Binds that may begin.
    pub binds: u8,
    /// Withdrawals that may begin.
    pub withdrawals: u8,
    /// Crashes, lost answers, refusals, deadlines.
    pub faults: u8,
    /// Changes of pods by others.
    pub changes: u8,
    /// Nodes that may go.
    pub losses: u8,
    /// Changes of what a pod wishes.
    pub wishes: u8,
}

impl Budget {
    /// So many binds and nothing else.
    #[must_use]
    pub const fn of_binds(binds: u8) -> Self {
        Self { binds, withdrawals: 0, faults: 0, changes: 0, losses: 0, wishes: 0 }
    }
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct World {
    /// The pods.
    pub pods: [Pod; PODS],
    /// The pods before their last change.
    pub pods_before: [Pod; PODS],
    /// Pods that run, by the agent's admission.
    pub running: [bool; PODS],
    /// The nodes.
    pub nodes: [Node; NODES],
    /// What is under way, in order.
    pub attempts: [Attempt; ATTEMPTS],
    /// Writes whose answer nobody hears; each may yet happen. In order.
    pub late: [Write; LATE],
    /// A pod was bound to the shared pool and what had been reserved for it there was left.
    pub left_behind: bool,
    /// How much may still happen.
    pub budget: Budget,
}

impl World {
    /// Pods waiting, each of which wishes so many CPUs; nodes empty.
    #[must_use]
    pub fn first(budget: Budget, wish: u8) -> Self {
        let pod = Pod { wish, ..Pod::WAITING };
        let node = Node { up: true, lost: false, placement: Placement::NEW, before: Placement::NEW };
        Self {
            pods: [pod; PODS],
            pods_before: [pod; PODS],
            running: [false; PODS],
            nodes: [node; NODES],
            attempts: [Attempt::NONE; ATTEMPTS],
            late: [Write::NONE; LATE],
            left_behind: false,
            budget,
        }
    }

    /// Notes that a pod changes: versions of it that somebody holds become old.
    pub fn age_pod(&mut self, pod: u8) {
        let index = usize::from(pod);
        self.pods_before[index] = self.pods[index];
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.at == pod) {
            attempt.pod_current = false;
            if let Ask::Write(write) = &mut attempt.ask
                && !write.is_patch()
            {
                write.current = false;
            }
        }
        for write in self.late.iter_mut().filter(|write| write.pod == pod && !write.is_patch()) {
            write.current = false;
        }
    }

    /// Notes that a NodePlacement changes; `replaced`: that it is deleted.
    pub fn age_placement(&mut self, node: u8, deleted: bool) {
        let known = &mut self.nodes[usize::from(node)];
        if known.placement.exists {
            known.before = known.placement;
        }
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.is_some() && attempt.node == node) {
            attempt.placement_current = false;
            attempt.former |= deleted;
            if let Ask::Write(write) = &mut attempt.ask
                && write.is_patch()
            {
                write.current = false;
                write.former |= deleted;
            }
        }
        for write in self.late.iter_mut().filter(|write| write.node == node && write.is_patch()) {
            write.current = false;
            write.former |= deleted;
        }
    }

    /// Puts a write among those without an owner; false if there is no room for it.
    pub fn leave(&mut self, write: Write) -> bool {
        match self.late.iter_mut().find(|slot| slot.kind == WriteKind::None) {
            Some(slot) => {
                *slot = write;
                true
            }
            None => false,
        }
    }
}
