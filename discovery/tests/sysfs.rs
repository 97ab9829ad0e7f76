//! The sysfs reader on made-up trees: sparse ids, offline CPUs, missing files, nonsense.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::fs;
use std::path::Path;

use fairlead_discovery::{CrossCheck, Discovered, DiscoveryError, Gap, SysfsSource, TopologySource, cross_check};
use fairlead_topology::{Machine, MachineDescription};
use tempfile::TempDir;

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join("devices/system").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn read(root: &Path) -> Result<Discovered, DiscoveryError> {
    SysfsSource::new(root).describe()
}

/// Two packages of two cores of two threads (cpu, cpu + 4), node ids 0 and 2, an L3 each; CPU 7 offline; node 5 is
/// memory only.
fn two_packages() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "cpu/online", "0-6");
    for cpu in 0..8u32 {
        let (core, package) = (cpu % 4, cpu % 4 / 2);
        let cpus = format!("{core},{}", core + 4);
        let package_cpus = format!("{}-{},{}-{}", package * 2, package * 2 + 1, package * 2 + 4, package * 2 + 5);
        write(root, &format!("cpu/cpu{cpu}/topology/physical_package_id"), &package.to_string());
        write(root, &format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &cpus);
        for (index, level, kind, sharing) in [
            (0, 1, "Data", &cpus),
            (1, 3, "Instruction", &cpus),
            (2, 2, "Unified", &cpus),
            (4, 3, "Unified", &package_cpus),
        ] {
            let cache = format!("cpu/cpu{cpu}/cache/index{index}");
            write(root, &format!("{cache}/level"), &level.to_string());
            write(root, &format!("{cache}/type"), kind);
            write(root, &format!("{cache}/shared_cpu_list"), sharing);
            write(root, &format!("{cache}/size"), "16384K");
        }
    }
    write(root, "node/online", "0,2,5");
    for (node, cpus, distance) in [(0, "0-1,4-5", "10 21 30"), (2, "2-3,6-7", "21 10 31"), (5, "", "30 31 10")] {
        write(root, &format!("node/node{node}/cpulist"), cpus);
        write(root, &format!("node/node{node}/distance"), distance);
        let meminfo = format!("Node {node} MemTotal:       1000 kB\nNode {node} MemFree:        7 kB");
        write(root, &format!("node/node{node}/meminfo"), &meminfo);
        write(root, &format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "0");
    }
    folder
}

#[test]
fn reads_sparse_ids_offline_cpus_and_memory_only_nodes() {
    let folder = two_packages();
    let found = read(folder.path()).unwrap();
    assert_eq!(found.gaps, []);
    let machine = Machine::new(&found.description).unwrap();
    assert_eq!(machine.cpus().to_string(), "0-6");
    assert_eq!(machine.numa_ids(), [0, 2, 5]);
    assert_eq!(machine.numa_memory_bytes(), [1_024_000; 3]);
    assert_eq!(machine.numa_cpus(1).unwrap().to_string(), "2-3,6");
    assert_eq!((machine.numa_distance(0, 1), machine.numa_distance(2, 1)), (Some(21), Some(31)));
    let l3: Vec<String> = machine.l3_cpus().iter().map(ToString::to_string).collect();
    assert_eq!(l3, ["0-1,4-5", "2-3,6"], "level 3 is found by level and type, not by index");
    assert_eq!(found.description.l3_caches[0].size_bytes, 16 << 20);
    let cores: Vec<String> = found.description.cores.iter().map(|core| core.cpus.to_string()).collect();
    assert_eq!(cores, ["0,4", "1,5", "2,6", "3"]);
    assert_eq!(machine.smt_width(), 2);
}

#[test]
fn missing_files_are_gaps() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "cpu/online", "0-2");
    let found = read(folder.path()).unwrap();
    assert_eq!(found.gaps, [Gap::Packages, Gap::Cores, Gap::NumaNodes, Gap::Memory, Gap::Caches]);
    assert_eq!(Machine::new(&found.description).unwrap().regular_core_count(), 3);

    let proc = tempfile::tempdir().unwrap();
    fs::write(proc.path().join("meminfo"), "MemTotal:       2048 kB\n").unwrap();
    let found = SysfsSource::new(folder.path()).with_proc(proc.path()).describe().unwrap();
    assert_eq!(found.gaps, [Gap::Packages, Gap::Cores, Gap::NumaNodes, Gap::Caches, Gap::Disallowed]);
    assert_eq!(found.description.numa_nodes[0].memory_bytes, 2 << 20);
}

#[test]
fn packages_the_firmware_does_not_name_are_one() {
    let folder = two_packages();
    for cpu in 0..8 {
        write(folder.path(), &format!("cpu/cpu{cpu}/topology/physical_package_id"), "-1");
    }
    let found = read(folder.path()).unwrap();
    assert_eq!(found.gaps, [Gap::Packages]);
    assert_eq!(found.description.packages.len(), 1);
}

#[test]
fn nothing_there_and_nonsense_are_typed_errors() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(read(empty.path()), Err(DiscoveryError::NoCpus { .. })));

    let named = |name: &str, text: &str| {
        let folder = two_packages();
        write(folder.path(), name, text);
        read(folder.path()).unwrap_err().to_string()
    };
    assert!(named("cpu/online", "0-x").contains("cpu/online"));
    assert!(named("cpu/cpu3/topology/physical_package_id", "one").contains("cpu3/topology/physical_package_id"));
    assert!(named("node/node2/distance", "10 twenty 30").contains("node2/distance"));
    assert!(named("node/node0/meminfo", "Node 0 MemTotal: lots kB").contains("MemTotal"));
    assert!(named("cpu/cpu0/cache/index4/size", "99999999999999999G").contains("index4/size"));
}

