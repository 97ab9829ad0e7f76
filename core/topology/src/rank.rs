//! How good a choice is: the rank that orders choices on one machine, and the score that compares machines.

use crate::free::FreeSummary;

/// The measures by which choices are compared, in this order; less is better.
///
/// `evaluate` and `choose` find the same least rank, and the score is made of nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank {
    /// NUMA nodes that give cores or memory; at least 1.
    pub(crate) numa_nodes: u32,
    /// Sum of the distances between those nodes, both directions, SLIT units; 0 for one node.
    pub(crate) distance: u64,
    /// Cache groups touched; at least 1.
    pub(crate) l3_caches: u32,
    /// Free whole cores that remain in those NUMA nodes.
    pub(crate) numa_left: u32,
    /// Free whole cores that remain in the L3 if there is but one; 0 where several are touched (there the tie is
    /// broken by the sum over them, which only `choose` needs to know).
    pub(crate) l3_left: u32,
}

/// How well a request fits a node, 0 (worst) to 100 (best).
///
/// It falls into bands by the number of NUMA nodes needed: 64–100 for one, 40–63 for two, 28–39 for three, 20–27 for
/// four, and two points for each further count. Within a band of several nodes near ones come first (four steps of
/// mean distance: up to 12, 20, 32, above). The rest is the number of L3 caches touched, and within that tightness:
/// the fuller the NUMA nodes and the L3 are afterwards, the higher, since then larger holes stay whole elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score(pub u8);

/// Everything below is in parts of this; a common denominator keeps it in integers.
const WHOLE: u32 = 10_000;

impl Rank {
    /// The score of this rank; `numa_cores` are all regular cores of the NUMA nodes used, `largest_l3` those of the
    /// largest cache group of the machine.
    pub(crate) fn score_of(&self, numa_cores: u32, largest_l3: u32) -> Score {
        let fine = self.cache_part(self.tightness_part(numa_cores, largest_l3));
        let within = if self.numa_nodes <= 1 { fine } else { self.nearness() * (WHOLE / 4) + fine / 4 };
        let (base, span) = match self.numa_nodes {
            0 | 1 => (64, 36),
            2 => (40, 23),
            3 => (28, 11),
            4 => (20, 7),
            count @ 5..=13 => (28 - 2 * count, 1),
            _ => (0, 1),
        };
        Score(u8::try_from(base + within * span / WHOLE).unwrap_or(100))
    }

    /// 3 (near) to 0 (far), by the mean distance between the nodes.
    fn nearness(&self) -> u32 {
        let pairs = u64::from(self.numa_nodes) * u64::from(self.numa_nodes.saturating_sub(1));
        match self.distance {
            sum if sum <= 12 * pairs => 3,
            sum if sum <= 20 * pairs => 2,
            sum if sum <= 32 * pairs => 1,
            _ => 0,
        }
    }

    fn cache_part(&self, tightness: u32) -> u32 {
        let (base, span) = match self.l3_caches {
            0 | 1 => (6_000, 4_000),
            2 => (4_000, 1_999),
            3 => (3_000, 999),
            4 => (2_500, 499),
            count => (2_500u32.saturating_sub(count.saturating_sub(4).saturating_mul(100)), 99),
        };
        base + tightness * span / WHOLE
    }

    /// 0 (everything stays free) to 10,000 (nothing does).
    fn tightness_part(&self, numa_cores: u32, largest_l3: u32) -> u32 {
        let numa = filled(self.numa_left, numa_cores);
        if self.l3_caches > 1 { numa } else { u32::midpoint(numa, filled(self.l3_left, largest_l3)) }
    }
}

fn filled(left: u32, of: u32) -> u32 {
    let of = of.max(1);
    // Cores are below MAX_CPUS, so the product fits.
    (of - left.min(of)) * WHOLE / of
}

impl FreeSummary {
    /// The score of a rank found on this summary for NUMA nodes with `numa_cores` regular cores.
    pub(crate) fn score(&self, rank: &Rank, numa_cores: u32) -> Score {
        rank.score_of(numa_cores, self.largest_l3())
    }
}

#[cfg(test)]
mod tests {
    use super::{Rank, Score};
    use proptest::prelude::*;

    fn ranks() -> impl Strategy<Value = Rank> {
        (1u32..20, 0u64..400, 1u32..40, 0u32..64, 0u32..16).prop_map(
            |(numa_nodes, mean, l3_caches, numa_left, l3_left)| {
                let pairs = u64::from(numa_nodes) * u64::from(numa_nodes - 1);
                Rank { numa_nodes, distance: mean * pairs, l3_caches, numa_left, l3_left }
            },
        )
    }

    proptest! {
        /// Making any one measure worse never makes the score better, and fewer NUMA nodes always score higher (up to
        /// fourteen, where the bands end).
        #[test]
        fn no_measure_pays_for_being_worse(rank in ranks(), by in 1u32..30) {
            let score = |rank: Rank| rank.score_of(64, 16);
            prop_assert!(score(rank) <= Score(100));
            let fewer = Rank { numa_nodes: rank.numa_nodes + 1, ..rank };
            prop_assert!(score(fewer) < score(rank) || rank.numa_nodes >= 13);
            for worse in [
                Rank { distance: rank.distance + u64::from(by), ..rank },
                Rank { l3_caches: rank.l3_caches + by, ..rank },
                Rank { numa_left: rank.numa_left + by, ..rank },
                Rank { l3_left: rank.l3_left + by, ..rank },
            ] {
                prop_assert!(score(worse) <= score(rank), "{worse:?} against {rank:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let best = Rank { numa_nodes: 1, distance: 0, l3_caches: 1, numa_left: 0, l3_left: 0 };
        assert_eq!(best.score_of(8, 8), Score(100));
        let worst = Rank { numa_nodes: 40, distance: 1 << 40, l3_caches: 99, numa_left: 900, l3_left: 0 };
        assert_eq!(worst.score_of(900, 8), Score(0));
    }
}
