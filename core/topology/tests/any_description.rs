//! Any description either is a machine that keeps the laws, or is refused; nothing panics.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail a test")]

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuKindDescription, CpuMask, GroupDescription, HugePages, Machine,
    MachineDescription, NumaDescription, NumaDistance, PackageDescription, PciDescription,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Two packages of two dies of two cores of two threads, with one of everything.
fn honest() -> MachineDescription {
    let range = |first: u32, last: u32| -> CpuMask { (first..=last).collect() };
    let numa = |id: u32, first: u32| NumaDescription {
        id,
        cpus: range(first, first + 7),
        memory_bytes: 1 << 30,
        huge_pages: vec![HugePages { page_bytes: 2 << 20, count: 4 }],
        kind: Some("DRAM".into()),
        distances: vec![NumaDistance { to: 0, value: 10 }],
    };
    MachineDescription {
        packages: (0..2).map(|id| PackageDescription { id, cpus: range(id * 8, id * 8 + 7) }).collect(),
        numa_nodes: vec![numa(0, 0), numa(3, 8)],
        l3_caches: (0..4).map(|id| CacheDescription { id, cpus: range(id * 4, id * 4 + 3), size_bytes: 1 }).collect(),
        cores: (0..8).map(|id| CoreDescription { id, cpus: range(id * 2, id * 2 + 1) }).collect(),
        dies: (0..4).map(|id| GroupDescription { id, cpus: range(id * 4, id * 4 + 3) }).collect(),
        clusters: vec![GroupDescription { id: 9, cpus: range(0, 3) }],
        cpu_kinds: (0..2u32)
            .map(|at| CpuKindDescription { efficiency: at as i32, cpus: range(at * 8, at * 8 + 7) })
            .collect(),
        isolated: range(14, 15),
        disallowed: range(16, 17),
        offline: range(18, 19),
        pci_devices: vec![PciDescription {
            address: "0000:3b:00.0".into(),
            class: 0x0302,
            vendor: 1,
            device: 2,
            names: vec![],
            cpus: range(0, 7),
            switch: None,
        }],
    }
}

/// One change of a field; the numbers choose the entry and what it becomes.
fn change(m: &mut MachineDescription, field: u8, at: usize, cpus: &CpuMask, number: u32) {
    fn of<T>(list: &mut [T], at: usize) -> Option<&mut T> {
        let count = list.len().max(1);
        list.get_mut(at % count)
    }
    let set = |own: Option<&mut CpuMask>| own.into_iter().for_each(|own| own.clone_from(cpus));
    match field {
        0 => set(of(&mut m.packages, at).map(|entry| &mut entry.cpus)),
        1 => set(of(&mut m.numa_nodes, at).map(|entry| &mut entry.cpus)),
        2 => set(of(&mut m.l3_caches, at).map(|entry| &mut entry.cpus)),
        3 => set(of(&mut m.cores, at).map(|entry| &mut entry.cpus)),
        4 => set(of(&mut m.dies, at).map(|entry| &mut entry.cpus)),
        5 => set(of(&mut m.clusters, at).map(|entry| &mut entry.cpus)),
        6 => set(of(&mut m.cpu_kinds, at).map(|entry| &mut entry.cpus)),
        7 => m.isolated.clone_from(cpus),
        8 => m.disallowed.clone_from(cpus),
        9 => m.offline.clone_from(cpus),
        10 => set(of(&mut m.pci_devices, at).map(|entry| &mut entry.cpus)),
        11 => of(&mut m.cores, at).into_iter().for_each(|entry| entry.id = number),
        12 => of(&mut m.numa_nodes, at).into_iter().for_each(|entry| entry.id = number),
        13 => of(&mut m.numa_nodes, at).into_iter().for_each(|entry| entry.memory_bytes = u64::from(number) << 20),
        14 => of(&mut m.numa_nodes, at).into_iter().for_each(|entry| {
            entry.huge_pages.push(HugePages { page_bytes: 1 << (number % 64), count: u64::MAX >> at });
        }),
        15 => of(&mut m.numa_nodes, at)
            .into_iter()
            .for_each(|entry| entry.distances.push(NumaDistance { to: number % 4, value: number })),
        16 => drop((!m.cores.is_empty()).then(|| m.cores.remove(at % m.cores.len()))),
        17 => drop((!m.dies.is_empty()).then(|| m.dies.remove(at % m.dies.len()))),
        _ => of(&mut m.pci_devices, at).into_iter().for_each(|entry| entry.address = format!("{number:04x}:3b:00.0")),
    }
}

fn keeps_the_laws(machine: &Machine) {
    let cpus = machine.cpus();
    for cpu in cpus.iter() {
        assert_eq!(machine.numa_nodes_of(&CpuMask::from_ids([cpu])).count(), 1);
        assert_eq!(machine.package_cpus().iter().filter(|package| package.contains(cpu)).count(), 1);
        let core = machine.core_of(cpu).unwrap();
        assert!(machine.core_cpus(core).unwrap().contains(cpu));
        let kinds = machine.cpu_kinds();
        assert!(kinds.is_empty() || kinds.iter().filter(|kind| kind.cpus.contains(cpu)).count() == 1);
        assert!(machine.dies().iter().filter(|die| die.cpus.contains(cpu)).count() <= 1);
    }
    assert!(machine.isolated().is_subset(cpus));
    assert!(!machine.disallowed().intersects(cpus) && !machine.offline().intersects(cpus));
    for die in machine.dies() {
        assert_eq!(machine.package_cpus().iter().filter(|package| die.cpus.is_subset(package)).count(), 1);
    }
    for (index, &bytes) in machine.numa_memory_bytes().iter().enumerate() {
        let pages = machine.numa_huge_pages(index);
        assert!(
            pages.iter().map(|pages| u128::from(pages.page_bytes) * u128::from(pages.count)).sum::<u128>()
                <= bytes.into()
        );
    }
    for device in machine.pci_devices() {
        assert!(!device.cpus.is_empty() && device.cpus.is_subset(cpus));
    }
}

fn mask() -> impl Strategy<Value = CpuMask> {
    prop_oneof![
        (0u32..24, 0u32..9).prop_map(|(first, more)| (first..first + more).collect()),
        vec(0u32..20, 0..4).prop_map(CpuMask::from_ids),
        Just(CpuMask::from_ids([0, 20_000])),
    ]
}

proptest! {
    #[test]
    fn a_machine_or_an_error(changes in vec((0u8..20, 0usize..8, mask(), 0u32..40), 0..4)) {
        let mut description = honest();
        for (field, at, cpus, number) in &changes {
            change(&mut description, *field, *at, cpus, *number);
        }
        match Machine::new(&description) {
            Ok(machine) => keeps_the_laws(&machine),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn the_honest_one_is_a_machine() {
    keeps_the_laws(&Machine::new(&honest()).unwrap());
}
