//! How good a choice is: the rank that orders choices on one machine, and the score that compares machines.

use crate::Align;
use crate::demand::{Demand, Span, Supply};

/// The measures by which choices are compared, in this order; less is better.
///
/// `evaluate` and `choose` find the same least rank, and the score is made of nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank {
    /// NUMA nodes that give units or memory; at least 1.
    pub(crate) numa_nodes: u32,
    /// Sum of the distances between those nodes, both directions, SLIT units; 0 for one node.
    pub(crate) distance: u64,
    /// Units far from the devices wished for.
    pub(crate) far: u32,
    /// Units in an L3 with a disliked pod.
    pub(crate) disliked: u32,
    /// Units in an L3 without a liked pod, if there is one to like.
    pub(crate) unliked: u32,
    /// Cache groups touched; at least 1.
    pub(crate) l3_caches: u32,
    /// Free units that remain in those NUMA nodes.
    pub(crate) numa_left: Left,
    /// Free units that remain in the L3 if there is but one; 0 where several are touched (there the tie is
    /// broken by the sum over them, which only `choose` needs to know).
    pub(crate) l3_left: Left,
}

/// What is left free: less is better where the tightest place is wanted, more where the emptiest is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Left(i32);

impl Left {
    /// Units are below [`crate::MAX_CPUS`].
    pub(crate) fn new(units: u32, tight: bool) -> Self {
        Self(if tight { units as i32 } else { -(units as i32) })
    }

    fn units(self) -> u32 {
        self.0.unsigned_abs()
    }
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

/// What a rank is held against: the node's constants and the demand.
#[derive(Debug, Clone, Copy)]
struct Scale {
    units: u32,
    tight: bool,
    /// NUMA nodes that ought to give units: 1, or more where the pod is spread.
    nodes_wanted: u32,
    /// NUMA nodes that do.
    nodes_giving: u32,
    largest_l3: u32,
    largest_numa: u32,
    wants_near: bool,
    wants_liked: bool,
}

impl Rank {
    fn alignment(&self, scale: &Scale) -> u8 {
        let fine = self.cache_part(scale);
        let within = if self.numa_nodes <= 1 { fine } else { self.nearness() * (WHOLE / 4) + fine / 4 };
        let within = self.with_neighbours(within, scale);
        let (base, span) = match self.bands_down(scale) {
            0 => (64, 36),
            1 => (40, 23),
            2 => (28, 11),
            3 => (20, 7),
            count @ 4..=12 => (26 - 2 * count, 1),
            _ => (0, 1),
        };
        u8::try_from(base + within * span / WHOLE).unwrap_or(100)
    }

    /// How many NUMA nodes it is away from what was wanted.
    fn bands_down(&self, scale: &Scale) -> u32 {
        if scale.nodes_wanted > 1 {
            scale.nodes_wanted.saturating_sub(scale.nodes_giving)
        } else {
            self.numa_nodes.saturating_sub(1)
        }
    }

    /// Near devices lift by up to half of what is missing to the best, disliked neighbours lower by up to half, liked ones
    /// lift by up to a quarter.
    fn with_neighbours(&self, within: u32, scale: &Scale) -> u32 {
        let part = |of: u32, units: u32| {
            let part = u64::from(of) * u64::from(units) / u64::from(scale.units.max(1));
            u32::try_from(part).unwrap_or(of)
        };
        let near = if scale.wants_near { scale.units.saturating_sub(self.far) } else { 0 };
        let liked = if scale.wants_liked { scale.units.saturating_sub(self.unliked) } else { 0 };
        let within = within + part((WHOLE - within) / 2, near);
        let within = within - part(within / 2, self.disliked);
        within + part((WHOLE - within) / 4, liked)
    }

