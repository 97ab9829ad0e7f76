//! Dominant shares as exact fractions: compared by cross-multiplication, never divided.
use crate::limit::ResourceVector;
use std::cmp::Ordering;

/// A weighted share, `used / (total · weight)`, ordered exactly.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    used: u64,
    /// total · weight, never 0.
    divisor: u128,
}

impl Share {
    /// Nothing of anything.
    pub const NONE: Self = Self { used: 0, divisor: 1 };

    /// `used` of `total` under `weight`. Where there is nothing to share (`total` 0) the share is [`Self::NONE`]: a
    /// resource that the cluster does not have (any more) says nothing about who holds too much. A weight of 0 counts as 1.
    #[must_use]
    pub fn new(used: u64, total: u64, weight: u64) -> Self {
        if total == 0 {
            return Self::NONE;
        }
        Self { used, divisor: u128::from(total) * u128::from(weight.max(1)) }
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        product(self.used, other.divisor).cmp(&product(other.used, self.divisor))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Share {}

/// `a · b` in 192 bits: the upper 128 and the lower 64.
fn product(a: u64, b: u128) -> (u128, u64) {
    let (a, mask) = (u128::from(a), u128::from(u64::MAX));
    let low = a * (b & mask);
    let high = a * (b >> 64) + (low >> 64);
    (high, u64::try_from(low & mask).unwrap_or(u64::MAX))
}

/// The resource of which a tenant holds the largest part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dominant {
    /// The resource.
    pub resource: String,
    /// What the tenant holds of it.
    pub used: u64,
    /// What the cluster has of it, never 0.
    pub total: u64,
}

impl Dominant {
    /// The part in percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> u64 {
        percent(self.used, self.total)
    }
}

/// The dominant resource of `used` in a cluster of `total`, the first by name of equals; `None` when `used` holds nothing
/// that the cluster has.
#[must_use]
pub fn dominant(total: &ResourceVector, used: &ResourceVector) -> Option<Dominant> {
    let mut best: Option<Dominant> = None;
    for (resource, &total) in total {
        let used = used.get(resource).copied().unwrap_or(0);
        if total == 0 || used == 0 {
            continue;
        }
        let larger = best.as_ref().is_none_or(|b| Share::new(used, total, 1) > Share::new(b.used, b.total, 1));
        if larger {
            best = Some(Dominant { resource: resource.clone(), used, total });
        }
    }
    best
}

/// `part` of `whole` in percent, rounded down; 0 of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 100).checked_div(u128::from(whole)).and_then(|p| u64::try_from(p).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dominant_is_the_largest_part_and_ignores_what_the_cluster_lacks() {
        let total = ResourceVector::from([("cpu".into(), 100), ("gpu".into(), 0), ("memory".into(), 1000)]);
        let used =
            ResourceVector::from([("cpu".into(), 20), ("gpu".into(), 8), ("memory".into(), 209), ("x".into(), 9)]);
        let top = dominant(&total, &used).unwrap();
        assert_eq!((top.resource.as_str(), top.used, top.percent()), ("memory", 209, 20));
        assert_eq!(dominant(&total, &ResourceVector::new()), None);
        assert_eq!(percent(5, 0), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let small = Share::new(u64::MAX - 1, u64::MAX, u64::MAX);
        let large = Share::new(u64::MAX, u64::MAX, u64::MAX);
        assert!(small < large);
        assert!(large < Share::new(1, 1, 1));
        assert_eq!(Share::new(7, 0, 1), Share::NONE);
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_fractions(a in 0u64..1000, b in 1u64..1000, w in 1u64..50, c in 0u64..1000, d in 1u64..1000, v in 1u64..50) {
            let exact = (u128::from(a) * u128::from(d * v)).cmp(&(u128::from(c) * u128::from(b * w)));
            prop_assert_eq!(Share::new(a, b, w).cmp(&Share::new(c, d, v)), exact);
        }

        #[test]
        fn scaling_both_sides_changes_nothing(a in 0u64..u64::MAX / 8, b in 1u64..u64::MAX / 8, w in 1u64..u64::MAX / 8) {
            prop_assert_eq!(Share::new(a, b, w), Share::new(a * 8, b * 8, w));
            prop_assert!(Share::new(a, b, w) < Share::new(a + 1, b, w));
        }
    }
}
