//! One NUMA node, or two: what nearly all pods come to, so it keeps to a few numbers.

use std::cmp::Ordering;

use super::{Found, NodeSet, between, filled, has_pages, rank_of};
use crate::Machine;
use crate::demand::{Demand, Supply};
use crate::fill::fill;
use crate::rank::Rank;
use crate::tally::Tally;

/// The least of the single nodes that serve.
pub(super) fn single(
    supply: &Supply<'_>,
    demand: &Demand<'_>,
    tie: &mut impl FnMut(&[u16], &Rank) -> u32,
) -> Option<(Rank, u16)> {
    let (nodes, counted) = (supply.pool.nodes(), !supply.pool.kinds().is_empty());
    let mut best: Option<(Rank, u16)> = None;
    let mut held_tie = None;
    for (position, node) in (0u16..).zip(nodes) {
        if u32::from(node.free) < demand.units
            || node.memory_bytes < demand.memory_bytes
            || !has_pages(supply, demand, &[position])
        {
            continue;
        }
        let groups = supply.pool.groups_of(usize::from(position)).iter().take_while(|group| group.free > 0);
        let Some(fill) = filled(groups.map(|&group| (group, 1)), demand) else {
            continue;
        };
        let rank = rank_of(1, 0, &fill, u32::from(node.free), demand);
        let mut own_tie = None;
        if let Some((held, other)) = best {
            match rank.cmp(&held) {
                Ordering::Less => {}
                Ordering::Greater => continue,
                // Of twins the first stays, and of those with one cache.
                Ordering::Equal if rank.l3_caches == 1 => continue,
                Ordering::Equal if counted && node.tally == nodes[usize::from(other)].tally => continue,
                Ordering::Equal => {
                    let least = *held_tie.get_or_insert_with(|| tie(&[other], &rank));
                    let own = tie(&[position], &rank);
                    if own >= least {
                        continue;
                    }
                    own_tie = Some(own);
                }
            }
        }
        (best, held_tie) = (Some((rank, position)), own_tie);
    }
    best
}

/// The least of the pairs that serve: the same as all sets of two, in the same order.
pub(super) fn pair(
    machine: &Machine,
    supply: &Supply<'_>,
    demand: &Demand<'_>,
    tie: &mut impl FnMut(&[u16], &Rank) -> u32,
) -> Option<Found> {
    let (nodes, kinds) = (supply.pool.nodes(), supply.pool.kinds());
    let mut best: Option<(Rank, [u16; 2], Tally)> = None;
    let mut held_tie = None;
    for (a, one) in (0u16..).zip(nodes) {
        for (b, other) in (a + 1..).zip(&nodes[usize::from(a) + 1..]) {
            let free = u32::from(one.free) + u32::from(other.free);
            if free < demand.units
                || one.memory_bytes.saturating_add(other.memory_bytes) < demand.memory_bytes
                || !has_pages(supply, demand, &[a, b])
            {
                continue;
            }
            let distance = between(machine, supply, one, other);
            if best.is_some_and(|(held, ..)| distance > held.distance) {
                continue;
            }
            let tally = one.tally + other.tally;
            let fill = fill(kinds.counts(tally), demand.units, demand.tight());
            let rank = rank_of(2, distance, &fill, free, demand);
            let order = best.map(|(held, ..)| rank.cmp(&held));
            held_tie = match (best, order) {
                (_, Some(Ordering::Greater)) => continue,
                (Some((_, set, of_held)), Some(Ordering::Equal)) => {
                    if tally == of_held {
                        continue;
                    }
                    let least = *held_tie.get_or_insert_with(|| tie(&set, &rank));
                    // Nothing is less than 0: no need to ask.
                    let own = if least == 0 { 0 } else { tie(&[a, b], &rank) };
                    if own >= least {
                        continue;
                    }
                    Some(own)
                }
                _ => None,
            };
            best = Some((rank, [a, b], tally));
        }
    }
    best.map(|(rank, set, tally)| Found { rank, tie: held_tie, tally, nodes: NodeSet::from_slice(&set) })
}
