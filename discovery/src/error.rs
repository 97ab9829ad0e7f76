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
    #[error(
        "synthetic topology {text:?}: {item:?} is not a level with its count like core:4, or no attribute like memory=64GB"
    )]
    SyntheticLevel {
        /// The description.
        text: String,
        /// The level.
        item: String,
    },
    /// An OS index is given to two objects of a level.
    #[error("synthetic topology {text:?}: index {index} is there twice in one list of indexes")]
    SyntheticIndex {
        /// The description.
        text: String,
        /// The index.
        index: String,
    },
    /// Too many objects of one level beside each other.
    #[error(
        "synthetic topology {text:?}: {item:?}: at most {max} within one object of the level above; put a level between"
    )]
    SyntheticTooWide {
        /// The description.
        text: String,
        /// The level.
        item: String,
        /// Most objects.
        max: u64,
    },
    /// The synthetic description has more objects than a machine may have CPUs; hwloc would try for hours.
    #[error("synthetic topology {text:?}: more than {max} CPUs; lower the counts of its levels")]
    SyntheticTooLarge {
        /// The description.
        text: String,
        /// Most CPUs a machine may have.
        max: u32,
    },
    /// The text is no XML of hwloc, or tells what cannot be read.
    #[error("hwloc XML: {0}")]
    Xml(#[from] XmlError),
    /// The file is far longer than any machine's XML.
    #[error("{}: {bytes} bytes; an XML of hwloc has at most {max}", path.display())]
    XmlTooLong {
        /// The file.
        path: PathBuf,
        /// Its length, or what was read of it.
        bytes: u64,
        /// Most bytes taken.
        max: u64,
    },
    /// A machine is named in no known way.
    #[error("{text:?} names no machine: give synthetic:DESCRIPTION, a file that ends in .xml, or a folder with a /sys")]
    Input {
        /// What was given.
        text: String,
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

/// Why a text is no machine that hwloc exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Far longer than any machine's.
    #[error("{bytes} bytes; at most {max} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// Most bytes taken.
        max: u64,
    },
    /// The text ends within an element.
    #[error("ends within {element:?}; it is cut off")]
    Truncated {
        /// The element.
        element: String,
    },
    /// An element is closed that is not open.
    #[error("{element:?} is closed where it is not open")]
    Unbalanced {
        /// The element.
        element: String,
    },
    /// The outermost element is no topology.
    #[error("begins with {found:?}, not with one element \"topology\"")]
    NoTopology {
        /// What is there.
        found: String,
    },
    /// Of a format that the hwloc in use cannot read.
    #[error(
        "topology.version {version:?}: formats 1 and 2 are read; export it in format 2 (hwloc 3: lstopo --export-xml-flags v2)"
    )]
    Version {
        /// The version it says.
        version: String,
    },
    /// It declares something of its own.
    #[error("{found:?}: declarations within the text are not taken")]
    Declaration {
        /// The declaration.
        found: String,
    },
    /// Elements are nested deeper than any machine's.
    #[error("elements nested more than {max} deep")]
    TooDeep {
        /// Deepest nesting taken.
        max: usize,
    },
    /// More elements than any machine has.
    #[error("more than {max} elements")]
    TooManyElements {
        /// Most taken.
        max: usize,
    },
    /// An attribute that says nothing usable.
    #[error("{attribute}={text:?}: not {expected}")]
    Value {
        /// The attribute.
        attribute: &'static str,
        /// What it says.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
    /// An attribute that names the object is not there.
    #[error("an object of type {object}: no {attribute}")]
    Missing {
        /// Type of the object.
        object: &'static str,
        /// The attribute.
        attribute: &'static str,
    },
    /// No CPU is described.
    #[error("no object of type PU")]
    NoCpus,
}
