//! Why a machine could not be described.

use std::path::PathBuf;

use fairlead_topology::CpuListError;
use hwlocality::errors::RawHwlocError;
use hwlocality::topology::builder::StringInputError;

/// Why a source gave no description.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// hwloc does not understand the synthetic description.
    #[error(
        "synthetic topology {text:?}: not a description hwloc understands, e.g. \"pack:2 numa:1 l3:1 core:4 pu:2\""
    )]
    Synthetic {
        /// The description.
        text: String,
        /// What the binding says.
        #[source]
        source: StringInputError,
    },
    /// A level of the synthetic description has no count.
    #[error("synthetic topology {text:?}: {item:?} is not a level with its count, like core:4")]
    SyntheticLevel {
        /// The description.
        text: String,
        /// The level.
        item: String,
    },
    /// The synthetic description has more objects than a machine may have CPUs; hwloc would try for hours.
    #[error("synthetic topology {text:?}: more than {max} CPUs; lower the counts of its levels")]
    SyntheticTooLarge {
        /// The description.
        text: String,
        /// Most CPUs a machine may have.
        max: u32,
    },
    /// hwloc could not build the topology.
    #[error("hwloc could not {operation}")]
    Hwloc {
        /// What was tried.
        operation: &'static str,
        /// hwloc's errno.
        #[source]
        source: RawHwlocError,
    },
    /// An environment variable of hwloc (`HWLOC_XMLFILE`, `HWLOC_SYNTHETIC`, `HWLOC_FSROOT`) replaced this machine.
    #[error("hwloc describes another machine than this one; unset the HWLOC_* environment variables")]
    NotThisMachine,
    /// hwloc gave an object without the number that names it, or a set without end.
    #[error("hwloc: {object} has no usable {what}")]
    Object {
        /// Kind of object.
        object: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A file of sysfs could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of sysfs holds no CPU or node list.
    #[error("{}: not a list of numbers", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CpuListError,
    },
    /// A file of sysfs holds something else than the number expected.
    #[error("{}: {text:?} is not {expected}", path.display())]
    Number {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
    /// No CPU is online.
    #[error("{}: no CPU is online there", path.display())]
    NoCpus {
        /// Root of the sysfs read.
        path: PathBuf,
    },
}
