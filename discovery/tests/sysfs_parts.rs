//! What the sysfs reader tells beside cores, caches and memory, and where a second opinion differs, on made-up trees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fairlead_discovery::{CrossCheck, Discovered, DiscoveryError, Gap, SysfsSource, TopologyInput, TopologySource};
use fairlead_topology::{CpuMask, HugePages, Machine, PciDescription};
use tempfile::TempDir;

fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn cpu_file(folder: &TempDir, cpu: u32, name: &str, text: &str) {
    write(folder, &format!("sys/devices/system/cpu/cpu{cpu}/{name}"), text);
}

/// One package of two dies of two clusters of two cores of one thread, CPUs 16 to 23 (a package that begins at 0 would
/// hide what counts from there), CPU 24 offline; one NUMA node 5.
fn two_dies() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let system = |name: &str, text: &str| write(&folder, &format!("sys/devices/system/{name}"), text);
    system("cpu/online", "16-23");
    system("cpu/present", "16-24");
    system("cpu/isolated", "22-24");
    for cpu in 16..24u32 {
        let range = |width: u32| format!("{}-{}", cpu / width * width, cpu / width * width + width - 1);
        cpu_file(&folder, cpu, "topology/physical_package_id", "3");
        cpu_file(&folder, cpu, "topology/core_cpus_list", &cpu.to_string());
        cpu_file(&folder, cpu, "topology/die_cpus_list", &range(4));
        cpu_file(&folder, cpu, "topology/cluster_cpus_list", &range(2));
        cpu_file(&folder, cpu, "cpu_capacity", if cpu < 20 { "512" } else { "1024" });
        cpu_file(&folder, cpu, "cache/index3/level", "3");
        cpu_file(&folder, cpu, "cache/index3/type", "Unified");
        cpu_file(&folder, cpu, "cache/index3/shared_cpu_list", "16-23");
        cpu_file(&folder, cpu, "cache/index3/size", "32M");
    }
    system("node/online", "5");
    system("node/node5/cpulist", "16-23");
    system("node/node5/distance", "10");
    system("node/node5/meminfo", "Node 5 MemTotal: 4194304 kB");
    for (size, count) in [("1048576", "1"), ("2048", "512"), ("65536", "0")] {
        system(&format!("node/node5/hugepages/hugepages-{size}kB/nr_hugepages"), count);
    }
    folder
}

/// A device below the bridges named by `path`, as `/sys` links it.
fn device(folder: &TempDir, path: &str, class: &str, local: &str) {
    let address = path.rsplit('/').next().unwrap();
    for (name, text) in [("class", class), ("vendor", "0x15b3"), ("device", "0x101d"), ("local_cpulist", local)] {
        write(folder, &format!("sys/devices/pci0000:3a/{path}/{name}"), text);
    }
    let links = folder.path().join("sys/bus/pci/devices");
    fs::create_dir_all(&links).unwrap();
    symlink(format!("../../../devices/pci0000:3a/{path}"), links.join(address)).unwrap();
}

fn describe(folder: &TempDir) -> Result<Discovered, DiscoveryError> {
    TopologyInput::Captured(folder.path().to_owned()).describe()
}

fn texts<'a>(sets: impl Iterator<Item = &'a CpuMask>) -> Vec<String> {
    sets.map(ToString::to_string).collect()
}

#[test]
fn dies_clusters_kinds_and_unusable_cpus() {
    let folder = two_dies();
    let found = describe(&folder).unwrap();
    assert_eq!(found.gaps, [Gap::Disallowed], "no cgroup was captured");
    let machine = Machine::new(&found.description).unwrap();
    assert_eq!(texts(machine.dies().iter().map(|die| &die.cpus)), ["16-19", "20-23"]);
    assert_eq!(texts(machine.clusters().iter().map(|cluster| &cluster.cpus)), ["16-17", "18-19", "20-21", "22-23"]);
    assert_eq!(texts(machine.cpu_kinds().iter().map(|kind| &kind.cpus)), ["16-19", "20-23"]);
    assert_eq!((machine.isolated().to_string(), machine.offline().to_string()), ("22-23".into(), "24".into()));
    let pages = [HugePages { page_bytes: 2 << 20, count: 512 }, HugePages { page_bytes: 1 << 30, count: 1 }];
    assert_eq!(machine.numa_huge_pages(0), pages, "those of 64 MiB are none");

    // A die that is its package, a cluster that is a core, and capacities that are all alike say nothing.
    for cpu in 16..24 {
        cpu_file(&folder, cpu, "topology/die_cpus_list", "16-23");
        cpu_file(&folder, cpu, "topology/cluster_cpus_list", &cpu.to_string());
        cpu_file(&folder, cpu, "cpu_capacity", "1024");
    }
    let plain = describe(&folder).unwrap().description;
    assert!(plain.dies.is_empty() && plain.clusters.is_empty() && plain.cpu_kinds.is_empty(), "{plain:?}");
}

