//! Every set of NUMA nodes of one size, but for those that cannot be the least.

use super::{GROUPS_PER_STEP, MAX_SEARCH_STEPS, NodeSet, Search, Sums, caches_needed};
use crate::Machine;
use crate::free::{FreeSummary, NumaFree};
use crate::rank::Rank;

/// What stays the same while all sets of one size are walked through.
pub(super) struct Walk {
    size: usize,
    /// No set needs fewer cache groups than the largest groups of the machine.
    fewest_caches: u32,
    /// For each position the nearest earlier one that is its equal in all respects, or [`NO_TWIN`]; empty if unknown.
    twins: NodeSet,
}

const NO_TWIN: u16 = u16::MAX;

/// Up to so many nodes it is quicker to try all sets (ten at most) than to look for twins.
const FEW_NODES: usize = 5;

impl Walk {
    pub(super) fn new<T>(search: &Search<'_, T>) -> Self {
        let largest = search.groups.iter().map(|group| group.free());
        let many = search.summary.nodes().len() > FEW_NODES;
        let twins = if many { twins(search.machine, search.summary) } else { NodeSet::new() };
        Self { size: 0, fewest_caches: caches_needed(largest, search.demand.cores).0, twins }
    }

    /// The same for sets of another size.
    pub(super) fn of(&mut self, size: usize) -> &Self {
        self.size = size;
        self
    }
}

/// The nearest earlier node that has the same free and the same distances. A set with a node but not its earlier twin
/// ranks as the set with the two exchanged, and has higher ids: it need not be tried.
fn twins(machine: &Machine, summary: &FreeSummary) -> NodeSet {
    let nodes = summary.nodes();
    let alike = |own: usize, other: usize| {
        let (a, b) = (&nodes[own], &nodes[other]);
        let class = |node: &NumaFree| machine.distance_class(usize::from(node.index));
        (a.free_cores, a.memory_bytes, class(a)) == (b.free_cores, b.memory_bytes, class(b))
            && summary.groups_of(own) == summary.groups_of(other)
    };
    (0..nodes.len())
        .map(|own| (0..own).rev().find(|&other| alike(own, other)).map_or(NO_TWIN, |other| other as u16))
        .collect()
}

impl<T: FnMut(&[u16], &Rank) -> u32> Search<'_, T> {
    /// Offers every set that continues the chosen one with positions from `from` on and may be the least.
    pub(super) fn every(&mut self, walk: &Walk, from: usize, sums: Sums) {
        let missing = walk.size - self.chosen.len();
        for position in from..=self.summary.nodes().len() - missing {
            if self.steps >= MAX_SEARCH_STEPS {
                return;
            }
            self.steps += 1;
            if walk.twins.get(position).is_some_and(|&twin| twin != NO_TWIN && !self.member[usize::from(twin)]) {
                continue;
            }
            let mut next = self.with(position as u16, &sums);
            if missing > 1 {
                next.distance += self.to_chosen(position as u16);
                if self.best.as_ref().is_none_or(|best| next.distance <= best.rank.distance) {
                    self.push(position as u16);
                    self.every(walk, position + 1, next);
                    self.pop();
                }
            } else if self.serves(&next) {
                next.distance += self.to_chosen(position as u16);
                if self.may_be_less(walk, &next) {
                    self.push(position as u16);
                    self.offer(&next);
                    self.pop();
                }
            }
        }
    }

    /// Whether a set with these sums could still be less than the best, were its caches as good as can be.
    fn may_be_less(&mut self, walk: &Walk, sums: &Sums) -> bool {
        let groups = self.groups.len() as u64;
        let Some(best) = &self.best else {
            self.steps += groups / GROUPS_PER_STEP;
            return true;
        };
        let bound = (sums.distance, walk.fewest_caches, sums.cores - self.demand.cores);
        let held = (best.rank.distance, best.rank.l3_caches, best.rank.numa_left);
        if bound > held {
            return false;
        }
        self.steps += groups / GROUPS_PER_STEP;
        // With one cache the rank goes on; with several only a tie above 0 can still be undercut.
        bound < held || best.rank.l3_caches == 1 || best.tie != Some(0)
    }
}
