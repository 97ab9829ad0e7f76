//! The one search that `evaluate` and `choose` share: the least rank over all sets of NUMA nodes.

mod exact;
mod few;
mod greedy;

use smallvec::SmallVec;

use crate::demand::{Demand, Span, Supply};
use crate::fill::{Fill, evenly, fill, fill_one};
use crate::pool::{GroupFree, NumaFree};
use crate::rank::{Left, Rank};
use crate::tally::Tally;
use crate::{Align, Machine};
use exact::Walk;
use few::{pair, single};

/// How many sets of NUMA nodes of one size are tried before the search turns greedy: the number of halves of 16.
pub const MAX_NUMA_SETS: u64 = 12_870;

/// No number of these has more sets of one size than [`MAX_NUMA_SETS`].
pub(crate) const ALWAYS_EXACT_NODES: usize = 16;

/// Work of the exact search on one request before it turns greedy or ends with the best it has; one step is a NUMA node
/// looked at. All sizes of sets of 16 nodes with up to 64 cache groups stay below it.
pub const MAX_SEARCH_STEPS: u64 = 1 << 18;

/// A cache group looked at is so much less than a NUMA node.
const GROUPS_PER_STEP: u64 = 8;

/// Positions in `Pool::nodes`, ascending.
pub(crate) type NodeSet = SmallVec<[u16; 16]>;

/// The least choice: its rank and NUMA nodes.
pub(crate) struct Found {
    pub(crate) rank: Rank,
    /// The tie-breaker's answer for it, once asked.
    tie: Option<u32>,
    /// Of its nodes. Where cache groups are counted the tie-breaker answers the same for the same.
    tally: Tally,
    pub(crate) nodes: NodeSet,
}

/// Finds the least rank. Among equals `tie` decides (less is better), then the lowest NUMA ids. `tie` is asked only
/// where it matters; it must depend on nothing but the rank and what is free in the nodes of the set.
pub(crate) fn search(
    machine: &Machine,
    supply: &Supply<'_>,
    demand: &Demand<'_>,
    tie: &mut impl FnMut(&[u16], &Rank) -> u32,
) -> Option<Found> {
    if !matches!(demand.span, Span::Nodes(_))
        && let Some((rank, position)) = single(supply, demand, tie)
    {
        let tally = supply.pool.nodes()[usize::from(position)].tally;
        return Some(Found { rank, tie: None, tally, nodes: NodeSet::from_slice(&[position]) });
    }
    if demand.wish.align == Align::SingleNuma {
        return None;
    }
    let mut smallest = 2;
    if demand.span == Span::Together && supply.pool.may_be_paired(demand.units) {
        if let Some(found) = pair(machine, supply, demand, tie) {
            return Some(found);
        }
        smallest = 3;
    }
    let mut search = Search::new(machine, supply, demand, tie);
    search.several(smallest);
    search.best
}

/// The distance between two nodes, both ways.
fn between(machine: &Machine, supply: &Supply<'_>, a: &NumaFree, b: &NumaFree) -> u64 {
    match supply.rest.even_distance {
        Some(even) => u64::from(even),
        None => machine.both_ways(usize::from(a.index), usize::from(b.index)),
    }
}

/// What it takes to serve from these cache groups, counted by kind; none if one is asked for and none is large enough.
fn filled(groups: impl Iterator<Item = (GroupFree, u32)>, demand: &Demand<'_>) -> Option<Fill> {
    if demand.span == Span::OneL3 {
        return fill_one(groups.map(|(group, _)| group), demand.units, demand.tight());
    }
    Some(fill(groups, demand.units, demand.tight()))
}

fn rank_of(numa_nodes: u32, distance: u64, fill: &Fill, free: u32, demand: &Demand<'_>) -> Rank {
    Rank {
        numa_nodes,
        distance,
        far: fill.far,
        disliked: fill.disliked,
        unliked: fill.unliked,
        l3_caches: fill.caches,
        numa_left: Left::new(free - demand.units, demand.tight()),
        l3_left: Left::new(fill.left, demand.tight()),
    }
}

