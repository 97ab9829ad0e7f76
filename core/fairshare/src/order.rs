//! The order of release: which waiting pods go now, which wait and why, and the line in which they stand.
use crate::limit::ResourceVector;
use crate::pass::Pass;
use crate::reason::WaitReason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pod behind the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingPod {
    /// UID, unique among all pods of the input; of equal ones the first in order counts and the others are left out.
    pub uid: String,
    /// Its effective request. It counts as one of [`crate::PODS`] whether that is in here or not.
    pub request: ResourceVector,
    /// Priority: compared with the tenant's own pods only.
    pub priority: i32,
    /// Creation time.
    pub created_ms: u64,
}

/// A tenant, what it holds and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantInput {
    /// Name, unique among the tenants.
    pub name: String,
    /// Weight, at least 1.
    pub weight: u64,
    /// Hard limits; absent: unlimited.
    pub hard: ResourceVector,
    /// Requests of its released, live pods and of its intents, [`crate::PODS`] included.
    pub used: ResourceVector,
    /// Its pods behind the gate.
    pub pending: Vec<PendingPod>,
}

/// All that the order of release depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseInput {
    /// The tenants, in any order.
    pub tenants: Vec<TenantInput>,
    /// What is shared: allocatable of the Ready nodes minus what unmanaged pods use. A resource that is absent does not
    /// exist in the cluster; only [`crate::PODS`] may be left out, and is then no bound on capacity.
    pub total: ResourceVector,
    /// Schedulable capacity minus the requests of the pods bound there.
    pub free: ResourceVector,
    /// Requests of the pods that are released, or intended to be, and not bound yet.
    pub unbound: ResourceVector,
    /// Release goes on while `unbound + request ≤ free + total · window_percent / 100`, per resource asked for.
    pub window_percent: u32,
    /// Most releases of one plan.
    pub max_releases: usize,
}

/// A pod that goes now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Its tenant.
    pub tenant: String,
    /// Its UID.
    pub uid: String,
}

/// A pod that stays behind the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its tenant.
    pub tenant: String,
    /// Its UID.
    pub uid: String,
    /// Why.
    pub reason: WaitReason,
}

/// What to do with every waiting pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleasePlan {
    /// In the order of release.
    pub release: Vec<Release>,
    /// The others, by tenant name and within it in the tenant's own order.
    pub waiting: Vec<Waiting>,
    /// What each well-configured tenant is entitled to, by name: computed with a demand of all that it holds and of all
    /// its waiting pods that could ever run.
    pub entitled: BTreeMap<String, ResourceVector>,
}

/// Decides which pods are released now.
///
/// Each tenant's pods stand in the tenant's own order: priority, then the oldest, then the UID. The first of them that
/// the tenant's hard limits and the capacity admit stands for the tenant; one that is not admitted is passed over and
/// blocks nobody. Among the tenants goes first
///
/// 1. who stays within its entitlement with the candidate, before who goes beyond it;
/// 2. the smaller weighted dominant share, the candidate included;
/// 3. the older candidate, then the lower UID.
///
/// Each release counts at once for all that follow. The result does not depend on the order of the input.
///
/// Priority decides *which* pod stands for its tenant rather than breaking ties of the share: otherwise a tenant's small
/// pods would always overtake its large ones of higher priority.
#[must_use]
pub fn plan(input: &ReleaseInput) -> ReleasePlan {
    plan_within(input, &BTreeMap::new())
}

/// [`plan`] with at most so many releases of a tenant; of one that is not named, any number.
#[must_use]
pub fn plan_within(input: &ReleaseInput, most: &BTreeMap<String, usize>) -> ReleasePlan {
    Pass::new(input, true).run(input.max_releases, most)
}

/// The line: all pods that the hard limits would admit one after the other, in the order in which they would be released
/// as capacity becomes free. A pod's position is its index + 1; a pod that is not in it waits for something else.
#[must_use]
pub fn line(input: &ReleaseInput) -> Vec<Release> {
    Pass::new(input, false).run(usize::MAX, &BTreeMap::new()).release
}
