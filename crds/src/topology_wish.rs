//! The topology wish: which CPUs the pods of a pool want, and near what.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which CPUs pods wish for. Everything is a wish but `cpus: Exclusive`, `align: SingleNUMA`, `cache: RequireOneL3` and
/// `class: Isolated`: where those cannot be had, the node is refused.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, x_kube(cel))]
#[x_kube(
    validation = Rule::new("!(has(self.cpus) && self.cpus == 'Shared' && has(self.class) && self.class == 'Isolated')")
        .message("class Isolated is for CPUs of their own: leave cpus: Shared out, or class: Isolated")
)]
#[serde(rename_all = "camelCase")]
pub struct TopologyWish {
    /// Exclusive: CPUs of their own; the pod must be Guaranteed, and at least one container must ask for whole CPUs.
    /// Shared: none, whatever they ask for. Absent: exclusive where pod and request allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuOwnership>,
    /// Which hardware threads of a core: WholeCores (a sibling left over stays idle), OnePerCore (siblings stay idle), or
    /// Any (siblings may belong to other pods).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadWish>,
    /// How many NUMA nodes: SingleNUMA (one or refused), FewestNUMA, or Spread (as many as possible, evenly).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<AlignWish>,
    /// PreferOneL3 (one if it fits, else as few as possible), or RequireOneL3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheWish>,
    /// BestFit (the tightest hole, so that large ones stay whole) or Spread (the emptiest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<PackingWish>,
    /// Regular, or Isolated: only CPUs that the kernel was told to isolate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<CpuClassWish>,
    /// Devices to be near: `claims` (those allocated to the pod's resource claims), a PCI address (`0000:3b:00.0`),
    /// `vendor:device` in hexadecimal (`10de:2330`, `10de:*`), or a name of the operating system (`eth0`). Absent: `claims`;
    /// a list without `claims` renounces them. Devices of claims are known before the CPUs are chosen. Everything else is a
    /// prediction: a device plugin's device is chosen by the kubelet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_.:*-]+$")))]
    pub near: Vec<String>,
    /// Whose neighbours they want to be, and whose not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colocation: Option<Colocation>,
    /// Score: kube-scheduler weighs our score among others. Decide: the extender's filter returns the one best node, which
    /// overrides every other score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PlacementMode>,
}

/// Pools of the same namespace by name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Colocation {
    /// An L3 cache with one of their pods in it is better.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub likes: Vec<String>,
    /// An L3 cache with one of their pods in it is worse; a core with one of them on it is refused. The same holds for their
    /// pods where one of this pool is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub dislikes: Vec<String>,
}

/// Whether CPUs are owned.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuOwnership {
    /// CPUs of their own.
    Exclusive,
    /// The shared pool.
    Shared,
}

/// Which hardware threads.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadWish {
    /// All threads of each core.
    WholeCores,
    /// One thread of each core.
    OnePerCore,
    /// Single threads.
    Any,
}

/// How many NUMA nodes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignWish {
    /// One, or the node is refused.
    SingleNUMA,
    /// As few as possible.
    FewestNUMA,
    /// As many as possible.
    Spread,
}

/// How caches are weighed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheWish {
    /// One if it fits, else as few as possible.
    PreferOneL3,
    /// One, or the node is refused.
    RequireOneL3,
}

/// Which hole.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackingWish {
    /// The tightest.
    BestFit,
    /// The emptiest.
    Spread,
}

/// Which CPUs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuClassWish {
    /// Never isolated ones.
    Regular,
    /// Only isolated ones.
    Isolated,
}

/// Who has the last word on the node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementMode {
    /// kube-scheduler, with our score as one of several.
    Score,
    /// The extender.
    Decide,
}
