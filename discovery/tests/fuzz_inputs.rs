//! Inputs of the machine model, mutated: each gives a machine that was checked, or a typed error; nothing panics.
//!
//! Runs a second or so for each target; `FAIRLEAD_FUZZ_SECONDS` gives each so many. The seed is printed first and can be
//! given back by `FAIRLEAD_FUZZ_SEED`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that tells its seed and its count")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairlead_crds::NodeTopologySpec;
use fairlead_crds::node_topology::TopologySource as Origin;
use fairlead_discovery::{Discovered, HwlocSource, SysfsSource, TopologySource, XmlSource, node_topology};
use fairlead_topology::{CpuMask, MAX_CPUS, Machine};
use hwlocality::Topology;
use hwlocality::topology::export::xml::XMLExportFlags;

const SHAPES: [&str; 5] = [
    "pack:2 [numa(memory=64GB)] l3:2 core:2 pu:2",
    "pack:1 die:2 [numa(memory=1GB indexes=7,3)] l3:1 l2:2 core:2 pu:1",
    "pack:2 [numa(memory=1GB)] [numa(memory=2GB)] core:2 pu:2(indexes=2*4:1*2)",
    "core:3 pu:1",
    "pack:2 numa:2(memory=32GiB) l3:1(size=16MiB) core:2 pu:2(indexes=0,8,1,9,2,10,3,11,4,12,5,13,6,14,7,15)",
];

