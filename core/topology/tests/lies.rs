//! Every lie a description can tell has its own error; every odd truth is taken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, Field, MAX_CPUS, Machine, MachineDescription, MachineError,
    NumaDescription, NumaDistance, PackageDescription,
};

fn list(text: &str) -> CpuMask {
    CpuMask::parse_list(text).unwrap()
}

fn numa(id: u32, cpus: &str) -> NumaDescription {
    NumaDescription { id, cpus: list(cpus), memory_bytes: 1 << 30, distances: vec![], ..NumaDescription::default() }
}

fn l3(id: u32, cpus: &str) -> CacheDescription {
    CacheDescription { id, cpus: list(cpus), size_bytes: 1 << 20 }
}

/// Two packages, each a NUMA node and an L3, four cores of two neighbouring threads: 0-3 and 4-7.
fn honest() -> MachineDescription {
    MachineDescription {
        packages: vec![
            PackageDescription { id: 0, cpus: list("0-3") },
            PackageDescription { id: 1, cpus: list("4-7") },
        ],
        numa_nodes: vec![numa(0, "0-3"), numa(1, "4-7")],
        l3_caches: vec![l3(0, "0-3"), l3(1, "4-7")],
        cores: (0..4).map(|id| CoreDescription { id, cpus: CpuMask::from_ids([2 * id, 2 * id + 1]) }).collect(),
        ..MachineDescription::default()
    }
}

fn lie(change: impl FnOnce(&mut MachineDescription)) -> MachineError {
    let mut description = honest();
    change(&mut description);
    Machine::new(&description).unwrap_err()
}

fn truth(change: impl FnOnce(&mut MachineDescription)) -> Machine {
    let mut description = honest();
    change(&mut description);
    Machine::new(&description).unwrap()
}

#[test]
fn empty_lists() {
    assert_eq!(lie(|m| m.cores.clear()), MachineError::Empty { field: Field::Cores });
    assert_eq!(lie(|m| m.packages.clear()), MachineError::Empty { field: Field::Packages });
    assert_eq!(lie(|m| m.numa_nodes.clear()), MachineError::Empty { field: Field::NumaNodes });
    assert_eq!(
        lie(|m| m.numa_nodes.iter_mut().for_each(|node| node.cpus = CpuMask::new())),
        MachineError::NoNumaNodeWithCpus
    );
    assert_eq!(Machine::new(&MachineDescription::default()), Err(MachineError::Empty { field: Field::Cores }));
    assert_eq!(lie(|m| m.cores[1].cpus = CpuMask::new()), MachineError::NoCpus { field: Field::Cores, id: 1 });
    assert_eq!(lie(|m| m.l3_caches[1].cpus = CpuMask::new()), MachineError::NoCpus { field: Field::L3Caches, id: 1 });
}

#[test]
fn ids_and_ranges() {
    assert_eq!(lie(|m| m.cores[3].id = 1), MachineError::DuplicateId { field: Field::Cores, id: 1 });
    assert_eq!(lie(|m| m.numa_nodes[0].id = 1), MachineError::DuplicateId { field: Field::NumaNodes, id: 1 });
    assert_eq!(lie(|m| m.packages[0].id = 1), MachineError::DuplicateId { field: Field::Packages, id: 1 });
    assert_eq!(lie(|m| m.l3_caches[0].id = 1), MachineError::DuplicateId { field: Field::L3Caches, id: 1 });
    assert_eq!(
        lie(|m| m.numa_nodes[1].cpus = CpuMask::from_ids([4, MAX_CPUS])),
        MachineError::CpuOutOfRange { field: Field::NumaNodes, id: 1, cpu: MAX_CPUS, max: MAX_CPUS - 1 }
    );
}

#[test]
fn every_list_is_bounded_and_has_cpus() {
    assert_eq!(lie(|m| m.packages[1].cpus = CpuMask::new()), MachineError::NoCpus { field: Field::Packages, id: 1 });
    let out = |field| MachineError::CpuOutOfRange { field, id: 0, cpu: MAX_CPUS, max: MAX_CPUS - 1 };
    let far = || CpuMask::from_ids([0, MAX_CPUS]);
    assert_eq!(lie(|m| m.cores[0].cpus = far()), out(Field::Cores));
    assert_eq!(lie(|m| m.packages[0].cpus = far()), out(Field::Packages));
    assert_eq!(lie(|m| m.l3_caches[0].cpus = far()), out(Field::L3Caches));
}

#[test]
fn a_numa_node_without_its_cpus() {
    // Cores that no node has; a memory-only node beside nodes that have them all is no lie (see below).
    assert_eq!(
        lie(|m| m.numa_nodes[1].cpus = CpuMask::new()),
        MachineError::CoreOutside { core: 2, field: Field::NumaNodes, cpus: list("4-5") }
    );
    assert_eq!(
        lie(|m| drop(m.numa_nodes.remove(0))),
        MachineError::CoreOutside { core: 0, field: Field::NumaNodes, cpus: list("0-1") }
    );
    let field = Field::NumaNodes;
    assert_eq!(lie(|m| m.numa_nodes.push(numa(1, ""))), MachineError::DuplicateId { field, id: 1 });
    assert_eq!(
        lie(|m| m.numa_nodes.push(numa(7, "0-7"))),
        MachineError::Overlap { field, first: 0, second: 7, cpus: list("0-3") }
    );
}

