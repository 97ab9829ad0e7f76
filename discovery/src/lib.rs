//! What machine is this? hwloc behind our own trait, and a plain reader of sysfs to check it against.
//!
//! Both sources give a [`MachineDescription`], unchecked; `Machine::new` of `fairlead-topology` checks it. Ids of
//! NUMA nodes and packages are the kernel's. The kernel has no machine-wide ids for cores, and not always one for
//! caches, so both sources number those from 0 by their lowest CPU.
//!
//! Machines other than this one come as a [`TopologyInput`]: XML that hwloc exported, a synthetic text, or a captured
//! `/sys`. XML is read by ourselves ([`XmlSource`]): hwloc believes what it says, and ends the process or worse where its
//! objects contradict each other. A captured `/sys` is read by [`SysfsSource`] alone: hwloc takes its root from the
//! environment of the process only, which cannot be set while other threads run. For the same reason nothing here sets
//! a variable.
//!
//! [`HwlocSource::synthetic`] takes hwloc's textual descriptions, for simulated nodes. Two things to know when
//! writing one: memory belongs in brackets where a NUMA node is to hang beside caches
//! (`pack:2 [numa(memory=128GB)] l3:1 core:16 pu:2`), and without `indexes=` siblings get neighbouring CPU ids.
//! hwloc makes no distance matrix for them: the distances are then left out, and `Machine` counts every other NUMA
//! node as equally far.

mod compare;
mod error;
mod hwloc;
mod input;
mod publish;
mod shape;
mod sysfs;
mod xml;

use fairlead_topology::{CpuMask, MachineDescription};

pub use compare::{CrossCheck, Disagreement, cross_check};
pub use error::{DiscoveryError, XmlError};
pub use hwloc::HwlocSource;
pub use input::TopologyInput;
pub use publish::node_topology;
pub use sysfs::SysfsSource;
pub use xml::XmlSource;

/// Something that can describe a machine.
pub trait TopologySource {
    /// Reads the machine anew.
    ///
    /// # Errors
    /// [`DiscoveryError`] if the source is not there or says nothing usable.
    fn describe(&self) -> Result<Discovered, DiscoveryError>;
}

/// A machine as one source saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// What was found, with [`Discovered::gaps`] filled by the stated assumption.
    pub description: MachineDescription,
    /// What the source could not tell, each at most once, ascending.
    pub gaps: Vec<Gap>,
}

impl Discovered {
    /// Takes CPUs out of every list and says that they are disallowed; those the machine does not have are ignored.
    pub fn withhold(&mut self, cpus: &CpuMask) {
        let known = shape::all_cpus(&self.description).intersect(cpus);
        shape::withhold(&mut self.description, &known);
        self.description.disallowed.union_with(&known);
    }
}

/// Something a source did not say; `Display` tells what was assumed in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// No packages: all CPUs are taken as one.
    Packages,
    /// Packages without distinct ids: they are numbered by their lowest CPU.
    PackageIds,
    /// No cores: every CPU is taken as a core of its own.
    Cores,
    /// No NUMA nodes: one node 0 is assumed to hold all CPUs.
    NumaNodes,
    /// Memory of some NUMA node is not known: 0 bytes.
    Memory,
    /// No distances between NUMA nodes although there are several: left out.
    Distances,
    /// No caches, or some without CPUs: no L3 is described, or not all.
    Caches,
    /// Huge pages of some NUMA node are not known: none.
    HugePages,
    /// The process has a cpuset of its own, which hides what its surroundings may use: no CPU is taken as disallowed.
    Disallowed,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packages => "no packages given: all CPUs taken as one package",
            Self::PackageIds => "packages have no distinct ids: numbered by lowest CPU",
            Self::Cores => "no cores given: every CPU taken as one core",
            Self::NumaNodes => "no NUMA nodes given: one node 0 with all CPUs assumed",
            Self::Memory => "memory of a NUMA node not given: 0 bytes",
            Self::Distances => "no NUMA distances given: left out",
            Self::Caches => "caches not given: no L3, or not all",
            Self::HugePages => "huge pages of a NUMA node not given: none",
            Self::Disallowed => "the cgroup has a cpuset of its own: disallowed CPUs not known",
        })
    }
}
