//! What the agent publishes of a machine is what the cluster model reads back: description → NodeTopology → description.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail a test")]

use std::collections::BTreeMap;

use fairlead_cluster::{description_of, machine_of};
use fairlead_crds::node_topology::TopologySource as Origin;
use fairlead_crds::{NodeTopology, NodeTopologySpec};
use fairlead_discovery::node_topology;
use fairlead_discovery::{HwlocSource, TopologySource as _};
use fairlead_topology::{
    CacheDescription, CoreDescription, CpuKindDescription, CpuMask, GroupDescription, HugePages, MAX_CPUS, Machine,
    MachineDescription, NumaDescription, NumaDistance, PackageDescription, PciDescription,
};
use kube::CustomResourceExt;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

const LARGEST: u64 = i64::MAX as u64;

fn mask() -> impl Strategy<Value = CpuMask> {
    prop_oneof![
        4 => vec(0u32..16_384, 0..6).prop_map(CpuMask::from_ids),
        4 => (0u32..2048, 0u32..64).prop_map(|(first, more)| (first..=first + more).collect()),
        1 => Just((0u32..4096).step_by(2).collect()),
    ]
}

fn groups() -> impl Strategy<Value = BTreeMap<u32, CpuMask>> {
    btree_map(any::<u32>(), mask(), 0..5)
}

fn numa_nodes() -> impl Strategy<Value = Vec<NumaDescription>> {
    let distances = btree_map(any::<u32>(), any::<u32>(), 0..4);
    let pages = btree_map(0..=LARGEST, 0..=LARGEST, 0..3);
    let kind = proptest::option::of("[A-Z]{1,8}");
    let node = (mask(), 0..=LARGEST, pages, kind, distances);
    btree_map(any::<u32>(), node, 0..5).prop_map(|nodes| {
        let node = |(id, (cpus, memory_bytes, pages, kind, distances))| NumaDescription {
            id,
            cpus,
            memory_bytes,
            huge_pages: BTreeMap::into_iter(pages).map(|(page_bytes, count)| HugePages { page_bytes, count }).collect(),
            kind,
            distances: BTreeMap::into_iter(distances).map(|(to, value)| NumaDistance { to, value }).collect(),
        };
        nodes.into_iter().map(node).collect()
    })
}

fn pci_devices() -> impl Strategy<Value = Vec<PciDescription>> {
    let switch = proptest::option::of("[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]");
    let device = (any::<(u16, u16, u16)>(), vec("[a-z0-9]{1,9}", 0..3), mask(), switch);
    btree_map("[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]", device, 0..5).prop_map(|devices| {
        devices
            .into_iter()
            .map(|(address, ((class, vendor, device), names, cpus, switch))| PciDescription {
                address,
                class,
                vendor,
                device,
                names,
                cpus,
                switch,
            })
            .collect()
    })
}

