//! What is free of one kind (whole cores or single threads, regular or isolated), counted by NUMA node and cache group.

use smallvec::SmallVec;

use crate::machine::{CacheGroup, Machine, Words};
use crate::search::ALWAYS_EXACT_NODES;
use crate::sparse::SparseMask;
use crate::tally::{Kinds, Tally};
use crate::{CpuMask, Surroundings};

/// How much a pod wants a cache group, less is better: its devices are elsewhere, a pod it dislikes is there, no pod it
/// likes is there. What it has no wish about counts as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Appeal(u8);

impl Appeal {
    const FAR: u8 = 4;
    const DISLIKED: u8 = 2;
    const UNLIKED: u8 = 1;

    fn of(group: &CacheGroup, around: &Surroundings) -> Self {
        let far = !around.near.is_empty() && !group.cpus.intersects(around.near.words());
        let disliked = group.l3_cpus.intersects(around.disliked.words());
        let unliked = !around.liked.is_empty() && !group.l3_cpus.intersects(around.liked.words());
        Self(u8::from(far) * Self::FAR + u8::from(disliked) * Self::DISLIKED + u8::from(unliked) * Self::UNLIKED)
    }

    pub(crate) fn is_far(self) -> bool {
        self.0 & Self::FAR != 0
    }

    pub(crate) fn is_disliked(self) -> bool {
        self.0 & Self::DISLIKED != 0
    }

    pub(crate) fn is_unliked(self) -> bool {
        self.0 & Self::UNLIKED != 0
    }
}

/// One cache group: what is free in it, and how much it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GroupFree {
    pub(crate) appeal: Appeal,
    /// Units.
    pub(crate) free: u16,
}

impl GroupFree {
    /// Most wanted first, then most free; those without anything free at the end.
    pub(crate) fn order(self) -> u32 {
        if self.free == 0 { u32::MAX } else { u32::from(self.appeal.0) << 16 | u32::from(u16::MAX - self.free) }
    }

    /// The group with something free that is ordered so.
    pub(crate) fn of_order(order: u32) -> Self {
        Self { appeal: Appeal((order >> 16) as u8), free: u16::MAX - (order & 0xffff) as u16 }
    }
}

/// One NUMA node that has CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumaFree {
    pub(crate) memory_bytes: u64,
    /// Of its cache groups, by [`Pool::kinds`].
    pub(crate) tally: Tally,
    /// Units.
    pub(crate) free: u16,
    /// Units of its cache group with most free.
    pub(crate) most_in_l3: u16,
    /// Dense index in the machine.
    pub(crate) index: u16,
    /// Where its cache groups end in `Pool::groups`; they start where the previous node's end.
    groups_end: u16,
}

/// Units (whole cores, or threads) of one class of CPUs on one machine. Up to 8 NUMA nodes and 32 L3 caches it is one flat
/// value without heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// CPUs of a unit.
    pub(crate) unit_cpus: u32,
    /// Units there are.
    pub(crate) total: u32,
    /// Units that are free.
    pub(crate) free: u32,
    /// Units of the largest cache group.
    pub(crate) largest_l3: u32,
    /// Units of the largest NUMA node.
    pub(crate) largest_numa: u32,
    /// NUMA nodes that have units.
    pub(crate) numa_nodes_with_units: u32,
    /// Cache groups that have something free.
    pub(crate) groups_with_units: u32,
    /// Whether nearness and likes were asked for: then a group without is a lack.
    pub(crate) wants_near: bool,
    pub(crate) wants_liked: bool,
    nodes: SmallVec<[NumaFree; 8]>,
    /// Units of the NUMA nodes, descending.
    descending: SmallVec<[u16; 8]>,
    /// NUMA node by NUMA node, in [`GroupFree::order`] within each.
    groups: SmallVec<[GroupFree; 32]>,
    kinds: Kinds,
}

/// The units of some CPUs: threads of regular cores, or leads of those that are whole.
pub(crate) struct Units {
    words: Words,
    single: bool,
}

impl Units {
    pub(crate) fn of(machine: &Machine, cpus: &CpuMask, single: bool) -> Self {
        let words = if single { Words::from_slice(cpus.words()) } else { machine.siblings().whole(cpus.words()) };
        Self { words, single }
    }

    fn mask<'a>(&self, group: &'a CacheGroup) -> &'a SparseMask {
        if self.single { &group.threads } else { &group.leads }
    }

    fn count(&self, group: &CacheGroup) -> u32 {
        self.mask(group).len_in(&self.words)
    }

    /// Those of a cache group.
    pub(crate) fn of_group(&self, group: &CacheGroup) -> SparseMask {
        self.mask(group).within(&self.words)
    }
}

