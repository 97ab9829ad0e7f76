//! What each tenant is entitled to: its base by weight, and the same capped by demand (weighted water-filling).
use crate::limit::{PODS, ResourceVector, max_admissible};
use std::collections::{BTreeMap, BTreeSet};

/// Weights above this count as this: it keeps every product within 128 bits. The API admits at most a million.
pub const MAX_WEIGHT: u64 = u32::MAX as u64;

/// A tenant as the entitlement sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantDemand {
    /// Name; unique among the tenants.
    pub name: String,
    /// Weight; 0 is entitled to nothing.
    pub weight: u64,
    /// Hard limits; absent: unlimited.
    pub hard: ResourceVector,
    /// What it uses and waits for together.
    pub demand: ResourceVector,
}

/// `total` divided by weight, by largest remainder, ties by name: the parts sum to `total` exactly, as long as any weight
/// is above 0.
#[must_use]
pub fn base(total: u64, weights: &[(String, u64)]) -> BTreeMap<String, u64> {
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, weight) in weights {
        let sum = by_name.entry(name).or_default();
        *sum = sum.saturating_add(*weight);
    }
    let weights: Vec<u64> = by_name.values().map(|weight| (*weight).min(MAX_WEIGHT)).collect();
    let parts = apportion(total, &weights);
    by_name.keys().map(|name| (*name).to_owned()).zip(parts).collect()
}

/// For every resource of `total`, its weighted water-filling: nobody gets more than it asks for or than its hard limit
/// admits under the 95 % rule, and what is left over goes to the others by weight. So the parts of a resource sum to the
/// smaller of its total and all capped demand, and a tenant below its demand has a part per weight at least as large as
/// everyone else's, up to one unit of rounding (largest remainder, ties by name).
#[must_use]
pub fn entitlements(total: &ResourceVector, tenants: &[TenantDemand]) -> BTreeMap<String, ResourceVector> {
    let mut sorted: Vec<&TenantDemand> = tenants.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let weights: Vec<u64> = sorted.iter().map(|tenant| tenant.weight.min(MAX_WEIGHT)).collect();
    let mut entitled: BTreeMap<String, ResourceVector> =
        sorted.iter().map(|tenant| (tenant.name.clone(), ResourceVector::new())).collect();
    for (resource, &total) in total {
        let demand: Vec<u64> = sorted
            .iter()
            .map(|tenant| {
                let asked = tenant.demand.get(resource).copied().unwrap_or(0);
                capped_demand(resource, tenant.hard.get(resource).copied(), asked)
            })
            .collect();
        for (tenant, part) in sorted.iter().zip(fill(total, &weights, &demand)) {
            if let Some(vector) = entitled.get_mut(&tenant.name) {
                vector.insert(resource.clone(), part);
            }
        }
    }
    entitled
}

/// `demand` capped by the most that the 95 % rule admits of `resource` under `hard`.
#[must_use]
pub fn capped_demand(resource: &str, hard: Option<u64>, demand: u64) -> u64 {
    // Pods come one by one; of any other resource a single pod may ask for all that is left.
    let largest_request = if resource == PODS { 1 } else { u64::MAX };
    hard.map_or(demand, |hard| demand.min(max_admissible(hard, largest_request)))
}

/// Weighted water-filling of one resource. `weights` (at most [`MAX_WEIGHT`]) and `demand` are by tenant, in name order.
pub(crate) fn fill(total: u64, weights: &[u64], demand: &[u64]) -> Vec<u64> {
    let mut parts = vec![0; weights.len()];
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    // Those who ask for least per weight are satisfied first: demand / weight, cross-multiplied.
    order.sort_by_key(|&i| PerWeight { amount: demand[i], weight: weights[i] });
    let mut left = total;
    let mut weight_left: u128 = order.iter().map(|&i| u128::from(weights[i])).sum();
    let mut satisfied = 0;
    for &i in &order {
        // Demand at or below the fair part of what is left: demand ≤ left · weight / weight_left.
        if u128::from(demand[i]) * weight_left > u128::from(left) * u128::from(weights[i]) {
            break;
        }
        parts[i] = demand[i];
        left -= demand[i];
        weight_left -= u128::from(weights[i]);
        satisfied += 1;
    }
    let mut thirsty: Vec<usize> = order.split_off(satisfied);
    thirsty.sort_unstable();
    let rest: Vec<u64> = thirsty.iter().map(|&i| weights[i]).collect();
    for (i, part) in thirsty.into_iter().zip(apportion(left, &rest)) {
        parts[i] = part;
    }
    parts
}

/// Largest remainder: ⌊total · weight / Σ weights⌋ each, the units left over to the largest remainders, ties to the
/// earlier index. All zero when every weight is 0.
fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = weights.iter().map(|weight| u128::from(total) * u128::from(*weight));
    let (mut parts, remainders): (Vec<u64>, Vec<u128>) =
        exact.map(|share| (u64::try_from(share / sum).unwrap_or(total), share % sum)).unzip();
    let given: u64 = parts.iter().sum();
    let mut by_remainder: BTreeSet<(std::cmp::Reverse<u128>, usize)> =
        remainders.iter().enumerate().map(|(i, remainder)| (std::cmp::Reverse(*remainder), i)).collect();
    for _ in given..total {
        // Fewer units are left than there are tenants with a remainder, so the set does not run dry.
        if let Some((_, i)) = by_remainder.pop_first() {
            parts[i] += 1;
        }
    }
    parts
}

/// `amount / weight`, ordered exactly; of equal ones the lighter comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerWeight {
    amount: u64,
    weight: u64,
}

impl PerWeight {
    pub(crate) fn new(amount: u64, weight: u64) -> Self {
        Self { amount, weight: weight.min(MAX_WEIGHT) }
    }

    pub(crate) fn amount(self) -> u64 {
        self.amount
    }

    pub(crate) fn weight(self) -> u64 {
        self.weight
    }
}

impl Ord for PerWeight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let left = u128::from(self.amount) * u128::from(other.weight);
        let by_ratio = left.cmp(&(u128::from(other.amount) * u128::from(self.weight)));
        by_ratio.then_with(|| self.weight.cmp(&other.weight))
    }
}

impl PartialOrd for PerWeight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PerWeight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PerWeight {}