#[test]
fn devices_their_names_and_switches() {
    let folder = two_dies();
    let port = "0000:3a:00.0/0000:3b:00.0/0000:3c:08.0/0000:3d:00.0";
    device(&folder, port, "0x020700", "16-19");
    device(&folder, "0000:3a:00.0", "0x060400", "16-23");
    device(&folder, "0000:3a:02.0/0000:40:00.0", "0x010802", "");
    let names = folder.path().join("sys/class/net");
    fs::create_dir_all(&names).unwrap();
    symlink(format!("../../devices/pci0000:3a/{port}/net/ib0"), names.join("ib0")).unwrap();
    symlink("../../devices/virtual/net/lo", names.join("lo")).unwrap();
    let found = describe(&folder).unwrap().description;
    let nic = PciDescription {
        address: "0000:3d:00.0".into(),
        class: 0x0207,
        vendor: 0x15b3,
        device: 0x101d,
        names: vec!["ib0".into()],
        cpus: CpuMask::parse_list("16-19").unwrap(),
        switch: Some("0000:3b:00.0".into()),
    };
    let disk = PciDescription {
        address: "0000:40:00.0".into(),
        class: 0x0108,
        names: vec![],
        cpus: CpuMask::parse_list("16-23").unwrap(),
        switch: None,
        ..nic.clone()
    };
    assert_eq!(found.pci_devices, [nic, disk], "no bridge; what is near to nothing is near to all");
    Machine::new(&found).unwrap();
    write(&folder, &format!("sys/devices/pci0000:3a/{port}/class"), "network");
    assert!(describe(&folder).unwrap_err().to_string().contains("0000:3d:00.0/class"));
}

#[test]
fn cpus_that_the_cgroups_around_keep_away() {
    let folder = two_dies();
    let cgroup = "sys/fs/cgroup/kubepods/pod1/agent";
    write(&folder, "proc/self/cgroup", "0::/kubepods/pod1/agent");
    write(&folder, &format!("{cgroup}/cpuset.cpus"), "");
    write(&folder, &format!("{cgroup}/cpuset.cpus.effective"), "17-23");
    let found = describe(&folder).unwrap();
    assert_eq!((found.gaps, found.description.disallowed.to_string()), (vec![], "16".to_owned()));
    let machine = Machine::new(&found.description).unwrap();
    assert_eq!(machine.cpus().to_string(), "17-23");
    assert_eq!(texts(machine.dies().iter().map(|die| &die.cpus)), ["17-19", "20-23"]);

    // Pinned itself, by us or the kubelet: every promised core of others would be lost.
    write(&folder, &format!("{cgroup}/cpuset.cpus"), "20-23");
    write(&folder, &format!("{cgroup}/cpuset.cpus.effective"), "20-23");
    let mut pinned = describe(&folder).unwrap();
    assert_eq!((pinned.gaps.clone(), pinned.description.disallowed.is_empty()), (vec![Gap::Disallowed], true));
    // What was known before can be said again.
    pinned.withhold(&CpuMask::from_ids([16, 99]));
    assert_eq!(pinned.description, found.description);

    for (told, gaps) in [("0::/../other", vec![Gap::Disallowed]), ("4:cpu,cpuset:/box", vec![Gap::Disallowed])] {
        write(&folder, "proc/self/cgroup", told);
        assert_eq!(describe(&folder).unwrap().gaps, gaps, "{told}");
    }
    write(&folder, "proc/self/cgroup", "4:cpu,cpuset:/");
    write(&folder, "sys/fs/cgroup/cpuset/release_agent", "");
    write(&folder, "sys/fs/cgroup/cpuset/cpuset.cpus", "16-23");
    assert_eq!(describe(&folder).unwrap().gaps, []);
}