/// Whether these nodes have the huge pages.
fn has_pages(supply: &Supply<'_>, demand: &Demand<'_>, nodes: &[u16]) -> bool {
    demand.huge_pages.iter().all(|need| {
        let own = nodes.iter().map(|&position| supply.rest.pages(need.page_bytes, position));
        own.fold(0, u64::saturating_add) >= need.pages()
    })
}

struct Search<'a, T> {
    machine: &'a Machine,
    supply: &'a Supply<'a>,
    demand: &'a Demand<'a>,
    tie: &'a mut T,
    best: Option<Found>,
    /// Every cache group with free units, most wanted first, then largest; empty where the nodes' tallies tell as much.
    groups: SmallVec<[Group; 32]>,
    /// How many these are.
    group_count: u64,
    /// The set that is being put together.
    chosen: NodeSet,
    /// For each position whether it is in `chosen`.
    member: SmallVec<[bool; 16]>,
    /// Work done. It depends on machine, summary and demand only: were it for the tie-breaker's answers, `evaluate`
    /// and `choose` would not end at the same place.
    steps: u64,
}

/// A cache group and the position of its NUMA node; one number sorts faster than three.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group(u64);

impl Group {
    fn new(group: GroupFree, position: u16) -> Self {
        Self(u64::from(group.order()) << 16 | u64::from(u16::MAX - position))
    }

    fn position(self) -> usize {
        usize::from(u16::MAX - (self.0 & 0xffff) as u16)
    }

    fn group(self) -> GroupFree {
        GroupFree::of_order((self.0 >> 16) as u32)
    }
}

/// Sums over a set that is being put together.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// Free units.
    free: u32,
    /// Of [`Demand::gift`].
    gifts: u32,
    memory_bytes: u64,
    distance: u64,
    /// By [`crate::pool::Pool::kinds`].
    tally: Tally,
}

impl<'a, T: FnMut(&[u16], &Rank) -> u32> Search<'a, T> {
    fn new(machine: &'a Machine, supply: &'a Supply<'a>, demand: &'a Demand<'a>, tie: &'a mut T) -> Self {
        let pool = supply.pool;
        let count = pool.nodes().len();
        let mut groups: SmallVec<[Group; 32]> = SmallVec::new();
        if pool.kinds().is_empty() {
            for position in 0..count as u16 {
                let own = pool.groups_of(usize::from(position)).iter().take_while(|group| group.free > 0);
                groups.extend(own.map(|&group| Group::new(group, position)));
            }
            groups.sort_unstable();
        }
        let group_count = u64::from(pool.groups_with_units);
        let member = SmallVec::from_elem(false, count);
        Self { machine, supply, demand, tie, best: None, groups, group_count, chosen: NodeSet::new(), member, steps: 0 }
    }

