//! WorkerPool: a scalable workload, the queue that feeds it, and how it follows that queue.
use crate::TopologyWish;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A scalable workload of this cluster whose replicas follow the backlog of a queue, within its bounds and its
/// tenant's hard limits.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "WorkerPool",
    plural = "workerpools",
    shortname = "wp",
    category = "fairlead",
    namespaced,
    status = "WorkerPoolStatus",
    derive = "PartialEq",
    doc = "A scalable workload whose replicas follow the backlog of a queue within its tenant's quota.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.scaleTargetRef.name"),
    printcolumn(
        name = "Wanted",
        type_ = "integer",
        json_path = ".status.wantedReplicas",
        description = "What the queue asks for, before quota"
    ),
    printcolumn(
        name = "Ordered",
        type_ = "integer",
        json_path = ".status.orderedReplicas",
        description = "Replicas written to the target"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(
        name = "Backlog",
        type_ = "integer",
        json_path = ".status.backlog.length",
        description = "Undelivered work; empty when unknown"
    ),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ScalingActive")].status"#
    ),
    printcolumn(
        name = "Limited",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="LimitedByQuota")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not be above maxReplicas"))]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolSpec {
    /// The workload, in the pool's namespace; anything with a scale subresource.
    pub scale_target_ref: ScaleTargetRef,
    /// Fewest replicas.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub min_replicas: i32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_replicas: i32,
    /// Where the backlog is read, in order: the first one with a fresh answer is used.
    #[schemars(length(min = 1, max = 4))]
    pub queue_sources: Vec<QueueSource>,
    /// What one worker does, until it is measured.
    #[serde(default)]
    pub worker: Worker,
    /// How the replicas follow the backlog.
    #[serde(default)]
    pub scaling: Scaling,
    /// Which CPUs the workers wish for. Annotations `topology.fairlead.dev/FIELD` of a pod go before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyWish>,
}

/// A workload with a scale subresource.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// For example `apps/v1`.
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-z]([-a-z0-9]*[a-z0-9])?$"
        )
    )]
    pub api_version: String,
    /// For example `Deployment`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub kind: String,
    /// Name in the pool's namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// One way to read the backlog.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, x_kube(cel))]
#[x_kube(validation = Rule::new("self.type != 'RedisStream' || has(self.redisStream)").message("type RedisStream needs redisStream"))]
#[serde(rename_all = "camelCase")]
pub struct QueueSource {
    /// Which of the members below is used.
    #[serde(rename = "type")]
    pub type_: QueueSourceType,
    /// An answer older than this is Unknown.
    #[serde(default = "default_stale_after_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub stale_after_seconds: i32,
    /// A Redis stream with a consumer group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_stream: Option<RedisStream>,
}

/// Kinds of queue.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueSourceType {
    /// A Redis stream with a consumer group (Redis 7 or later: the group's lag is used).
    RedisStream,
}

/// A Redis stream and one consumer group of it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RedisStream {
    /// `host:port`. Reached only if the operator's allow-list admits it.
    #[schemars(length(min = 3, max = 259), regex(pattern = r"^[A-Za-z0-9.-]+:[0-9]{1,5}$"))]
    pub address: String,
    /// Key of the stream.
    #[schemars(length(min = 1, max = 512))]
    pub stream: String,
    /// Consumer group that the workers use.
    #[schemars(length(min = 1, max = 512))]
    pub group: String,
    /// Key of a Secret in the pool's namespace with the password. The namespace's owner grants the operator the right
    /// to read that one Secret; the condition QueueKnown prints the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
}

/// A key of a Secret in the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key within it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What one worker does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// Thousandths of an item per second that one Ready worker takes; used until it is measured.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub rate_per_second_milli: i64,
    /// Seconds from ordering a worker until it is Ready.
    #[schemars(range(min = 0, max = 3600))]
    pub startup_seconds: i32,
}

impl Default for Worker {
    fn default() -> Self {
        Self { rate_per_second_milli: 10_000, startup_seconds: 2 }
    }
}

/// How replicas follow the backlog.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// The rule.
    pub policy: ScalingPolicy,
    /// When to give replicas back.
    pub scale_down: ScaleDown,
}

/// The scaling rule.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingPolicy {
    /// Which rule.
    #[serde(rename = "type")]
    pub type_: ScalingPolicyType,
    /// Terms of the rule CatchUp.
    pub catch_up: CatchUp,
}

/// Scaling rules.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScalingPolicyType {
    /// Enough workers to serve the arrivals at the given utilization and to work off the backlog within drainSeconds.
    #[default]
    CatchUp,
}

/// Terms of the rule CatchUp.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct CatchUp {
    /// Seconds within which a backlog shall be worked off.
    #[schemars(range(min = 1, max = 3600))]
    pub drain_seconds: i32,
    /// Percent of a worker's rate that arrivals may use.
    #[schemars(range(min = 10, max = 100))]
    pub utilization_percent: i32,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { drain_seconds: 10, utilization_percent: 85 }
    }
}

/// When to give replicas back.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// Replicas fall only to the most that was wanted within this window.
    #[schemars(range(min = 0, max = 3600))]
    pub window_seconds: i32,
    /// Seconds between two reductions.
    #[schemars(range(min = 0, max = 3600))]
    pub idle_seconds: i32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { window_seconds: 120, idle_seconds: 30 }
    }
}

fn default_stale_after_seconds() -> i32 {
    10
}

/// The pool as the operator sees it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPoolStatus {
    /// Generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas that the queue asks for, before quota; absent while the queue is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_replicas: Option<i32>,
    /// Replicas written to the target.
    #[serde(default)]
    pub ordered_replicas: i32,
    /// Ready replicas of the target.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Most replicas that the tenant's hard limits admit now; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_replicas: Option<i32>,
    /// Label selector of the target's pods, as its scale subresource tells it; by it the scheduler extender knows which
    /// pods are of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub selector: Option<String>,
    /// The backlog; absent while it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// What is the case.
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}

/// Work in the queue.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Items not yet handed to a worker.
    pub length: i64,
    /// Items handed out and not yet acknowledged.
    pub in_flight: i64,
}