/// What parsers stumble over.
const PIECES: [&str; 24] = [
    "",
    "0",
    "-1",
    "4294967296",
    "18446744073709551616",
    "16383",
    "16384",
    "0x",
    "0xf...f",
    ",",
    "-",
    ":",
    " ",
    "\"",
    "<",
    "/>",
    "<object",
    "</object>",
    "type=\"PU\"",
    "[",
    "]",
    "(",
    "\u{fc}",
    "99999999999999999999G",
];

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One to four changes: pieces put in, taken out, doubled, exchanged for another of the text, digits changed.
    fn mutated(&mut self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(24)).min(bytes.len());
            match self.below(6) {
                0 => drop(bytes.drain(at..end)),
                1 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].bytes())),
                2 => drop(bytes.splice(at..end, PIECES[self.below(PIECES.len())].bytes())),
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                4 => {
                    let from = self.below(bytes.len() + 1);
                    let piece = bytes[from..(from + self.below(200)).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..end, piece));
                }
                _ => {
                    let digits: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at].is_ascii_hexdigit()).collect();
                    if let Some(&digit) = digits.get(self.below(digits.len())) {
                        bytes[digit] = b"0123456789abcdef"[self.below(16)];
                    }
                }
            }
        }
        if self.below(40) == 0 {
            bytes.truncate(self.below(bytes.len() + 1));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Calls `one` until the time is over; it says whether the input was still taken for a machine.
fn fuzz(target: &str, mut one: impl FnMut(&mut Random) -> bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("FAIRLEAD_FUZZ_SEED").unwrap_or(0x0fa1_71ea_d000_0001);
    let lasts = number("FAIRLEAD_FUZZ_SECONDS").map_or(Duration::from_millis(800), Duration::from_secs);
    eprintln!("{target}: FAIRLEAD_FUZZ_SEED={seed}");
    let (mut random, start) = (Random(seed), Instant::now());
    let (mut inputs, mut machines) = (0u64, 0u64);
    while start.elapsed() < lasts {
        machines += u64::from(one(&mut random));
        inputs += 1;
    }
    eprintln!("{target}: {inputs} inputs, {machines} of them machines");
    assert!(inputs > 0 && machines < inputs, "{target}: {inputs} inputs, {machines} machines");
}

fn is_machine(found: &Discovered) -> bool {
    Machine::new(&found.description).inspect_err(|error| assert!(!error.to_string().is_empty())).is_ok()
}

#[test]
fn xml_of_hwloc() {
    let export = |shape: &str| {
        let topology = Topology::builder().from_synthetic(shape).unwrap().build().unwrap();
        topology.export_xml(XMLExportFlags::default()).unwrap().as_str().to_owned()
    };
    let seeds: Vec<String> = SHAPES.iter().map(|shape| export(shape)).collect();
    fuzz("hwloc XML", |random| {
        let text = &seeds[random.below(seeds.len())];
        let text = random.mutated(text);
        XmlSource::text(&text).describe().is_ok_and(|found| is_machine(&found))
    });
}

#[test]
fn synthetic_texts() {
    fuzz("synthetic text", |random| {
        let text = SHAPES[random.below(SHAPES.len())];
        let text = random.mutated(text);
        // hwloc takes many seconds for the largest that are allowed; they would leave time for nothing else.
        let counts = text.split(':').skip(1).filter_map(|item| {
            let digits = item.find(|character: char| !character.is_ascii_digit()).unwrap_or(item.len());
            item[..digits].parse::<u64>().ok()
        });
        if (1025..=MAX_CPUS.into()).contains(&counts.fold(1, u64::saturating_mul)) {
            return false;
        }
        HwlocSource::synthetic(&text).describe().is_ok_and(|found| is_machine(&found))
    });
}

/// A small tree with most of the files that are read.
fn tree(root: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut put = |name: &str, text: &str| files.push((root.join("devices/system").join(name), text.to_owned()));
    put("cpu/online", "0-3");
    put("cpu/present", "0-4");
    put("cpu/isolated", "3");
    for cpu in 0..4 {
        put(&format!("cpu/cpu{cpu}/topology/physical_package_id"), "0");
        put(&format!("cpu/cpu{cpu}/topology/core_cpus_list"), if cpu < 2 { "0-1" } else { "2-3" });
        put(&format!("cpu/cpu{cpu}/topology/die_cpus"), "0000000f");
        put(&format!("cpu/cpu{cpu}/cache/index3/level"), "3");
        put(&format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"), "0-3");
        put(&format!("cpu/cpu{cpu}/cache/index3/size"), "16384K");
    }
    put("node/online", "0,2");
    for (node, cpus, distance) in [(0, "0-3", "10 20"), (2, "", "20 10")] {
        put(&format!("node/node{node}/cpulist"), cpus);
        put(&format!("node/node{node}/distance"), distance);
        put(&format!("node/node{node}/meminfo"), "Node 0 MemTotal: 1048576 kB");
        put(&format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "5");
    }
    let device = root.join("bus/pci/devices/0000:3b:00.0");
    for (name, text) in [("class", "0x020000"), ("vendor", "0x15b3"), ("device", "0x101d"), ("local_cpulist", "0-1")] {
        files.push((device.join(name), text.to_owned()));
    }
    for (path, text) in &files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    files
}

#[test]
fn files_of_sysfs() {
    let folder = tempfile::tempdir().unwrap();
    let files = tree(folder.path());
    assert!(is_machine(&SysfsSource::new(folder.path()).describe().unwrap()));
    fuzz("sysfs tree", |random| {
        let mut changed = Vec::new();
        for _ in 0..=random.below(2) {
            let (path, text) = &files[random.below(files.len())];
            changed.push((path, text));
            if random.below(10) == 0 {
                drop(fs::remove_file(path));
            } else {
                fs::write(path, random.mutated(text)).unwrap();
            }
        }
        let found = SysfsSource::new(folder.path()).describe();
        changed.into_iter().for_each(|(path, text)| fs::write(path, text).unwrap());
        found.is_ok_and(|found| is_machine(&found))
    });
}

#[test]
fn lists_of_cpus() {
    fuzz("CPU list", |random| {
        let text = ["0-3,8,10-11", "", "16383", "5,4,3-9"][random.below(4)];
        let text = random.mutated(text);
        let read = CpuMask::parse_list(&text);
        if let Ok(mask) = &read {
            assert_eq!(CpuMask::parse_list(&mask.to_string()).as_ref(), Ok(mask), "{text:?}");
        }
        read.is_ok()
    });
}

// The cluster model is no dependency of this crate; the very file that reads objects is compiled here.
#[path = "../../core/cluster/src/topology.rs"]
#[allow(dead_code, reason = "only the function that checks is fuzzed")]
mod reader;

#[test]
fn node_topology_objects() {
    let json = |shape: &str| {
        let found = HwlocSource::synthetic(shape).describe().unwrap().description;
        serde_json::to_string(&node_topology(&found, Origin::Synthetic, &[], None)).unwrap()
    };
    let seeds: Vec<String> = SHAPES.iter().map(|shape| json(shape)).collect();
    fuzz("NodeTopology", |random| {
        let text = &seeds[random.below(seeds.len())];
        let text = random.mutated(text);
        serde_json::from_str::<NodeTopologySpec>(&text).is_ok_and(|spec| reader::machine_of(&spec).is_ok())
    });
}
