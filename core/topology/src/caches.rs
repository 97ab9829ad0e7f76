//! Which caches to take when several are needed: so many, together as tight as possible, the lowest of equals.

/// Positions (ascending) of exactly `count` of the `free` counts whose sum is the least that reaches `cores`; among
/// equals the set whose ascending list of positions is lowest. None if no such set exists.
///
/// A subset-sum over (position, how many, sum), one bit a sum: positions × count × sum ÷ 64 steps.
pub(crate) fn tightest(free: &[u32], count: usize, cores: u32) -> Option<Vec<usize>> {
    let filled: Vec<usize> = (0..free.len()).filter(|&position| free[position] > 0).collect();
    if count == 0 || count > filled.len() {
        return None;
    }
    if count == 1 {
        let best = filled.into_iter().filter(|&position| free[position] >= cores).min_by_key(|&p| (free[p], p))?;
        return Some(vec![best]);
    }
    let first = free[filled[0]];
    if filled.iter().all(|&position| free[position] == first) {
        // An idle machine: any `count` are alike.
        return (first * count as u32 >= cores).then(|| filled[..count].to_vec());
    }
    let table = Reach::new(filled.iter().map(|&position| free[position]).collect(), count);
    table.lowest(cores).map(|chosen| chosen.into_iter().map(|index| filled[index]).collect())
}

/// Bit s of row (i, k) is set if k of the counts from i on sum up to s.
struct Reach {
    free: Vec<u32>,
    count: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Reach {
    fn new(free: Vec<u32>, count: usize) -> Self {
        let mut largest = free.clone();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let most: u32 = largest.iter().take(count).sum();
        let words = most as usize / 64 + 1;
        let mut table = Self { bits: vec![0; (free.len() + 1) * (count + 1) * words], free, count, words };
        let end = table.row(table.free.len(), 0);
        table.bits[end] = 1;
        for index in (0..table.free.len()).rev() {
            let remaining = table.free.len() - index;
            for chosen in 0..=count.min(remaining) {
                table.fill(index, chosen);
            }
        }
        table
    }

    fn row(&self, index: usize, chosen: usize) -> usize {
        (index * (self.count + 1) + chosen) * self.words
    }

    /// Row = the row without this count, or the row with one fewer shifted up by it.
    fn fill(&mut self, index: usize, chosen: usize) {
        let (target, without) = (self.row(index, chosen), self.row(index + 1, chosen));
        for word in 0..self.words {
            self.bits[target + word] = self.bits[without + word];
        }
        if chosen == 0 {
            return;
        }
        let with = self.row(index + 1, chosen - 1);
        let (skip, shift) = (self.free[index] as usize / 64, self.free[index] % 64);
        for word in skip..self.words {
            let mut shifted = self.bits[with + word - skip] << shift;
            if shift > 0 && word > skip {
                shifted |= self.bits[with + word - skip - 1] >> (64 - shift);
            }
            self.bits[target + word] |= shifted;
        }
    }

    fn reaches(&self, index: usize, chosen: usize, sum: u32) -> bool {
        let (word, bit) = (sum as usize / 64, sum % 64);
        word < self.words && self.bits[self.row(index, chosen) + word] >> bit & 1 == 1
    }

    fn lowest(&self, cores: u32) -> Option<Vec<usize>> {
        let mut sum = (cores..self.words as u32 * 64).find(|&sum| self.reaches(0, self.count, sum))?;
        let mut missing = self.count;
        let mut chosen = Vec::with_capacity(self.count);
        for index in 0..self.free.len() {
            if missing > 0 && self.free[index] <= sum && self.reaches(index + 1, missing - 1, sum - self.free[index]) {
                chosen.push(index);
                missing -= 1;
                sum -= self.free[index];
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
    }
}
