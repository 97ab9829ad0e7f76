//! A small part of a large machine: the few words of its mask that are not zero.

use smallvec::SmallVec;

use crate::CpuMask;

/// CPU ids, 64 a word. The threads of a core or of an L3 lie in one or two words wherever else the machine's CPUs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SparseMask {
    /// Position and bits of each word that is not zero, ascending.
    words: SmallVec<[(u32, u64); 2]>,
}

impl SparseMask {
    pub(crate) fn of(mask: &CpuMask) -> Self {
        let words = (0u32..).zip(mask.words()).filter(|(_, bits)| **bits != 0);
        Self { words: words.map(|(word, bits)| (word, *bits)).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(crate) fn len(&self) -> u32 {
        self.words.iter().map(|(_, bits)| bits.count_ones()).sum()
    }

    /// How many are among the words of a mask.
    pub(crate) fn len_in(&self, mask: &[u64]) -> u32 {
        self.words.iter().map(|&(word, bits)| (bits & word_of(mask, word)).count_ones()).sum()
    }

    pub(crate) fn intersects(&self, mask: &[u64]) -> bool {
        self.words.iter().any(|&(word, bits)| bits & word_of(mask, word) != 0)
    }

    /// Those among the words of a mask.
    pub(crate) fn within(&self, mask: &[u64]) -> Self {
        let kept = self.words.iter().map(|&(word, bits)| (word, bits & word_of(mask, word)));
        Self { words: kept.filter(|(_, bits)| *bits != 0).collect() }
    }

    /// Those not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let kept = self.words.iter().map(|&(word, bits)| (word, bits & !other.word(word)));
        Self { words: kept.filter(|(_, bits)| *bits != 0).collect() }
    }

    /// Those in both.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let kept = self.words.iter().map(|&(word, bits)| (word, bits & other.word(word)));
        Self { words: kept.filter(|(_, bits)| *bits != 0).collect() }
    }

    /// Those in either.
    pub(crate) fn or(&self, other: &Self) -> Self {
        let mut words: SmallVec<[(u32, u64); 2]> =
            self.words.iter().map(|&(word, bits)| (word, bits | other.word(word))).collect();
        words.extend(other.words.iter().copied().filter(|(word, _)| self.word(*word) == 0));
        words.sort_unstable_by_key(|(word, _)| *word);
        Self { words }
    }

    /// The lowest `count`; all if there are fewer.
    pub(crate) fn lowest(&self, count: u32) -> Self {
        let mut missing = count;
        let mut words = SmallVec::new();
        for &(word, bits) in &self.words {
            if missing == 0 {
                break;
            }
            let kept = lowest_bits(bits, missing);
            missing -= kept.count_ones();
            words.push((word, kept));
        }
        Self { words }
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.words.last().map(|(word, bits)| word * u64::BITS + bits.ilog2())
    }

    pub(crate) fn add_to(&self, mask: &mut CpuMask) {
        for &(word, bits) in self.words.iter().rev() {
            mask.insert_word(word as usize, bits);
        }
    }

    fn word(&self, word: u32) -> u64 {
        self.words.iter().find(|(own, _)| *own == word).map_or(0, |(_, bits)| *bits)
    }
}

fn word_of(mask: &[u64], word: u32) -> u64 {
    mask.get(word as usize).copied().unwrap_or(0)
}

/// The lowest `count` bits that are set; all if there are fewer.
fn lowest_bits(bits: u64, count: u32) -> u64 {
    if bits.count_ones() <= count {
        return bits;
    }
    let above = (0..count).fold(bits, |left, _| left & (left - 1));
    bits & !above
}

#[cfg(test)]
mod tests {
    use super::SparseMask;
    use crate::CpuMask;
    use proptest::prelude::*;

    fn masks() -> impl Strategy<Value = CpuMask> {
        prop::collection::vec(0u32..300, 0..40).prop_map(CpuMask::from_ids)
    }

    fn whole(sparse: &SparseMask) -> CpuMask {
        let mut mask = CpuMask::new();
        sparse.add_to(&mut mask);
        mask
    }

    proptest! {
        #[test]
        fn it_is_the_mask_it_was_made_of(a in masks(), b in masks(), count in 0u32..50) {
            let (own, other) = (SparseMask::of(&a), SparseMask::of(&b));
            prop_assert_eq!(whole(&own), a.clone());
            prop_assert_eq!((own.len(), own.last(), own.is_empty()), (a.len(), a.last(), a.is_empty()));
            prop_assert_eq!(own.len_in(b.words()), a.intersect(&b).len());
            prop_assert_eq!(own.intersects(b.words()), a.intersects(&b));
            prop_assert_eq!(whole(&own.within(b.words())), a.intersect(&b));
            prop_assert_eq!(whole(&own.without(&other)), a.subtract(&b));
            prop_assert_eq!(own.or(&other), SparseMask::of(&a.union(&b)));
            prop_assert_eq!(whole(&own.common(&other)), a.intersect(&b));
            prop_assert_eq!(whole(&own.lowest(count)), a.iter().take(count as usize).collect::<CpuMask>());
        }
    }
}
