//! Which machine the node is: a simulated one by file, else the one the process runs on.
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fairlead_crds::NodeTopologySpec;
use fairlead_crds::node_topology::{Disagreement, TopologySource as Origin};
use fairlead_discovery::{CrossCheck, DiscoveryError, Gap, HwlocSource, SysfsSource, TopologySource, node_topology};
use fairlead_topology::{CpuMask, Machine, MachineDescription, MachineError as Contradiction};

/// A description is a line; anything longer is the wrong file.
const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;

/// Where the machine is read.
#[derive(Debug, Clone)]
pub struct MachineReader {
    /// The node.
    pub node_name: String,
    /// Folder of simulated machines.
    pub machine_dir: Option<PathBuf>,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
}

/// What the agent knows of its machine beside what it reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// CPUs that were disallowed when that could last be told: once the agent's own container is pinned, it cannot.
    pub disallowed: CpuMask,
}

/// A machine read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// As it is published.
    pub spec: NodeTopologySpec,
    /// As it was read, unchecked.
    pub description: MachineDescription,
    /// What a source could not tell, and what was assumed for it; of a live machine that was not compared.
    pub gaps: Vec<Gap>,
}

/// Why a machine that was read is not relied on. The extender refuses it for the same reasons.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Distrust {
    /// Its parts contradict each other.
    #[error("the machine's own description is contradictory: {0}")]
    Contradiction(Contradiction),
    /// hwloc and sysfs tell different things, or one of them does not tell.
    #[error("hwloc and sysfs differ on {count} fact(s), first {}: hwloc {:?}, sysfs {:?}", first.field, first.hwloc, first.sysfs)]
    Disagreement {
        /// How many facts, as published.
        count: usize,
        /// The first of them.
        first: Disagreement,
    },
}

impl Reading {
    /// The machine, if it can be relied on.
    ///
    /// # Errors
    /// [`Distrust`]; then it is published all the same.
    pub fn machine(&self) -> Result<Machine, Distrust> {
        let machine = Machine::new(&self.description).map_err(Distrust::Contradiction)?;
        let disagreements = &self.spec.disagreements;
        match disagreements.first() {
            None => Ok(machine),
            Some(first) => Err(Distrust::Disagreement { count: disagreements.len(), first: first.clone() }),
        }
    }
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The file of a simulated machine cannot be read.
    #[error("failed to read the simulated machine {}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is far too long to be one.
    #[error("{} has {bytes} bytes: a description has at most {DESCRIPTION_BYTES_MAX}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// hwloc or sysfs does not describe the machine.
    #[error("failed to read the machine by {source_name}")]
    Discovery {
        /// hwloc or sysfs.
        source_name: &'static str,
        /// Why.
        #[source]
        source: DiscoveryError,
    },
}

impl MachineReader {
    /// Reads the machine anew. Blocks for some milliseconds.
    ///
    /// # Errors
    /// One variant per step; see [`MachineError`].
    pub fn read(&self, known: &Known) -> Result<Reading, MachineError> {
        match self.simulated()? {
            Some(text) => {
                let found = describe("hwloc", &HwlocSource::synthetic(text.trim()))?;
                let spec = node_topology(&found.description, Origin::Synthetic, &[], None);
                Ok(Reading { spec, description: found.description, gaps: found.gaps })
            }
            None => {
                let mut hwloc = describe("hwloc", &HwlocSource::native())?;
                let sysfs = describe("sysfs", &SysfsSource::new(&self.sysfs_root).with_proc("/proc"))?;
                let check = CrossCheck::of(&hwloc, &sysfs);
                if hwloc.gaps.contains(&Gap::Disallowed) {
                    hwloc.withhold(&known.disallowed);
                }
                let spec = node_topology(&hwloc.description, Origin::Hwloc, &check.disagreements, None);
                Ok(Reading { spec, description: hwloc.description, gaps: check.skipped })
            }
        }
    }

    fn simulated(&self) -> Result<Option<String>, MachineError> {
        let Some(dir) = &self.machine_dir else { return Ok(None) };
        let path = dir.join(&self.node_name);
        let failed = |source| MachineError::Description { path: path.clone(), source };
        match file_bytes(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
            Ok(bytes) if bytes > DESCRIPTION_BYTES_MAX => Err(MachineError::TooLong { path, bytes }),
            Ok(_) => std::fs::read_to_string(&path).map(Some).map_err(failed),
        }
    }
}

