//! How many cache groups of each kind a set of NUMA nodes has: one number a node, and those of a set are added.

use std::ops::Add;

use smallvec::SmallVec;

use crate::pool::GroupFree;

/// Kinds that are told apart: one byte of a [`Tally`] each.
const MAX_KINDS: usize = 16;

/// Groups that are counted: what one byte holds.
const MAX_GROUPS: usize = 255;

/// The different cache groups with something free, most wanted first, then largest ([`GroupFree::order`]). None where
/// there are too many kinds or groups for a tally; an L3 of 16 units, all of them wanted alike, has 16 kinds at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kinds(SmallVec<[GroupFree; MAX_KINDS]>);

/// For each of the [`Kinds`] how many groups are of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally(u128);

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Kinds {
    pub(crate) fn of(groups: &[GroupFree]) -> Self {
        let mut kinds = SmallVec::new();
        if groups.len() > MAX_GROUPS {
            return Self(kinds);
        }
        for &group in groups {
            if group.free == 0 || kinds.contains(&group) {
                continue;
            }
            if kinds.len() == MAX_KINDS {
                return Self::default();
            }
            kinds.push(group);
        }
        kinds.sort_unstable_by_key(|kind| kind.order());
        Self(kinds)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing where there are no kinds.
    pub(crate) fn tally(&self, groups: &[GroupFree]) -> Tally {
        let kind_of = |group: &GroupFree| self.0.iter().position(|kind| kind == group);
        groups.iter().filter_map(kind_of).fold(Tally::default(), |sum, kind| sum + Tally(1 << (8 * kind)))
    }

    /// The kinds of which there are some, and how many.
    pub(crate) fn counts(&self, tally: Tally) -> impl Iterator<Item = (GroupFree, u32)> {
        let mut rest = tally.0;
        self.0
            .iter()
            .map_while(move |&kind| {
                let count = (rest != 0).then_some(rest as u32 & 0xff)?;
                rest >>= 8;
                Some((kind, count))
            })
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kinds, Tally};
    use crate::pool::GroupFree;

    fn group(free: u16) -> GroupFree {
        GroupFree { free, ..GroupFree::default() }
    }

    #[test]
    fn groups_are_counted_by_kind() {
        let groups = [3, 0, 8, 3, 3].map(group);
        let kinds = Kinds::of(&groups);
        let all = kinds.tally(&groups[..2]) + kinds.tally(&groups[2..]);
        assert_eq!(kinds.counts(all).collect::<Vec<_>>(), [(group(8), 1), (group(3), 3)]);
        assert_eq!(kinds.counts(kinds.tally(&groups[3..])).collect::<Vec<_>>(), [(group(3), 2)]);
        assert_eq!(kinds.counts(Tally::default()).count(), 0);
    }

    #[test]
    fn too_many_kinds_or_groups_are_not_counted() {
        let kinds = |count: u16| Kinds::of(&(1..=count).map(group).collect::<Vec<_>>());
        assert!(!kinds(16).is_empty());
        assert!(kinds(17).is_empty());
        assert!(!Kinds::of(&[group(1); 255]).is_empty());
        assert!(Kinds::of(&[group(1); 256]).is_empty());
        assert_eq!(Kinds::default().tally(&[group(1)]), Tally::default());
    }
}
