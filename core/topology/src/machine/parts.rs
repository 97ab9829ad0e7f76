//! What a machine has beside cores, memory nodes and caches, as it was described and checked.

use super::{
    CpuKindDescription, GroupDescription, HugePages, Machine, MachineDescription, NumaDescription, PciDescription,
};
use crate::CpuMask;

/// Everything that is looked up and not computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    dies: Box<[GroupDescription]>,
    clusters: Box<[GroupDescription]>,
    cpu_kinds: Box<[CpuKindDescription]>,
    isolated: CpuMask,
    disallowed: CpuMask,
    offline: CpuMask,
    huge_pages: Box<[Box<[HugePages]>]>,
    numa_kinds: Box<[Option<String>]>,
    pci_devices: Box<[PciDescription]>,
}

impl Parts {
    /// `nodes` are those of the description in ascending order of their ids.
    pub(super) fn of(description: &MachineDescription, nodes: &[&NumaDescription]) -> Self {
        Self {
            dies: by_id(&description.dies),
            clusters: by_id(&description.clusters),
            cpu_kinds: description.cpu_kinds.clone().into(),
            isolated: description.isolated.clone(),
            disallowed: description.disallowed.clone(),
            offline: description.offline.clone(),
            huge_pages: nodes.iter().map(|node| by_size(&node.huge_pages)).collect(),
            numa_kinds: nodes.iter().map(|node| node.kind.clone()).collect(),
            pci_devices: by_address(&description.pci_devices),
        }
    }
}

fn by_id(groups: &[GroupDescription]) -> Box<[GroupDescription]> {
    let mut groups = groups.to_vec();
    groups.sort_by_key(|group| group.id);
    groups.into()
}

fn by_size(pages: &[HugePages]) -> Box<[HugePages]> {
    let mut pages = pages.to_vec();
    pages.sort_unstable();
    pages.into()
}

fn by_address(devices: &[PciDescription]) -> Box<[PciDescription]> {
    let mut devices = devices.to_vec();
    devices.sort_by(|a, b| a.address.cmp(&b.address));
    devices.into()
}

impl Machine {
    /// Dies by id, where a package has several; empty otherwise. Each lies within one package.
    #[must_use]
    pub fn dies(&self) -> &[GroupDescription] {
        &self.parts.dies
    }

    /// Clusters of cores by id; empty where there are none. Each lies within one package, and one die if it touches one.
    #[must_use]
    pub fn clusters(&self) -> &[GroupDescription] {
        &self.parts.clusters
    }

    /// Kinds of CPUs in the order given; empty where all are alike, otherwise every CPU is of exactly one.
    #[must_use]
    pub fn cpu_kinds(&self) -> &[CpuKindDescription] {
        &self.parts.cpu_kinds
    }

    /// CPUs that the kernel was told to isolate; all of them are of this machine.
    #[must_use]
    pub fn isolated(&self) -> &CpuMask {
        &self.parts.isolated
    }

    /// Online CPUs that belong to nobody, because a cgroup keeps them away; none is in [`Machine::cpus`].
    #[must_use]
    pub fn disallowed(&self) -> &CpuMask {
        &self.parts.disallowed
    }

    /// CPUs that exist and are offline; none is in [`Machine::cpus`].
    #[must_use]
    pub fn offline(&self) -> &CpuMask {
        &self.parts.offline
    }

    /// Huge pages of a NUMA node by dense index, by size ascending; empty for an index that does not exist.
    #[must_use]
    pub fn numa_huge_pages(&self, index: usize) -> &[HugePages] {
        self.parts.huge_pages.get(index).map_or(&[], |pages| pages)
    }

    /// Kinds of memory of the NUMA nodes by dense index (`DRAM`, `HBM`, as hwloc calls them), where they are known.
    #[must_use]
    pub fn numa_kinds(&self) -> &[Option<String>] {
        &self.parts.numa_kinds
    }

    /// PCI devices by address.
    #[must_use]
    pub fn pci_devices(&self) -> &[PciDescription] {
        &self.parts.pci_devices
    }
}
