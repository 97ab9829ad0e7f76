//! The one search that `evaluate` and `choose` share: the least rank over all sets of NUMA nodes.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::free::{Demand, FreeSummary};
use crate::{Machine, Rank};

/// How many sets of NUMA nodes of one size are tried before the search turns greedy: the number of halves of 16.
pub const MAX_NUMA_SETS: u64 = 12_870;

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
    let mut search = Search { machine, summary, demand, tie, best: None };
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
        let (l3_caches, l3_left) = caches_of_one(summary.groups_of(usize::from(position)), demand.cores);
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

/// [`caches_needed`] for one node: its groups, largest first.
fn caches_of_one(groups: &[u16], cores: u32) -> (u32, u32) {
    let mut held = 0;
    let mut count = 0;
    for &free in groups {
        let free = u32::from(free);
        if free >= cores {
            held = free;
            count = 1;
        } else if held >= cores {
            break;
        } else {
            held += free;
            count += 1;
        }
    }
    // With several caches the rest is told apart by the tie-breaker.
    (count, if count == 1 { held - cores } else { 0 })
}

struct Search<'a, T> {
    machine: &'a Machine,
    summary: &'a FreeSummary,
    demand: &'a Demand,
    tie: &'a mut T,
    best: Option<Found>,
}

/// Sums over a set that is being put together.
#[derive(Clone, Copy, Default)]
struct Sums {
    cores: u32,
    memory_bytes: u64,
    distance: u64,
}

/// What stays the same while all sets of one size are walked through.
struct Walk {
    size: usize,
    /// No set needs fewer cache groups than the largest groups of the machine.
    fewest_caches: u32,
    /// For each position the nearest earlier one that is its equal in all respects, or [`NO_TWIN`]; empty if unknown.
    twins: NodeSet,
}

const NO_TWIN: u16 = u16::MAX;

/// Up to so many sets it is quicker to try them than to look for reasons not to.
const FEW_SETS: u64 = 10;

impl<T: FnMut(&[u16], &Rank) -> u32> Search<'_, T> {
    /// Ranks a set that serves the demand, and keeps it if it is less than the best so far. Sets are offered in
    /// ascending order of their ids, so the first of equals stays.
    fn offer(&mut self, nodes: &[u16], sums: Sums) {
        let (l3_caches, l3_left) = caches_needed(self.summary, nodes, self.demand.cores);
        let rank = Rank {
            numa_nodes: nodes.len() as u32,
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
                let tie = (self.tie)(nodes, &rank);
                if tie >= held {
                    return;
                }
                own_tie = Some(tie);
            }
        }
        self.best = Some(Found { rank, tie: own_tie, nodes: NodeSet::from_slice(nodes) });
    }

    /// The fewest nodes, two at least, that serve together.
    fn several(&mut self) {
        let count = self.summary.nodes().len();
        let mut walk = Walk { size: 0, fewest_caches: 1, twins: NodeSet::new() };
        for size in 2..=count {
            let sets = subsets(count as u64, size as u64);
            if sets > FEW_SETS {
                if !self.could_serve(size) {
                    continue;
                }
                if walk.twins.is_empty() {
                    walk.twins = (0..count as u16).map(|position| self.twin(position)).collect();
                    let all: NodeSet = (0..count as u16).collect();
                    walk.fewest_caches = caches_needed(self.summary, &all, self.demand.cores).0;
                }
            }
            if sets > MAX_NUMA_SETS {
                for start in 0..count {
                    self.grow_from(start as u16);
                }
            } else {
                walk.size = size;
                self.every(&walk, 0, &mut NodeSet::new(), Sums::default());
            }
            if self.best.is_some() {
                return;
            }
        }
    }

    /// Whether the `size` largest nodes, cores and memory taken apart, reach the demand: a bound, not an answer.
    fn could_serve(&self, size: usize) -> bool {
        let nodes = self.summary.nodes();
        let mut cores: SmallVec<[u16; 16]> = nodes.iter().map(|node| node.free_cores).collect();
        let mut memory: SmallVec<[u64; 16]> = nodes.iter().map(|node| node.memory_bytes).collect();
        cores.sort_unstable_by_key(|&cores| Reverse(cores));
        memory.sort_unstable_by_key(|&bytes| Reverse(bytes));
        let cores: u32 = cores.iter().take(size).map(|&cores| u32::from(cores)).sum();
        let memory_bytes = memory.iter().take(size).fold(0, |sum: u64, &bytes| sum.saturating_add(bytes));
        cores >= self.demand.cores && memory_bytes >= self.demand.memory_bytes
    }

    /// The nearest earlier node that has the same free and the same distances. A set with a node but not its earlier
    /// twin ranks as the set with the two exchanged, and has higher ids: it need not be tried.
    fn twin(&self, position: u16) -> u16 {
        let nodes = self.summary.nodes();
        let own = &nodes[usize::from(position)];
        let groups = self.summary.groups_of(usize::from(position));
        let alike = |other: u16| {
            let node = &nodes[usize::from(other)];
            (node.free_cores, node.memory_bytes) == (own.free_cores, own.memory_bytes)
                && self.summary.groups_of(usize::from(other)) == groups
                && (0..nodes.len() as u16)
                    .filter(|third| *third != other && *third != position)
                    .all(|third| self.between(other, third) == self.between(position, third))
        };
        (0..position).rev().find(|&other| alike(other)).unwrap_or(NO_TWIN)
    }

    /// Offers every set that continues `chosen` with positions from `from` on and may be the least.
    fn every(&mut self, walk: &Walk, from: usize, chosen: &mut NodeSet, sums: Sums) {
        let missing = walk.size - chosen.len();
        let count = self.summary.nodes().len();
        for position in from..=count - missing {
            if walk.twins.get(position).is_some_and(|twin| *twin != NO_TWIN && !chosen.contains(twin)) {
                continue;
            }
            let next = self.with(chosen, position as u16, sums);
            if missing > 1 {
                if self.best.as_ref().is_none_or(|best| next.distance <= best.rank.distance) {
                    chosen.push(position as u16);
                    self.every(walk, position + 1, chosen, next);
                    chosen.pop();
                }
                continue;
            }
            let serves = next.cores >= self.demand.cores && next.memory_bytes >= self.demand.memory_bytes;
            if serves && self.may_be_less(walk, &next) {
                chosen.push(position as u16);
                self.offer(chosen, next);
                chosen.pop();
            }
        }
    }

    /// Whether a set with these sums could still be less than the best, were its caches as good as can be.
    fn may_be_less(&self, walk: &Walk, sums: &Sums) -> bool {
        self.best.as_ref().is_none_or(|best| {
            let left = sums.cores - self.demand.cores;
            let bound = (sums.distance, walk.fewest_caches, left);
            let held = (best.rank.distance, best.rank.l3_caches, best.rank.numa_left);
            // With one cache the rank goes on; with several only a tie above 0 can still be undercut.
            bound < held || bound == held && (best.rank.l3_caches == 1 || best.tie != Some(0))
        })
    }

    fn with(&self, chosen: &[u16], position: u16, sums: Sums) -> Sums {
        let node = &self.summary.nodes()[usize::from(position)];
        Sums {
            cores: sums.cores + u32::from(node.free_cores),
            memory_bytes: sums.memory_bytes.saturating_add(node.memory_bytes),
            distance: sums.distance + chosen.iter().map(|&other| self.between(other, position)).sum::<u64>(),
        }
    }

    fn between(&self, a: u16, b: u16) -> u64 {
        let nodes = self.summary.nodes();
        let (a, b) = (usize::from(nodes[usize::from(a)].index), usize::from(nodes[usize::from(b)].index));
        let one_way = |from, to| u64::from(self.machine.numa_distance(from, to).unwrap_or(0));
        one_way(a, b) + one_way(b, a)
    }

    /// Greedy: from `start`, always the node that gives most of what is missing (cores before memory), the nearest of
    /// equals, until the demand is served.
    fn grow_from(&mut self, start: u16) {
        let count = self.summary.nodes().len() as u16;
        let mut chosen = NodeSet::from_slice(&[start]);
        let mut sums = self.with(&[], start, Sums::default());
        while sums.cores < self.demand.cores || sums.memory_bytes < self.demand.memory_bytes {
            let cores_missing = self.demand.cores.saturating_sub(sums.cores);
            let memory_missing = self.demand.memory_bytes.saturating_sub(sums.memory_bytes);
            let gain = |position: u16| {
                let node = &self.summary.nodes()[usize::from(position)];
                (u32::from(node.free_cores).min(cores_missing), node.memory_bytes.min(memory_missing))
            };
            let next =
                (0..count).filter(|position| !chosen.contains(position) && gain(*position) != (0, 0)).min_by_key(
                    |&position| (Reverse(gain(position)), self.with(&chosen, position, sums).distance, position),
                );
            let Some(next) = next else {
                return;
            };
            sums = self.with(&chosen, next, sums);
            chosen.push(next);
        }
        chosen.sort_unstable();
        self.offer(&chosen, sums);
    }
}

