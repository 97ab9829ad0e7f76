//! What a source says about a machine, unchecked; the serde form is camelCase with CPU lists as text.

use serde::{Deserialize, Serialize};

use crate::CpuMask;

/// A machine as hwloc, sysfs or a NodeTopology object describes it. [`crate::Machine::new`] checks it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineDescription {
    /// Processor sockets.
    pub packages: Vec<PackageDescription>,
    /// Memory nodes; those without CPUs (device or far memory) are listed too.
    pub numa_nodes: Vec<NumaDescription>,
    /// Last-level caches of level 3; empty on machines that have none.
    #[serde(default)]
    pub l3_caches: Vec<CacheDescription>,
    /// Physical cores.
    pub cores: Vec<CoreDescription>,
}

/// One processor socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageDescription {
    /// The kernel's physical package id.
    pub id: u32,
    /// Its CPUs.
    pub cpus: CpuMask,
}

/// One memory node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumaDescription {
    /// The kernel's node number; may be sparse.
    pub id: u32,
    /// CPUs that are local to it; empty for a node that is memory only.
    pub cpus: CpuMask,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// Distances from this node, in SLIT units (10 = local); a pair that is not given counts as
    /// [`crate::REMOTE_DISTANCE`].
    #[serde(default)]
    pub distances: Vec<NumaDistance>,
}

/// Distance to one memory node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumaDistance {
    /// Id of the other node.
    pub to: u32,
    /// SLIT units, 10 = local; at least 1.
    pub value: u32,
}

/// One L3 cache: the CPUs that share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheDescription {
    /// Unique among the L3 caches of the machine.
    pub id: u32,
    /// The CPUs that share it.
    pub cpus: CpuMask,
    /// Its size, bytes.
    pub size_bytes: u64,
}

/// One physical core: its hardware threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreDescription {
    /// Unique in the machine (the kernel's core ids repeat per package, so sources number them anew).
    pub id: u32,
    /// Its CPUs (hardware threads).
    pub cpus: CpuMask,
}
