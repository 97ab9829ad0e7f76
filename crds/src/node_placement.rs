//! NodePlacement: the reservations of one node; small and hot.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pod holds which CPUs and how much memory of which NUMA node. Named as its Node and owned by it. The agent
/// creates it; the extender in use writes `spec` by JSON patch with a `test` on `/metadata/uid` and
/// `/metadata/generation`, so that no CPU is promised twice.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "NodePlacement",
    plural = "nodeplacements",
    shortname = "npl",
    category = "fairlead",
    status = "NodePlacementStatus",
    derive = "PartialEq",
    doc = "The reservations of one node: which pod holds which CPUs. Written by the extender, checked by the agent.",
    printcolumn(
        name = "Consistent",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Consistent")].status"#
    ),
    printcolumn(
        name = "Pods",
        type_ = "integer",
        json_path = ".status.pods",
        description = "Pods that hold CPUs of their own"
    ),
    printcolumn(
        name = "CPUs",
        type_ = "integer",
        json_path = ".status.reservedCPUs",
        description = "CPUs reserved for them"
    ),
    printcolumn(
        name = "Pinned",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Pinned")].status"#,
        description = "Every container with CPUs of its own runs on them"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacementSpec {
    /// One entry for each pod that holds CPUs of its own on this node.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["podUID".into()]))]
    pub reservations: Vec<Reservation>,
}

/// CPUs and memory promised to one pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// UID of the pod: a pod of the same name that is created anew is another.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 64))]
    pub pod_uid: String,
    /// Namespace of the pod.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the pod.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// When the promise was made.
    pub reserved_at: Time,
    /// All CPUs taken, kernel list format; includes the idle sibling of a half used core.
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
    /// Containers with CPUs of their own.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub containers: Vec<ReservedContainer>,
    /// The CPUs are isolated ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Bytes promised on each NUMA node.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["numaNode".into()]))]
    pub memory: Vec<ReservedMemory>,
}

/// CPUs of one container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReservedContainer {
    /// Container name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its CPUs, kernel list format.
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
}

/// Memory of one NUMA node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReservedMemory {
    /// NUMA node id as the operating system counts.
    #[schemars(range(min = 0, max = 65535))]
    pub numa_node: i64,
    /// Bytes, without huge pages.
    #[schemars(range(min = 0))]
    pub bytes: i64,
    /// Bytes in huge pages, by page size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pageBytes".into()]))]
    pub huge_pages: Vec<ReservedHugePages>,
}

/// Huge pages of one size.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReservedHugePages {
    /// Size of one page, bytes.
    #[schemars(range(min = 4096))]
    pub page_bytes: i64,
    /// Bytes in such pages.
    #[schemars(range(min = 0))]
    pub bytes: i64,
}

/// One container with CPUs of its own, as it was last seen on the node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ObservedContainer {
    /// UID of its pod.
    #[serde(rename = "podUID")]
    #[schemars(length(min = 1, max = 64))]
    pub pod_uid: String,
    /// Container name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Pinned, Pending, Unpinned or Drifted.
    pub state: PinState,
    /// CPUs it runs on, kernel list format; empty while Pending.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 49152))]
    pub cpus: String,
    /// Memory nodes it runs on, kernel list format; empty while Pending.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub memory_nodes: String,
    /// What is not as promised.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// How a container with a promise runs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// Promised and not created yet.
    Pending,
    /// On exactly the promised CPUs and memory nodes.
    Pinned,
    /// Created while no agent was there, and not corrected yet.
    Unpinned,
    /// On other CPUs or memory nodes than promised, and the runtime refuses to correct it.
    Drifted,
}

/// What the node's agent found when it held the reservations against its machine.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacementStatus {
    /// Generation of the spec that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods with a reservation.
    #[serde(default)]
    pub pods: i32,
    /// CPUs reserved.
    #[serde(default, rename = "reservedCPUs")]
    pub reserved_cpus: i32,
    /// CPUs of the shared pool, kernel list format.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "sharedCPUs")]
    #[schemars(length(max = 49152))]
    pub shared_cpus: String,
    /// Every container with CPUs of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub containers: Vec<ObservedContainer>,
    /// What is the case.
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}