/// Fewest cache groups of these NUMA nodes that hold so many cores, and what is left in it if it is one (0 if more).
/// The nodes have enough cores.
fn caches_needed(summary: &FreeSummary, nodes: &[u16], cores: u32) -> (u32, u32) {
    let mut tightest = u32::MAX;
    for &position in nodes {
        // Largest first, so the last one that holds them all is the tightest of this node.
        let groups = summary.groups_of(usize::from(position)).iter().map(|&free| u32::from(free));
        tightest = tightest.min(groups.take_while(|&free| free >= cores).last().unwrap_or(u32::MAX));
    }
    if tightest != u32::MAX {
        return (1, tightest - cores);
    }
    let (mut held, mut count) = (0, 0);
    // How many groups of each node are used up; always the largest next one of all.
    let mut used: NodeSet = nodes.iter().map(|_| 0).collect();
    while held < cores {
        let next = |index: usize| {
            let groups = summary.groups_of(usize::from(nodes[index]));
            groups.get(usize::from(used[index])).copied().unwrap_or(0)
        };
        let Some((largest, free)) = (0..nodes.len()).map(|index| (index, next(index))).max_by_key(|(_, free)| *free)
        else {
            break;
        };
        if free == 0 {
            break;
        }
        held += u32::from(free);
        used[largest] += 1;
        count += 1;
    }
    (count, 0)
}

/// n over k, saturating.
fn subsets(n: u64, k: u64) -> u64 {
    let k = k.min(n - k);
    (0..k).fold(1u64, |value, step| value.saturating_mul(n - step) / (step + 1))
}

#[cfg(test)]
mod tests {
    use super::subsets;

    #[test]
    fn the_bound_is_the_halves_of_sixteen() {
        assert_eq!(subsets(16, 8), super::MAX_NUMA_SETS);
        assert_eq!(subsets(4, 2), 6);
        assert_eq!(subsets(5, 5), 1);
        assert!(subsets(200, 100) > super::MAX_NUMA_SETS);
    }
}
