//! The machine the tests run on: hwloc and sysfs must agree on everything both can see.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use fairlead_discovery::{CrossCheck, Gap, HwlocSource, SysfsSource, TopologySource};
use fairlead_topology::Machine;

#[test]
fn hwloc_and_sysfs_agree_on_this_machine() {
    let hwloc = HwlocSource::native().describe().unwrap();
    let sysfs = SysfsSource::native().describe().unwrap();
    let check = CrossCheck::of(&hwloc, &sysfs);
    let one_node = hwloc.description.numa_nodes.len() == 1;
    let unconfirmed = |field: &str| field == "numaNodes" && !one_node;
    let known: Vec<_> = check.disagreements.iter().filter(|found| !unconfirmed(&found.field)).collect();
    assert!(known.is_empty(), "{known:?}, not compared: {:?}", check.skipped);

    // A container may lack the NUMA files; nothing else may be skipped where they are there.
    let numa_files = std::path::Path::new("/sys/devices/system/node/online").exists();
    assert_eq!(check.skipped.contains(&Gap::NumaNodes), !numa_files, "{:?}", check.skipped);
    assert_eq!(check.disagreements.is_empty(), numa_files || one_node, "{:?}", check.disagreements);
    eprintln!("compared with sysfs; not comparable here: {:?}", check.skipped);

    let machine = Machine::new(&hwloc.description).unwrap();
    assert_eq!(machine.cpus(), Machine::new(&sysfs.description).unwrap().cpus());
    assert!(machine.numa_memory_bytes().iter().sum::<u64>() > 0);
}
