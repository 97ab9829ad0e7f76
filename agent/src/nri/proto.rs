//! The messages of NRI (`nri.pkg.api.v1alpha1`) and of ttrpc, with the fields that are used here and no others.
//!
//! Numbers and types are those of containerd/nri v0.12 `pkg/api/api.proto` and containerd/ttrpc `request.proto`; a
//! reader of protobuf skips what it does not know, so a runtime may be newer or older.
use std::collections::HashMap;

use prost::Message;

/// Service that a plugin serves.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// Service that the runtime serves.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// Events a plugin may subscribe to; bit `event − 1` of [`ConfigureResponse::events`].
pub mod event {
    /// A pod is gone: none of its containers is left.
    pub const REMOVE_POD_SANDBOX: i32 = 3;
    /// A container is about to be created.
    pub const CREATE_CONTAINER: i32 = 4;
    /// The runtime has the container.
    pub const POST_CREATE_CONTAINER: i32 = 5;
    /// The container runs.
    pub const POST_START_CONTAINER: i32 = 7;
    /// Resources of a container are about to change.
    pub const UPDATE_CONTAINER: i32 = 8;
    /// They were changed; there is no such event where that failed.
    pub const POST_UPDATE_CONTAINER: i32 = 9;
    /// A container has ended.
    pub const STOP_CONTAINER: i32 = 10;
    /// A container is gone.
    pub const REMOVE_CONTAINER: i32 = 11;
}

/// State of a container: its processes are halted.
pub const CONTAINER_PAUSED: i32 = 2;
/// State of a container: it runs.
pub const CONTAINER_RUNNING: i32 = 3;
/// State of a container: it has ended.
pub const CONTAINER_STOPPED: i32 = 4;

/// ttrpc: a call.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Full name of the service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Method of the service.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: bytes::Bytes,
    /// Time the caller waits, ns; 0 is for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

/// ttrpc: the answer.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Absent or code 0: it went well.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: bytes::Bytes,
}

/// How a call went (`google.rpc.Status`).
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// A message without fields.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// A plugin makes itself known.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterPluginRequest {
    /// Letters, digits, `_.+-`.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// Two digits; plugins are asked in ascending order.
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
}

/// The runtime makes itself known.
#[derive(Clone, PartialEq, Message)]
pub struct ConfigureRequest {
    /// `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// `v2.4.2`.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Time a request waits for its answer, ms; 0 where the runtime does not tell.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
}

/// What the plugin wants to hear.
#[derive(Clone, PartialEq, Message)]
pub struct ConfigureResponse {
    /// Bit `event − 1` for each event.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

/// All that the runtime has, or a part of it.
#[derive(Clone, PartialEq, Message)]
pub struct SynchronizeRequest {
    /// Pods.
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    /// Containers that have not ended.
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    /// Another part follows.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// What is to be changed, in the answer to the last part.
#[derive(Clone, PartialEq, Message)]
pub struct SynchronizeResponse {
    /// Changes.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
    /// The next part may come; as it was asked.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// Something happens to a container. All container requests have this form; the resources come with UpdateContainer only.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerRequest {
    /// Its pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
    /// What it is to get.
    #[prost(message, optional, tag = "3")]
    pub linux_resources: Option<LinuxResources>,
}

/// Something happens to a pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
}

/// The older form of events that need no answer.
#[derive(Clone, PartialEq, Message)]
pub struct StateChangeEvent {
    /// One of [`event`].
    #[prost(int32, tag = "1")]
    pub event: i32,
    /// The pod.
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
    /// The container, if it is about one.
    #[prost(message, optional, tag = "3")]
    pub container: Option<Container>,
}

/// How a container is to be created.
#[derive(Clone, PartialEq, Message)]
pub struct CreateContainerResponse {
    /// Changes to it.
    #[prost(message, optional, tag = "1")]
    pub adjust: Option<ContainerAdjustment>,
    /// Changes to others, made before it is created.
    #[prost(message, repeated, tag = "2")]
    pub update: Vec<ContainerUpdate>,
}

/// Changes to containers; the answer to UpdateContainer and StopContainer, and the request of UpdateContainers.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerUpdates {
    /// Changes.
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<ContainerUpdate>,
}

/// Changes to a container that is being created.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerAdjustment {
    /// Annotations to add.
    #[prost(map = "string, string", tag = "2")]
    pub annotations: HashMap<String, String>,
    /// Environment to add.
    #[prost(message, repeated, tag = "4")]
    pub env: Vec<KeyValue>,
    /// Linux settings.
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxContainerAdjustment>,
    /// Limits to add.
    #[prost(message, repeated, tag = "7")]
    pub rlimits: Vec<PosixRlimit>,
}

/// A name and its value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Linux settings of a container that is being created.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxContainerAdjustment {
    /// Resources.
    #[prost(message, optional, tag = "2")]
    pub resources: Option<LinuxResources>,
}

/// A limit of setrlimit(2).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PosixRlimit {
    /// `RLIMIT_RTPRIO`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Upper bound.
    #[prost(uint64, tag = "2")]
    pub hard: u64,
    /// In force.
    #[prost(uint64, tag = "3")]
    pub soft: u64,
}

/// Changes to a container that exists.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerUpdate {
    /// Which.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Linux settings.
    #[prost(message, optional, tag = "2")]
    pub linux: Option<LinuxContainerUpdate>,
    /// A failure is not an error of the whole request.
    #[prost(bool, tag = "3")]
    pub ignore_failure: bool,
}

/// Linux settings of a container that exists.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxContainerUpdate {
    /// Resources.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<LinuxResources>,
}

/// A pod as the runtime has it.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name of the Pod.
    #[prost(string, tag = "2")]
    pub name: String,
    /// UID of the Pod.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// Namespace of the Pod.
    #[prost(string, tag = "4")]
    pub namespace: String,
    /// Annotations of the Pod.
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
}

/// A container as the runtime has it.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The runtime's id of its pod.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Name within the pod.
    #[prost(string, tag = "3")]
    pub name: String,
    /// See [`CONTAINER_RUNNING`].
    #[prost(int32, tag = "4")]
    pub state: i32,
    /// Its annotations, those included that plugins added when it was created.
    #[prost(map = "string, string", tag = "6")]
    pub annotations: HashMap<String, String>,
    /// Linux settings.
    #[prost(message, optional, tag = "11")]
    pub linux: Option<LinuxContainer>,
}

/// Linux settings of a container.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxContainer {
    /// Resources.
    #[prost(message, optional, tag = "3")]
    pub resources: Option<LinuxResources>,
}

/// Resources of a container.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxResources {
    /// CPUs and memory nodes.
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<LinuxCpu>,
}

/// CPUs and memory nodes.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxCpu {
    /// CFS quota; −1 is none.
    #[prost(message, optional, tag = "2")]
    pub quota: Option<OptionalInt64>,
    /// CPUs, kernel list format; empty is not set.
    #[prost(string, tag = "6")]
    pub cpus: String,
    /// Memory nodes, kernel list format; empty is not set.
    #[prost(string, tag = "7")]
    pub mems: String,
}

/// A number that may be absent.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct OptionalInt64 {
    /// The number.
    #[prost(int64, tag = "1")]
    pub value: i64,
}
