//! One form for what both readers find: which groups of CPUs are worth a name, and what nobody can have.

use std::collections::BTreeSet;

use fairlead_topology::{
    CoreDescription, CpuKindDescription, CpuMask, GroupDescription, HugePages, MAX_PCI_DEVICES, MAX_PCI_NAMES,
    MachineDescription, NumaDescription, PackageDescription, PciDescription,
};

use crate::Gap;

/// Longest name of a device that is kept; the kernel's are shorter.
const NAME_CHARS_MAX: usize = 64;

/// Takes CPUs that nobody can have out of every list; entries of which nothing is left go with them, but not NUMA
/// nodes, whose memory stays. A device that was local to nothing else is then local to the whole machine.
pub(crate) fn withhold(machine: &mut MachineDescription, cpus: &CpuMask) {
    if cpus.is_empty() {
        return;
    }
    let left = |own: &mut CpuMask| {
        own.subtract_with(cpus);
        !own.is_empty()
    };
    machine.packages.retain_mut(|entry| left(&mut entry.cpus));
    machine.l3_caches.retain_mut(|entry| left(&mut entry.cpus));
    machine.cores.retain_mut(|entry| left(&mut entry.cpus));
    machine.dies.retain_mut(|entry| left(&mut entry.cpus));
    machine.clusters.retain_mut(|entry| left(&mut entry.cpus));
    machine.cpu_kinds.retain_mut(|entry| left(&mut entry.cpus));
    for node in &mut machine.numa_nodes {
        node.cpus.subtract_with(cpus);
    }
    machine.isolated.subtract_with(cpus);
    let all = all_cpus(machine);
    for device in &mut machine.pci_devices {
        if !left(&mut device.cpus) {
            device.cpus.clone_from(&all);
        }
    }
}

/// The CPUs of all cores.
pub(crate) fn all_cpus(machine: &MachineDescription) -> CpuMask {
    machine.cores.iter().flat_map(|core| core.cpus.iter()).collect()
}

/// Cores by their lowest CPU; every CPU is one where none is told.
pub(crate) fn cores(mut told: Vec<CpuMask>, all: &CpuMask, gaps: &mut BTreeSet<Gap>) -> Vec<CoreDescription> {
    if told.is_empty() {
        gaps.insert(Gap::Cores);
        told = all.iter().map(|cpu| CpuMask::from_ids([cpu])).collect();
    }
    told.sort_by_key(CpuMask::first);
    (0..).zip(told).map(|(id, cpus)| CoreDescription { id, cpus }).collect()
}

/// Leaves each CPU to the smallest NUMA node around it (the lowest id of equals): larger ones are far or device memory,
/// to which hwloc lends the CPUs of their surroundings. Orders the nodes by id.
pub(crate) fn own_cpus(nodes: &mut [NumaDescription]) {
    nodes.sort_by_key(|node| (node.cpus.len(), node.id));
    let mut taken = CpuMask::new();
    for node in nodes.iter_mut() {
        node.cpus.subtract_with(&taken);
        taken.union_with(&node.cpus);
    }
    nodes.sort_by_key(|node| node.id);
}

/// Huge pages that are there, of all pages that hwloc tells; the smallest size is that of ordinary pages.
pub(crate) fn huge_pages(mut sizes: Vec<HugePages>) -> Vec<HugePages> {
    sizes.sort_unstable();
    sizes.into_iter().skip(1).filter(|pages| pages.count > 0).collect()
}

/// Dies that say something: more than a core and less than their package. Packages and cores must be there already.
pub(crate) fn dies(machine: &MachineDescription, told: Vec<CpuMask>) -> Vec<GroupDescription> {
    let mut dies: BTreeSet<(Option<u32>, CpuMask)> = told.into_iter().map(|cpus| (cpus.first(), cpus)).collect();
    dies.retain(|(_, cpus)| has_several_cores(machine, cpus) && machine.packages.iter().all(|p| p.cpus != *cpus));
    numbered(dies.into_iter().map(|(_, cpus)| cpus))
}

/// Clusters that say something: more than a core, and no other name for a die, package, NUMA node or L3, all of which
/// must be there already. What the kernel calls a cluster comes first; an L2 that cores share is one where it meets no
/// other and crosses no border.
pub(crate) fn clusters(machine: &MachineDescription, told: Vec<CpuMask>, l2: Vec<CpuMask>) -> Vec<GroupDescription> {
    let named: BTreeSet<&CpuMask> = (machine.packages.iter().map(|entry| &entry.cpus))
        .chain(machine.dies.iter().map(|entry| &entry.cpus))
        .chain(machine.l3_caches.iter().map(|entry| &entry.cpus))
        .chain(machine.numa_nodes.iter().map(|entry| &entry.cpus))
        .collect();
    let news = |cpus: &CpuMask| !named.contains(cpus) && has_several_cores(machine, cpus);
    let mut clusters: BTreeSet<CpuMask> = told.into_iter().filter(news).collect();
    for cpus in l2.into_iter().filter(news) {
        let outer = machine.packages.iter().map(|entry| &entry.cpus).chain(machine.dies.iter().map(|die| &die.cpus));
        let crosses = outer.into_iter().any(|outer| outer.intersects(&cpus) && !cpus.is_subset(outer));
        if !crosses && !clusters.iter().any(|cluster| cluster.intersects(&cpus)) {
            clusters.insert(cpus);
        }
    }
    let mut clusters: Vec<CpuMask> = clusters.into_iter().collect();
    clusters.sort_by_key(CpuMask::first);
    numbered(clusters.into_iter())
}

