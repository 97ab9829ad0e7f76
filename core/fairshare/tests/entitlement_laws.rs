//! Laws of base and entitlement, and an oracle in exact fractions.
use fairlead_fairshare::{PODS, ResourceVector, TenantDemand, base, entitlements, max_admissible};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn weights() -> impl Strategy<Value = Vec<(String, u64)>> {
    prop::collection::btree_map("[a-h]", 1u64..50, 1..8).prop_map(|map| map.into_iter().collect())
}

fn tenants() -> impl Strategy<Value = Vec<TenantDemand>> {
    let one = (1u64..9, 0u64..60, prop::option::of(0u64..60));
    prop::collection::btree_map("[a-h]", one, 1..8).prop_map(|map| {
        let tenant = |(name, (weight, demand, hard)): (String, (u64, u64, Option<u64>))| TenantDemand {
            name,
            weight,
            hard: hard.map(|hard| ("cpu".to_owned(), hard)).into_iter().collect(),
            demand: ResourceVector::from([("cpu".to_owned(), demand)]),
        };
        map.into_iter().map(tenant).collect()
    })
}

fn cpu(total: u64, tenants: &[TenantDemand]) -> BTreeMap<String, u64> {
    let entitled = entitlements(&ResourceVector::from([("cpu".to_owned(), total)]), tenants);
    entitled.into_iter().map(|(name, vector)| (name, vector["cpu"])).collect()
}

fn capped(tenant: &TenantDemand) -> u64 {
    tenant.demand["cpu"].min(tenant.hard.get("cpu").copied().unwrap_or(u64::MAX))
}

/// Water-filling in rounds, in exact fractions over a common divisor: who asks for no more than the fair part of what is
/// left is satisfied, until nobody is; the rest share what is left. Answers (numerator, divisor) by name.
fn oracle(total: u64, tenants: &[TenantDemand]) -> BTreeMap<String, (u128, u128)> {
    let mut parts = BTreeMap::new();
    let (mut left, mut open): (u128, Vec<&TenantDemand>) = (u128::from(total), tenants.iter().collect());
    loop {
        let sum: u128 = open.iter().map(|t| u128::from(t.weight)).sum();
        let (full, rest): (Vec<&TenantDemand>, Vec<&TenantDemand>) =
            open.iter().partition(|t| u128::from(capped(t)) * sum <= left * u128::from(t.weight));
        if full.is_empty() {
            parts.extend(rest.iter().map(|t| (t.name.clone(), (left * u128::from(t.weight), sum))));
            return parts;
        }
        for tenant in full {
            left -= u128::from(capped(tenant));
            parts.insert(tenant.name.clone(), (u128::from(capped(tenant)), 1));
        }
        open = rest;
    }
}

proptest! {
    #[test]
    fn base_sums_exactly_and_is_within_one_of_the_share(total in 0u64..100_000, weights in weights()) {
        let parts = base(total, &weights);
        prop_assert_eq!(parts.values().sum::<u64>(), total);
        let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
        for (name, weight) in &weights {
            let (low, part) = (total * weight / sum, parts[name]);
            prop_assert!(part == low || part == low + 1);
        }
    }

    #[test]
    fn raising_ones_weight_never_lowers_ones_base(total in 0u64..200, weights in weights(), more in 1u64..20, pick: prop::sample::Index) {
        let mut raised = weights.clone();
        let chosen = pick.index(raised.len());
        raised[chosen].1 += more;
        let name = &weights[chosen].0;
        prop_assert!(base(total, &raised)[name] >= base(total, &weights)[name]);
    }

    #[test]
    fn base_of_extremes(total: u64, weights in prop::collection::vec(("[a-e]", any::<u64>()), 1..9)) {
        let any = weights.iter().any(|(_, weight)| *weight > 0);
        prop_assert_eq!(base(total, &weights).values().map(|part| u128::from(*part)).sum::<u128>(), u128::from(if any { total } else { 0 }));
    }

    #[test]
    fn entitlement_is_capped_and_gives_out_all_that_is_asked_for(total in 0u64..300, tenants in tenants()) {
        let parts = cpu(total, &tenants);
        let demand: u64 = tenants.iter().map(capped).sum();
        prop_assert_eq!(parts.values().sum::<u64>(), total.min(demand));
        prop_assert!(tenants.iter().all(|tenant| parts[&tenant.name] <= capped(tenant)));
    }

    #[test]
    fn who_is_below_its_demand_has_no_smaller_share_than_anybody(total in 0u64..300, tenants in tenants()) {
        let parts = cpu(total, &tenants);
        for thirsty in tenants.iter().filter(|tenant| parts[&tenant.name] < capped(tenant)) {
            for other in &tenants {
                // One unit of rounding.
                prop_assert!((parts[&thirsty.name] + 1) * other.weight >= parts[&other.name].saturating_sub(1) * thirsty.weight);
            }
        }
    }

    #[test]
    fn entitlement_is_the_oracle_rounded(total in 0u64..300, tenants in tenants()) {
        let parts = cpu(total, &tenants);
        for (name, (numerator, divisor)) in oracle(total, &tenants) {
            let part = u128::from(parts[&name]);
            prop_assert!(part == numerator / divisor || (numerator % divisor > 0 && part == numerator / divisor + 1), "{name}");
        }
    }

    #[test]
    fn the_order_of_tenants_never_matters(total in 0u64..300, tenants in tenants(), seed: u64) {
        let mut shuffled = tenants.clone();
        let length = shuffled.len();
        for i in 0..length {
            shuffled.swap(i, (seed as usize).wrapping_mul(i + 7) % length);
        }
        prop_assert_eq!(cpu(total, &shuffled), cpu(total, &tenants));
    }
}

#[test]
fn ties_go_by_name_and_the_known_paradox_is_accepted() {
    let weights: Vec<(String, u64)> =
        [("a", 1), ("b", 3), ("c", 3)].map(|(name, weight)| (name.to_owned(), weight)).into();
    let parts = |total| base(total, &weights).into_values().collect::<Vec<_>>();
    assert_eq!(parts(3), [1, 1, 1]);
    assert_eq!(parts(4), [0, 2, 2]);
    assert_eq!(parts(2), [0, 1, 1]);
    assert_eq!(parts(1), [0, 1, 0]);
}

#[test]
fn concurrency_is_entitled_to_what_the_95_percent_rule_reaches() {
    let vector = |amount| ResourceVector::from([(PODS.to_owned(), amount)]);
    let tenant = TenantDemand { name: "a".into(), weight: 1, hard: vector(100), demand: vector(500) };
    assert_eq!(entitlements(&vector(1000), &[tenant])["a"], vector(max_admissible(100, 1)));
}

#[test]
fn a_weight_of_0_is_entitled_to_nothing() {
    let tenant = |name: &str, weight| TenantDemand {
        name: name.into(),
        weight,
        hard: ResourceVector::new(),
        demand: ResourceVector::from([("cpu".to_owned(), 50)]),
    };
    let parts = cpu(100, &[tenant("a", 0), tenant("b", 2)]);
    assert_eq!((parts["a"], parts["b"]), (0, 50));
}
