//! Which caches to take when several are needed: so many, together as tight as possible, the lowest of equals.

use smallvec::SmallVec;

/// Positions in a list of cache groups, ascending.
pub(crate) type Positions = SmallVec<[u16; 32]>;

/// Words of the largest table that is worth its time: half a megabyte. A machine of sixteen L3 parts with 64 cores each
/// stays far below it.
const MAX_TABLE_WORDS: usize = 1 << 16;

/// Without heap up to so many words.
type Table = SmallVec<[u64; 256]>;

/// Of some cache groups that all have something free: how to take so many of them.
struct Task<'a> {
    counts: &'a [u16],
    /// How many to take, at least one and not all.
    count: usize,
    cores: u32,
    /// The counts, descending.
    descending: Positions,
    /// What the largest `count` have.
    most: u32,
    /// What is left out may sum up to this.
    slack: u32,
}

/// Positions of exactly `count` of the `counts`, none of which is 0, whose sum is the least that reaches `cores`; among
/// equals the set whose ascending list of positions is lowest. None if no such set exists. Where the table would be
/// larger than [`MAX_TABLE_WORDS`], the largest ones are taken, the last of them as tight as it can be.
///
/// A subset-sum over (position, how many, sum), one bit a sum: positions × count × sum ÷ 64 steps. To take few is to
/// leave many and the other way round, so of the two that is counted which makes the smaller table.
pub(crate) fn tightest(counts: &[u16], count: usize, cores: u32) -> Option<Positions> {
    let all = || (0..counts.len() as u16).collect();
    if count == 1 {
        let holding = (0u16..).zip(counts).filter(|&(_, &free)| u32::from(free) >= cores);
        let (position, _) = holding.min_by_key(|&(position, &free)| (free, position))?;
        return Some(SmallVec::from_elem(position, 1));
    }
    let task = Task::new(counts, count, cores)?;
    if task.is_plain() {
        // All are taken, or any are alike.
        let mut positions: Positions = all();
        positions.truncate(count);
        return Some(positions);
    }
    let left = counts.len() - count;
    let (keep, leave) = (words(counts.len(), count, task.most), words(counts.len(), left, task.slack));
    if keep.min(leave) > MAX_TABLE_WORDS {
        Some(task.tightened())
    } else if keep < leave {
        Reach::new(counts, count, task.most).lowest_taken(cores)
    } else {
        Reach::new(counts, left, task.slack).lowest_but_left(task.slack)
    }
}

/// What those that [`tightest`] names have together.
pub(crate) fn tightest_sum(counts: &[u16], count: usize, cores: u32) -> Option<u32> {
    if count == 1 {
        return counts.iter().map(|&free| u32::from(free)).filter(|&free| free >= cores).min();
    }
    let task = Task::new(counts, count, cores)?;
    if task.is_plain() {
        return Some(task.most);
    }
    let (left, all) = (counts.len() - count, task.slack + cores);
    let (keep, leave) = (words(counts.len(), count, task.most), words(counts.len(), left, task.slack));
    if keep.min(leave) > MAX_TABLE_WORDS {
        return Some(task.tightened().iter().map(|&position| u32::from(counts[usize::from(position)])).sum());
    }
    if keep < leave {
        return Sums::new(counts, count, task.most).find(cores..=task.most);
    }
    Sums::new(counts, left, task.slack).find((0..=task.slack).rev()).map(|left_out| all - left_out)
}

impl<'a> Task<'a> {
    fn new(counts: &'a [u16], count: usize, cores: u32) -> Option<Self> {
        if count == 0 || count > counts.len() {
            return None;
        }
        let mut descending = Positions::from_slice(counts);
        descending.sort_unstable_by(|a, b| b.cmp(a));
        let sum = |counts: &[u16]| counts.iter().map(|&free| u32::from(free)).sum::<u32>();
        let most = sum(&descending[..count]);
        let slack = sum(counts).checked_sub(cores)?;
        (most >= cores).then_some(Self { counts, count, cores, descending, most, slack })
    }

