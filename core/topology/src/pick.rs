//! Which cache groups serve a demand: the most wanted first, then the fewest, then the tightest or emptiest, the lowest of
//! equals.

use crate::caches::{Positions, tightest, tightest_sum};
use crate::pool::{Appeal, GroupFree};

/// Positions in the list that was picked from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pick {
    /// These give everything they have.
    pub(crate) whole: Positions,
    /// These together give `units`, each at least one: with fewer of them the demand could not be met.
    pub(crate) part: Positions,
    pub(crate) units: u32,
}

/// The last kind of cache group that is needed, of which there is a choice.
struct Last {
    appeal: Appeal,
    /// Where its groups are, and what they have free.
    own: Positions,
    counts: Positions,
    /// What they give.
    units: u32,
    /// So many of them are needed.
    fewest: usize,
}

impl Last {
    /// None if the cache groups do not have so many units; `units` is not 0.
    fn of(groups: &[GroupFree], units: u32) -> Option<Self> {
        let mut missing = units;
        let mut next = groups.iter().filter(|group| group.free > 0).map(|group| group.appeal).min();
        while let Some(appeal) = next {
            let of_kind = |group: &GroupFree| group.appeal == appeal && group.free > 0;
            let all: u32 = groups.iter().filter(|group| of_kind(group)).map(|group| u32::from(group.free)).sum();
            if all >= missing {
                let own: Positions = (0..groups.len() as u16).filter(|&p| of_kind(&groups[usize::from(p)])).collect();
                let counts: Positions = own.iter().map(|&p| groups[usize::from(p)].free).collect();
                let fewest = fewest(&counts, missing);
                return Some(Self { appeal, own, counts, units: missing, fewest });
            }
            missing -= all;
            let further = groups.iter().filter(|group| group.free > 0 && group.appeal > appeal);
            next = further.map(|group| group.appeal).min();
        }
        None
    }

    /// Of `own`, the emptiest.
    fn emptiest(&self) -> Positions {
        let key = |index: u16| u32::from(u16::MAX - self.counts[usize::from(index)]) << 16 | u32::from(index);
        let mut largest: Positions = (0..self.own.len() as u16).collect();
        largest.sort_unstable_by_key(|&index| key(index));
        largest.truncate(self.fewest);
        largest.sort_unstable();
        largest
    }
}

/// How many of the largest reach so much.
fn fewest(counts: &[u16], units: u32) -> usize {
    let mut largest = Positions::from_slice(counts);
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let mut missing = units;
    let needed = largest.iter().take_while(|&&free| {
        let needed = missing > 0;
        missing = missing.saturating_sub(u32::from(free));
        needed
    });
    needed.count()
}

/// None if the cache groups do not have so many units.
pub(crate) fn pick(groups: &[GroupFree], units: u32, tight: bool) -> Option<Pick> {
    if units == 0 {
        return Some(Pick::default());
    }
    let last = Last::of(groups, units)?;
    let before = |&p: &u16| groups[usize::from(p)].free > 0 && groups[usize::from(p)].appeal < last.appeal;
    let chosen = if tight { tightest(&last.counts, last.fewest, last.units)? } else { last.emptiest() };
    Some(Pick {
        whole: (0..groups.len() as u16).filter(before).collect(),
        part: chosen.into_iter().map(|index| last.own[usize::from(index)]).collect(),
        units: last.units,
    })
}

/// What is free in the cache groups that [`pick`] would pick.
pub(crate) fn touched(groups: &[GroupFree], units: u32, tight: bool) -> u32 {
    let Some(last) = (units > 0).then(|| Last::of(groups, units)).flatten() else {
        return 0;
    };
    let chosen = if tight {
        tightest_sum(&last.counts, last.fewest, last.units)
    } else {
        let mut largest = last.counts;
        largest.sort_unstable_by(|a, b| b.cmp(a));
        Some(largest[..last.fewest].iter().map(|&free| u32::from(free)).sum())
    };
    // What comes before the last kind is taken whole.
    units - last.units + chosen.unwrap_or(0)
}

/// The one cache group for all of it.
pub(crate) fn pick_one(groups: &[GroupFree], units: u32, tight: bool) -> Option<Pick> {
    let holding = (0..groups.len() as u16).filter(|&position| u32::from(groups[usize::from(position)].free) >= units);
    let key = |position: &u16| {
        let group = groups[usize::from(*position)];
        (group.appeal, if tight { group.free } else { u16::MAX - group.free }, *position)
    };
    Some(Pick { whole: Positions::new(), part: Positions::from_elem(holding.min_by_key(key)?, 1), units })
}
