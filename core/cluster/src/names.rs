//! Node names to dense indices, and back to JSON, laid out for thousands of look-ups in a row: one table, one text.
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// An entry of the table; the name decides, the tag only spares most comparisons.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    /// Dense index and one; 0: empty.
    index_and_one: u32,
}

/// Names by dense index.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    /// Open addressing, a power of two, at most half full.
    slots: Vec<Slot>,
    /// Every name as a JSON string, one after the other.
    quoted: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// Some name is written with escapes, so that its text here is not its name. No API server admits one.
    escapes: bool,
}

fn hash(name: &str) -> u64 {
    FixedState::default().hash_one(name)
}

/// The upper half of the hash; its lower bits find the slot.
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0)
}

impl NameIndex {
    pub(crate) fn of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let capacity = (names.len() * 2).next_power_of_two().max(2);
        let mut index = Self { slots: vec![Slot::default(); capacity], ..Self::default() };
        for (number, name) in (1u32..).zip(names) {
            let before = index.quoted.len();
            // Writing a str to a Vec cannot fail.
            drop(serde_json::to_writer(&mut index.quoted, name));
            index.escapes |= index.quoted.len() - before != name.len() + 2;
            index.ends.push(index.quoted.len());
            let hash = hash(name);
            let mut at = index.first_slot(hash);
            while index.slots.get(at).is_some_and(|slot| slot.index_and_one != 0) {
                at = (at + 1) & (capacity - 1);
            }
            if let Some(slot) = index.slots.get_mut(at) {
                *slot = Slot { tag: tag(hash), index_and_one: number };
            }
        }
        index
    }

    fn first_slot(&self, hash: u64) -> usize {
        usize::try_from(hash & (self.slots.len() as u64 - 1)).unwrap_or(0)
    }

    /// The dense index of a name; `None` also for one that is written with escapes.
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash(name);
        let (wanted, mut at) = (tag(hash), self.first_slot(hash));
        loop {
            let slot = self.slots.get(at)?;
            let index = slot.index_and_one.checked_sub(1)?;
            if slot.tag == wanted && self.is_named(index, name) {
                return Some(index);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn is_named(&self, index: u32, name: &str) -> bool {
        let quoted = self.quoted(index).unwrap_or_default();
        quoted.len() == name.len() + 2 && quoted.get(1..=name.len()) == Some(name.as_bytes())
    }

    /// The name as a JSON string.
    pub(crate) fn quoted(&self, index: u32) -> Option<&[u8]> {
        let at = usize::try_from(index).ok()?;
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.quoted.get(start..*self.ends.get(at)?)
    }

    pub(crate) fn has_escapes(&self) -> bool {
        self.escapes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        for count in [0usize, 1, 2, 3, 64, 1_000] {
            let names: Vec<String> = (0..count).map(|n| format!("node-{n}.example")).collect();
            let index = NameIndex::of(names.iter().map(String::as_str));
            for (at, name) in (0u32..).zip(&names) {
                assert_eq!(index.get(name), Some(at));
                assert_eq!(index.quoted(at).unwrap(), format!("\"{name}\"").as_bytes());
            }
            assert!(
                index.get("").is_none() && index.get("node-").is_none() && index.get("node-1000.example").is_none()
            );
        }
    }

    #[test]
    fn a_name_with_escapes_is_told() {
        let index = NameIndex::of(["a", "b\"c"].into_iter());
        assert!(index.has_escapes() && index.get("a") == Some(0));
        assert_eq!(index.quoted(1).unwrap(), br#""b\"c""#);
    }
}