#[test]
fn overlaps() {
    let overlap = |field, cpus| MachineError::Overlap { field, first: 0, second: 1, cpus: list(cpus) };
    assert_eq!(lie(|m| m.cores[1].cpus = list("1-3")), overlap(Field::Cores, "1"));
    assert_eq!(lie(|m| m.packages[1].cpus = list("2-7")), overlap(Field::Packages, "2-3"));
    assert_eq!(lie(|m| m.numa_nodes[1].cpus = list("3-7")), overlap(Field::NumaNodes, "3"));
    assert_eq!(lie(|m| m.l3_caches[1].cpus = list("0-7")), overlap(Field::L3Caches, "0-3"));
    assert!(lie(|m| m.cores[1].cpus = list("1-3")).to_string().contains("cores: ids 0 and 1 both claim CPUs 1"));
}

#[test]
fn coverage() {
    assert_eq!(
        lie(|m| m.packages[1].cpus = list("4-9")),
        MachineError::NotInCore { field: Field::Packages, id: 1, cpus: list("8-9") }
    );
    assert_eq!(
        lie(|m| m.l3_caches[0].cpus = list("0-3,40")),
        MachineError::NotInCore { field: Field::L3Caches, id: 0, cpus: list("40") }
    );
    assert_eq!(
        lie(|m| m.packages[1].cpus = list("4-5")),
        MachineError::CoreOutside { core: 3, field: Field::Packages, cpus: list("6-7") }
    );
    assert_eq!(
        lie(|m| m.numa_nodes[1].cpus = list("4-6")),
        MachineError::CoreOutside { core: 3, field: Field::NumaNodes, cpus: list("7") }
    );
}

#[test]
fn borders() {
    let straddles = |field| MachineError::CoreStraddles { core: 1, cpus: list("2-3"), field, id: 0 };
    assert_eq!(
        lie(|m| m.packages =
            vec![PackageDescription { id: 0, cpus: list("0-2") }, PackageDescription { id: 1, cpus: list("3-7") }]),
        straddles(Field::Packages)
    );
    assert_eq!(lie(|m| m.numa_nodes = vec![numa(0, "0-2"), numa(1, "3-7")]), straddles(Field::NumaNodes));
    assert_eq!(lie(|m| m.l3_caches = vec![l3(0, "0-2"), l3(1, "3-7")]), straddles(Field::L3Caches));
    assert_eq!(lie(|m| m.l3_caches = vec![l3(0, "0-2")]), straddles(Field::L3Caches));
    assert_eq!(lie(|m| m.l3_caches = vec![l3(5, "2-5")]), MachineError::L3StraddlesNuma { l3: 5, numa: 0 });
    // All of one node and a part of the other.
    assert_eq!(lie(|m| m.l3_caches = vec![l3(5, "0-5")]), MachineError::L3StraddlesNuma { l3: 5, numa: 1 });
}

#[test]
fn distances() {
    let with = |to, value| move |m: &mut MachineDescription| m.numa_nodes[0].distances.push(NumaDistance { to, value });
    assert_eq!(lie(with(9, 20)), MachineError::DistanceToUnknown { numa: 0, to: 9 });
    assert_eq!(lie(with(1, 0)), MachineError::DistanceZero { numa: 0, to: 1 });
    assert_eq!(
        lie(|m| {
            with(1, 20)(m);
            with(1, 21)(m);
        }),
        MachineError::DistanceTwice { numa: 0, to: 1 }
    );
    // A matrix with a column too many names a node that is not there, or one twice.
    let row = |ids: &'static [u32]| {
        move |m: &mut MachineDescription| {
            m.numa_nodes[1].distances = ids.iter().map(|&to| NumaDistance { to, value: 20 }).collect();
        }
    };
    assert_eq!(lie(row(&[0, 1, 2])), MachineError::DistanceToUnknown { numa: 1, to: 2 });
    assert_eq!(lie(row(&[0, 1, 1])), MachineError::DistanceTwice { numa: 1, to: 1 });
    // One too few leaves the rest at the kernel's default.
    let short = truth(row(&[1]));
    assert_eq!((short.numa_distance(1, 0), short.numa_distance(1, 1)), (Some(20), Some(20)));
    let machine = truth(with(1, 32));
    assert_eq!((machine.numa_distance(0, 1), machine.numa_distance(1, 0)), (Some(32), Some(20)));
    assert_eq!((machine.numa_distance(0, 0), machine.numa_distance(0, 2)), (Some(10), None));
}

#[test]
fn odd_truths_are_taken() {
    // Memory-only node, no L3 at all, an L3 over several whole NUMA nodes, a NUMA node over two packages.
    assert_eq!(truth(|m| m.numa_nodes.push(numa(9, ""))).numa_ids(), [0, 1, 9]);
    assert!(truth(|m| m.l3_caches.clear()).l3_ids().is_empty());
    assert_eq!(truth(|m| m.l3_caches = vec![l3(3, "0-7")]).l3_ids(), [3]);
    assert_eq!(
        truth(|m| {
            m.numa_nodes = vec![numa(4, "0-7")];
        })
        .numa_ids(),
        [4]
    );
}

#[test]
fn look_ups() {
    let machine = truth(|m| m.numa_nodes.swap(0, 1));
    assert_eq!(machine.numa_ids(), [0, 1], "dense indices follow the ids, not the order given");
    assert_eq!(machine.numa_index(1), Some(1));
    assert_eq!(machine.numa_nodes_of(&list("3-4")).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(machine.whole_cores(&list("1,6,99")), list("0-1,6-7"));
    assert_eq!((machine.core_of(5), machine.core_of(99)), (Some(2), None));
    assert_eq!((machine.smt_width(), machine.regular_core_count()), (2, 4));
}

#[test]
fn serde_form_is_camel_case_with_lists() {
    let json = serde_json::to_value(honest()).unwrap();
    assert_eq!(json["numaNodes"][1]["cpus"], "4-7");
    assert_eq!(json["l3Caches"][0]["sizeBytes"], 1 << 20);
    assert_eq!(serde_json::from_value::<MachineDescription>(json).unwrap(), honest());
}
