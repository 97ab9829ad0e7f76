//! The checked machine: who shares what, with dense indices for everything.

mod build;
mod check;
mod description;
mod error;
mod parts;
mod siblings;

use std::ops::Range;

pub use description::{
    CacheDescription, CoreDescription, CpuKindDescription, GroupDescription, HugePages, MachineDescription,
    NumaDescription, NumaDistance, PackageDescription, PciDescription,
};
pub use error::{CpuField, Field, MachineError};

use crate::CpuMask;
pub(crate) use crate::sparse::SparseMask;
pub(crate) use siblings::{Siblings, Words};

/// CPU ids are below this; four times what the largest kernel configuration has today.
pub const MAX_CPUS: u32 = 16_384;

/// Distance of a NUMA node to itself where none is given (ACPI SLIT, Linux `LOCAL_DISTANCE`).
pub const LOCAL_DISTANCE: u32 = 10;

/// Distance between two NUMA nodes where none is given (Linux `REMOTE_DISTANCE`).
pub const REMOTE_DISTANCE: u32 = 20;

/// PCI devices of one machine are at most this many; sources keep those of the lowest addresses.
pub const MAX_PCI_DEVICES: usize = 1024;

/// Names the operating system has for one PCI device are at most this many; sources keep the first.
pub const MAX_PCI_NAMES: usize = 16;

/// A machine whose description was checked: every CPU is in exactly one core, package and NUMA node and in at most
/// one L3, die, cluster and CPU kind, and no core is divided by any of them.
///
/// CPUs that are offline or that a cgroup keeps away ([`Machine::disallowed`]) belong to nobody: they are in none of
/// those and not in [`Machine::cpus`], so nothing that chooses from a machine can give them away. A core of which only
/// some threads are left is narrower than its neighbours, and so given to no exclusive request either
/// ([`Machine::smt_width`]).
///
/// NUMA nodes have dense indices in ascending order of their ids. Cores and the parts of L3 caches within a NUMA node
/// ("cache groups") have dense indices in the order NUMA node, L3 id (cores without L3 last), lowest CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    cpus: CpuMask,
    smt_width: u32,
    package_ids: Vec<u32>,
    package_cpus: Vec<CpuMask>,
    numa_ids: Vec<u32>,
    numa_memory_bytes: Vec<u64>,
    numa_nodes: Vec<NumaNode>,
    distances: Vec<u32>,
    distance_classes: Vec<u16>,
    even_distance: Option<u32>,
    l3_ids: Vec<u32>,
    l3_cpus: Vec<CpuMask>,
    groups: Vec<CacheGroup>,
    cores: Vec<Core>,
    core_of_cpu: Vec<u32>,
    siblings: Siblings,
    parts: parts::Parts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumaNode {
    pub(crate) cpus: CpuMask,
    /// Cache groups of this node.
    pub(crate) groups: Range<usize>,
    /// Regular cores of this node.
    pub(crate) regular_cores: u32,
}

/// The cores of one NUMA node that share one L3, or that have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheGroup {
    /// Dense index of the NUMA node.
    pub(crate) numa: usize,
    /// Its regular cores; irregular ones are not listed, they are never given away.
    pub(crate) regular: Range<usize>,
    /// The lowest CPU of each regular core.
    pub(crate) leads: SparseMask,
    /// All CPUs of regular cores.
    pub(crate) threads: SparseMask,
    /// All its CPUs, irregular cores included.
    pub(crate) cpus: SparseMask,
    /// All CPUs of its L3, also those in other NUMA nodes; the same as `cpus` where there is no L3.
    pub(crate) l3_cpus: SparseMask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) cpus: CpuMask,
    /// The same.
    pub(crate) threads: SparseMask,
}

impl Machine {
    /// Checks a description.
    ///
    /// # Errors
    /// The first lie found, as a [`MachineError`] that names the field and the ids.
    pub fn new(description: &MachineDescription) -> Result<Self, MachineError> {
        let checked = check::check(description)?;
        Ok(build::build(description, checked))
    }

    /// All CPUs of the machine.
    #[must_use]
    pub fn cpus(&self) -> &CpuMask {
        &self.cpus
    }

    /// Hardware threads of a regular core: of all widths found, the one that owns most CPUs (the wider of two equals).
    ///
    /// Exclusive CPUs are given from regular cores only. Cores of another width (efficiency cores, a core with an
    /// offline sibling) stay in the shared pool.
    #[must_use]
    pub fn smt_width(&self) -> u32 {
        self.smt_width
    }

    /// Ids of the packages, ascending.
    #[must_use]
    pub fn package_ids(&self) -> &[u32] {
        &self.package_ids
    }

    /// CPUs of the packages, in the order of [`Machine::package_ids`].
    #[must_use]
    pub fn package_cpus(&self) -> &[CpuMask] {
        &self.package_cpus
    }

