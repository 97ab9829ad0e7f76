//! Do hwloc and sysfs see the same machine?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use fairlead_topology::{
    CpuMask, GroupDescription, LOCAL_DISTANCE, MachineDescription, NumaDescription, PciDescription, REMOTE_DISTANCE,
};

use crate::{Discovered, Gap};

/// What is written for a value one side does not have.
const ABSENT: &str = "absent";

/// What is written for the side that did tell, where the other did not.
const GIVEN: &str = "given";

/// One fact on which the two sources differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    /// The fact, e.g. `numaNodes[id=1].cpus`.
    pub field: String,
    /// What hwloc says.
    pub hwloc: String,
    /// What sysfs says.
    pub sysfs: String,
}

/// The comparison of two discoveries, with what it could not compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossCheck {
    /// Where the two differ, and where cores or NUMA nodes could not be compared.
    pub disagreements: Vec<Disagreement>,
    /// Facts that one side did not give, so that an assumption would have been compared with a fact: not compared.
    pub skipped: Vec<Gap>,
}

impl CrossCheck {
    /// Compares what both sides really know. Cores or NUMA nodes that a side could not tell are a disagreement of their
    /// own, and the first: exclusive CPUs rest on them, and nothing confirms what was assumed. Only what sysfs assumes of
    /// the NUMA nodes is confirmed if hwloc tells the very same, one node with all CPUs: a kernel built without NUMA has
    /// no files of them.
    #[must_use]
    pub fn of(hwloc: &Discovered, sysfs: &Discovered) -> Self {
        let mut skipped: Vec<Gap> = hwloc.gaps.iter().chain(&sysfs.gaps).copied().collect();
        skipped.sort_unstable();
        skipped.dedup();
        let mut disagreements: Vec<Disagreement> =
            skipped.iter().filter_map(|gap| unconfirmed(*gap, hwloc, sysfs)).collect();
        let hidden = hwloc.description.disallowed.union(&sysfs.description.disallowed);
        let [mut ours, mut theirs] = [hwloc.clone(), sysfs.clone()];
        if !skipped.contains(&Gap::Disallowed) {
            disagreements.extend(disallowed(&ours.description, &theirs.description));
        }
        // What one side keeps back is compared as such, and not as missing from everything else too.
        ours.withhold(&hidden);
        theirs.withhold(&hidden);
        let differ = cross_check(&ours.description, &theirs.description).into_iter();
        disagreements.extend(differ.filter(|found| !skipped.iter().any(|gap| touches(*gap, &found.field))));
        Self { disagreements, skipped }
    }
}

fn unconfirmed(gap: Gap, hwloc: &Discovered, sysfs: &Discovered) -> Option<Disagreement> {
    let field = match gap {
        Gap::Cores => "cores",
        Gap::NumaNodes if tells_one_numa_node(hwloc, &sysfs.description) => return None,
        Gap::NumaNodes => "numaNodes",
        Gap::Packages | Gap::PackageIds | Gap::Memory | Gap::Distances => return None,
        Gap::Caches | Gap::HugePages | Gap::Disallowed => return None,
    };
    let text = |side: &Discovered| if side.gaps.contains(&gap) { gap.to_string() } else { GIVEN.to_owned() };
    Some(Disagreement { field: field.to_owned(), hwloc: text(hwloc), sysfs: text(sysfs) })
}

/// Whether hwloc tells of one NUMA node only, and it has all the CPUs that either side sees.
fn tells_one_numa_node(hwloc: &Discovered, sysfs: &MachineDescription) -> bool {
    let [node] = hwloc.description.numa_nodes.as_slice() else { return false };
    let all = hwloc.description.cores.iter().chain(&sysfs.cores).map(|core| &core.cpus);
    !hwloc.gaps.contains(&Gap::NumaNodes) && all.into_iter().all(|cpus| cpus.is_subset(&node.cpus))
}

