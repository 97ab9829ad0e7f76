//! Which cache groups serve a demand: the most wanted first, then the fewest, then the tightest or emptiest, the lowest of
//! equals.

use std::cmp::Reverse;

use crate::caches::tightest;
use crate::pool::{Appeal, GroupFree};

/// Positions in the list that was picked from, each ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pick {
    /// These give everything they have.
    pub(crate) whole: Vec<usize>,
    /// These together give `units`, each at least one: with fewer of them the demand could not be met.
    pub(crate) part: Vec<usize>,
    pub(crate) units: u32,
}

impl Pick {
    /// What is free in the cache groups picked.
    pub(crate) fn touched(&self, groups: &[GroupFree]) -> u32 {
        self.whole.iter().chain(&self.part).map(|&position| u32::from(groups[position].free)).sum()
    }
}

/// None if the cache groups do not have so many units.
pub(crate) fn pick(groups: &[GroupFree], units: u32, tight: bool) -> Option<Pick> {
    let mut picked = Pick { units, ..Pick::default() };
    if units == 0 {
        return Some(picked);
    }
    let mut appeals: Vec<Appeal> = groups.iter().map(|group| group.appeal).collect();
    appeals.sort_unstable();
    appeals.dedup();
    for appeal in appeals {
        let own: Vec<usize> = (0..groups.len()).filter(|&p| groups[p].appeal == appeal && groups[p].free > 0).collect();
        let counts: Vec<u32> = own.iter().map(|&position| u32::from(groups[position].free)).collect();
        let all: u32 = counts.iter().sum();
        if all < picked.units {
            picked.whole.extend(own);
            picked.units -= all;
            continue;
        }
        let mut largest: Vec<usize> = (0..counts.len()).collect();
        largest.sort_by_key(|&index| (Reverse(counts[index]), index));
        let mut missing = picked.units;
        let is_needed = |index: &&usize| {
            let needed = missing > 0;
            missing = missing.saturating_sub(counts[**index]);
            needed
        };
        let fewest = largest.iter().take_while(is_needed).count();
        let chosen = if tight {
            tightest(&counts, fewest, picked.units)?
        } else {
            largest.truncate(fewest);
            largest.sort_unstable();
            largest
        };
        picked.part = chosen.into_iter().map(|index| own[index]).collect();
        picked.whole.sort_unstable();
        return Some(picked);
    }
    None
}

/// The one cache group for all of it.
pub(crate) fn pick_one(groups: &[GroupFree], units: u32, tight: bool) -> Option<Pick> {
    let holding = (0..groups.len()).filter(|&position| u32::from(groups[position].free) >= units);
    let key = |position: &usize| {
        let free = i32::from(groups[*position].free);
        (groups[*position].appeal, if tight { free } else { -free }, *position)
    };
    Some(Pick { whole: Vec::new(), part: vec![holding.min_by_key(key)?], units })
}
