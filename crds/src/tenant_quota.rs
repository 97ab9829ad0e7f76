//! TenantQuota: which namespaces are a tenant, its weight and its hard limits.
use crate::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tenant: the exact namespaces it owns, its weight among the tenants, and its hard limits on concurrency and
/// resources. The tenant's name is the object's name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "TenantQuota",
    plural = "tenantquotas",
    shortname = "tq",
    category = "fairlead",
    status = "TenantQuotaStatus",
    derive = "PartialEq",
    doc = "A tenant: its namespaces, its weight, and its hard limits on concurrency and resources.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name is used as label value: at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight"),
    printcolumn(name = "Released", type_ = "integer", json_path = ".status.releasedPods", description = "Released, live pods"),
    printcolumn(name = "Hard", type_ = "integer", json_path = ".spec.concurrency.hard", description = "Most pods at once"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.waitingPods", description = "Pods behind the gate"),
    printcolumn(name = "Share%", type_ = "integer", json_path = ".status.dominantSharePercent", description = "Used part of its dominant resource"),
    printcolumn(name = "Entitled%", type_ = "integer", json_path = ".status.entitledSharePercent", description = "Part of that resource it is entitled to, capped by demand"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct TenantQuotaSpec {
    /// Exact names of the namespaces that are this tenant. A namespace belongs to one tenant: the oldest TenantQuota
    /// that names it (then the first by name); the others say so in their condition Ready.
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("!self.exists(n, n in ['kube-system', 'kube-public', 'kube-node-lease'])")
            .message("kube-system, kube-public and kube-node-lease cannot be managed")
    )]
    pub namespaces: Vec<String>,
    /// Weight among the tenants: entitlements follow the weights.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: i64,
    /// Limits on released, live pods. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Limits on what released, live pods request. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceLimits>,
}

/// Limits on the number of pods at once.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// No pod is released that would take the tenant above this number, nor once more than 95 % of it are in use.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub hard: i64,
}

/// Limits on resources.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[cfg_attr(test, x_kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct ResourceLimits {
    /// Resource name to amount. No pod is released that would take the tenant above it, nor once more than 95 % of it
    /// are in use. A resource that is not named is unlimited; one that a pod does not request never blocks it.
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new("!('pods' in self)").message("limit the number of pods with spec.concurrency.hard"))]
    pub hard: BTreeMap<String, Quantity>,
}

fn default_weight() -> i64 {
    1
}

/// Most resources that a status lists.
pub const RESOURCES_MAX: usize = 256;

/// The tenant as the operator counts it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantQuotaStatus {
    /// Generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Namespaces that are this tenant's now.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub namespaces: Vec<String>,
    /// Released pods that have not ended, and pods being released.
    #[serde(default)]
    pub released_pods: i32,
    /// Pods behind the gate.
    #[serde(default)]
    pub waiting_pods: i32,
    /// Creation time of the pod that waits longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_waiting: Option<Time>,
    /// What released, live pods request.
    #[serde(default)]
    #[schemars(extend("maxProperties" = RESOURCES_MAX))]
    pub used: BTreeMap<String, Quantity>,
    /// Part of the cluster that the weight gives, whatever is asked for.
    #[serde(default)]
    #[schemars(extend("maxProperties" = RESOURCES_MAX))]
    pub base: BTreeMap<String, Quantity>,
    /// Part of the cluster that the tenant is entitled to now: by weight, capped by demand and by its hard limits.
    #[serde(default)]
    #[schemars(extend("maxProperties" = RESOURCES_MAX))]
    pub entitled: BTreeMap<String, Quantity>,
    /// The resource of which it uses the largest part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominant_resource: Option<String>,
    /// That part, in percent of the cluster, rounded down.
    #[serde(default)]
    pub dominant_share_percent: i32,
    /// Entitled part of the same resource, in percent of the cluster, rounded down.
    #[serde(default)]
    pub entitled_share_percent: i32,
    /// What is the case.
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}
