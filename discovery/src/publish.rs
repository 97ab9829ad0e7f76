//! From a machine description to the NodeTopology that is published.
use crate::Disagreement as Found;
use fairlead_crds::NodeTopologySpec;
use fairlead_crds::node_topology::{
    CpuGroup, CpuKind, Disagreement, Distance, HugePages, L3Cache, NumaNode, PciDevice, Pinning, TopologySource,
};
use fairlead_topology::{CpuKindDescription, CpuMask, MachineDescription};

/// Bounds of the kind's schema.
const DISAGREEMENTS_MAX: usize = 64;
const FIELD_CHARS_MAX: usize = 256;
const VALUE_CHARS_MAX: usize = 1024;

/// The NodeTopology of a machine, with what hwloc and sysfs tell differently, and who pins there.
#[must_use]
pub fn node_topology(
    machine: &MachineDescription,
    source: TopologySource,
    disagreements: &[Found],
    pinning: Option<Pinning>,
) -> NodeTopologySpec {
    NodeTopologySpec {
        source,
        packages: sorted(machine.packages.iter().map(|package| group(package.id, &package.cpus))),
        numa_nodes: numa_nodes(machine),
        l3_caches: l3_caches(machine),
        cores: sorted(machine.cores.iter().map(|core| group(core.id, &core.cpus))),
        dies: sorted(machine.dies.iter().map(|die| group(die.id, &die.cpus))),
        clusters: sorted(machine.clusters.iter().map(|cluster| group(cluster.id, &cluster.cpus))),
        cpu_kinds: machine.cpu_kinds.iter().map(cpu_kind).collect(),
        isolated_cpus: machine.isolated.to_string(),
        disallowed_cpus: machine.disallowed.to_string(),
        offline_cpus: machine.offline.to_string(),
        pci_devices: pci_devices(machine),
        pinning,
        disagreements: disagreements.iter().take(DISAGREEMENTS_MAX).map(disagreement).collect(),
    }
}

fn group(id: u32, cpus: &CpuMask) -> CpuGroup {
    CpuGroup { id: i64::from(id), cpus: cpus.to_string() }
}

fn cpu_kind(kind: &CpuKindDescription) -> CpuKind {
    CpuKind { efficiency: kind.efficiency, cpus: kind.cpus.to_string() }
}

/// Lists are published in the order of their ids, so that a source that lists the same machine in another order is no
/// change.
fn sorted(groups: impl Iterator<Item = CpuGroup>) -> Vec<CpuGroup> {
    let mut groups: Vec<CpuGroup> = groups.collect();
    groups.sort_by_key(|group| group.id);
    groups
}

fn numa_nodes(machine: &MachineDescription) -> Vec<NumaNode> {
    let mut nodes: Vec<NumaNode> = machine
        .numa_nodes
        .iter()
        .map(|node| {
            let distance =
                |d: &fairlead_topology::NumaDistance| Distance { to: i64::from(d.to), value: i64::from(d.value) };
            let mut distances: Vec<Distance> = node.distances.iter().map(distance).collect();
            distances.sort_by_key(|distance| distance.to);
            let mut huge_pages: Vec<HugePages> = node.huge_pages.iter().map(huge_pages_of_one_size).collect();
            huge_pages.sort_by_key(|pages| pages.page_bytes);
            NumaNode {
                id: i64::from(node.id),
                cpus: node.cpus.to_string(),
                memory_bytes: whole(node.memory_bytes),
                huge_pages,
                kind: node.kind.clone(),
                distances,
            }
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

fn l3_caches(machine: &MachineDescription) -> Vec<L3Cache> {
    let mut caches: Vec<L3Cache> = machine
        .l3_caches
        .iter()
        .map(|cache| L3Cache {
            id: i64::from(cache.id),
            cpus: cache.cpus.to_string(),
            size_bytes: whole(cache.size_bytes),
        })
        .collect();
    caches.sort_by_key(|cache| cache.id);
    caches
}

fn huge_pages_of_one_size(pages: &fairlead_topology::HugePages) -> HugePages {
    HugePages { page_bytes: whole(pages.page_bytes), count: whole(pages.count) }
}

fn pci_devices(machine: &MachineDescription) -> Vec<PciDevice> {
    let mut devices: Vec<PciDevice> = machine
        .pci_devices
        .iter()
        .map(|device| PciDevice {
            address: device.address.clone(),
            class: format!("{:04x}", device.class),
            id: format!("{:04x}:{:04x}", device.vendor, device.device),
            names: device.names.clone(),
            cpus: device.cpus.to_string(),
            switch: device.switch.clone(),
        })
        .collect();
    devices.sort_by(|a, b| a.address.cmp(&b.address));
    devices
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn disagreement(found: &Found) -> Disagreement {
    Disagreement {
        field: shortened(&found.field, FIELD_CHARS_MAX),
        hwloc: shortened(&found.hwloc, VALUE_CHARS_MAX),
        sysfs: shortened(&found.sysfs, VALUE_CHARS_MAX),
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_topology::{CacheDescription, CoreDescription, NumaDescription, NumaDistance, PackageDescription};

    fn mask(text: &str) -> CpuMask {
        CpuMask::parse_list(text).unwrap()
    }

    fn numa(id: u32, cpus: &str) -> NumaDescription {
        let distances = vec![NumaDistance { to: 4, value: 21 }, NumaDistance { to: 0, value: 10 }];
        NumaDescription { id, cpus: mask(cpus), memory_bytes: 1 << 30, distances, ..NumaDescription::default() }
    }

    fn machine() -> MachineDescription {
        MachineDescription {
            packages: vec![PackageDescription { id: 0, cpus: mask("0-3") }],
            numa_nodes: vec![numa(4, ""), numa(0, "0-3")],
            l3_caches: vec![CacheDescription { id: 0, cpus: mask("0-3"), size_bytes: 1 << 20 }],
            cores: vec![CoreDescription { id: 1, cpus: mask("1,3") }, CoreDescription { id: 0, cpus: mask("0,2") }],
            ..MachineDescription::default()
        }
    }

    #[test]
    fn lists_are_ordered_by_id_whatever_the_source_does() {
        let spec = node_topology(&machine(), TopologySource::Synthetic, &[], None);
        assert_eq!(spec.numa_nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(spec.numa_nodes[0].distances[0], Distance { to: 0, value: 10 });
        assert_eq!(spec.numa_nodes[1].cpus, "");
        assert_eq!(spec.cores[0], CpuGroup { id: 0, cpus: "0,2".into() });
        let mut turned = machine();
        turned.cores.reverse();
        turned.numa_nodes.reverse();
        assert_eq!(node_topology(&turned, TopologySource::Synthetic, &[], None), spec);
    }

    #[test]
    fn disagreements_are_kept_within_the_schema() {
        let found = Found { field: "f".repeat(999), hwloc: "ü".repeat(2000), sysfs: String::new() };
        let spec = node_topology(&machine(), TopologySource::Hwloc, &vec![found; 100], None);
        assert_eq!(spec.source, TopologySource::Hwloc);
        assert_eq!(spec.disagreements.len(), 64);
        assert_eq!(spec.disagreements[0].field.len(), 256);
        assert_eq!(spec.disagreements[0].hwloc.chars().count(), 1024);
    }
}
