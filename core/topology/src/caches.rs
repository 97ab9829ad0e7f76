//! Which caches to take when several are needed: so many, together as tight as possible, the lowest of equals.

use std::cmp::Reverse;

/// Words of the largest table that is worth its time: half a megabyte. A machine of sixteen L3 parts with 64 cores each
/// stays far below it.
const MAX_TABLE_WORDS: usize = 1 << 16;

/// Positions (ascending) of exactly `count` of the `free` counts whose sum is the least that reaches `cores`; among
/// equals the set whose ascending list of positions is lowest. None if no such set exists. Where the table would be
/// larger than [`MAX_TABLE_WORDS`], the largest ones are taken, the last of them as tight as it can be.
///
/// A subset-sum over (position, how many, sum), one bit a sum: positions × count × sum ÷ 64 steps. To take few is to
/// leave many and the other way round, so of the two that is counted which makes the smaller table.
pub(crate) fn tightest(free: &[u32], count: usize, cores: u32) -> Option<Vec<usize>> {
    let filled: Vec<usize> = (0..free.len()).filter(|&position| free[position] > 0).collect();
    if count == 0 || count > filled.len() {
        return None;
    }
    if count == 1 {
        let best = filled.into_iter().filter(|&position| free[position] >= cores).min_by_key(|&p| (free[p], p))?;
        return Some(vec![best]);
    }
    let counts: Vec<u32> = filled.iter().map(|&position| free[position]).collect();
    let mut largest: Vec<usize> = (0..counts.len()).collect();
    largest.sort_by_key(|&index| Reverse(counts[index]));
    let most: u32 = largest[..count].iter().map(|&index| counts[index]).sum();
    // What is left out may sum up to this.
    let slack = counts.iter().sum::<u32>().checked_sub(cores)?;
    if most < cores {
        return None;
    }
    let chosen: Vec<usize> = if counts.iter().all(|&free| free == counts[0]) {
        // An idle machine: any `count` are alike.
        (0..count).collect()
    } else {
        let left = counts.len() - count;
        let (keep, leave) = (words(counts.len(), count, most), words(counts.len(), left, slack));
        if keep.min(leave) > MAX_TABLE_WORDS {
            tightened(&counts, &largest, count, cores)
        } else if keep < leave {
            Reach::new(&counts, count, most).lowest_taken(cores)?
        } else {
            Reach::new(&counts, left, slack).lowest_but_left(slack)?
        }
    };
    Some(chosen.into_iter().map(|index| filled[index]).collect())
}

/// The `count` largest, the last of them exchanged for the least that still reaches `cores`.
fn tightened(counts: &[u32], largest: &[usize], count: usize, cores: u32) -> Vec<usize> {
    let (taken, rest) = largest.split_at(count - 1);
    let missing = cores.saturating_sub(taken.iter().map(|&index| counts[index]).sum());
    let last = rest.iter().filter(|&&index| counts[index] >= missing).min_by_key(|&&index| (counts[index], index));
    let mut chosen: Vec<usize> = taken.iter().chain(last).copied().collect();
    chosen.sort_unstable();
    chosen
}

/// Size of the table for so many counts, of which `pick` sum up to `limit` at most.
fn words(counts: usize, pick: usize, limit: u32) -> usize {
    (counts + 1) * (pick + 1) * (limit as usize / 64 + 1)
}

/// Bit s of row (i, k) is set if k of the counts from i on sum up to s; sums above a limit may be missing.
struct Reach<'a> {
    free: &'a [u32],
    pick: usize,
    words: usize,
    bits: Vec<u64>,
}

impl<'a> Reach<'a> {
    fn new(free: &'a [u32], pick: usize, limit: u32) -> Self {
        let bits = vec![0; words(free.len(), pick, limit)];
        let mut table = Self { bits, free, pick, words: limit as usize / 64 + 1 };
        let end = table.row(free.len(), 0);
        table.bits[end] = 1;
        for index in (0..free.len()).rev() {
            for picked in 0..=pick.min(free.len() - index) {
                table.fill(index, picked);
            }
        }
        table
    }

    fn row(&self, index: usize, picked: usize) -> usize {
        (index * (self.pick + 1) + picked) * self.words
    }