fn changed(change: impl FnOnce(&mut MachineDescription)) -> Vec<(String, String, String)> {
    let folder = two_packages();
    let hwloc = read(folder.path()).unwrap().description;
    let mut sysfs = hwloc.clone();
    change(&mut sysfs);
    cross_check(&hwloc, &sysfs).into_iter().map(|found| (found.field, found.hwloc, found.sysfs)).collect()
}

#[test]
fn every_difference_is_named() {
    let one = |field: &str, hwloc: &str, sysfs: &str| vec![(field.to_owned(), hwloc.to_owned(), sysfs.to_owned())];
    assert_eq!(changed(|_| {}), []);
    assert_eq!(changed(|m| m.numa_nodes[1].memory_bytes = 5), one("numaNodes[id=2].memoryBytes", "1024000", "5"));
    assert_eq!(
        changed(|m| m.numa_nodes[0].distances[1].value = 40),
        one("numaNodes[id=0].distances[to=2]", "21", "40")
    );
    assert_eq!(changed(|m| m.l3_caches[1].size_bytes = 1), one("l3Caches[cpu=2].sizeBytes", "16777216", "1"));
    assert_eq!(changed(|m| drop(m.cores.pop())), one("cores[cpu=3].cpus", "3", "absent"));
    assert_eq!(changed(|m| m.packages[0].cpus.insert_range(9, 9)), one("packages[id=0].cpus", "0-1,4-5", "0-1,4-5,9"));
    // Only the numbers the sources gave themselves may differ.
    assert_eq!(changed(|m| m.cores[0].id = 77), []);
}

#[test]
fn an_assumption_is_not_compared_with_a_fact() {
    let folder = two_packages();
    let hwloc = read(folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("devices/system/node")).unwrap();
    let sysfs = read(folder.path()).unwrap();
    assert!(!cross_check(&hwloc.description, &sysfs.description).is_empty());
    let check = CrossCheck::of(&hwloc, &sysfs);
    assert_eq!(check.skipped, [Gap::NumaNodes, Gap::Memory]);
    // But it is no confirmation either.
    let found: Vec<_> = check.disagreements.iter().map(|d| (d.field.as_str(), d.hwloc.as_str())).collect();
    assert_eq!(found, [("numaNodes", "given")]);
    assert!(check.disagreements[0].sysfs.contains("no NUMA nodes given"), "{check:?}");
}

#[test]
fn a_kernel_without_numa_is_no_disagreement_where_hwloc_tells_one_node_with_all_cpus() {
    let folder = two_packages();
    let mut hwloc = read(folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("devices/system/node")).unwrap();
    let sysfs = read(folder.path()).unwrap();
    hwloc.description.numa_nodes.truncate(1);
    let disputed = |hwloc: &Discovered| {
        let check = CrossCheck::of(hwloc, &sysfs);
        assert_eq!(check.skipped, [Gap::NumaNodes, Gap::Memory]);
        check.disagreements.into_iter().map(|found| found.field).collect::<Vec<_>>()
    };
    assert_eq!(disputed(&hwloc), ["numaNodes"], "it has half of the CPUs");
    hwloc.description.numa_nodes[0].cpus.insert_range(0, 6);
    assert_eq!(disputed(&hwloc), Vec::<String>::new());
    let memory_only = hwloc.description.numa_nodes[0].clone();
    hwloc.description.numa_nodes.push(fairlead_topology::NumaDescription {
        id: 5,
        cpus: Default::default(),
        ..memory_only
    });
    assert_eq!(disputed(&hwloc), ["numaNodes"], "two nodes");
}

#[test]
fn cores_that_a_side_only_assumes_are_a_disagreement() {
    let folder = two_packages();
    let told = read(folder.path()).unwrap();
    // One CPU's file is enough.
    fs::remove_file(folder.path().join("devices/system/cpu/cpu1/topology/thread_siblings_list")).unwrap();
    let assumed = read(folder.path()).unwrap();
    for (hwloc, sysfs) in [(&told, &assumed), (&assumed, &told), (&assumed, &assumed)] {
        let check = CrossCheck::of(hwloc, sysfs);
        assert_eq!(check.skipped, [Gap::Cores]);
        assert_eq!(check.disagreements.len(), 1, "{check:?}");
        let found = &check.disagreements[0];
        let text =
            |side: &Discovered| if side == &told { "given" } else { "no cores given: every CPU taken as one core" };
        assert_eq!(
            (found.field.as_str(), found.hwloc.as_str(), found.sysfs.as_str()),
            ("cores", text(hwloc), text(sysfs))
        );
    }
}

#[test]
fn what_exclusive_cpus_do_not_rest_on_may_be_missing() {
    let folder = two_packages();
    let hwloc = read(folder.path()).unwrap();
    for file in ["node/node0/meminfo", "node/node0/distance", "node/node2/distance", "node/node5/distance"] {
        fs::remove_file(folder.path().join("devices/system").join(file)).unwrap();
    }
    let check = CrossCheck::of(&hwloc, &read(folder.path()).unwrap());
    assert_eq!((check.disagreements, check.skipped), (vec![], vec![Gap::Memory, Gap::Distances]));
}