    fn nodes(&self) -> &'a [NumaFree] {
        self.supply.pool.nodes()
    }

    /// The fewest nodes, so many at least, that serve together.
    fn several(&mut self, smallest: usize) {
        let count = self.nodes().len();
        let fewest = if count > smallest { self.fewest_nodes().max(smallest) } else { count.max(smallest) };
        if self.all_that_give() || fewest > count {
            return;
        }
        if fewest == count {
            return self.of_positions(0..count as u16);
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

    /// If a pod that is spread needs every node that can give it something: these, if they have its memory too.
    fn all_that_give(&mut self) -> bool {
        let giving = |search: &Self| -> NodeSet {
            (0u16..).zip(search.nodes()).filter(|(_, node)| node.free > 0).map(|(position, _)| position).collect()
        };
        if let Span::Nodes(count) = self.demand.span {
            let nodes = giving(self);
            if nodes.len() == count as usize {
                self.of_positions(nodes.into_iter());
            }
        }
        self.best.is_some()
    }

    /// These nodes together, if they serve.
    fn of_positions(&mut self, positions: impl Iterator<Item = u16>) {
        let mut sums = Sums::default();
        for position in positions {
            sums = self.with(position, &sums);
            sums.distance += self.to_chosen(position);
            self.push(position);
        }
        if self.serves(&sums, None) {
            self.offer(&sums);
        }
        while !self.chosen.is_empty() {
            self.pop();
        }
    }

    /// Sums with that node; its distances are left to be added.
    fn with(&self, position: u16, sums: &Sums) -> Sums {
        let node = &self.nodes()[usize::from(position)];
        Sums {
            free: sums.free + u32::from(node.free),
            gifts: sums.gifts + self.demand.gift(node.free, node.most_in_l3),
            memory_bytes: sums.memory_bytes.saturating_add(node.memory_bytes),
            distance: sums.distance,
            tally: sums.tally + node.tally,
        }
    }

    /// How many of the largest nodes, units, memory and huge pages taken apart, reach the demand: a bound, not an answer.
    fn fewest_nodes(&self) -> usize {
        let (nodes, demand) = (self.nodes(), self.demand);
        let units = match demand.span {
            Span::Together => self.supply.pool.fewest_nodes(demand.units),
            // A node gives once, or none does.
            Span::OneL3 if nodes.iter().all(|node| u32::from(node.most_in_l3) < demand.units) => nodes.len(),
            Span::OneL3 | Span::Nodes(_) => demand.gifts_wanted() as usize,
        };
        let memory = fewest(nodes.iter().map(|node| node.memory_bytes), demand.memory_bytes);
        let of_size = demand.huge_pages.iter().map(|need| {
            let pages = (0..nodes.len()).map(|position| self.supply.rest.pages(need.page_bytes, position as u16));
            fewest(pages, need.pages())
        });
        of_size.fold(units.max(memory), usize::max)
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

    /// Whether the chosen nodes, and `with` them, serve; the sums are theirs.
    fn serves(&self, sums: &Sums, with: Option<u16>) -> bool {
        let demand = self.demand;
        if sums.gifts < demand.gifts_wanted() || sums.memory_bytes < demand.memory_bytes {
            return false;
        }
        if demand.huge_pages.is_empty() {
            return true;
        }
        let nodes: NodeSet = self.chosen.iter().copied().chain(with).collect();
        has_pages(self.supply, demand, &nodes)
    }

    /// Both ways.
    fn between(&self, a: u16, b: u16) -> u64 {
        let nodes = self.nodes();
        between(self.machine, self.supply, &nodes[usize::from(a)], &nodes[usize::from(b)])
    }

    fn to_chosen(&self, position: u16) -> u64 {
        if let Some(even) = self.supply.rest.even_distance {
            return u64::from(even) * self.chosen.len() as u64;
        }
        self.chosen.iter().map(|&other| self.between(other, position)).sum()
    }

    /// What it takes to serve from the chosen set.
    fn filled(&self, sums: &Sums) -> Option<Fill> {
        let demand = self.demand;
        if let Span::Nodes(_) = demand.span {
            let (_, fill) = evenly(self.supply, &self.chosen, demand.units, demand.tight(), &mut |_, _| 0);
            return Some(fill);
        }
        let kinds = self.supply.pool.kinds();
        if !kinds.is_empty() {
            return filled(kinds.counts(sums.tally), demand);
        }
        let own = self.groups.iter().filter(|group| self.member[group.position()]);
        filled(own.map(|group| (group.group(), 1)), demand)
    }

    /// Ranks the chosen set, which serves the demand, and keeps it if it is less than the best so far. The exact search
    /// offers sets in ascending order of their ids, so the first of equals stays.
    fn offer(&mut self, sums: &Sums) {
        let Some(fill) = self.filled(sums) else { return };
        let rank = rank_of(self.chosen.len() as u32, sums.distance, &fill, sums.free, self.demand);
        let mut own_tie = None;
        let counted = self.demand.span == Span::Together && !self.supply.pool.kinds().is_empty();
        if let Some(best) = &mut self.best {
            if rank > best.rank {
                return;
            }
            if rank == best.rank {
                if counted && sums.tally == best.tally {
                    return;
                }
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
        self.best = Some(Found { rank, tie: own_tie, tally: sums.tally, nodes: self.chosen.clone() });
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
