//! The machine shapes used for simulated nodes, and what is refused, through genuine hwloc.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use fairlead_discovery::{Discovered, DiscoveryError, Gap, HwlocSource, TopologySource};
use fairlead_topology::{CpuMask, Machine};

const TWO_SOCKETS: &str = "pack:2 [numa(memory=128GiB)] l3:1(size=32MiB) core:16 pu:2(indexes=2*32:1*2)";
const EPYC_LIKE: &str = "pack:1 numa:4(memory=32GiB) l3:2(size=16MiB) core:4 pu:2(indexes=2*32:1*2)";
const SINGLE_NUMA: &str = "pack:1 [numa(memory=64GiB)] l3:1(size=32MiB) core:16 pu:1";
const SPARSE: &str = "pack:2 [numa(memory=64GiB indexes=3,7)] core:4 pu:2";
const FAR_MEMORY: &str = "pack:2 [numa(memory=128GiB)] [numa(memory=512GiB)] l3:1 core:2 pu:1";

fn describe(text: &str) -> Result<Discovered, DiscoveryError> {
    HwlocSource::synthetic(text).describe()
}

fn machine(text: &str) -> Machine {
    Machine::new(&describe(text).unwrap().description).unwrap()
}

fn list(text: &str) -> CpuMask {
    CpuMask::parse_list(text).unwrap()
}

#[test]
fn two_sockets_number_siblings_as_linux_does() {
    let machine = machine(TWO_SOCKETS);
    assert_eq!(machine.cpus(), &list("0-63"));
    assert_eq!((machine.package_ids(), machine.numa_ids(), machine.l3_ids()), (&[0, 1][..], &[0, 1][..], &[0, 1][..]));
    assert_eq!(machine.numa_cpus(1), Some(&list("16-31,48-63")));
    assert_eq!(machine.core_cpus(0), Some(&list("0,32")));
    assert_eq!((machine.core_count(), machine.smt_width()), (32, 2));
    assert_eq!(machine.numa_memory_bytes(), [128 << 30, 128 << 30]);
    assert_eq!(machine.numa_distance(0, 1), Some(20), "hwloc gives no matrix: the kernel's default");
}

#[test]
fn epyc_has_four_nodes_and_eight_caches() {
    let machine = machine(EPYC_LIKE);
    assert_eq!((machine.numa_ids().len(), machine.l3_ids().len(), machine.core_count()), (4, 8, 32));
    assert_eq!(machine.numa_cpus(2), Some(&list("16-23,48-55")));
    assert_eq!(machine.l3_cpus()[3], list("12-15,44-47"));
    assert_eq!(describe(EPYC_LIKE).unwrap().description.l3_caches[0].size_bytes, 16 << 20);
}

#[test]
fn single_numa_has_no_gap() {
    let found = describe(SINGLE_NUMA).unwrap();
    assert_eq!(found.gaps, []);
    let machine = Machine::new(&found.description).unwrap();
    assert_eq!((machine.cpus().len(), machine.smt_width(), machine.numa_ids()), (16, 1, &[0][..]));
}

#[test]
fn ids_are_the_operating_systems() {
    let machine = machine(SPARSE);
    assert_eq!(machine.numa_ids(), [3, 7]);
    assert_eq!(machine.numa_index(7), Some(1));
    assert!(machine.l3_ids().is_empty());
}

#[test]
fn memory_beside_the_nodes_of_the_cpus_owns_none() {
    let found = describe(FAR_MEMORY).unwrap().description;
    let cpus: Vec<String> = found.numa_nodes.iter().map(|node| node.cpus.to_string()).collect();
    assert_eq!(cpus, ["0-1", "", "2-3", ""]);
    Machine::new(&found).unwrap();
}

#[test]
fn what_hwloc_does_not_say_is_told() {
    let found = describe("core:4 pu:1").unwrap();
    assert_eq!(found.gaps, [Gap::Packages]);
    Machine::new(&found.description).unwrap();
    assert_eq!(describe(TWO_SOCKETS).unwrap().gaps, [Gap::Distances]);
}

#[test]
fn nonsense_is_a_typed_error() {
    for text in ["", "pu:0", "pack:2 pack:2 pu:1", "pack:2\0"] {
        assert!(describe(text).is_err(), "{text:?}");
    }
    assert!(matches!(describe("core:0 pu:1"), Err(DiscoveryError::Synthetic { .. })));
    assert!(matches!(
        describe("pack:2 core:4 pu:2 rubbish"),
        Err(DiscoveryError::SyntheticLevel { item, .. }) if item == "rubbish"
    ));
    // hwloc itself would end the process.
    for text in ["pack:2 [numa(indexes=3,3)] core:2 pu:1", "core:2 pu:2(indexes=0,1,0,3)"] {
        assert!(matches!(describe(text), Err(DiscoveryError::SyntheticIndex { .. })), "{text:?}");
    }
    assert!(matches!(describe("core:2048 pu:2"), Err(DiscoveryError::SyntheticTooWide { .. })));
    // Attributes that hwloc would ignore, or multiply until nothing is left.
    for text in [
        "core:2(color=red) pu:1",
        "core:2(memory=64XB) pu:1",
        "core:2:4 pu:1",
        "core:010 pu:1",
        "[numa:4] core:2 pu:1",
        "[numa core:2 pu:1",
        "core:2 pu:1(indexes=0,16384)",
        "core:2 pu:2(indexes=4294967296*4294967296:1*4294967296)",
    ] {
        assert!(matches!(describe(text), Err(DiscoveryError::SyntheticLevel { .. })), "{text:?}");
    }
    // hwloc itself would work on these for hours.
    for text in ["pack:2 core:99999999 pu:2", "core:99999999999999999999 pu:1", "numa:128 core:128 pu:2"] {
        assert!(matches!(describe(text), Err(DiscoveryError::SyntheticTooLarge { .. })), "{text:?}");
    }
}

#[test]
fn beyond_a_thousand_cpus_and_with_gaps_in_all_ids() {
    let large = machine("pack:8 [numa(memory=1TB)] l3:16 core:8 pu:2");
    assert_eq!((large.cpus().len(), large.core_count(), large.l3_ids().len()), (2048, 1024, 128));
    assert_eq!(large.numa_cpus(7), Some(&list("1792-2047")));
    assert_eq!(large.core_of(2047), Some(1023));

    // Every CPU id of a sparse machine, up to the highest there may be.
    let ids: Vec<String> = (0..16u32).map(|at| (at * 1000 + 383).to_string()).collect();
    let sparse = machine(&format!("pack:2 [numa(memory=1GB indexes=250,4)] core:4 pu:2(indexes={})", ids.join(",")));
    assert_eq!((sparse.cpus().len(), sparse.cpus().last()), (16, Some(15_383)));
    assert_eq!((sparse.numa_ids(), sparse.numa_cpus(0).and_then(CpuMask::first)), (&[4, 250][..], Some(8383)));
    assert_eq!(sparse.whole_cores(&list("15383")), list("14383,15383"));
}
