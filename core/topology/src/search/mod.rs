//! The one search that `evaluate` and `choose` share: the least rank over all sets of NUMA nodes.

mod exact;
mod greedy;

use smallvec::SmallVec;

use crate::Machine;
use crate::free::{Demand, FreeSummary};
use crate::rank::Rank;
use exact::Walk;

/// How many sets of NUMA nodes of one size are tried before the search turns greedy: the number of halves of 16.
pub const MAX_NUMA_SETS: u64 = 12_870;

/// No number of these has more sets of one size than [`MAX_NUMA_SETS`].
const ALWAYS_EXACT_NODES: usize = 16;

/// Work of the exact search on one request before it turns greedy or ends with the best it has; one step is a NUMA node
/// looked at. All sizes of sets of 16 nodes with up to 64 cache groups stay below it.
pub const MAX_SEARCH_STEPS: u64 = 1 << 18;

/// A cache group looked at is so much less than a NUMA node.
const GROUPS_PER_STEP: u64 = 8;

/// Positions in `FreeSummary::nodes`, ascending.
pub(crate) type NodeSet = SmallVec<[u16; 16]>;

/// The least choice: its rank and NUMA nodes.
pub(crate) struct Found {
    pub(crate) rank: Rank,
    /// The tie-breaker's answer for it, once asked.
    tie: Option<u32>,
    pub(crate) nodes: NodeSet,
}

/// Finds the least rank. Among equals `tie` decides (less is better), then the lowest NUMA ids. `tie` is asked only
/// where it matters; it must depend on nothing but the rank and what is free in the nodes of the set.
pub(crate) fn search(
    machine: &Machine,
    summary: &FreeSummary,
    demand: &Demand,
    tie: &mut impl FnMut(&[u16], &Rank) -> u32,
) -> Option<Found> {
    if let Some((rank, position)) = single(summary, demand, tie) {
        return Some(Found { rank, tie: None, nodes: NodeSet::from_slice(&[position]) });
    }
    let mut search = Search::new(machine, summary, demand, tie);
    search.several();
    search.best
}

/// The least of the single nodes that serve; by far the most common case, so it keeps to a few numbers.
fn single(summary: &FreeSummary, demand: &Demand, tie: &mut impl FnMut(&[u16], &Rank) -> u32) -> Option<(Rank, u16)> {
    let mut best: Option<(Rank, u16)> = None;
    for (position, node) in (0u16..).zip(summary.nodes()) {
        let free_cores = u32::from(node.free_cores);
        if free_cores < demand.cores || node.memory_bytes < demand.memory_bytes {
            continue;
        }
        let (l3_caches, l3_left) =
            caches_needed(summary.groups_of(usize::from(position)).iter().copied(), demand.cores);
        let rank = Rank { numa_nodes: 1, distance: 0, l3_caches, numa_left: free_cores - demand.cores, l3_left };
        let better = best.is_none_or(|(held, other)| {
            rank < held || rank == held && l3_caches > 1 && tie(&[position], &rank) < tie(&[other], &rank)
        });
        if better {
            best = Some((rank, position));
        }
    }
    best
}

/// Fewest of these cache groups (largest first) that hold so many cores, and what is left in it if it is one (0 if more:
/// then the rest is told apart by the tie-breaker). There are enough cores.
fn caches_needed(groups: impl Iterator<Item = u16>, cores: u32) -> (u32, u32) {
    let mut held = 0;
    let mut count = 0;
    for free in groups.map(u32::from) {
        if free >= cores {
            // The last one that holds them all is the tightest.
            held = free;
            count = 1;
        } else if held >= cores {
            break;
        } else {
            held += free;
            count += 1;
        }
    }
    (count, if count == 1 { held - cores } else { 0 })
}

struct Search<'a, T> {
    machine: &'a Machine,
    summary: &'a FreeSummary,
    demand: &'a Demand,
    tie: &'a mut T,
    best: Option<Found>,
    /// Every cache group with free cores, largest first.
    groups: SmallVec<[Group; 32]>,
    /// The set that is being put together.
    chosen: NodeSet,
    /// For each position whether it is in `chosen`.
    member: SmallVec<[bool; 16]>,
    /// Work done. It depends on machine, summary and demand only: were it for the tie-breaker's answers, `evaluate`
    /// and `choose` would not end at the same place.
    steps: u64,
}

/// Free cores of a cache group and the position of its NUMA node; one number sorts faster than two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group(u32);

impl Group {
    fn new(free: u16, position: u16) -> Self {
        Self(u32::from(free) << 16 | u32::from(position))
    }

    fn free(self) -> u16 {
        (self.0 >> 16) as u16
    }