fn file_bytes(path: &Path) -> std::io::Result<u64> {
    std::fs::metadata(path).map(|meta| meta.len())
}

fn describe(
    source_name: &'static str,
    source: &dyn TopologySource,
) -> Result<fairlead_discovery::Discovered, MachineError> {
    source.describe().map_err(|source| MachineError::Discovery { source_name, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_crds::node_topology::TopologySource as Source;

    fn reader(dir: &Path) -> MachineReader {
        MachineReader { node_name: "n1".into(), machine_dir: Some(dir.to_owned()), sysfs_root: PathBuf::from("/sys") }
    }

    #[test]
    fn a_file_named_as_the_node_is_its_machine() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("n1"), "pack:2 [numa(memory=64GB)] l3:2 core:4 pu:2\n").unwrap();
        let spec = reader(dir.path()).read(&Known::default()).unwrap().spec;
        assert_eq!(spec.source, Source::Synthetic);
        assert_eq!((spec.packages.len(), spec.numa_nodes.len(), spec.l3_caches.len(), spec.cores.len()), (2, 2, 4, 16));
        assert_eq!(spec.packages[0].cpus, "0-15");
        assert_eq!(spec.numa_nodes[0].memory_bytes, 64_000_000_000);
        assert!(spec.disagreements.is_empty());
    }

    #[test]
    fn a_bad_description_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("n1"), "pack:two").unwrap();
        let error = reader(dir.path()).read(&Known::default()).unwrap_err();
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(chain.contains("pack:two"), "{chain}");
        std::fs::write(dir.path().join("n1"), vec![b'x'; 70_000]).unwrap();
        assert!(matches!(reader(dir.path()).read(&Known::default()), Err(MachineError::TooLong { bytes: 70_000, .. })));
    }

    #[test]
    fn without_a_file_it_is_the_machine_itself() {
        let dir = tempfile::tempdir().unwrap();
        let reading = reader(dir.path()).read(&Known::default()).unwrap();
        assert_eq!(reading.spec.source, Source::Hwloc);
        assert!(!reading.spec.cores.is_empty());
    }

    /// Wherever the test runs, no machine is this one: no NUMA node has 1 KiB, and CPU 0 is said to be alone.
    fn lying_sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu/online", "0"),
            ("cpu/cpu0/topology/physical_package_id", "0"),
            ("cpu/cpu0/topology/core_cpus_list", "0"),
            ("node/online", "0"),
            ("node/node0/cpulist", "0"),
            ("node/node0/distance", "10"),
            ("node/node0/meminfo", "Node 0 MemTotal: 1 kB"),
        ] {
            let path = root.path().join("devices/system").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn what_sysfs_tells_differently_is_published_and_distrusted() {
        let (empty, sysfs) = (tempfile::tempdir().unwrap(), lying_sysfs());
        let live = MachineReader { sysfs_root: sysfs.path().to_owned(), ..reader(empty.path()) };
        let reading = live.read(&Known::default()).unwrap();
        let memory = reading.spec.disagreements.iter().find(|found| found.field == "numaNodes[id=0].memoryBytes");
        assert_eq!(memory.map(|found| found.sysfs.as_str()), Some("1024"), "{:?}", reading.spec.disagreements);
        assert!(matches!(reading.machine(), Err(Distrust::Disagreement { count, .. }) if count > 0));

        // Not told at all is no better: nothing confirms which threads are one core.
        std::fs::remove_dir_all(sysfs.path().join("devices/system/cpu/cpu0/topology")).unwrap();
        let reading = live.read(&Known::default()).unwrap();
        assert_eq!(reading.spec.disagreements[0].field, "cores");
        assert!(reading.gaps.starts_with(&[Gap::Packages, Gap::Cores]), "{:?}", reading.gaps);
        let Err(Distrust::Disagreement { first, .. }) = reading.machine() else { unreachable!() };
        assert_eq!(first, reading.spec.disagreements[0]);
    }
}
