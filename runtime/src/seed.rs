//! The only randomness of the project: a small generator that is given its seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
/// Good enough for jitter, far from good enough for keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole future follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..=limit`, evenly spread but for a bias below 2⁻³² for the small limits used here.
    pub fn up_to(&mut self, limit: u64) -> u64 {
        match limit.checked_add(1) {
            Some(span) => self.next_u64() % span,
            None => self.next_u64(),
        }
    }
}

/// A seed that differs in every process: for production, where replicas must not move in step.
#[must_use]
pub fn fresh() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A seed for one of several users of `seed`, told apart by `name`; the same pair gives the same seed in every process.
#[must_use]
pub fn derive(seed: u64, name: &str) -> u64 {
    // FNV-1a: stable across Rust releases, which the standard hasher does not promise.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    Random::new(seed ^ hash).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_sequence_of_seed_zero() {
        let mut random = Random::new(0);
        assert_eq!(random.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_stay_in_range() {
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| random.up_to(3) <= 3));
        assert_eq!(random.up_to(0), 0);
    }

    #[test]
    fn names_part_the_seeds() {
        assert_eq!(derive(1, "pods"), derive(1, "pods"));
        assert_ne!(derive(1, "pods"), derive(1, "nodes"));
        assert_ne!(derive(1, "pods"), derive(2, "pods"));
    }
}
