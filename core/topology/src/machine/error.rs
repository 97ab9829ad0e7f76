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
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packages => "packages",
            Self::NumaNodes => "numaNodes",
            Self::L3Caches => "l3Caches",
            Self::Cores => "cores",
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
    /// A core's CPUs belong to no package or no NUMA node.
    #[error("cores[id={core}].cpus: CPUs {cpus} are in none of {field}")]
    CoreOutside {
        /// The core.
        core: u32,
        /// The list that should have them.
        field: Field,
        /// The CPUs that are missing there.
        cpus: CpuMask,
    },
    /// A core lies only partly in a package, NUMA node or L3.
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
}