    /// Whether no table is needed: all are taken, or they are all alike, as on an idle machine.
    fn is_plain(&self) -> bool {
        self.count == self.counts.len() || self.descending.first() == self.descending.last()
    }

    /// The `count` largest, the last of them exchanged for the least that still reaches `cores`.
    fn tightened(&self) -> Positions {
        let free = |position: u16| self.counts[usize::from(position)];
        let mut largest: Positions = (0..self.counts.len() as u16).collect();
        largest.sort_by_key(|&position| std::cmp::Reverse(free(position)));
        let (taken, rest) = largest.split_at(self.count - 1);
        let taken_sum: u32 = taken.iter().map(|&position| u32::from(free(position))).sum();
        let missing = self.cores.saturating_sub(taken_sum);
        let holding = rest.iter().filter(|&&position| u32::from(free(position)) >= missing);
        let last = holding.min_by_key(|&&position| (free(position), position));
        let mut chosen: Positions = taken.iter().chain(last).copied().collect();
        chosen.sort_unstable();
        chosen
    }
}

/// Size of the table for so many counts, of which `pick` sum up to `limit` at most.
fn words(counts: usize, pick: usize, limit: u32) -> usize {
    (counts + 1) * (pick + 1) * (limit as usize / 64 + 1)
}

/// Bit s of row k is set if k of the counts sum up to s; sums above a limit may be missing.
struct Sums {
    pick: usize,
    words: usize,
    bits: Table,
}

impl Sums {
    fn new(counts: &[u16], pick: usize, limit: u32) -> Self {
        let words = limit as usize / 64 + 1;
        let mut sums = Self { pick, words, bits: SmallVec::from_elem(0, (pick + 1) * words) };
        sums.bits[0] = 1;
        for (before, &free) in counts.iter().enumerate() {
            for picked in (1..=pick.min(before + 1)).rev() {
                let (less, own) = sums.bits.split_at_mut(picked * words);
                shift_into(&mut own[..words], &less[(picked - 1) * words..], free);
            }
        }
        sums
    }

    /// The first of these that `pick` of the counts sum up to.
    fn find(&self, mut sums: impl Iterator<Item = u32>) -> Option<u32> {
        let row = &self.bits[self.pick * self.words..];
        sums.find(|&sum| row.get(sum as usize / 64).is_some_and(|word| word >> (sum % 64) & 1 == 1))
    }
}

/// Bit s of row (i, k) is set if k of the counts from i on sum up to s; sums above a limit may be missing.
struct Reach<'a> {
    counts: &'a [u16],
    pick: usize,
    words: usize,
    bits: Table,
}

impl<'a> Reach<'a> {
    fn new(counts: &'a [u16], pick: usize, limit: u32) -> Self {
        let bits = SmallVec::from_elem(0, words(counts.len(), pick, limit));
        let mut table = Self { bits, counts, pick, words: limit as usize / 64 + 1 };
        let end = table.row(counts.len(), 0);
        table.bits[end] = 1;
        for index in (0..counts.len()).rev() {
            table.fill(index, pick.min(counts.len() - index));
        }
        table
    }

    fn row(&self, index: usize, picked: usize) -> usize {
        (index * (self.pick + 1) + picked) * self.words
    }

    /// Row = the row without this count, or the row with one fewer shifted up by it.
    fn fill(&mut self, index: usize, most: usize) {
        let split = self.row(index + 1, 0);
        let (own, next) = self.bits.split_at_mut(split);
        let own = &mut own[split - (self.pick + 1) * self.words..];
        let used = (most + 1) * self.words;
        own[..used].copy_from_slice(&next[..used]);
        for picked in 1..=most {
            let row = &mut own[picked * self.words..][..self.words];
            shift_into(row, &next[(picked - 1) * self.words..], self.counts[index]);
        }
    }

    fn reaches(&self, index: usize, picked: usize, sum: u32) -> bool {
        let (word, bit) = (sum as usize / 64, sum % 64);
        word < self.words && self.bits[self.row(index, picked) + word] >> bit & 1 == 1
    }