    fn position(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Sums over a set that is being put together.
#[derive(Clone, Copy, Default)]
struct Sums {
    cores: u32,
    memory_bytes: u64,
    distance: u64,
}

impl<'a, T: FnMut(&[u16], &Rank) -> u32> Search<'a, T> {
    fn new(machine: &'a Machine, summary: &'a FreeSummary, demand: &'a Demand, tie: &'a mut T) -> Self {
        let count = summary.nodes().len();
        let mut groups: SmallVec<[Group; 32]> = SmallVec::new();
        for position in 0..count as u16 {
            // Largest first: after the first without free cores none has any.
            let own = summary.groups_of(usize::from(position)).iter().take_while(|free| **free > 0);
            groups.extend(own.map(|&free| Group::new(free, position)));
        }
        groups.sort_unstable_by(|a, b| b.cmp(a));
        let member = SmallVec::from_elem(false, count);
        Self { machine, summary, demand, tie, best: None, groups, chosen: NodeSet::new(), member, steps: 0 }
    }

    /// The fewest nodes, two at least, that serve together.
    fn several(&mut self) {
        let count = self.summary.nodes().len();
        let fewest = if count > 2 { self.fewest_nodes().max(2) } else { count };
        if fewest >= count {
            return self.all();
        }
        let mut walk = Walk::new(self);
        for size in fewest..=count {
            if count > ALWAYS_EXACT_NODES && subsets(count as u64, size as u64) > MAX_NUMA_SETS {
                return self.greedy();
            }
            self.every(walk.of(size), 0, Sums::default());
            if self.best.is_some() {
                return;
            }
            if self.steps >= MAX_SEARCH_STEPS {
                return self.greedy();
            }
        }
    }

    /// All nodes together; they serve, or there was no search.
    fn all(&mut self) {
        let mut sums = Sums::default();
        for position in 0..self.summary.nodes().len() as u16 {
            sums = self.with(position, &sums);
            sums.distance += self.to_chosen(position);
            self.push(position);
        }
        self.offer(&sums);
    }

    /// Cores and memory with that node; its distances are left to be added.
    fn with(&self, position: u16, sums: &Sums) -> Sums {
        let node = &self.summary.nodes()[usize::from(position)];
        Sums {
            cores: sums.cores + u32::from(node.free_cores),
            memory_bytes: sums.memory_bytes.saturating_add(node.memory_bytes),
            distance: sums.distance,
        }
    }

    /// How many of the largest nodes, cores and memory taken apart, reach the demand: a bound, not an answer.
    fn fewest_nodes(&self) -> usize {
        let nodes = self.summary.nodes();
        let cores = fewest(nodes.iter().map(|node| u64::from(node.free_cores)), u64::from(self.demand.cores));
        cores.max(fewest(nodes.iter().map(|node| node.memory_bytes), self.demand.memory_bytes))
    }

    fn push(&mut self, position: u16) {
        self.member[usize::from(position)] = true;
        self.chosen.push(position);
    }

    fn pop(&mut self) {
        if let Some(position) = self.chosen.pop() {
            self.member[usize::from(position)] = false;
        }
    }

    fn serves(&self, sums: &Sums) -> bool {
        sums.cores >= self.demand.cores && sums.memory_bytes >= self.demand.memory_bytes
    }

    /// Both ways.
    fn between(&self, a: u16, b: u16) -> u64 {
        if let Some(even) = self.summary.even_distance() {
            return u64::from(even);
        }
        let nodes = self.summary.nodes();
        let (a, b) = (usize::from(nodes[usize::from(a)].index), usize::from(nodes[usize::from(b)].index));
        self.machine.both_ways(a, b)
    }

    fn to_chosen(&self, position: u16) -> u64 {
        self.chosen.iter().map(|&other| self.between(other, position)).sum()
    }

    /// Ranks the chosen set, which serves the demand, and keeps it if it is less than the best so far. The exact search
    /// offers sets in ascending order of their ids, so the first of equals stays.
    fn offer(&mut self, sums: &Sums) {
        let own = self.groups.iter().filter(|group| self.member[group.position()]).map(|group| group.free());
        let (l3_caches, l3_left) = caches_needed(own, self.demand.cores);
        let rank = Rank {
            numa_nodes: self.chosen.len() as u32,
            distance: sums.distance,
            l3_caches,
            numa_left: sums.cores - self.demand.cores,
            l3_left,
        };
        let mut own_tie = None;
        if let Some(best) = &mut self.best {
            if rank > best.rank {
                return;
            }
            if rank == best.rank {
                let held = *best.tie.get_or_insert_with(|| (self.tie)(&best.nodes, &rank));
                // Nothing is less than 0: no need to ask.
                if held == 0 {
                    return;
                }
                let tie = (self.tie)(&self.chosen, &rank);
                if tie >= held {
                    return;
                }
                own_tie = Some(tie);
            }
        }
        self.best = Some(Found { rank, tie: own_tie, nodes: self.chosen.clone() });
    }
}

/// How many of the largest amounts reach `wanted`; all of them if they do not.
fn fewest(amounts: impl ExactSizeIterator<Item = u64> + Clone, wanted: u64) -> usize {
    if amounts.clone().max().unwrap_or(0) >= wanted {
        return 1;
    }
    let mut sorted: SmallVec<[u64; 16]> = amounts.collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0u64;
    let reached = sorted.iter().position(|&amount| {
        sum = sum.saturating_add(amount);
        sum >= wanted
    });
    reached.map_or(sorted.len(), |position| position + 1)
}

/// n over k, saturating.
fn subsets(n: u64, k: u64) -> u64 {
    let k = k.min(n - k);
    (0..k).fold(1u64, |value, step| value.saturating_mul(n - step) / (step + 1))
}

#[cfg(test)]
mod tests;