    /// How whole the large holes stay: see [`Score`].
    fn holes(&self, scale: &Scale) -> u8 {
        let l3 = lost(scale.units, self.l3_caches, self.l3_left.units(), scale.largest_l3);
        let numa = lost(scale.units, self.numa_nodes, self.numa_left.units(), scale.largest_numa);
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

    fn cache_part(&self, scale: &Scale) -> u32 {
        // A pod that is spread touches one in each NUMA node at least.
        let more_than_needed = self.l3_caches.saturating_sub(scale.nodes_giving.max(1));
        let (base, span) = match more_than_needed {
            0 => (6_000, 4_000),
            1 => (4_000, 1_999),
            2 => (3_000, 999),
            3 => (2_500, 499),
            more => (2_500u32.saturating_sub((more - 3).saturating_mul(100)), 99),
        };
        base + self.tightness_part(scale) * span / WHOLE
    }

    /// 0 (everything stays free, or where emptiness is wanted nothing does) to 10,000.
    fn tightness_part(&self, scale: &Scale) -> u32 {
        let numa = filled(self.numa_left.units(), scale.largest_numa * self.numa_nodes);
        let both = u32::midpoint(numa, filled(self.l3_left.units(), scale.largest_l3));
        let tightness = if self.l3_caches > 1 { numa } else { both };
        if scale.tight { tightness } else { WHOLE - tightness }
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

impl Supply<'_> {
    /// The score of a rank found for this demand; a function of nothing else, so that of two choices with the same rank it
    /// does not matter which is meant.
    pub(crate) fn score(&self, rank: &Rank, demand: &Demand<'_>) -> Score {
        let pool = self.pool;
        let (nodes_wanted, nodes_giving) = match demand.span {
            Span::Nodes(giving) => (demand.units.min(pool.numa_nodes_with_units), giving),
            Span::Together if demand.wish.align == Align::Spread => (demand.units.min(pool.numa_nodes_with_units), 1),
            Span::Together | Span::OneL3 => (1, 1),
        };
        let scale = Scale {
            units: demand.units,
            tight: demand.tight(),
            nodes_wanted,
            nodes_giving,
            largest_l3: pool.largest_l3,
            largest_numa: pool.largest_numa,
            wants_near: pool.wants_near,
            wants_liked: pool.wants_liked,
        };
        Score { alignment: rank.alignment(&scale), holes: rank.holes(&scale) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Left, Rank, Scale};
    use proptest::prelude::*;

    const SCALE: Scale = Scale {
        units: 20,
        tight: true,
        nodes_wanted: 1,
        nodes_giving: 1,
        largest_l3: 16,
        largest_numa: 64,
        wants_near: true,
        wants_liked: true,
    };

    fn left(units: u32) -> Left {
        Left::new(units, true)
    }

    fn ranks() -> impl Strategy<Value = Rank> {
        (1u32..20, 0u64..400, 1u32..40, 0u32..64, 0u32..16, 0u32..=20, 0u32..=20, 0u32..=20).prop_map(
            |(numa_nodes, mean, l3_caches, numa, l3, far, disliked, unliked)| {
                let pairs = u64::from(numa_nodes) * u64::from(numa_nodes - 1);
                let (numa_left, l3_left) = (left(numa), left(l3));
                Rank { numa_nodes, distance: mean * pairs, far, disliked, unliked, l3_caches, numa_left, l3_left }
            },
        )
    }

    proptest! {
        /// Making any one measure worse never makes the score better, and fewer NUMA nodes always score higher (up to
        /// fourteen, where the bands end).
        #[test]
        fn no_measure_pays_for_being_worse(rank in ranks(), by in 1u32..30) {
            let score = |rank: Rank| rank.alignment(&Scale { largest_numa: 64 / rank.numa_nodes, ..SCALE });
            prop_assert!(score(rank) <= 100);
            let fewer = Rank { numa_nodes: rank.numa_nodes + 1, ..rank };
            prop_assert!(score(fewer) < score(rank) || rank.numa_nodes >= 13);
            for worse in [
                Rank { distance: rank.distance + u64::from(by), ..rank },
                Rank { far: (rank.far + by).min(20), ..rank },
                Rank { disliked: (rank.disliked + by).min(20), ..rank },
                Rank { unliked: (rank.unliked + by).min(20), ..rank },
                Rank { l3_caches: rank.l3_caches + by, ..rank },
                Rank { numa_left: left(rank.numa_left.units() + by), ..rank },
                Rank { l3_left: left(rank.l3_left.units() + by), ..rank },
            ] {
                prop_assert!(score(worse) <= score(rank), "{worse:?} against {rank:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale() {
        let none = Rank {
            numa_nodes: 1,
            distance: 0,
            far: 0,
            disliked: 0,
            unliked: 0,
            l3_caches: 1,
            numa_left: left(0),
            l3_left: left(0),
        };
        let scale = Scale { largest_l3: 8, largest_numa: 8, ..SCALE };
        assert_eq!(none.alignment(&scale), 100);
        let worst = Rank { numa_nodes: 40, distance: 1 << 40, l3_caches: 99, numa_left: left(900), ..none };
        assert_eq!(worst.alignment(&Scale { wants_near: false, wants_liked: false, ..scale }), 0);
    }

    /// A tenant above its share is steered away from whole L3 caches and whole NUMA nodes.
    #[test]
    fn holes_cost_the_more_the_larger_they_are() {
        let scale = Scale { units: 4, largest_l3: 16, largest_numa: 64, ..SCALE };
        let taken = |l3: u32, numa: u32| Rank {
            numa_nodes: 1,
            distance: 0,
            far: 0,
            disliked: 0,
            unliked: 0,
            l3_caches: 1,
            numa_left: left(numa - 4),
            l3_left: left(l3 - 4),
        };
        let holes = |l3, numa| taken(l3, numa).holes(&scale);
        assert_eq!(holes(16, 64), 0, "an empty L3 of an empty NUMA node broken into");
        assert!(holes(4, 4) > 90);
        assert!([(4, 4), (4, 32), (8, 32), (16, 32), (16, 64)].is_sorted_by_key(|(l3, numa)| 100 - holes(*l3, *numa)));
        // Many small leftovers rather than one whole L3.
        let whole = Scale { units: 16, ..scale };
        let (one, four) =
            (Rank { l3_left: left(0), ..taken(16, 40) }, Rank { l3_caches: 4, l3_left: left(0), ..taken(4, 40) });
        assert!(four.holes(&whole) > one.holes(&whole));
    }
}