fn touches(gap: Gap, field: &str) -> bool {
    match gap {
        Gap::Packages | Gap::PackageIds => field.starts_with("packages"),
        Gap::Cores => field.starts_with("cores"),
        Gap::NumaNodes => field.starts_with("numaNodes"),
        Gap::Memory => field.ends_with("memoryBytes"),
        Gap::Distances => field.contains(".distances"),
        Gap::Caches => field.starts_with("l3Caches"),
        Gap::HugePages => field.contains(".hugePages"),
        Gap::Disallowed => field.starts_with("disallowedCPUs"),
    }
}

/// Every fact on which two descriptions differ; L3 caches, cores, dies, clusters and kinds are matched by lowest CPU,
/// since their ids are numbers the sources gave. Missing distances count as the kernel's defaults.
///
/// Not everything that looks different is. hwloc leaves groups out that say nothing new, splits kinds of CPUs by
/// frequency, hangs all devices of a host bridge on one object, and cannot see PCI domains above 16 bits or the memory
/// of some accelerators. So dies, clusters, kinds, offline CPUs, devices and NUMA nodes without CPUs are compared where both sides tell of them, and clusters, kinds and what
/// is local to a device differ only if neither set contains the other. Kinds of memory, names and switches of devices
/// are not compared: nothing but hwloc tells the first, and no promise rests on the others.
#[must_use]
pub fn cross_check(hwloc: &MachineDescription, sysfs: &MachineDescription) -> Vec<Disagreement> {
    let mut found = Vec::new();
    differ(&mut found, &packages(hwloc), &packages(sysfs));
    let hidden = memory_of_one_side(hwloc, sysfs);
    differ(&mut found, &numa_nodes(hwloc, &hidden), &numa_nodes(sysfs, &hidden));
    differ(&mut found, &l3_caches(hwloc), &l3_caches(sysfs));
    differ(&mut found, &cores(hwloc), &cores(sysfs));
    both(&mut found, "dies", &groups(&hwloc.dies), &groups(&sysfs.dies), |a, b| a == b);
    both(&mut found, "clusters", &groups(&hwloc.clusters), &groups(&sysfs.clusters), are_nested);
    both(&mut found, "cpuKinds", &kinds(hwloc), &kinds(sysfs), are_nested);
    if !hwloc.offline.is_empty() && !sysfs.offline.is_empty() && hwloc.offline != sysfs.offline {
        found.push(cpus_differ("offlineCPUs".to_owned(), &hwloc.offline, &sysfs.offline));
    }
    pci_devices(&mut found, hwloc, sysfs);
    found
}

fn disallowed(hwloc: &MachineDescription, sysfs: &MachineDescription) -> Option<Disagreement> {
    let (ours, theirs) = (&hwloc.disallowed, &sysfs.disallowed);
    (ours != theirs).then(|| cpus_differ("disallowedCPUs".to_owned(), ours, theirs))
}

fn cpus_differ(field: String, hwloc: &CpuMask, sysfs: &CpuMask) -> Disagreement {
    Disagreement { field, hwloc: hwloc.to_string(), sysfs: sysfs.to_string() }
}

fn are_nested(a: &CpuMask, b: &CpuMask) -> bool {
    a.is_subset(b) || b.is_subset(a)
}

fn groups(list: &[GroupDescription]) -> Vec<&CpuMask> {
    list.iter().map(|entry| &entry.cpus).collect()
}

fn kinds(machine: &MachineDescription) -> Vec<&CpuMask> {
    machine.cpu_kinds.iter().map(|kind| &kind.cpus).collect()
}

/// Sets of both sides that share a CPU must agree; a CPU that is in a set of one side only is no contradiction.
fn both(
    found: &mut Vec<Disagreement>,
    list: &str,
    hwloc: &[&CpuMask],
    sysfs: &[&CpuMask],
    agree: impl Fn(&CpuMask, &CpuMask) -> bool,
) {
    for ours in hwloc {
        for theirs in sysfs {
            if ours.intersects(theirs) && !agree(ours, theirs) {
                let at = ours.first().unwrap_or(0);
                found.push(cpus_differ(format!("{list}[cpu={at}].cpus"), ours, theirs));
            }
        }
    }
}