    /// Row = the row without this count, or the row with one fewer shifted up by it.
    fn fill(&mut self, index: usize, picked: usize) {
        let (target, without) = (self.row(index, picked), self.row(index + 1, picked));
        self.bits.copy_within(without..without + self.words, target);
        if picked == 0 {
            return;
        }
        let with = self.row(index + 1, picked - 1);
        let (skip, shift) = (self.free[index] as usize / 64, self.free[index] % 64);
        for word in skip..self.words {
            let mut shifted = self.bits[with + word - skip] << shift;
            if shift > 0 && word > skip {
                shifted |= self.bits[with + word - skip - 1] >> (64 - shift);
            }
            self.bits[target + word] |= shifted;
        }
    }

    fn reaches(&self, index: usize, picked: usize, sum: u32) -> bool {
        let (word, bit) = (sum as usize / 64, sum % 64);
        word < self.words && self.bits[self.row(index, picked) + word] >> bit & 1 == 1
    }

    /// Picked are those to take: together the least that reaches `cores`.
    fn lowest_taken(&self, cores: u32) -> Option<Vec<usize>> {
        let mut sum = (cores..self.words as u32 * 64).find(|&sum| self.reaches(0, self.pick, sum))?;
        let mut missing = self.pick;
        let mut chosen = Vec::with_capacity(self.pick);
        for (index, &free) in self.free.iter().enumerate() {
            if missing > 0 && free <= sum && self.reaches(index + 1, missing - 1, sum - free) {
                chosen.push(index);
                missing -= 1;
                sum -= free;
            }
        }
        Some(chosen)
    }

    /// Picked are those to leave: together the most up to `slack`.
    fn lowest_but_left(&self, slack: u32) -> Option<Vec<usize>> {
        let mut sum = (0..=slack).rev().find(|&sum| self.reaches(0, self.pick, sum))?;
        let mut missing = self.pick;
        let mut chosen = Vec::with_capacity(self.free.len() - self.pick);
        for (index, &free) in self.free.iter().enumerate() {
            if self.reaches(index + 1, missing, sum) {
                chosen.push(index);
            } else {
                missing -= 1;
                sum -= free;
            }
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::tightest;
    use proptest::prelude::*;

    /// All sets of positions, the slow way.
    fn brute(free: &[u32], count: usize, cores: u32) -> Option<Vec<usize>> {
        (0u32..1 << free.len())
            .map(|bits| (0..free.len()).filter(|position| bits >> position & 1 == 1).collect::<Vec<_>>())
            .filter(|set| set.len() == count && set.iter().all(|&position| free[position] > 0))
            .map(|set| (set.iter().map(|&position| free[position]).sum::<u32>(), set))
            .filter(|(sum, set)| *sum >= cores && !set.is_empty())
            .min()
            .map(|(_, set)| set)
    }

    proptest! {
        #[test]
        fn equals_all_subsets(free in prop::collection::vec(0u32..70, 1..9), count in 0usize..6, cores in 1u32..150) {
            prop_assert_eq!(tightest(&free, count, cores), brute(&free, count, cores));
        }

        /// Mostly full, as after the search: few are left out, with little to spare.
        #[test]
        fn equals_all_subsets_where_nearly_all_are_taken(
            free in prop::collection::vec(1u32..9, 4..11),
            left in 0usize..4,
            slack in 0u32..12,
        ) {
            let (count, cores) = (free.len() - left, free.iter().sum::<u32>().saturating_sub(slack).max(1));
            prop_assert_eq!(tightest(&free, count, cores), brute(&free, count, cores));
        }
    }

    /// A table for these would have 134 million words.
    #[test]
    fn beyond_the_bound_it_is_still_enough_and_no_more_than_asked() {
        let free: Vec<u32> = (0..2_048).map(|index| 1 + index * 7 % 8).collect();
        let count = 700;
        let most: u32 = 8 * 256 + 7 * 256 + 6 * 188;
        let sum = |chosen: Vec<usize>| chosen.iter().map(|&position| free[position]).sum::<u32>();
        let chosen = tightest(&free, count, most - 3).unwrap();
        assert!(chosen.is_sorted_by(|a, b| a < b));
        assert_eq!((chosen.len(), sum(chosen)), (count, most - 3));
        assert_eq!(tightest(&free, count, most + 1), None);
    }
}
