//! What the drawings look like.
use super::*;
use fairlead_topology::{
    CacheDescription, CoreDescription, MachineDescription, NumaDescription, PackageDescription, PciDescription,
};

fn mask(list: &str) -> CpuMask {
    CpuMask::parse_list(list).unwrap()
}

/// One socket, two NUMA nodes of two L3 caches with two cores each, siblings apart by eight; one node of memory only.
fn machine() -> Machine {
    let numa = |id: u32, cpus: &str| NumaDescription {
        id,
        cpus: mask(cpus),
        memory_bytes: 4 << 30,
        ..NumaDescription::default()
    };
    Machine::new(&MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: mask("0-15") }],
        numa_nodes: vec![numa(0, "0-3,8-11"), numa(1, "4-7,12-15"), numa(4, "")],
        l3_caches: (0..4)
            .map(|id| CacheDescription {
                id,
                cpus: mask(&format!("{}-{},{}-{}", id * 2, id * 2 + 1, id * 2 + 8, id * 2 + 9)),
                size_bytes: 0,
            })
            .collect(),
        cores: (0..8).map(|id| CoreDescription { id, cpus: mask(&format!("{id},{}", id + 8)) }).collect(),
        pci_devices: vec![PciDescription {
            address: "0000:3b:00.0".into(),
            class: 0x0200,
            vendor: 0x8086,
            device: 0x10d3,
            names: vec!["eth0".into()],
            cpus: mask("4-7,12-15"),
            switch: None,
        }],
        ..MachineDescription::default()
    })
    .unwrap()
}

fn holder(name: &str, cpus: &str) -> Holder {
    Holder { name: name.into(), cpus: mask(cpus), note: String::new() }
}

#[test]
fn a_machine_with_two_pods() {
    let machine = machine();
    let holders = [holder("acme/picker", "0,8"), holder("acme/packer", "4-5,12")];
    let scene = Scene { machine: &machine, holders: &holders, memory_free_bytes: &[1 << 30, 4 << 30, 0], only: None };
    assert_eq!(
        scene.draw(),
        "\
socket 0
├─ NUMA 0   3 of 4 cores free   1Gi of 4Gi memory free
│    L3 0    aa ··   0-1,8-9
│    L3 1    ·· ··   2-3,10-11
└─ NUMA 1   2 of 4 cores free   4Gi of 4Gi memory free   near eth0
     L3 2    bb b·   4-5,12-13
     L3 3    ·· ··   6-7,14-15
NUMA 4   memory only   0 of 4Gi memory free

a  acme/picker   0,8
b  acme/packer   4-5,12
·  free: the shared pool runs there until a pod gets it for itself
"
    );
}

#[test]
fn one_pod_among_others_shows_only_its_numa_nodes() {
    let machine = machine();
    let holders = [holder("a", "0,8"), holder("b", "1,9"), holder("c", "4")];
    let text = Scene { machine: &machine, holders: &holders, memory_free_bytes: &[], only: Some(1) }.draw();
    assert!(text.contains("L3 0    ▒▒ ██   0-1,8-9"), "{text}");
    assert!(!text.contains("NUMA 1 "), "{text}");
    assert!(text.contains("(2 more NUMA nodes without CPUs of this pod)"), "{text}");
    assert!(text.contains("4Gi memory\n"), "{text}");
}

#[test]
fn many_cores_go_on_in_the_next_line_and_many_pods_run_out_of_letters() {
    let cores: Vec<CoreDescription> = (0..100).map(|id| CoreDescription { id, cpus: mask(&id.to_string()) }).collect();
    let machine = Machine::new(&MachineDescription {
        packages: vec![PackageDescription { id: 3, cpus: mask("0-99") }],
        numa_nodes: vec![NumaDescription { id: 7, cpus: mask("0-99"), ..NumaDescription::default() }],
        cores,
        ..MachineDescription::default()
    })
    .unwrap();
    let holders: Vec<Holder> = (0..70).map(|id| holder("p", &id.to_string())).collect();
    let text = Scene { machine: &machine, holders: &holders, memory_free_bytes: &[], only: None }.draw();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "socket 3");
    assert!(lines[2].starts_with("     cores   a b c "), "{text}");
    assert!(lines[3].trim_start().starts_with("K L M"), "{text}");
    assert!(text.contains("8 9 # # # # # # # # · ·"), "{text}");
    assert!(lines.iter().take(6).all(|line| line.chars().count() <= 100), "{text}");
}
