//! NodeTopology: the machine under one node, as its agent sees it; cold, changes rarely.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine of one node: packages, NUMA nodes, last-level caches, cores. Named as its Node and owned by it; written
/// by the node's agent.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "NodeTopology",
    plural = "nodetopologies",
    shortname = "ntopo",
    category = "fairlead",
    status = "NodeTopologyStatus",
    derive = "PartialEq",
    doc = "The machine under one node: packages, NUMA nodes, caches, cores. Published by the node's agent.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "CPUs", type_ = "integer", json_path = ".status.cpus"),
    printcolumn(name = "Cores", type_ = "integer", json_path = ".status.cores"),
    printcolumn(name = "Packages", type_ = "integer", json_path = ".status.packages"),
    printcolumn(name = "NUMA", type_ = "integer", json_path = ".status.numaNodes"),
    printcolumn(name = "L3", type_ = "integer", json_path = ".status.l3Caches"),
    printcolumn(name = "Pinning", type_ = "string", json_path = ".spec.pinning.mode"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeTopologySpec {
    /// Where the description comes from: Hwloc is the machine itself, Synthetic a text in hwloc's synthetic format
    /// (simulated nodes).
    pub source: TopologySource,
    /// Physical packages (sockets).
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub packages: Vec<CpuGroup>,
    /// NUMA nodes, also those without CPUs.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub numa_nodes: Vec<NumaNode>,
    /// Groups of CPUs that share a level 3 cache; empty where the machine has none.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub l3_caches: Vec<L3Cache>,
    /// Physical cores with their threads.
    #[schemars(length(min = 1, max = 8192))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub cores: Vec<CpuGroup>,
    /// Dies, where a package has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub dies: Vec<CpuGroup>,
    /// Clusters of cores below the level 3 cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub clusters: Vec<CpuGroup>,
    /// Kinds of CPUs on a hybrid machine; empty where all are alike, otherwise every CPU is of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub cpu_kinds: Vec<CpuKind>,
    /// CPUs that the kernel was told to isolate, kernel list format: only pods of class Isolated get them.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "isolatedCPUs")]
    #[schemars(length(max = 49152))]
    pub isolated_cpus: String,
    /// Online CPUs that a cgroup keeps away: nobody gets them, and they are in no other list.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "disallowedCPUs")]
    #[schemars(length(max = 49152))]
    pub disallowed_cpus: String,
    /// CPUs that exist and are offline; they are in no other list.
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "offlineCPUs")]
    #[schemars(length(max = 49152))]
    pub offline_cpus: String,
    /// PCI devices with the CPUs local to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    pub pci_devices: Vec<PciDevice>,
    /// Who pins containers on this node; absent until the agent knows: as Observe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinning: Option<Pinning>,
    /// Where hwloc and sysfs tell different things, or one of them cannot tell the cores or NUMA nodes at all: a node
    /// with an entry here is not trusted with exclusive CPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub disagreements: Vec<Disagreement>,
}

/// Who writes cpusets on the node, and why.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pinning {
    /// Own: the agent pins through the container runtime (NRI). Observe: it may not or cannot; exclusive pods are refused.
    pub mode: PinningMode,
    /// Why, in one word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The kubelet's CPU manager policy, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cpu_manager_policy: Option<String>,
    /// The kubelet's memory manager policy, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub memory_manager_policy: Option<String>,
    /// The container runtime, name and version, once it spoke to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub runtime: Option<String>,
}

/// Who pins.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinningMode {
    /// The agent.
    Own,
    /// Not the agent.
    Observe,
}

/// CPUs of one kind.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CpuKind {
    /// 0 is the most efficient (slowest), higher is faster, -1 unknown.
    #[schemars(range(min = -1, max = 1024))]
    pub efficiency: i32,
    /// CPUs, kernel list format.
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
}

/// A PCI device.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PciDevice {
    /// `0000:3b:00.0`.
    #[schemars(length(min = 1, max = 32))]
    pub address: String,
    /// PCI class, four hexadecimal digits.
    #[schemars(length(min = 4, max = 4))]
    pub class: String,
    /// `vendor:device`, hexadecimal.
    #[schemars(length(min = 9, max = 9))]
    pub id: String,
    /// Names of the operating system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub names: Vec<String>,
    /// CPUs local to it, kernel list format.
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
    /// Address of the lowest PCIe switch above it (of its port towards the CPU); devices with the same one share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub switch: Option<String>,
}

/// Huge pages of one size.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HugePages {
    /// Size of one page, bytes.
    #[schemars(range(min = 4096))]
    pub page_bytes: i64,
    /// How many, used ones included.
    #[schemars(range(min = 0))]
    pub count: i64,
}

/// Source of a description.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologySource {
    /// Read from the machine by hwloc, cross-checked with sysfs.
    Hwloc,
    /// Built from a synthetic text.
    Synthetic,
}

/// CPUs that belong together.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CpuGroup {
    /// Id, unique within its list; ids may have gaps.
    #[schemars(range(min = 0))]
    pub id: i64,
    /// CPUs, kernel list format (`0-3,8`).
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
}

/// A NUMA node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NumaNode {
    /// Id as the operating system counts.
    #[schemars(range(min = 0, max = 65535))]
    pub id: i64,
    /// CPUs, kernel list format; empty for a node with memory only.
    #[serde(default)]
    #[schemars(length(max = 49152))]
    pub cpus: String,
    /// Memory in bytes, huge pages included.
    #[schemars(range(min = 0))]
    pub memory_bytes: i64,
    /// Huge pages by size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pageBytes".into()]))]
    pub huge_pages: Vec<HugePages>,
    /// Kind of memory where a machine has several: DRAM, HBM, NVM, as hwloc calls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub kind: Option<String>,
    /// Relative distances to other NUMA nodes (ACPI SLIT: 10 is local).
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["to".into()]))]
    pub distances: Vec<Distance>,
}

/// Distance to another NUMA node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Distance {
    /// Id of the other NUMA node.
    #[schemars(range(min = 0, max = 65535))]
    pub to: i64,
    /// Relative latency, 10 is local.
    #[schemars(range(min = 0, max = 65535))]
    pub value: i64,
}

/// A level 3 cache.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct L3Cache {
    /// Id, unique within the machine.
    #[schemars(range(min = 0))]
    pub id: i64,
    /// CPUs that share it, kernel list format.
    #[schemars(length(min = 1, max = 49152))]
    pub cpus: String,
    /// Size in bytes; 0 if unknown.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
}

/// One fact on which the two readers of the machine differ.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Disagreement {
    /// Which fact, for example `numaNodes[id=1].cpus`.
    #[schemars(length(max = 256))]
    pub field: String,
    /// What hwloc says.
    #[schemars(length(max = 1024))]
    pub hwloc: String,
    /// What sysfs says.
    #[schemars(length(max = 1024))]
    pub sysfs: String,
}

/// What the operator makes of the description.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeTopologyStatus {
    /// Generation of the spec that was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// CPUs (hardware threads).
    #[serde(default)]
    pub cpus: i32,
    /// Physical cores.
    #[serde(default)]
    pub cores: i32,
    /// Packages.
    #[serde(default)]
    pub packages: i32,
    /// NUMA nodes.
    #[serde(default)]
    pub numa_nodes: i32,
    /// Level 3 caches.
    #[serde(default)]
    pub l3_caches: i32,
    /// What is the case.
    #[serde(default)]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}
