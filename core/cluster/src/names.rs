//! Node names to dense indices, laid out for thousands of look-ups in a row: one small table, one text.
//! Between two requests others have the caches, so what a look-up waits for is memory: a block of names is looked up
//! together, their waits side by side.
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// An entry of the table: dense index and one in the lower bits, 0 being empty, a part of the hash in the upper ones. The
/// name decides, the tag only spares most comparisons.
#[derive(Clone, Copy, Debug, Default)]
struct Slot(u32);

const INDEX_BITS: u32 = 20;
/// More names are not put into the table.
const NAMES_MAX: usize = (1 << INDEX_BITS) - 2;
/// Names that are looked up together.
const BLOCK: usize = 16;

impl Slot {
    fn new(hash: u64, index_and_one: u32) -> Self {
        Self(tag(hash) << INDEX_BITS | index_and_one)
    }

    fn index_and_one(self) -> u32 {
        self.0 & ((1 << INDEX_BITS) - 1)
    }

    fn has_tag_of(self, hash: u64) -> bool {
        self.0 >> INDEX_BITS == tag(hash)
    }
}

/// The upper 12 bits of the hash; its lower bits find the slot.
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> (u64::BITS - u32::BITS + INDEX_BITS)).unwrap_or(0)
}

/// Names by dense index.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    /// Open addressing, a power of two, at most half full.
    slots: Vec<Slot>,
    /// Every name as a JSON string, one after the other.
    quoted: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
    /// Not every name is in the table: some are written with escapes, so that the text here is not the name (no API server
    /// admits one), or there are too many.
    partial: bool,
}

fn hash(name: &str) -> u64 {
    FixedState::default().hash_one(name)
}

impl NameIndex {
    pub(crate) fn of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let capacity = (names.len().min(NAMES_MAX) * 2).next_power_of_two().max(2);
        let partial = names.len() > NAMES_MAX;
        let mut index = Self { slots: vec![Slot::default(); capacity], partial, ..Self::default() };
        for (number, name) in (1u32..).zip(names.take(NAMES_MAX)) {
            let before = index.quoted.len();
            // Writing a str to a Vec cannot fail.
            drop(serde_json::to_writer(&mut index.quoted, name));
            index.partial |= index.quoted.len() - before != name.len() + 2;
            index.ends.push(u32::try_from(index.quoted.len()).unwrap_or(u32::MAX));
            let hash = hash(name);
            let mut at = index.first_slot(hash);
            while index.slots.get(at).is_some_and(|slot| slot.index_and_one() != 0) {
                at = (at + 1) & (capacity - 1);
            }
            if let Some(slot) = index.slots.get_mut(at) {
                *slot = Slot::new(hash, number);
            }
        }
        index
    }

    fn first_slot(&self, hash: u64) -> usize {
        usize::try_from(hash & (self.slots.len() as u64 - 1)).unwrap_or(0)
    }

    /// The dense index of a name; `None` also for one that is not in the table ([`NameIndex::is_partial`]).
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash(name);
        self.find(name, hash, *self.slots.get(self.first_slot(hash))?)
    }

    /// The same for each of these names, in their order.
    pub(crate) fn get_all<'n>(&self, mut names: impl Iterator<Item = &'n str>, found: &mut Vec<Option<u32>>) {
        if self.slots.is_empty() {
            return found.extend(names.map(|_| None));
        }
        let mut block = [("", 0u64, Slot::default()); BLOCK];
        loop {
            let mut count = 0;
            for (place, name) in block.iter_mut().zip(names.by_ref()) {
                (place.0, place.1) = (name, hash(name));
                count += 1;
            }
            for (_, hash, slot) in block.iter_mut().take(count) {
                *slot = self.slots.get(self.first_slot(*hash)).copied().unwrap_or_default();
            }
            found.extend(block.iter().take(count).map(|&(name, hash, slot)| self.find(name, hash, slot)));
            if count < BLOCK {
                return;
            }
        }
    }

    /// From the first slot of a name on.
    fn find(&self, name: &str, hash: u64, first: Slot) -> Option<u32> {
        let (mut slot, mut at) = (first, self.first_slot(hash));
        loop {
            let index = slot.index_and_one().checked_sub(1)?;
            if slot.has_tag_of(hash) && self.is_named(index, name) {
                return Some(index);
            }
            at = (at + 1) & (self.slots.len() - 1);
            slot = *self.slots.get(at)?;
        }
    }

    fn is_named(&self, index: u32, name: &str) -> bool {
        let quoted = self.quoted(index).unwrap_or_default();
        quoted.len() == name.len() + 2 && quoted.get(1..=name.len()) == Some(name.as_bytes())
    }

    /// The name as a JSON string.
    fn quoted(&self, index: u32) -> Option<&[u8]> {
        let at = index as usize;
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.quoted.get(start as usize..*self.ends.get(at)? as usize)
    }

    /// Whether a name that is not found may be there all the same.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for count in [0usize, 1, 2, 3, 13, 29, 64, 1_000] {
            let names: Vec<String> = (0..count).map(|n| format!("node-{n}.example")).collect();
            let index = NameIndex::of(names.iter().map(String::as_str));
            for (at, name) in (0u32..).zip(&names) {
                assert_eq!(index.get(name), Some(at));
                assert_eq!(index.quoted(at).unwrap(), format!("\"{name}\"").as_bytes());
            }
            let strangers = ["", "node-", "node-1000.example"];
            let mut asked: Vec<&str> = names.iter().rev().map(String::as_str).collect();
            asked.splice(0..0, strangers);
            let (one_by_one, mut together) = (asked.iter().map(|name| index.get(name)), Vec::new());
            index.get_all(asked.iter().copied(), &mut together);
            assert_eq!(together, one_by_one.collect::<Vec<_>>());
            assert!(
                index.get("").is_none() && index.get("node-").is_none() && index.get("node-1000.example").is_none()
            );
        }
    }

    #[test]
    fn a_name_with_escapes_is_told() {
        let index = NameIndex::of(["a", "b\"c"].into_iter());
        assert!(index.is_partial() && index.get("a") == Some(0));
        assert_eq!(index.quoted(1).unwrap(), br#""b\"c""#);
    }
}
