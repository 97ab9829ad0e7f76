//! Weighted water-filling kept up to date tenant by tenant: whoever asks for one tenant's entitlement after every event
//! cannot pay for all of them.
use crate::entitlement::{MAX_WEIGHT, PerWeight};
use std::collections::BTreeMap;

/// All demands of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// By demand per weight, ascending; how many ask for exactly that.
    asked: BTreeMap<PerWeight, u32>,
    sum: u128,
}

/// How far a total goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaterLine {
    /// What is left for those whose demand is not met.
    left: u64,
    /// Their weights together; 0: everybody has what it asks for.
    weight_left: u128,
}

impl Demands {
    /// One more that asks; a demand of 0, and a weight of 0, have no part in it.
    pub fn add(&mut self, demand: u64, weight: u64) {
        if demand > 0 && weight > 0 {
            *self.asked.entry(PerWeight::new(demand, weight)).or_default() += 1;
            self.sum += u128::from(demand);
        }
    }

    /// One less, that was added so.
    pub fn remove(&mut self, demand: u64, weight: u64) {
        let key = PerWeight::new(demand, weight);
        let Some(count) = self.asked.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            self.asked.remove(&key);
        }
        self.sum = self.sum.saturating_sub(u128::from(demand));
    }

    /// How far `total` goes; quick where it is enough for all.
    #[must_use]
    pub fn line(&self, total: u64) -> WaterLine {
        if self.sum <= u128::from(total) {
            return WaterLine { left: total, weight_left: 0 };
        }
        let weight = |(asked, count): (&PerWeight, &u32)| u128::from(asked.weight()) * u128::from(*count);
        let mut line = WaterLine { left: total, weight_left: self.asked.iter().map(weight).sum() };
        for (asked, count) in &self.asked {
            for _ in 0..*count {
                if !line.meets(asked.amount(), asked.weight()) {
                    return line;
                }
                line.left -= asked.amount();
                line.weight_left -= u128::from(asked.weight());
            }
        }
        line
    }
}

impl WaterLine {
    fn meets(self, demand: u64, weight: u64) -> bool {
        u128::from(demand) * self.weight_left <= u128::from(self.left) * u128::from(weight)
    }

    /// The entitlement of one that asks for so much, as [`crate::entitlements`] has it, but for the one unit that largest
    /// remainders may add to it.
    #[must_use]
    pub fn part(self, demand: u64, weight: u64) -> u64 {
        let weight = weight.min(MAX_WEIGHT);
        if weight == 0 {
            return 0;
        }
        if self.meets(demand, weight) {
            return demand;
        }
        let part = u128::from(self.left) * u128::from(weight) / self.weight_left.max(1);
        u64::try_from(part).unwrap_or(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TenantDemand, entitlements};
    use proptest::prelude::*;

    proptest! {
        /// Also after others have come and gone.
        #[test]
        fn a_part_is_the_entitlement_but_for_a_unit(
            total in 0u64..2_000,
            asked in proptest::collection::vec((0u64..500, 0u64..9), 1..12),
            gone in proptest::collection::vec((0u64..500, 1u64..9), 0..4),
        ) {
            let mut demands = Demands::default();
            for &(demand, weight) in asked.iter().chain(&gone) {
                demands.add(demand, weight);
            }
            for &(demand, weight) in &gone {
                demands.remove(demand, weight);
            }
            let line = demands.line(total);
            let tenants: Vec<TenantDemand> = (0..).zip(&asked).map(|(n, &(demand, weight)): (u32, _)| TenantDemand {
                name: format!("t{n:02}"),
                weight,
                demand: [("cpu".to_owned(), demand)].into(),
                ..TenantDemand::default()
            }).collect();
            let all = entitlements(&[("cpu".to_owned(), total)].into(), &tenants);
            for (tenant, &(demand, weight)) in tenants.iter().zip(&asked) {
                let (exact, part) = (all[&tenant.name]["cpu"], line.part(demand, weight));
                prop_assert!(part <= exact && exact <= part + 1, "{part} {exact}");
            }
        }
    }
}
