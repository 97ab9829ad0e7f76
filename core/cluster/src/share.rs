//! Fair-share weighting of scores: a tenant below its entitlement gets well-aligned capacity first, a tenant above it is
//! steered to leftovers, so that large holes stay whole for others.
use crate::pod::PodWish;
use crate::snapshot::Snapshot;
use crate::tenant::TenantView;
use fairlead_fairshare::{Demands, ResourceVector, WaterLine, dominant};
use fairlead_topology::Score;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The whole of a weight.
const PERMILLE: u64 = 1_000;

/// How the two terms of a score are weighed for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weighing {
    /// Weight of the alignment in thousandths; the rest is the weight of the holes left whole.
    pub alignment_permille: u32,
    /// The tenant; none: ½ and ½.
    pub tenant: Option<String>,
    /// Its dominant resource: of what it uses, or of the pod where it uses nothing.
    pub resource: Option<String>,
    /// What the tenant uses of it.
    pub used: u64,
    /// What it is entitled to.
    pub entitled: u64,
}

impl Weighing {
    /// The two terms as one score, 0 to 100, rounded half up.
    #[must_use]
    pub fn points(&self, score: Score) -> u8 {
        let weight = u64::from(self.alignment_permille).min(PERMILLE);
        let sum = weight * u64::from(score.alignment) + (PERMILLE - weight) * u64::from(score.holes);
        u8::try_from((sum + PERMILLE / 2) / PERMILLE).unwrap_or(100).min(100)
    }
}

/// q = clamp(½ + (entitled − used) / (2·entitled), 0, 1) in thousandths; 0 where nothing is entitled.
fn permille(entitled: u64, used: u64) -> u32 {
    let whole = u128::from(entitled) * 2;
    let part = whole.saturating_sub(u128::from(used)) * u128::from(PERMILLE);
    part.checked_div(whole).and_then(|q| u32::try_from(q).ok()).unwrap_or(0)
}

impl Snapshot {
    /// How the scores of a pod are weighed.
    #[must_use]
    pub fn weighing(&self, pod: &PodWish) -> Weighing {
        let Some(tenant) = self.tenant_in(&pod.id.namespace) else {
            let half = u32::try_from(PERMILLE / 2).unwrap_or(0);
            return Weighing { alignment_permille: half, tenant: None, resource: None, used: 0, entitled: 0 };
        };
        let total = self.total();
        let top = dominant(&total, &tenant.used).or_else(|| dominant(&total, &pod.request));
        let resource = top.map(|top| top.resource);
        let of = |vector: &ResourceVector| resource.as_ref().and_then(|r| vector.get(r)).copied().unwrap_or(0);
        let (used, entitled) = (of(&tenant.used), of(&self.entitled(tenant)));
        Weighing {
            alignment_permille: permille(entitled, used),
            tenant: Some(tenant.name.clone()),
            resource,
            used,
            entitled,
        }
    }

    /// What a tenant is entitled to, by the demand of all that it holds and of all its waiting pods that its own limits
    /// could ever admit; but for one unit of rounding as [`fairlead_fairshare::entitlements`] has it.
    #[must_use]
    pub fn entitled(&self, tenant: &TenantView) -> ResourceVector {
        let part = |(resource, line): (&String, &WaterLine)| {
            let demand = tenant.demand.get(resource).copied().unwrap_or(0);
            (resource.clone(), line.part(demand, tenant.share_weight()))
        };
        self.lines.iter().map(part).collect()
    }
}

/// The demands of all tenants, kept up to date as their views change.
#[derive(Debug, Default)]
pub(crate) struct Waters {
    demands: BTreeMap<String, Demands>,
    /// Since the lines were found.
    changed: bool,
    total: ResourceVector,
    lines: Lines,
}

impl Waters {
    /// A tenant's view takes the place of another, or of none.
    pub(crate) fn replace(&mut self, former: Option<&TenantView>, now: Option<&TenantView>) {
        let key = |tenant: &TenantView| (tenant.share_weight(), tenant.demand.clone());
        if former.map(key) == now.map(key) {
            return;
        }
        former.into_iter().for_each(|tenant| self.remove(tenant));
        now.into_iter().for_each(|tenant| self.add(tenant));
    }

    fn add(&mut self, tenant: &TenantView) {
        for (resource, &demand) in &tenant.demand {
            self.changed = true;
            match self.demands.get_mut(resource) {
                Some(demands) => demands.add(demand, tenant.share_weight()),
                None => self.demands.entry(resource.clone()).or_default().add(demand, tenant.share_weight()),
            }
        }
    }

    fn remove(&mut self, tenant: &TenantView) {
        for (resource, &demand) in &tenant.demand {
            if let Some(demands) = self.demands.get_mut(resource) {
                demands.remove(demand, tenant.share_weight());
                self.changed = true;
            }
        }
    }

    /// How far each resource of `total` goes.
    pub(crate) fn lines(&mut self, total: ResourceVector) -> Lines {
        if std::mem::take(&mut self.changed) || total != self.total {
            let nothing = Demands::default();
            let line = |(resource, &total): (&String, &u64)| {
                (resource.clone(), self.demands.get(resource).unwrap_or(&nothing).line(total))
            };
            self.lines = Arc::new(total.iter().map(line).collect());
            self.total = total;
        }
        Arc::clone(&self.lines)
    }
}

pub(crate) type Lines = Arc<BTreeMap<String, WaterLine>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_falls_from_one_at_nothing_to_none_at_twice_the_entitlement() {
        let of = |entitled, used| permille(entitled, used);
        assert_eq!([of(10, 0), of(10, 5), of(10, 10), of(10, 15), of(10, 20), of(10, 99)], [1000, 750, 500, 250, 0, 0]);
        assert_eq!([of(0, 0), of(0, 5), of(u64::MAX, 0), of(u64::MAX, u64::MAX)], [0, 0, 1000, 500]);
    }

    #[test]
    fn points_lie_between_the_two_terms() {
        let score = Score { alignment: 90, holes: 20 };
        let of = |alignment_permille| {
            let plain = Weighing { alignment_permille, tenant: None, resource: None, used: 0, entitled: 0 };
            plain.points(score)
        };
        assert_eq!([of(1000), of(500), of(0), of(333), of(9_999)], [90, 55, 20, 43, 90]);
    }
}