fn pci_devices(found: &mut Vec<Disagreement>, hwloc: &MachineDescription, sysfs: &MachineDescription) {
    let others: BTreeMap<&str, &PciDescription> =
        sysfs.pci_devices.iter().map(|device| (device.address.as_str(), device)).collect();
    for ours in &hwloc.pci_devices {
        let Some(theirs) = others.get(ours.address.as_str()) else { continue };
        let field = |name: &str| format!("pciDevices[{}].{name}", ours.address);
        let what =
            |device: &PciDescription| format!("{:04x} {:04x}:{:04x}", device.class, device.vendor, device.device);
        if what(ours) != what(theirs) {
            found.push(Disagreement { field: field("id"), hwloc: what(ours), sysfs: what(theirs) });
        }
        if !are_nested(&ours.cpus, &theirs.cpus) {
            found.push(cpus_differ(field("cpus"), &ours.cpus, &theirs.cpus));
        }
    }
}

/// Facts by field name.
type Facts = BTreeMap<String, String>;

fn differ(found: &mut Vec<Disagreement>, hwloc: &Facts, sysfs: &Facts) {
    let mut fields: Vec<&String> = hwloc.keys().chain(sysfs.keys()).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let (ours, theirs) = (hwloc.get(field), sysfs.get(field));
        if ours != theirs {
            let text = |value: Option<&String>| value.map_or_else(|| ABSENT.to_owned(), Clone::clone);
            found.push(Disagreement { field: field.clone(), hwloc: text(ours), sysfs: text(theirs) });
        }
    }
}

fn put(facts: &mut Facts, field: String, value: impl Display) {
    facts.insert(field, value.to_string());
}

fn packages(machine: &MachineDescription) -> Facts {
    machine.packages.iter().map(|entry| (format!("packages[id={}].cpus", entry.id), entry.cpus.to_string())).collect()
}

fn cores(machine: &MachineDescription) -> Facts {
    let at = |cpus: &CpuMask| cpus.first().unwrap_or(0);
    machine.cores.iter().map(|entry| (format!("cores[cpu={}].cpus", at(&entry.cpus)), entry.cpus.to_string())).collect()
}

fn l3_caches(machine: &MachineDescription) -> Facts {
    let mut facts = Facts::new();
    for entry in &machine.l3_caches {
        let at = entry.cpus.first().unwrap_or(0);
        put(&mut facts, format!("l3Caches[cpu={at}].cpus"), &entry.cpus);
        put(&mut facts, format!("l3Caches[cpu={at}].sizeBytes"), entry.size_bytes);
    }
    facts
}

/// NUMA nodes without CPUs that only one side tells of: hwloc leaves the memory of some accelerators out.
fn memory_of_one_side(hwloc: &MachineDescription, sysfs: &MachineDescription) -> BTreeSet<u32> {
    let ids = |machine: &MachineDescription| machine.numa_nodes.iter().map(|node| node.id).collect::<BTreeSet<u32>>();
    let one_side: BTreeSet<u32> = ids(hwloc).symmetric_difference(&ids(sysfs)).copied().collect();
    let nodes = hwloc.numa_nodes.iter().chain(&sysfs.numa_nodes);
    nodes.filter(|node| node.cpus.is_empty() && one_side.contains(&node.id)).map(|node| node.id).collect()
}

fn numa_nodes(machine: &MachineDescription, hidden: &BTreeSet<u32>) -> Facts {
    let mut facts = Facts::new();
    let told = || machine.numa_nodes.iter().filter(|node| !hidden.contains(&node.id));
    for entry in told() {
        let name = format!("numaNodes[id={}]", entry.id);
        put(&mut facts, format!("{name}.cpus"), &entry.cpus);
        put(&mut facts, format!("{name}.memoryBytes"), entry.memory_bytes);
        for pages in &entry.huge_pages {
            put(&mut facts, format!("{name}.hugePages[pageBytes={}]", pages.page_bytes), pages.count);
        }
        for other in told() {
            put(&mut facts, format!("{name}.distances[to={}]", other.id), distance(entry, other.id));
        }
    }
    facts
}

fn distance(from: &NumaDescription, to: u32) -> u32 {
    let default = if from.id == to { LOCAL_DISTANCE } else { REMOTE_DISTANCE };
    from.distances.iter().find(|distance| distance.to == to).map_or(default, |distance| distance.value)
}
