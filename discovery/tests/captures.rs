//! Both readers on captures of real machines, by hand: none is kept here.
//!
//! `FAIRLEAD_CAPTURES` names a folder. Each `NAME.xml` in it is read; where a folder `NAME` (with `sys` and `proc`, as
//! `hwloc-gather-topology` packs it) lies beside it, that is read too and both are compared. hwloc's source package has
//! captures under `tests/hwloc`; an XML of one comes from `HWLOC_FSROOT=NAME HWLOC_THISSYSTEM=0
//! HWLOC_COMPONENTS=linux,stop lstopo --disallowed --filter io:important NAME.xml`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test run by hand tells what it saw")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fairlead_discovery::{CrossCheck, Discovered, SysfsSource, TopologySource, XmlSource};
use fairlead_topology::Machine;

fn judged(name: &str, found: &Discovered, sums: &mut BTreeMap<&'static str, u32>) {
    let verdict = match Machine::new(&found.description) {
        Ok(_) => "machines",
        Err(error) => {
            eprintln!("{name}: no machine: {error}");
            "descriptions that are none"
        }
    };
    *sums.entry(verdict).or_default() += 1;
}

fn compared(name: &str, xml: &Path, folder: &Path, sums: &mut BTreeMap<&'static str, u32>) {
    let hwloc = XmlSource::file(xml).describe();
    let sysfs = SysfsSource::new(folder.join("sys")).with_proc(folder.join("proc")).describe();
    let (hwloc, sysfs) = match (hwloc, sysfs) {
        (Ok(hwloc), Ok(sysfs)) => (hwloc, sysfs),
        (hwloc, sysfs) => {
            eprintln!("{name}: hwloc {:?}, sysfs {:?}", hwloc.map(drop), sysfs.map(drop));
            *sums.entry("pairs of which one cannot be read").or_default() += 1;
            return;
        }
    };
    judged(&format!("{name} (sysfs)"), &sysfs, sums);
    let check = CrossCheck::of(&hwloc, &sysfs);
    let verdict = if check.disagreements.is_empty() { "pairs that agree" } else { "pairs that differ" };
    *sums.entry(verdict).or_default() += 1;
    for found in check.disagreements.iter().take(4) {
        eprintln!("{name}: {}: hwloc {:?}, sysfs {:?}", found.field, found.hwloc, found.sysfs);
    }
    if check.disagreements.len() > 4 {
        eprintln!("{name}: and {} more", check.disagreements.len() - 4);
    }
}

#[test]
#[ignore = "by hand: FAIRLEAD_CAPTURES=FOLDER"]
fn captures_of_real_machines() {
    let folder = PathBuf::from(std::env::var_os("FAIRLEAD_CAPTURES").unwrap());
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut sums = BTreeMap::new();
    for xml in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "xml")) {
        let name = xml.file_stem().unwrap().to_string_lossy().into_owned();
        match XmlSource::file(xml).describe() {
            Ok(found) => judged(&name, &found, &mut sums),
            Err(error) => {
                eprintln!("{name}: {error}");
                *sums.entry("XML that cannot be read").or_default() += 1;
            }
        }
        let tree = xml.with_extension("");
        if tree.is_dir() {
            compared(&name, xml, &tree, &mut sums);
        }
    }
    eprintln!("{sums:?}");
}
