//! A set of CPU ids of any width, in one canonical form.

use smallvec::SmallVec;

const WORD_BITS: u32 = u64::BITS;

/// A set of logical CPU ids as the kernel numbers them; ids may be sparse.
///
/// 256 CPUs fit without an allocation. Equal sets are equal values (`Eq`, `Hash`, `Ord`): words beyond the highest
/// member are never kept. `Ord` is a total order for use as a key and has no other meaning.
///
/// The memory used grows with the highest id, so ids from outside go through [`CpuMask::parse_list`] or serde,
/// which bound them; [`CpuMask::insert`] takes what it is given.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuMask {
    words: SmallVec<[u64; 4]>,
}

fn split(id: u32) -> (usize, u64) {
    ((id / WORD_BITS) as usize, 1 << (id % WORD_BITS))
}

impl CpuMask {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of these ids; repeated ids count once.
    pub fn from_ids(ids: impl IntoIterator<Item = u32>) -> Self {
        let mut mask = Self::new();
        mask.extend(ids);
        mask
    }

    /// Adds `id`; true if it was not there.
    pub fn insert(&mut self, id: u32) -> bool {
        let (word, bit) = split(id);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let was = self.words[word] & bit;
        self.words[word] |= bit;
        was == 0
    }

    /// Adds every id of `first..=last` (none if `first` is above `last`).
    pub fn insert_range(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let ((low, from), (high, to)) = (split(first), split(last));
        if high >= self.words.len() {
            self.words.resize(high + 1, 0);
        }
        for index in low..=high {
            let above = if index == low { !(from - 1) } else { u64::MAX };
            let below = if index == high { to | (to - 1) } else { u64::MAX };
            self.words[index] |= above & below;
        }
    }

    /// Takes `id` out; true if it was there.
    pub fn remove(&mut self, id: u32) -> bool {
        let (word, bit) = split(id);
        let Some(bits) = self.words.get_mut(word) else {
            return false;
        };
        let was = *bits & bit;
        *bits &= !bit;
        self.trim();
        was != 0
    }

    /// Whether `id` is a member.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        let (word, bit) = split(id);
        self.word(word) & bit != 0
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no CPU is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The lowest member.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// The highest member.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        let top = self.words.last()?;
        let base = (self.words.len() as u32 - 1) * WORD_BITS;
        Some(base + (WORD_BITS - 1 - top.leading_zeros()))
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut mask = self.clone();
        mask.union_with(other);
        mask
    }

    /// What is in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut mask = self.clone();
        mask.intersect_with(other);
        mask
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut mask = self.clone();
        mask.subtract_with(other);
        mask
    }

    /// Adds every member of `other`.
    pub fn union_with(&mut self, other: &Self) {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Keeps only members of `other`.
    pub fn intersect_with(&mut self, other: &Self) {
        self.words.truncate(other.words.len());
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= theirs;
        }
        self.trim();
    }

    /// Takes every member of `other` out.
    pub fn subtract_with(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
        self.trim();
    }

    /// Whether every member is in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.words.len() <= other.words.len()
            && self.words.iter().zip(&other.words).all(|(mine, theirs)| mine & !theirs == 0)
    }

    /// Whether some CPU is in both.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(mine, theirs)| mine & theirs != 0)
    }

    /// How many CPUs are in both; `other` is given as words.
    pub(crate) fn len_in(&self, other: &[u64]) -> u32 {
        self.words.iter().zip(other).map(|(mine, theirs)| (mine & theirs).count_ones()).sum()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(&bits, word)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(word * WORD_BITS + bit)
            })
        })
    }

    /// The bits, 64 CPUs a word, CPU 0 in the lowest bit of the first; the last word is never zero.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set with these bits; words of zeros at the end are of no account.
    pub(crate) fn from_words(words: &[u64]) -> Self {
        let mut mask = Self { words: SmallVec::from_slice(words) };
        mask.trim();
        mask
    }

    /// Adds the members of one word, which is not zero.
    pub(crate) fn insert_word(&mut self, index: usize, bits: u64) {
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        self.words[index] |= bits;
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

impl Extend<u32> for CpuMask {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        for id in ids {
            self.insert(id);
        }
    }
}

impl FromIterator<u32> for CpuMask {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self::from_ids(ids)
    }
}