#[test]
fn a_second_opinion_names_what_differs() {
    let folder = two_dies();
    device(&folder, "0000:3a:00.0", "0x020000", "16-19");
    let told = describe(&folder).unwrap();
    let differing = |change: fn(&mut Discovered)| {
        let mut other = told.clone();
        change(&mut other);
        let fields = |check: CrossCheck| check.disagreements.into_iter().map(|found| found.field).collect::<Vec<_>>();
        let (one, two) = (fields(CrossCheck::of(&told, &other)), fields(CrossCheck::of(&other, &told)));
        assert_eq!(one.len(), two.len(), "{one:?} {two:?}");
        one
    };
    let list = |text: &str| CpuMask::parse_list(text).unwrap();
    assert_eq!(differing(|_| {}), [""; 0]);
    assert_eq!(
        differing(|m| m.description.pci_devices[0].cpus = CpuMask::from_ids([19, 20])),
        ["pciDevices[0000:3a:00.0].cpus"]
    );
    assert_eq!(differing(|m| m.description.pci_devices[0].class = 0x0300), ["pciDevices[0000:3a:00.0].id"]);
    assert_eq!(differing(|m| m.description.dies[1].cpus = CpuMask::from_ids([20, 21, 22])), ["dies[cpu=20].cpus"]);
    assert_eq!(differing(|m| m.description.clusters[0].cpus = CpuMask::from_ids([17, 18])).len(), 2);
    assert_eq!(
        differing(|m| m.description.numa_nodes[0].huge_pages[0].count = 3),
        ["numaNodes[id=5].hugePages[pageBytes=2097152]"]
    );
    assert_eq!(differing(|m| m.description.offline = CpuMask::from_ids([25])), ["offlineCPUs"]);
    // The same fact, told less exactly or by one side only.
    for change in [
        |m: &mut Discovered| m.description.pci_devices[0].cpus.insert_range(16, 23),
        |m: &mut Discovered| m.description.pci_devices.clear(),
        |m: &mut Discovered| m.description.dies.clear(),
        |m: &mut Discovered| m.description.clusters.clear(),
        |m: &mut Discovered| m.description.cpu_kinds.clear(),
        |m: &mut Discovered| m.description.numa_nodes[0].kind = Some("DRAM".into()),
    ] {
        assert_eq!(differing(change), [""; 0]);
    }
    // What is disallowed is one disagreement, not one for every core of it.
    let (mut ours, mut theirs) = (told.clone(), told.clone());
    ours.gaps.clear();
    theirs.gaps.clear();
    ours.withhold(&list("16-17"));
    let fields: Vec<_> = CrossCheck::of(&ours, &theirs).disagreements.into_iter().map(|found| found.field).collect();
    assert_eq!(fields, ["disallowedCPUs"]);
}

#[test]
fn siblings_that_are_cores_of_their_own_and_files_of_old_kernels() {
    let folder = two_dies();
    for cpu in 16..24 {
        // AMD's compute units: two cores that the kernel lists as siblings.
        cpu_file(&folder, cpu, "topology/core_cpus_list", &format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1));
        cpu_file(&folder, cpu, "topology/core_id", &cpu.to_string());
    }
    assert_eq!(describe(&folder).unwrap().description.cores.len(), 8);

    let root = folder.path().join("sys/devices/system");
    let remove = |name: &str| fs::remove_file(root.join(name)).unwrap();
    remove("cpu/online");
    remove("cpu/present");
    remove("node/online");
    remove("node/node5/cpulist");
    write(&folder, "sys/devices/system/node/node5/cpumap", "00ff0000");
    cpu_file(&folder, 24, "online", "0");
    for cpu in 16..24 {
        remove(&format!("cpu/cpu{cpu}/topology/die_cpus_list"));
        cpu_file(&folder, cpu, "topology/die_cpus", if cpu < 20 { "00000000,000f0000" } else { "00000000,00f00000\0" });
    }
    let old = describe(&folder).unwrap().description;
    assert_eq!((old.offline.to_string(), old.numa_nodes[0].cpus.to_string()), ("24".into(), "16-23".into()));
    assert_eq!(texts(old.dies.iter().map(|die| &die.cpus)), ["16-19", "20-23"]);
}

#[test]
fn a_tree_with_a_folder_for_a_file_is_refused() {
    let folder = two_dies();
    let path = folder.path().join("sys/devices/system/cpu/isolated");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = SysfsSource::new(folder.path().join("sys")).describe().unwrap_err();
    assert!(matches!(&error, DiscoveryError::Read { path, .. } if path.ends_with("cpu/isolated")), "{error}");
    assert!(SysfsSource::new(Path::new("/nowhere")).describe().is_err());
}
