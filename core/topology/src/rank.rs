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

/// How good a choice is, in two terms of 0 (worst) to 100 (best); whoever compares nodes weighs them.
///
/// `alignment` falls into bands by the number of NUMA nodes needed: 64–100 for one, 40–63 for two, 28–39 for three, 20–27 for
/// four, and two points for each further count. Within a band of several nodes near ones come first (four steps of
/// mean distance: up to 12, 20, 32, above). The rest is the number of L3 caches touched, and within that tightness:
/// the fuller the NUMA nodes and the L3 are afterwards, the higher, since then larger holes stay whole elsewhere.
/// That is how well the choice suits the pod: its alignment.
///
/// `holes` says what it leaves to others. A hole (the free cores of an L3, and those of a NUMA node) is worth the square of
/// its cores, so that one large hole is worth more than all its parts; the score is 100 less the loss in percent of the
/// greatest loss that so many cores can cause (an empty L3, an empty NUMA node, broken into), the mean of L3 and NUMA.
/// Where several holes are touched they count as if they were alike, which is the least they can be worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score {
    /// How near to each other and how tight CPUs and memory are, 0 to 100.
    pub alignment: u8,
    /// How whole the large aligned holes of the node stay, 0 to 100.
    pub holes: u8,
}

/// Everything below is in parts of this; a common denominator keeps it in integers.
const WHOLE: u32 = 10_000;

impl Rank {
    /// The score of this rank; `numa_cores` are all regular cores of the NUMA nodes used, `largest_l3` those of the
    /// largest cache group of the machine.
    pub(crate) fn alignment(&self, numa_cores: u32, largest_l3: u32) -> u8 {
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
        u8::try_from(base + within * span / WHOLE).unwrap_or(100)
    }

    /// How whole the large holes stay: see [`Score`].
    fn holes(&self, cores: u32, largest_l3: u32, largest_numa: u32) -> u8 {
        let l3 = lost(cores, self.l3_caches, self.l3_left, largest_l3);
        let numa = lost(cores, self.numa_nodes, self.numa_left, largest_numa);
        u8::try_from(100 - u32::midpoint(l3, numa).min(100)).unwrap_or(0)
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

/// Percent of the most that so many cores could cost, if they are taken out of `count` holes and, where that is one,
/// leave `left` of it.
fn lost(cores: u32, count: u32, left: u32, largest: u32) -> u32 {
    let (cores, left, largest) = (u64::from(cores), u64::from(left), u64::from(largest.max(1)));
    // A hole is worth the square of its cores: (cores + left)² before, left² after.
    let cost = match count {
        0 | 1 => cores * (cores + 2 * left),
        count => cores * cores / u64::from(count),
    };
    let most = if cores <= largest { cores * (2 * largest - cores) } else { cores * largest };
    u32::try_from((cost.min(most) * 100).checked_div(most).unwrap_or(0)).unwrap_or(100)
}

fn filled(left: u32, of: u32) -> u32 {
    let of = of.max(1);
    // Cores are below MAX_CPUS, so the product fits.
    (of - left.min(of)) * WHOLE / of
}

impl FreeSummary {
    /// The score of a rank found on this summary for so many cores; a function of nothing else, so that of two choices
    /// with the same rank it does not matter which is meant.
    pub(crate) fn score(&self, rank: &Rank, cores: u32) -> Score {
        let (l3, numa) = (self.largest_l3(), self.largest_numa());
        Score { alignment: rank.alignment(numa * rank.numa_nodes, l3), holes: rank.holes(cores, l3, numa) }
    }
}

#[cfg(test)]
mod tests {
    use super::Rank;
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
            let score = |rank: Rank| rank.alignment(64, 16);
            prop_assert!(score(rank) <= 100);
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
        assert_eq!(best.alignment(8, 8), 100);
        let worst = Rank { numa_nodes: 40, distance: 1 << 40, l3_caches: 99, numa_left: 900, l3_left: 0 };
        assert_eq!(worst.alignment(900, 8), 0);
    }
}
