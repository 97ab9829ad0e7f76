//! Every lie a description can tell has its own error; every odd truth is taken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuField, CpuKindDescription, CpuMask, Field, GroupDescription, HugePages,
    MAX_CPUS, MAX_PCI_DEVICES, MAX_PCI_NAMES, Machine, MachineDescription, MachineError, NumaDescription, NumaDistance,
    PackageDescription, PciDescription,
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

fn group(id: u32, cpus: &str) -> GroupDescription {
    GroupDescription { id, cpus: list(cpus) }
}

fn kind(efficiency: i32, cpus: &str) -> CpuKindDescription {
    CpuKindDescription { efficiency, cpus: list(cpus) }
}

fn device(address: &str, cpus: &str) -> PciDescription {
    PciDescription {
        address: address.into(),
        class: 0x0302,
        vendor: 0x10de,
        device: 0x2230,
        names: vec!["card0".into()],
        cpus: list(cpus),
        switch: None,
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

#[test]
fn dies_and_clusters() {
    let dies = |groups: &[(u32, &str)]| {
        let groups: Vec<_> = groups.iter().map(|&(id, cpus)| group(id, cpus)).collect();
        move |m: &mut MachineDescription| m.dies = groups
    };
    let field = Field::Dies;
    assert_eq!(lie(dies(&[(0, "0-1"), (0, "2-3")])), MachineError::DuplicateId { field, id: 0 });
    assert_eq!(lie(dies(&[(4, "")])), MachineError::NoCpus { field, id: 4 });
    let overlap = MachineError::Overlap { field, first: 0, second: 1, cpus: list("2-3") };
    assert_eq!(lie(dies(&[(0, "0-3"), (1, "2-3")])), overlap);
    assert_eq!(lie(dies(&[(0, "0-1,9")])), MachineError::NotInCore { field, id: 0, cpus: list("9") });
    assert_eq!(lie(dies(&[(5, "0-2")])), MachineError::CoreStraddles { core: 1, cpus: list("2-3"), field, id: 5 });
    let around = Field::Packages;
    assert_eq!(lie(dies(&[(5, "2-5")])), MachineError::GroupStraddles { field, id: 5, around, other: 0 });

    let clusters = |cpus: &'static str| {
        move |m: &mut MachineDescription| {
            dies(&[(0, "0-1"), (1, "2-3")])(m);
            m.clusters = vec![group(8, cpus)];
        }
    };
    let field = Field::Clusters;
    assert_eq!(lie(clusters("2-5")), MachineError::GroupStraddles { field, id: 8, around, other: 0 });
    assert_eq!(lie(clusters("0-3")), MachineError::GroupStraddles { field, id: 8, around: Field::Dies, other: 0 });
    let machine = truth(|m| {
        m.dies = vec![group(7, "2-3"), group(3, "0-1")];
        m.clusters = vec![group(1, "4-7"), group(0, "0-1")];
    });
    assert_eq!(machine.dies(), [group(3, "0-1"), group(7, "2-3")], "in the order of their ids");
    assert_eq!(machine.clusters(), [group(0, "0-1"), group(1, "4-7")]);
}

#[test]
fn kinds_of_cpus_leave_none_out_and_divide_no_core() {
    let kinds = |first: &'static str, second: &'static str| {
        move |m: &mut MachineDescription| m.cpu_kinds = vec![kind(0, first), kind(1, second)]
    };
    let field = Field::CpuKinds;
    assert_eq!(lie(kinds("0-5", "4-7")), MachineError::Overlap { field, first: 0, second: 1, cpus: list("4-5") });
    assert_eq!(lie(kinds("0-3", "")), MachineError::NoCpus { field, id: 1 });
    assert_eq!(lie(kinds("0-3", "4-7,99")), MachineError::NotInCore { field, id: 1, cpus: list("99") });
    assert_eq!(lie(kinds("0-3", "6-7")), MachineError::CoreOutside { core: 2, field, cpus: list("4-5") });
    assert_eq!(lie(kinds("0-4", "5-7")), MachineError::CoreStraddles { core: 2, cpus: list("4-5"), field, id: 0 });
    assert_eq!(truth(kinds("0-3", "4-7")).cpu_kinds(), [kind(0, "0-3"), kind(1, "4-7")]);
}

#[test]
fn cpus_that_nobody_can_have_are_in_no_core() {
    let machine = truth(|m| {
        m.isolated = list("6-7");
        m.disallowed = list("10-11");
        m.offline = list("8-9,40");
    });
    assert_eq!((machine.isolated(), machine.disallowed()), (&list("6-7"), &list("10-11")));
    assert_eq!((machine.offline(), machine.cpus()), (&list("8-9,40"), &list("0-7")));

    assert_eq!(lie(|m| m.isolated = list("7-8")), MachineError::IsolatedUnknown { cpus: list("8") });
    let used = |field| MachineError::UnusableInUse { field, cpus: list("7") };
    assert_eq!(lie(|m| m.disallowed = list("7-8")), used(CpuField::Disallowed));
    assert_eq!(lie(|m| m.offline = list("7-8")), used(CpuField::Offline));
    let both = |m: &mut MachineDescription| (m.offline, m.disallowed) = (list("8-9"), list("9-10"));
    assert_eq!(lie(both), MachineError::DisallowedOffline { cpus: list("9") });
    let far = || CpuMask::from_ids([MAX_CPUS + 5]);
    let out = |field| MachineError::CpuSetOutOfRange { field, cpu: MAX_CPUS + 5, max: MAX_CPUS - 1 };
    assert_eq!(lie(|m| m.isolated = far()), out(CpuField::Isolated));
    assert_eq!(lie(|m| m.disallowed = far()), out(CpuField::Disallowed));
    assert_eq!(lie(|m| m.offline = far()), out(CpuField::Offline));
    assert!(lie(|m| m.offline = list("7")).to_string().starts_with("offlineCPUs: CPUs 7 belong to cores"));
}

#[test]
fn huge_pages() {
    let pages = |list: &[(u64, u64)]| {
        let list: Vec<_> = list.iter().map(|&(page_bytes, count)| HugePages { page_bytes, count }).collect();
        move |m: &mut MachineDescription| m.numa_nodes[1].huge_pages = list
    };
    let (two_mib, one_gib) = (2 << 20, 1 << 30);
    let machine = truth(pages(&[(one_gib, 0), (two_mib, 512)]));
    let sizes: Vec<u64> = machine.numa_huge_pages(1).iter().map(|pages| pages.page_bytes).collect();
    assert_eq!(sizes, [two_mib, one_gib], "by size");
    assert!(machine.numa_huge_pages(0).is_empty() && machine.numa_huge_pages(9).is_empty());

    for page_bytes in [0, 2048, 3 << 20] {
        assert_eq!(lie(pages(&[(page_bytes, 0)])), MachineError::PageSize { numa: 1, page_bytes });
    }
    let twice = MachineError::PageSizeTwice { numa: 1, page_bytes: two_mib };
    assert_eq!(lie(pages(&[(two_mib, 1), (two_mib, 1)])), twice);
    let above = MachineError::HugePagesAboveMemory { numa: 1, memory_bytes: 1 << 30 };
    assert_eq!(lie(pages(&[(two_mib, 513)])), above);
    assert_eq!(lie(pages(&[(two_mib, 512), (4096, 1)])), above, "all sizes together");
    assert_eq!(lie(pages(&[(1 << 63, 2)])), above, "a product beyond 64 bits");
}

#[test]
fn pci_devices() {
    let address = "0000:3b:00.0";
    let machine = truth(|m| {
        let nvme = PciDescription { switch: Some("10000:00:1c.4".into()), ..device("10000:01:00.7", "0-7") };
        m.pci_devices = vec![nvme, device(address, "4-5")];
        m.numa_nodes[1].kind = Some("HBM".into());
    });
    let addresses: Vec<&str> = machine.pci_devices().iter().map(|device| device.address.as_str()).collect();
    assert_eq!(addresses, [address, "10000:01:00.7"]);
    assert_eq!(machine.numa_kinds(), [None, Some("HBM".to_owned())]);

    let one = |device: PciDescription| move |m: &mut MachineDescription| m.pci_devices = vec![device];
    for text in ["", "3b:00.0", "0000:3B:00.0", "0000:3b:00.8", "0000:3b:00.0.", "0000.3b:00:0", "000000000:3b:00.0"] {
        let error = MachineError::PciAddress { address: text.into(), field: "address", text: text.into() };
        assert_eq!(lie(one(device(text, "0"))), error);
        let switched = PciDescription { switch: Some(text.into()), ..device(address, "0") };
        let error = MachineError::PciAddress { address: address.into(), field: "switch", text: text.into() };
        assert_eq!(lie(one(switched)), error);
    }
    let address = || address.to_owned();
    let twice = |m: &mut MachineDescription| m.pci_devices = vec![device(&address(), "0"); 2];
    assert_eq!(lie(twice), MachineError::PciTwice { address: address() });
    assert_eq!(lie(one(device(&address(), ""))), MachineError::PciWithoutCpus { address: address() });
    let unknown = MachineError::PciNotInCore { address: address(), cpus: list("8") };
    assert_eq!(lie(one(device(&address(), "0-8"))), unknown);

    let (count, max) = (MAX_PCI_DEVICES + 1, MAX_PCI_DEVICES);
    let many = |m: &mut MachineDescription| m.pci_devices = vec![device(&address(), "0"); count];
    assert_eq!(lie(many), MachineError::TooMany { field: "pciDevices".into(), count, max });
    let named = PciDescription { names: vec!["n".into(); MAX_PCI_NAMES + 1], ..device(&address(), "0") };
    let field = "pciDevices[address=0000:3b:00.0].names".to_owned();
    assert_eq!(lie(one(named)), MachineError::TooMany { field, count: MAX_PCI_NAMES + 1, max: MAX_PCI_NAMES });
}
