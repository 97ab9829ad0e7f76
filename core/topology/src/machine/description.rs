//! What a source says about a machine, unchecked; the serde form is camelCase with CPU lists as text.

use std::ops::RangeInclusive;

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
    /// Dies, where a package has several; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dies: Vec<GroupDescription>,
    /// Clusters of cores below the L3 (they share an L2 or a bus); empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<GroupDescription>,
    /// Kinds of CPUs on a hybrid machine, least efficient (fastest) last; empty where all are alike, otherwise every CPU
    /// is of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_kinds: Vec<CpuKindDescription>,
    /// CPUs that the kernel was told to isolate.
    #[serde(default, skip_serializing_if = "CpuMask::is_empty")]
    pub isolated: CpuMask,
    /// Online CPUs that a cgroup keeps away; they belong to nobody and are in no other list.
    #[serde(default, skip_serializing_if = "CpuMask::is_empty")]
    pub disallowed: CpuMask,
    /// CPUs that exist and are offline; they are in no other list.
    #[serde(default, skip_serializing_if = "CpuMask::is_empty")]
    pub offline: CpuMask,
    /// PCI devices of interest (network, storage, display, accelerators), by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pci_devices: Vec<PciDescription>,
}

/// CPUs that belong together (a die, a cluster).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupDescription {
    /// Unique in its list.
    pub id: u32,
    /// Its CPUs.
    pub cpus: CpuMask,
}

/// CPUs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuKindDescription {
    /// What hwloc ranks them by: 0 is the most efficient (slowest); -1 unknown.
    pub efficiency: i32,
    /// Its CPUs.
    pub cpus: CpuMask,
}

/// Huge pages of one size on one memory node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugePages {
    /// Size of one page, bytes.
    pub page_bytes: u64,
    /// How many there are, used ones included.
    pub count: u64,
}

/// A PCI device and what it is close to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PciDescription {
    /// `0000:3b:00.0`.
    pub address: String,
    /// PCI class, 16 bits (`0x0302` is a 3D controller).
    pub class: u16,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Names the operating system has for it (`eth0`, `nvme0n1`); may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// CPUs that are local to it: of an L3, of a NUMA node, or of the whole machine where nothing is known.
    pub cpus: CpuMask,
    /// Address of the lowest PCIe switch above it (of its port towards the CPU); devices with the same one share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
}

impl PciDescription {
    /// Whether a text is an address as Linux writes it, `domain:bus:device.function`: four to eight, two and two
    /// lower-case hexadecimal digits, and one from 0 to 7.
    #[must_use]
    pub fn is_address(text: &str) -> bool {
        let Some((rest, function)) = text.rsplit_once('.') else { return false };
        let mut parts = rest.split(':');
        let mut next = |lengths: RangeInclusive<usize>| {
            parts.next().is_some_and(|part| {
                lengths.contains(&part.len()) && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        let digits = next(4..=8) && next(2..=2) && next(2..=2) && parts.next().is_none();
        digits && matches!(function.as_bytes(), [b'0'..=b'7'])
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NumaDescription {
    /// The kernel's node number; may be sparse.
    pub id: u32,
    /// CPUs that are local to it; empty for a node that is memory only.
    pub cpus: CpuMask,
    /// Its memory, bytes; huge pages included.
    pub memory_bytes: u64,
    /// Its huge pages by size, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<HugePages>,
    /// What kind of memory where there are several (`DRAM`, `HBM`, `NVM`, as hwloc calls them).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
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
