//! Moments and victims drawn from a seed that is printed first, so that a run can be told what another one drew.
#![allow(clippy::print_stderr, reason = "who reads a failed run looks for the seed there")]

/// A seeded stream of numbers.
pub struct Dice(u64);

impl Dice {
    /// Prints the seed: this one, or that of `FAIRLEAD_SEED`.
    #[must_use]
    pub fn new(default_seed: u64) -> Self {
        let seed = std::env::var("FAIRLEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default_seed);
        eprintln!("FAIRLEAD_SEED={seed}");
        Self(seed)
    }

    /// A number below `below`, which is not 0; splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
    /// generators, 2014).
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
