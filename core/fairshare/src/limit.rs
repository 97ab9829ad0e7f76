//! Hard limits with the 95 % rule: what a tenant may still be given.
use std::collections::BTreeMap;

/// Amounts by resource name: `cpu` in milli-CPU, `memory` and other storage in bytes, everything else in units;
/// [`PODS`] is concurrency, one a pod. Absent means 0 in a usage or a request, and unlimited in a hard limit.
pub type ResourceVector = BTreeMap<String, u64>;

/// The resource that counts pods (concurrency).
pub const PODS: &str = "pods";

/// Percent of a hard limit above which nothing more is let in, whatever its size.
pub const HARD_PERCENT: u64 = 95;

/// Why a request is not admitted: the resource, and the numbers that were compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The resource that refuses.
    pub resource: String,
    /// In use before the request.
    pub used: u64,
    /// The hard limit.
    pub hard: u64,
    /// What was asked for.
    pub requested: u64,
    /// The request exceeds the limit by itself: it is refused even when nothing is in use.
    pub never: bool,
}

/// The 95 % rule for one resource: refused when `used · 100 > hard · 95` or `used + request > hard`. A request of 0 is
/// never refused, no limit (`None`) never refuses, and a limit of 0 refuses everything else.
#[must_use]
pub fn admits(hard: Option<u64>, used: u64, request: u64) -> bool {
    let Some(hard) = hard else { return true };
    if request == 0 {
        return true;
    }
    let (hard, used, request) = (u128::from(hard), u128::from(used), u128::from(request));
    used * 100 <= hard * u128::from(HARD_PERCENT) && used + request <= hard
}

/// The refusal that is told to people when `request` comes on top of `used`, or `None` when every limit admits it.
/// Of several, one that can never be lifted comes first, then concurrency, then the first by name.
#[must_use]
pub fn first_refusal(hard: &ResourceVector, used: &ResourceVector, request: &ResourceVector) -> Option<Refusal> {
    let refusals = request.iter().filter_map(|(resource, &requested)| {
        let limit = *hard.get(resource)?;
        let used = used.get(resource).copied().unwrap_or(0);
        (!admits(Some(limit), used, requested)).then(|| Refusal {
            resource: resource.clone(),
            used,
            hard: limit,
            requested,
            never: requested > limit,
        })
    });
    refusals.min_by_key(|refusal| (!refusal.never, refusal.resource != PODS))
}

/// The highest usage that the rule can ever admit under `hard` when no single request exceeds `largest_request`: the
/// last one is let in at 95 % or below, and may then reach `hard`.
#[must_use]
pub fn max_admissible(hard: u64, largest_request: u64) -> u64 {
    hard.min(threshold(hard).saturating_add(largest_request))
}

/// How many pods that each ask for `per_pod` the rule lets in one after the other on top of `used`;
/// `u64::MAX` when no limit concerns them.
#[must_use]
pub fn max_more(hard: &ResourceVector, used: &ResourceVector, per_pod: &ResourceVector) -> u64 {
    let counts = per_pod.iter().filter(|&(_, &amount)| amount > 0).filter_map(|(resource, &amount)| {
        let limit = *hard.get(resource)?;
        let used = used.get(resource).copied().unwrap_or(0);
        let Some(below_threshold) = threshold(limit).checked_sub(used) else { return Some(0) };
        Some(((limit - used) / amount).min((below_threshold / amount).saturating_add(1)))
    });
    counts.min().unwrap_or(u64::MAX)
}

/// The highest usage at which something more may be let in: ⌊hard · 95 / 100⌋.
fn threshold(hard: u64) -> u64 {
    let exact = u128::from(hard) * u128::from(HARD_PERCENT) / 100;
    u64::try_from(exact).unwrap_or(hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(entries: &[(&str, u64)]) -> ResourceVector {
        entries.iter().map(|&(name, amount)| (name.to_owned(), amount)).collect()
    }

    #[test]
    fn exactly_95_percent_admits_and_above_does_not() {
        assert!(admits(Some(100), 95, 5));
        assert!(!admits(Some(100), 95, 6));
        assert!(!admits(Some(100), 96, 1));
        assert!(!admits(Some(0), 0, 1));
        assert!(admits(Some(0), 5, 0));
        assert!(admits(None, u64::MAX, u64::MAX));
        assert!(!admits(Some(u64::MAX), u64::MAX, 1));
        assert!(admits(Some(u64::MAX), 0, u64::MAX));
    }

    #[test]
    fn refusals_prefer_the_hopeless_then_concurrency() {
        let hard = vector(&[("cpu", 10), ("memory", 10), (PODS, 1)]);
        let used = vector(&[("cpu", 10), ("memory", 0), (PODS, 1)]);
        let never = first_refusal(&hard, &used, &vector(&[("cpu", 1), ("memory", 11), (PODS, 1)])).unwrap();
        assert_eq!((never.resource.as_str(), never.never), ("memory", true));
        let full = first_refusal(&hard, &used, &vector(&[("cpu", 1), (PODS, 1)])).unwrap();
        assert_eq!((full.resource.as_str(), full.never), (PODS, false));
        assert_eq!(first_refusal(&hard, &used, &vector(&[("gpu", 1), ("cpu", 0)])), None);
    }

    #[test]
    fn concurrency_of_100_ends_at_96() {
        assert_eq!(max_admissible(100, 1), 96);
        assert_eq!(max_admissible(100, u64::MAX), 100);
        assert_eq!(max_more(&vector(&[(PODS, 100)]), &vector(&[]), &vector(&[(PODS, 1)])), 96);
        assert_eq!(max_more(&vector(&[]), &vector(&[]), &vector(&[(PODS, 1)])), u64::MAX);
    }

    proptest! {
        #[test]
        fn max_more_is_what_admitting_one_by_one_gives(
            limits in proptest::collection::btree_map("[a-c]", 0u64..60, 0..3),
            used in proptest::collection::btree_map("[a-c]", 0u64..60, 0..3),
            per_pod in proptest::collection::btree_map("[a-c]", 0u64..9, 0..3),
        ) {
            let bounded = per_pod.iter().any(|(name, &amount)| amount > 0 && limits.contains_key(name));
            let mut now = used.clone();
            let mut count = 0u64;
            while bounded && first_refusal(&limits, &now, &per_pod).is_none() {
                for (name, amount) in &per_pod {
                    *now.entry(name.clone()).or_default() += amount;
                }
                count += 1;
            }
            prop_assert_eq!(max_more(&limits, &used, &per_pod), if bounded { count } else { u64::MAX });
        }

        #[test]
        fn no_admitted_step_passes_the_most_admissible(hard in 0u64..200, steps in proptest::collection::vec(1u64..20, 0..40)) {
            let largest = steps.iter().copied().max().unwrap_or(0);
            let mut used = 0;
            for step in steps {
                if admits(Some(hard), used, step) {
                    used += step;
                }
                prop_assert!(used <= max_admissible(hard, largest));
                prop_assert!(used <= hard);
            }
        }

        #[test]
        fn a_smaller_request_is_never_refused_where_a_larger_is_admitted(hard: u64, used: u64, request: u64, less: u64) {
            if admits(Some(hard), used, request) {
                prop_assert!(admits(Some(hard), used, less.min(request)));
            }
        }
    }
}
