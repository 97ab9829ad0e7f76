//! TenantLedger: epoch and intents of the release protocol of one tenant.
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator is about to release for one tenant. Named as the tenant. Never edited by people; rebuilt from the
/// pods if lost.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "TenantLedger",
    plural = "tenantledgers",
    shortname = "tled",
    category = "fairlead",
    derive = "PartialEq",
    doc = "Epoch and intents of the release protocol of one tenant. Kept by the operator, never edited by people.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(name = "Holder", type_ = "string", json_path = ".spec.holder"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("self.epoch >= oldSelf.epoch").message("epoch never goes back"))]
#[serde(rename_all = "camelCase")]
pub struct TenantLedgerSpec {
    /// Raised by every new leader before it lists the pods; fences the leaders before it.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// Identity of the operator that raised the epoch.
    #[schemars(length(max = 253))]
    pub holder: String,
    /// Pods whose gate is about to be removed.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["podUID".into()]))]
    pub intents: Vec<Intent>,
}

/// A release that was decided and may be under way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// UID of the pod.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 64))]
    pub pod_uid: String,
    /// Namespace of the pod.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the pod.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// resourceVersion of the pod that the gate removal will carry as precondition.
    #[schemars(length(min = 1, max = 64))]
    pub resource_version: String,
}