fn has_several_cores(machine: &MachineDescription, cpus: &CpuMask) -> bool {
    machine.cores.iter().filter(|core| core.cpus.intersects(cpus)).nth(1).is_some()
}

fn numbered(groups: impl Iterator<Item = CpuMask>) -> Vec<GroupDescription> {
    (0..).zip(groups).map(|(id, cpus)| GroupDescription { id, cpus }).collect()
}

/// Kinds, least efficient last; none where all CPUs are alike or a core would be of two kinds (siblings that only clock
/// differently), and CPUs that were left out are a kind of unknown rank. Cores must be there already.
pub(crate) fn cpu_kinds(machine: &MachineDescription, told: Vec<(i32, CpuMask)>) -> Vec<CpuKindDescription> {
    let all = all_cpus(machine);
    let mut kinds: Vec<CpuKindDescription> = told
        .into_iter()
        .map(|(efficiency, cpus)| CpuKindDescription { efficiency, cpus: cpus.intersect(&all) })
        .filter(|kind| !kind.cpus.is_empty())
        .collect();
    let mut rest = all;
    for kind in &kinds {
        rest.subtract_with(&kind.cpus);
    }
    if !rest.is_empty() && !kinds.is_empty() {
        kinds.push(CpuKindDescription { efficiency: -1, cpus: rest });
    }
    let divided = |core: &CpuMask| kinds.iter().filter(|kind| kind.cpus.intersects(core)).nth(1).is_some();
    if kinds.len() < 2 || machine.cores.iter().any(|core| divided(&core.cpus)) {
        return Vec::new();
    }
    kinds.sort_by_key(|kind| (kind.efficiency, kind.cpus.first()));
    kinds
}

/// Whether pods may care where a device of this PCI class is: storage, network, display, accelerators, fabrics.
pub(crate) fn is_of_interest(class: u16) -> bool {
    const FIBRE_CHANNEL: u16 = 0x0c04;
    const INFINIBAND: u16 = 0x0c06;
    const CO_PROCESSOR: u16 = 0x0b40;
    matches!(class >> 8, 0x01 | 0x02 | 0x03 | 0x12) || matches!(class, FIBRE_CHANNEL | INFINIBAND | CO_PROCESSOR)
}

/// The port of the lowest PCIe switch above a device that looks towards the CPU, given the bridges above the device
/// from the root port down. Under a switch there are three at least: root port, its upward port, a downward port.
pub(crate) fn switch_of(bridges: &[String]) -> Option<String> {
    match bridges {
        [_, .., upward, _downward] => Some(upward.clone()),
        _ => None,
    }
}

/// Devices by address, as many and with as many names as a description takes.
pub(crate) fn pci_devices(mut devices: Vec<PciDescription>) -> Vec<PciDescription> {
    devices.sort_by(|a, b| a.address.cmp(&b.address));
    devices.dedup_by(|a, b| a.address == b.address);
    devices.truncate(MAX_PCI_DEVICES);
    for device in &mut devices {
        device.names.retain(|name| !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX);
        device.names.sort_unstable();
        device.names.dedup();
        device.names.truncate(MAX_PCI_NAMES);
    }
    devices
}

/// Gives packages (in the order of their lowest CPU) the ids found for them, or numbers them if those are no names.
pub(crate) fn packages(
    packages: Vec<CpuMask>,
    ids: &[Option<u32>],
    all: &CpuMask,
    gaps: &mut BTreeSet<Gap>,
) -> Vec<PackageDescription> {
    if packages.is_empty() {
        gaps.insert(Gap::Packages);
        return vec![PackageDescription { id: 0, cpus: all.clone() }];
    }
    let distinct: BTreeSet<u32> = ids.iter().copied().flatten().collect();
    let named: Option<Vec<u32>> = ids.iter().copied().collect::<Option<Vec<u32>>>();
    let ids = match named {
        Some(ids) if distinct.len() == packages.len() => ids,
        _ => {
            gaps.insert(Gap::PackageIds);
            (0..).take(packages.len()).collect()
        }
    };
    ids.into_iter().zip(packages).map(|(id, cpus)| PackageDescription { id, cpus }).collect()
}