    /// Picked are those to take: together the least that reaches `cores`.
    fn lowest_taken(&self, cores: u32) -> Option<Positions> {
        let mut sum = (cores..self.words as u32 * 64).find(|&sum| self.reaches(0, self.pick, sum))?;
        let mut missing = self.pick;
        let mut chosen = Positions::new();
        for (index, &free) in self.counts.iter().enumerate() {
            let free = u32::from(free);
            if missing > 0 && free <= sum && self.reaches(index + 1, missing - 1, sum - free) {
                chosen.push(index as u16);
                missing -= 1;
                sum -= free;
            }
        }
        Some(chosen)
    }

    /// Picked are those to leave: together the most up to `slack`.
    fn lowest_but_left(&self, slack: u32) -> Option<Positions> {
        let mut sum = (0..=slack).rev().find(|&sum| self.reaches(0, self.pick, sum))?;
        let mut missing = self.pick;
        let mut chosen = Positions::new();
        for (index, &free) in self.counts.iter().enumerate() {
            if self.reaches(index + 1, missing, sum) {
                chosen.push(index as u16);
            } else {
                missing -= 1;
                sum -= u32::from(free);
            }
        }
        Some(chosen)
    }
}

/// Adds to a row of sums those of another, each greater by `by`.
fn shift_into(row: &mut [u64], from: &[u64], by: u16) {
    let (skip, shift) = (usize::from(by) / 64, by % 64);
    for word in skip..row.len() {
        let mut shifted = from[word - skip] << shift;
        if shift > 0 && word > skip {
            shifted |= from[word - skip - 1] >> (64 - shift);
        }
        row[word] |= shifted;
    }
}

#[cfg(test)]
mod tests {
    use super::{tightest, tightest_sum};
    use proptest::prelude::*;

    /// All sets of positions, the slow way.
    fn brute(free: &[u16], count: usize, cores: u32) -> Option<(u32, Vec<u16>)> {
        (0u32..1 << free.len())
            .map(|bits| (0..free.len() as u16).filter(|position| bits >> position & 1 == 1).collect::<Vec<_>>())
            .filter(|set| set.len() == count && !set.is_empty())
            .map(|set| (set.iter().map(|&position| u32::from(free[usize::from(position)])).sum::<u32>(), set))
            .filter(|(sum, _)| *sum >= cores)
            .min()
    }

    fn both(free: &[u16], count: usize, cores: u32) -> Option<(u32, Vec<u16>)> {
        let sum = tightest_sum(free, count, cores);
        assert_eq!(sum.is_some(), tightest(free, count, cores).is_some());
        sum.zip(tightest(free, count, cores).map(|chosen| chosen.to_vec()))
    }

    proptest! {
        #[test]
        fn equals_all_subsets(free in prop::collection::vec(1u16..70, 1..9), count in 0usize..6, cores in 1u32..150) {
            prop_assert_eq!(both(&free, count, cores), brute(&free, count, cores));
        }

        /// Mostly full, as after the search: few are left out, with little to spare.
        #[test]
        fn equals_all_subsets_where_nearly_all_are_taken(
            free in prop::collection::vec(1u16..9, 4..11),
            left in 0usize..4,
            slack in 0u32..12,
        ) {
            let all: u32 = free.iter().map(|&free| u32::from(free)).sum();
            let (count, cores) = (free.len() - left, all.saturating_sub(slack).max(1));
            prop_assert_eq!(both(&free, count, cores), brute(&free, count, cores));
        }
    }

    /// A table for these would have 134 million words.
    #[test]
    fn beyond_the_bound_it_is_still_enough_and_no_more_than_asked() {
        let free: Vec<u16> = (0..2_048).map(|index| 1 + index * 7 % 8).collect();
        let count = 700;
        let most: u32 = 8 * 256 + 7 * 256 + 6 * 188;
        let sum = |chosen: &[u16]| chosen.iter().map(|&position| u32::from(free[usize::from(position)])).sum::<u32>();
        let (least, chosen) = both(&free, count, most - 3).unwrap();
        assert!(chosen.is_sorted_by(|a, b| a < b));
        assert_eq!((chosen.len(), sum(&chosen), least), (count, most - 3, most - 3));
        assert_eq!(both(&free, count, most + 1), None);
    }
}