    /// Ids of the NUMA nodes by dense index, ascending; memory-only nodes included.
    #[must_use]
    pub fn numa_ids(&self) -> &[u32] {
        &self.numa_ids
    }

    /// Memory of the NUMA nodes by dense index, bytes.
    #[must_use]
    pub fn numa_memory_bytes(&self) -> &[u64] {
        &self.numa_memory_bytes
    }

    /// Memory of a NUMA node by dense index that is not set aside as huge pages, bytes; 0 for an index that does not exist.
    #[must_use]
    pub fn numa_ordinary_bytes(&self, index: usize) -> u64 {
        let huge = self.numa_huge_pages(index).iter().map(|pages| pages.page_bytes.saturating_mul(pages.count));
        let all = self.numa_memory_bytes.get(index).copied().unwrap_or(0);
        all.saturating_sub(huge.fold(0, u64::saturating_add))
    }

    /// Dense index of the NUMA node with this id.
    #[must_use]
    pub fn numa_index(&self, id: u32) -> Option<usize> {
        self.numa_ids.binary_search(&id).ok()
    }

    /// CPUs of a NUMA node by dense index; none for an index that does not exist.
    #[must_use]
    pub fn numa_cpus(&self, index: usize) -> Option<&CpuMask> {
        self.numa_nodes.get(index).map(|node| &node.cpus)
    }

    /// Distance between two NUMA nodes by dense index, SLIT units.
    #[must_use]
    pub fn numa_distance(&self, from: usize, to: usize) -> Option<u32> {
        let count = self.numa_ids.len();
        if to >= count {
            return None;
        }
        self.distances.get(from * count + to).copied()
    }

    /// Dense indices of the NUMA nodes that have a CPU in `cpus`.
    pub fn numa_nodes_of<'a>(&'a self, cpus: &'a CpuMask) -> impl Iterator<Item = usize> + 'a {
        self.numa_nodes.iter().enumerate().filter(|(_, node)| node.cpus.intersects(cpus)).map(|(index, _)| index)
    }

    /// Ids of the L3 caches, ascending; empty on a machine without L3.
    #[must_use]
    pub fn l3_ids(&self) -> &[u32] {
        &self.l3_ids
    }

    /// CPUs of the L3 caches, in the order of [`Machine::l3_ids`].
    #[must_use]
    pub fn l3_cpus(&self) -> &[CpuMask] {
        &self.l3_cpus
    }

    /// How many physical cores there are; their dense indices are below it.
    #[must_use]
    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    /// CPUs of a core by dense index.
    #[must_use]
    pub fn core_cpus(&self, index: usize) -> Option<&CpuMask> {
        self.cores.get(index).map(|core| &core.cpus)
    }

    /// Dense index of the core a CPU belongs to; none for a CPU this machine does not have.
    #[must_use]
    pub fn core_of(&self, cpu: u32) -> Option<usize> {
        self.core_of_cpu.get(cpu as usize).map(|&core| core as usize).filter(|&core| core < self.cores.len())
    }

    /// `cpus` and all their siblings; CPUs the machine does not have are left out.
    #[must_use]
    pub fn whole_cores(&self, cpus: &CpuMask) -> CpuMask {
        let mut whole = CpuMask::new();
        for core in cpus.iter().filter_map(|cpu| self.core_of(cpu)) {
            self.cores[core].threads.add_to(&mut whole);
        }
        whole
    }

    /// How many cores can be given to exclusive requests.
    #[must_use]
    pub fn regular_core_count(&self) -> u32 {
        self.numa_nodes.iter().map(|node| node.regular_cores).sum()
    }

    /// Both distances between two NUMA nodes by dense index, added.
    pub(crate) fn both_ways(&self, a: usize, b: usize) -> u64 {
        let count = self.numa_ids.len();
        u64::from(self.distances[a * count + b]) + u64::from(self.distances[b * count + a])
    }

    /// NUMA nodes of one class have the same distances to all others with CPUs, and can stand for one another.
    pub(crate) fn distance_class(&self, index: usize) -> u16 {
        self.distance_classes[index]
    }

    /// [`Machine::both_ways`] of every two NUMA nodes with CPUs, if it is everywhere the same.
    pub(crate) fn even_distance(&self) -> Option<u32> {
        self.even_distance
    }

    pub(crate) fn nodes(&self) -> &[NumaNode] {
        &self.numa_nodes
    }

    pub(crate) fn groups(&self) -> &[CacheGroup] {
        &self.groups
    }

    pub(crate) fn cores(&self) -> &[Core] {
        &self.cores
    }

    pub(crate) fn siblings(&self) -> &Siblings {
        &self.siblings
    }
}
