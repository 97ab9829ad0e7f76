//! Sets of NUMA nodes by growth, for machines with too many nodes to try all sets.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::{NodeSet, Search, Sums};
use crate::rank::Rank;

/// So many times growth may look at a node, over all its starts; growth from a single start may look at each node once
/// for each node it takes. 40 nodes are all tried as starts, of 256 one.
pub(super) const MAX_GREEDY_LOOKS: usize = 1 << 16;

impl<T: FnMut(&[u16], &Rank) -> u32> Search<'_, T> {
    /// Grows a set from each of the nodes that give most.
    pub(super) fn greedy(&mut self) {
        let count = self.nodes().len();
        let mut starts: NodeSet = (0..count as u16).collect();
        starts.sort_by_key(|&position| Reverse(self.gain(position, &Sums::default())));
        starts.truncate((MAX_GREEDY_LOOKS / (count * count)).max(1));
        for start in starts {
            self.grow_from(start);
        }
    }

    /// From `start`, always the node that gives most of what is missing (units before memory before huge pages), the nearest of equals,
    /// then the lowest, until the demand is served.
    fn grow_from(&mut self, start: u16) {
        let count = self.nodes().len() as u16;
        let mut distances: SmallVec<[u64; 64]> = SmallVec::from_elem(0, usize::from(count));
        let mut sums = self.with(start, &Sums::default());
        self.push(start);
        let mut newest = start;
        while !self.serves(&sums, None) {
            self.steps += u64::from(count);
            let mut next = None;
            for position in (0..count).filter(|&position| !self.member[usize::from(position)]) {
                let distance = &mut distances[usize::from(position)];
                *distance += self.between(newest, position);
                let gain = self.gain(position, &sums);
                let key = (Reverse(gain), *distance, position);
                if gain != (0, 0, 0) && next.is_none_or(|held| key < held) {
                    next = Some(key);
                }
            }
            let Some((_, distance, position)) = next else {
                break;
            };
            sums = self.with(position, &sums);
            sums.distance += distance;
            self.push(position);
            newest = position;
        }
        if self.serves(&sums, None) {
            self.chosen.sort_unstable();
            self.steps += self.group_count;
            self.offer(&sums);
        }
        while !self.chosen.is_empty() {
            self.pop();
        }
    }

    /// What a node gives of the units, the memory and the huge pages still missing.
    fn gain(&self, position: u16, sums: &Sums) -> (u32, u64, u64) {
        let (node, demand) = (&self.nodes()[usize::from(position)], self.demand);
        let gifts_missing = demand.gifts_wanted().saturating_sub(sums.gifts);
        let memory_missing = demand.memory_bytes.saturating_sub(sums.memory_bytes);
        let pages = demand.huge_pages.iter().map(|need| {
            let held = self.chosen.iter().map(|&chosen| self.supply.rest.pages(need.page_bytes, chosen));
            let missing = need.pages().saturating_sub(held.fold(0, u64::saturating_add));
            self.supply.rest.pages(need.page_bytes, position).min(missing).saturating_mul(need.page_bytes)
        });
        let gift = demand.gift(node.free, node.most_in_l3).min(gifts_missing);
        (gift, node.memory_bytes.min(memory_missing), pages.fold(0, u64::saturating_add))
    }
}
