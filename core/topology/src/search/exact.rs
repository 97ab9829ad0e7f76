//! Every set of NUMA nodes of one size, but for those that cannot be the least.

use smallvec::SmallVec;

use super::{GROUPS_PER_STEP, MAX_SEARCH_STEPS, NodeSet, Search, Sums};
use crate::Machine;
use crate::demand::{Demand, Span, Supply};
use crate::fill::{Fill, fill};
use crate::pool::{GroupFree, NumaFree};
use crate::rank::{Left, Rank};
use crate::tally::Tally;

/// What stays the same while all sets of one size are walked through.
pub(super) struct Walk {
    size: usize,
    /// No set takes less.
    best: Fill,
    /// For each position the largest gift from there on.
    most: SmallVec<[u32; 16]>,
    /// For each position the nearest earlier one that is its equal in all respects, or [`NO_TWIN`]; empty if unknown.
    twins: NodeSet,
}

const NO_TWIN: u16 = u16::MAX;

/// Up to so many nodes it is quicker to try all sets (ten at most) than to look for twins.
const FEW_NODES: usize = 5;

impl Walk {
    pub(super) fn new<T>(search: &Search<'_, T>) -> Self {
        let (demand, pool) = (search.demand, search.supply.pool);
        let best = if pool.kinds().is_empty() {
            best(search.groups.iter().map(|group| (group.group(), 1)), demand)
        } else {
            let all = pool.nodes().iter().fold(Tally::default(), |sum, node| sum + node.tally);
            best(pool.kinds().counts(all), demand)
        };
        let mut most: SmallVec<[u32; 16]> =
            pool.nodes().iter().map(|node| demand.gift(node.free, node.most_in_l3)).collect();
        for position in (1..most.len()).rev() {
            most[position - 1] = most[position - 1].max(most[position]);
        }
        let many = pool.nodes().len() > FEW_NODES;
        let twins = if many { twins(search.machine, search.supply, demand) } else { NodeSet::new() };
        Self { size: 0, best, most, twins }
    }

    /// The same for sets of another size.
    pub(super) fn of(&mut self, size: usize) -> &Self {
        self.size = size;
        self
    }
}

/// What it would take, of all that these groups of the whole machine allow, at best.
fn best(groups: impl Iterator<Item = (GroupFree, u32)>, demand: &Demand<'_>) -> Fill {
    match demand.span {
        // No set has a better appeal, and none of the same has fewer caches.
        Span::Together => fill(groups, demand.units, true),
        Span::OneL3 => Fill { caches: 1, ..Fill::default() },
        Span::Nodes(_) => Fill { caches: fewest_caches(groups, demand.units), ..Fill::default() },
    }
}

/// Whatever their appeal.
fn fewest_caches(groups: impl Iterator<Item = (GroupFree, u32)>, units: u32) -> u32 {
    let mut largest: SmallVec<[(u32, u32); 32]> = groups.map(|(group, count)| (u32::from(group.free), count)).collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let mut missing = units;
    let mut fewest = 0;
    for (free, count) in largest {
        let touched = missing.div_ceil(free).min(count);
        missing = missing.saturating_sub(free * touched);
        fewest += touched;
    }
    fewest
}

/// The nearest earlier node that has the same free and the same distances. A set with a node but not its earlier twin
/// ranks as the set with the two exchanged, and has higher ids: it need not be tried.
fn twins(machine: &Machine, supply: &Supply<'_>, demand: &Demand<'_>) -> NodeSet {
    let nodes = supply.pool.nodes();
    let tallied = !supply.pool.kinds().is_empty();
    let pages = |position: usize, size: u64| supply.rest.pages(size, position as u16);
    let alike = |own: usize, other: usize| {
        let (a, b) = (&nodes[own], &nodes[other]);
        let class = |node: &NumaFree| machine.distance_class(usize::from(node.index));
        (a.free, a.memory_bytes, class(a)) == (b.free, b.memory_bytes, class(b))
            && a.tally == b.tally
            && (tallied || supply.pool.groups_of(own) == supply.pool.groups_of(other))
            && demand.huge_pages.iter().all(|need| pages(own, need.page_bytes) == pages(other, need.page_bytes))
    };
    (0..nodes.len())
        .map(|own| (0..own).rev().find(|&other| alike(own, other)).map_or(NO_TWIN, |other| other as u16))
        .collect()
}

impl<T: FnMut(&[u16], &Rank) -> u32> Search<'_, T> {
    /// Offers every set that continues the chosen one with positions from `from` on and may be the least.
    pub(super) fn every(&mut self, walk: &Walk, from: usize, sums: Sums) {
        let missing = walk.size - self.chosen.len();
        for position in from..=self.nodes().len() - missing {
            if self.steps >= MAX_SEARCH_STEPS {
                return;
            }
            self.steps += 1;
            if sums.gifts + walk.most[position] * (missing as u32) < self.demand.gifts_wanted() {
                return;
            }
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
            } else if self.serves(&next, Some(position as u16)) {
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
        let groups = self.group_count;
        let Some(best) = &self.best else {
            self.steps += groups / GROUPS_PER_STEP;
            return true;
        };
        let Fill { far, disliked, unliked, caches, .. } = walk.best;
        let left = Left::new(sums.free - self.demand.units, self.demand.tight());
        let bound = (sums.distance, far, disliked, unliked, caches, left);
        let held = &best.rank;
        let held = (held.distance, held.far, held.disliked, held.unliked, held.l3_caches, held.numa_left);
        if bound > held {
            return false;
        }
        self.steps += groups / GROUPS_PER_STEP;
        // With one cache the rank goes on; with several only a tie above 0 can still be undercut.
        bound < held || best.rank.l3_caches == 1 || best.tie != Some(0)
    }
}
