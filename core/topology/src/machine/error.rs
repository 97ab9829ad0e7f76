//! The lies a machine description can tell, one variant each.

use std::fmt;

use crate::CpuMask;

/// The list of the description that an error is about; shown by its name in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// `packages`
    Packages,
    /// `numaNodes`
    NumaNodes,
    /// `l3Caches`
    L3Caches,
    /// `cores`
    Cores,
    /// `dies`
    Dies,
    /// `clusters`
    Clusters,
    /// `cpuKinds`; they have no ids, their positions count
    CpuKinds,
}

/// A set of CPUs of the description that is no list of entries; shown by its name in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuField {
    /// `isolatedCPUs`
    Isolated,
    /// `disallowedCPUs`
    Disallowed,
    /// `offlineCPUs`
    Offline,
}

impl fmt::Display for CpuField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Isolated => "isolatedCPUs",
            Self::Disallowed => "disallowedCPUs",
            Self::Offline => "offlineCPUs",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packages => "packages",
            Self::NumaNodes => "numaNodes",
            Self::L3Caches => "l3Caches",
            Self::Cores => "cores",
            Self::Dies => "dies",
            Self::Clusters => "clusters",
            Self::CpuKinds => "cpuKinds",
        })
    }
}

/// Why a description is no machine. Every message names the field and the ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// A list that every machine has is empty.
    #[error("{field}: empty; a machine has at least one")]
    Empty {
        /// Which list.
        field: Field,
    },
    /// No NUMA node has CPUs.
    #[error("numaNodes: none of them has CPUs; describe a machine without NUMA as one node with all CPUs")]
    NoNumaNodeWithCpus,
    /// A package, cache or core without CPUs (a NUMA node may have none).
    #[error("{field}[id={id}].cpus: empty")]
    NoCpus {
        /// Which list.
        field: Field,
        /// Which entry.
        id: u32,
    },
    /// A CPU id is not below [`crate::MAX_CPUS`].
    #[error("{field}[id={id}].cpus: CPU {cpu} is out of range; the highest supported is {max}")]
    CpuOutOfRange {
        /// Which list.
        field: Field,
        /// Which entry.
        id: u32,
        /// The highest CPU named.
        cpu: u32,
        /// The highest CPU allowed.
        max: u32,
    },
    /// Two entries have the same id.
    #[error("{field}: id {id} is there twice; ids are unique within the machine")]
    DuplicateId {
        /// Which list.
        field: Field,
        /// The id.
        id: u32,
    },
    /// Two entries claim the same CPUs.
    #[error("{field}: ids {first} and {second} both claim CPUs {cpus}")]
    Overlap {
        /// Which list.
        field: Field,
        /// The entry that comes first.
        first: u32,
        /// The entry that comes later.
        second: u32,
        /// What both claim.
        cpus: CpuMask,
    },
    /// CPUs are named that belong to no core.
    #[error("{field}[id={id}].cpus: CPUs {cpus} belong to no core")]
    NotInCore {
        /// Which list.
        field: Field,
        /// Which entry.
        id: u32,
        /// The CPUs without core.
        cpus: CpuMask,
    },
    /// A core's CPUs belong to no package, no NUMA node, or none of the CPU kinds where there are some.
    #[error("cores[id={core}].cpus: CPUs {cpus} are in none of {field}")]
    CoreOutside {
        /// The core.
        core: u32,
        /// The list that should have them.
        field: Field,
        /// The CPUs that are missing there.
        cpus: CpuMask,
    },
    /// A core lies only partly in a package, NUMA node, L3, die, cluster or CPU kind.
    #[error("cores[id={core}].cpus: {cpus} is not wholly inside {field}[id={id}]; a physical core cannot be divided")]
    CoreStraddles {
        /// The core.
        core: u32,
        /// The core's CPUs.
        cpus: CpuMask,
        /// What it straddles.
        field: Field,
        /// The entry it is partly in.
        id: u32,
    },
    /// An L3 and a NUMA node overlap and neither contains the other.
    #[error("l3Caches[id={l3}].cpus: lies across the border of numaNodes[id={numa}]; one must contain the other")]
    L3StraddlesNuma {
        /// The cache.
        l3: u32,
        /// The NUMA node it is partly in.
        numa: u32,
    },
    /// A distance leads to a node that is not described.
    #[error("numaNodes[id={numa}].distances: no NUMA node {to} is described")]
    DistanceToUnknown {
        /// The node the distance starts at.
        numa: u32,
        /// The unknown one.
        to: u32,
    },
    /// A distance is given twice.
    #[error("numaNodes[id={numa}].distances: the distance to {to} is there twice")]
    DistanceTwice {
        /// The node the distance starts at.
        numa: u32,
        /// Where it leads.
        to: u32,
    },
    /// A distance of zero.
    #[error("numaNodes[id={numa}].distances: the distance to {to} is 0; the local one is 10, leave unknown ones out")]
    DistanceZero {
        /// The node the distance starts at.
        numa: u32,
        /// Where it leads.
        to: u32,
    },
    /// A die lies in several packages, or a cluster in several packages or dies.
    #[error("{field}[id={id}].cpus: not wholly inside {around}[id={other}]; it lies within one of them")]
    GroupStraddles {
        /// `dies` or `clusters`.
        field: Field,
        /// Which entry.
        id: u32,
        /// What it straddles.
        around: Field,
        /// The entry it is partly in.
        other: u32,
    },
    /// Isolated CPUs that the machine does not have (or has offline, or disallowed).
    #[error("isolatedCPUs: CPUs {cpus} belong to no core")]
    IsolatedUnknown {
        /// The CPUs without core.
        cpus: CpuMask,
    },
    /// CPUs that nobody can have belong to a core.
    #[error("{field}: CPUs {cpus} belong to cores; CPUs that nobody can have are in no other list")]
    UnusableInUse {
        /// `disallowedCPUs` or `offlineCPUs`.
        field: CpuField,
        /// The CPUs that are in both.
        cpus: CpuMask,
    },
    /// CPUs that are both offline and disallowed.
    #[error("disallowedCPUs: CPUs {cpus} are offline; only online ones can be disallowed")]
    DisallowedOffline {
        /// The CPUs that are in both.
        cpus: CpuMask,
    },
    /// A set names a CPU that is not below [`crate::MAX_CPUS`].
    #[error("{field}: CPU {cpu} is out of range; the highest supported is {max}")]
    CpuSetOutOfRange {
        /// Which set.
        field: CpuField,
        /// The highest CPU named.
        cpu: u32,
        /// The highest CPU allowed.
        max: u32,
    },
    /// No page has this size.
    #[error("numaNodes[id={numa}].hugePages: {page_bytes} is no page size; it is a power of two of at least 4096")]
    PageSize {
        /// The node.
        numa: u32,
        /// The size, bytes.
        page_bytes: u64,
    },
    /// A page size is given twice.
    #[error("numaNodes[id={numa}].hugePages: pageBytes {page_bytes} is there twice")]
    PageSizeTwice {
        /// The node.
        numa: u32,
        /// The size, bytes.
        page_bytes: u64,
    },
    /// More huge pages than memory.
    #[error("numaNodes[id={numa}].hugePages: together above memoryBytes, {memory_bytes}; memory includes huge pages")]
    HugePagesAboveMemory {
        /// The node.
        numa: u32,
        /// Its memory, bytes.
        memory_bytes: u64,
    },
    /// A PCI address, or that of its switch, is none.
    #[error("pciDevices[address={address}].{field}: {text:?} is no PCI address like 0000:3b:00.0 (lower case)")]
    PciAddress {
        /// The device.
        address: String,
        /// `address` or `switch`.
        field: &'static str,
        /// What is there.
        text: String,
    },
    /// A PCI address is given twice.
    #[error("pciDevices: address {address} is there twice")]
    PciTwice {
        /// The address.
        address: String,
    },
    /// A PCI device is local to no CPU.
    #[error("pciDevices[address={address}].cpus: empty; name all CPUs where nothing is known")]
    PciWithoutCpus {
        /// The device.
        address: String,
    },
    /// A PCI device is local to CPUs the machine does not have.
    #[error("pciDevices[address={address}].cpus: CPUs {cpus} belong to no core")]
    PciNotInCore {
        /// The device.
        address: String,
        /// The CPUs without core.
        cpus: CpuMask,
    },
    /// More PCI devices, or names of one, than are taken.
    #[error("{field}: {count} entries; at most {max} are taken")]
    TooMany {
        /// `pciDevices`, or `pciDevices[address=…].names`.
        field: String,
        /// How many there are.
        count: usize,
        /// How many are taken.
        max: usize,
    },
}