prop_compose! {
    /// Lists in the order in which they are published; nothing else holds, not even that CPUs are in one list only.
    fn description()(
        packages in groups(),
        numa_nodes in numa_nodes(),
        caches in btree_map(any::<u32>(), (mask(), 0..=LARGEST), 0..5),
        cores in groups(),
        [dies, clusters] in [groups(), groups()],
        kinds in vec((any::<i32>(), mask()), 0..4),
        [isolated, disallowed, offline] in [mask(), mask(), mask()],
        pci_devices in pci_devices(),
    ) -> MachineDescription {
        let group = |(id, cpus)| GroupDescription { id, cpus };
        MachineDescription {
            packages: packages.into_iter().map(|(id, cpus)| PackageDescription { id, cpus }).collect(),
            numa_nodes,
            l3_caches: (caches.into_iter())
                .map(|(id, (cpus, size_bytes))| CacheDescription { id, cpus, size_bytes })
                .collect(),
            cores: cores.into_iter().map(|(id, cpus)| CoreDescription { id, cpus }).collect(),
            dies: dies.into_iter().map(group).collect(),
            clusters: clusters.into_iter().map(group).collect(),
            cpu_kinds: kinds.into_iter().map(|(efficiency, cpus)| CpuKindDescription { efficiency, cpus }).collect(),
            isolated,
            disallowed,
            offline,
            pci_devices,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_on_the_way(description in description()) {
        let spec = node_topology(&description, Origin::Hwloc, &[], None);
        prop_assert_eq!(description_of(&spec).unwrap(), description.clone());
        let json = serde_json::to_string(&spec).unwrap();
        let stored: NodeTopologySpec = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(description_of(&stored).unwrap(), description);
    }
}

#[test]
fn the_machine_is_the_same_on_both_sides() {
    let text = "pack:2 die:2 [numa(memory=64GB indexes=7,3,12,40)] l3:2 core:4 pu:2(indexes=2*32:1*2)";
    let found = HwlocSource::synthetic(text).describe().unwrap().description;
    assert_eq!(found.dies.len(), 4);
    let read = machine_of(&node_topology(&found, Origin::Synthetic, &[], None)).unwrap();
    assert_eq!(read, Machine::new(&found).unwrap());
}

#[test]
fn the_longest_list_of_cpus_fits_the_schema() {
    let every_second: CpuMask = (0..MAX_CPUS).step_by(2).collect();
    let schema = serde_json::to_value(NodeTopology::crd()).unwrap();
    let properties = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for field in ["/packages/items/properties/cpus", "/numaNodes/items/properties/cpus", "/isolatedCPUs"] {
        let max = properties.pointer(&format!("{field}/maxLength")).and_then(serde_json::Value::as_u64).unwrap();
        assert!(every_second.to_string().len() as u64 <= max, "{field}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let device = PciDescription {
        address: "0000:3b:00.0".into(),
        class: 0x0302,
        vendor: 0x10de,
        device: 0x2230,
        names: Vec::new(),
        cpus: CpuMask::from_ids([0]),
        switch: None,
    };
    let kind = CpuKindDescription { efficiency: 0, cpus: CpuMask::from_ids([0]) };
    let numa = NumaDescription {
        id: 4,
        huge_pages: vec![HugePages { page_bytes: 4096, count: 1 }],
        ..NumaDescription::default()
    };
    let description = MachineDescription {
        numa_nodes: vec![numa],
        cpu_kinds: vec![kind],
        pci_devices: vec![device],
        ..MachineDescription::default()
    };
    let refused = |change: fn(&mut NodeTopologySpec)| {
        let mut spec = node_topology(&description, Origin::Synthetic, &[], None);
        change(&mut spec);
        description_of(&spec).unwrap_err().to_string()
    };
    let of_device = "spec.pciDevices[address=0000:3b:00.0]";
    assert!(refused(|spec| spec.pci_devices[0].class = "+302".into()).starts_with(&format!("{of_device}.class:")));
    assert!(refused(|spec| spec.pci_devices[0].id = "10de".into()).starts_with(&format!("{of_device}.id:")));
    assert!(refused(|spec| spec.pci_devices[0].cpus = "x".into()).starts_with(&format!("{of_device}.cpus:")));
    assert!(refused(|spec| spec.cpu_kinds[0].cpus = "3-1".into()).starts_with("spec.cpuKinds[0].cpus:"));
    assert!(refused(|spec| spec.isolated_cpus = "16384".into()).starts_with("spec.isolatedCPUs:"));
    assert!(refused(|spec| spec.disallowed_cpus = "-".into()).starts_with("spec.disallowedCPUs:"));
    assert!(refused(|spec| spec.offline_cpus = "1;2".into()).starts_with("spec.offlineCPUs:"));
    let pages = refused(|spec| spec.numa_nodes[0].huge_pages[0].page_bytes = -1);
    assert!(pages.starts_with("spec.numaNodes[id=4].hugePages.pageBytes: -1"), "{pages}");
}