/// What is to be counted.
pub(crate) struct Count<'a> {
    pub(crate) machine: &'a Machine,
    /// What may be used.
    pub(crate) usable: Units,
    /// All of the class, used or not; none: all of the machine.
    pub(crate) class: Option<Units>,
    /// Bytes by dense NUMA index.
    pub(crate) memory_free_bytes: &'a [u64],
    /// Threads instead of whole cores.
    pub(crate) single_threads: bool,
    pub(crate) around: &'a Surroundings,
}

impl Count<'_> {
    fn total(&self, group: &CacheGroup) -> u32 {
        let cores = group.regular.len() as u32;
        match &self.class {
            Some(class) => class.count(group),
            None if self.single_threads => cores * self.machine.smt_width(),
            None => cores,
        }
    }
}

impl Pool {
    /// Counts, and also says what is free in each cache group in the machine's order.
    pub(crate) fn count(count: &Count<'_>) -> (Self, SmallVec<[GroupFree; 32]>) {
        let machine = count.machine;
        let in_order: SmallVec<[GroupFree; 32]> = machine
            .groups()
            .iter()
            .map(|group| GroupFree { appeal: Appeal::of(group, count.around), free: count.usable.count(group) as u16 })
            .collect();
        let kinds = Kinds::of(&in_order);
        let mut pool = Self {
            unit_cpus: if count.single_threads { 1 } else { machine.smt_width() },
            total: 0,
            free: 0,
            largest_l3: 0,
            largest_numa: 0,
            numa_nodes_with_units: 0,
            groups_with_units: in_order.iter().filter(|group| group.free > 0).count() as u32,
            wants_near: !count.around.near.is_empty(),
            wants_liked: !count.around.liked.is_empty(),
            nodes: SmallVec::new(),
            descending: SmallVec::new(),
            groups: in_order.clone(),
            kinds,
        };
        // Nodes without CPUs have no groups, so those of the others follow one another.
        for (index, node) in machine.nodes().iter().enumerate().filter(|(_, node)| !node.cpus.is_empty()) {
            let totals = machine.groups()[node.groups.clone()].iter().map(|group| count.total(group));
            let of_node: u32 = totals.clone().sum();
            pool.total += of_node;
            pool.largest_l3 = pool.largest_l3.max(totals.max().unwrap_or(0));
            pool.largest_numa = pool.largest_numa.max(of_node);
            pool.numa_nodes_with_units += u32::from(of_node > 0);
            let own = &mut pool.groups[node.groups.clone()];
            own.sort_unstable_by_key(|group| group.order());
            let free = own.iter().map(|group| group.free).sum();
            pool.free += u32::from(free);
            pool.nodes.push(NumaFree {
                memory_bytes: count.memory_free_bytes.get(index).copied().unwrap_or(0),
                tally: pool.kinds.tally(own),
                free,
                most_in_l3: own.iter().map(|group| group.free).max().unwrap_or(0),
                index: index as u16,
                groups_end: node.groups.end as u16,
            });
        }
        pool.descending.extend(pool.nodes.iter().map(|node| node.free));
        pool.descending.sort_unstable_by(|a, b| b.cmp(a));
        (pool, in_order)
    }

    pub(crate) fn nodes(&self) -> &[NumaFree] {
        &self.nodes
    }

    /// Nothing where they are too many to be counted.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Whether two NUMA nodes may have so many units, and there are few enough pairs and kinds of cache groups to look at
    /// all of them.
    pub(crate) fn may_be_paired(&self, units: u32) -> bool {
        let most: u32 = self.descending.iter().take(2).map(|&free| u32::from(free)).sum();
        most >= units && self.nodes.len() <= ALWAYS_EXACT_NODES && !self.kinds.is_empty()
    }

    /// How many of the NUMA nodes with most free reach so many units; all if they do not.
    pub(crate) fn fewest_nodes(&self, units: u32) -> usize {
        let mut missing = units;
        let reaching = self.descending.iter().position(|&free| {
            missing = missing.saturating_sub(u32::from(free));
            missing == 0
        });
        reaching.map_or(self.descending.len(), |position| position + 1)
    }

    /// The cache groups of the node at `position`, in [`GroupFree::order`].
    pub(crate) fn groups_of(&self, position: usize) -> &[GroupFree] {
        let start = position.checked_sub(1).map_or(0, |previous| self.nodes[previous].groups_end);
        &self.groups[usize::from(start)..usize::from(self.nodes[position].groups_end)]
    }
}
