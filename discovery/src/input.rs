//! Machines given by name, for whoever tries out what would happen on them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Discovered, DiscoveryError, HwlocSource, SysfsSource, TopologySource, XmlSource};

/// A machine other than the one this process runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopologyInput {
    /// hwloc's synthetic description.
    Synthetic(String),
    /// A file with XML that hwloc exported, format 1 or 2.
    XmlFile(PathBuf),
    /// A folder with a captured `/sys`, or one with `sys` and perhaps `proc` in it, as `hwloc-gather-topology` makes.
    Captured(PathBuf),
}

impl FromStr for TopologyInput {
    type Err = DiscoveryError;

    /// `synthetic:DESCRIPTION`, a path that ends in `.xml`, or an existing folder.
    fn from_str(text: &str) -> Result<Self, DiscoveryError> {
        if let Some(description) = text.strip_prefix("synthetic:") {
            return Ok(Self::Synthetic(description.trim().to_owned()));
        }
        let path = Path::new(text);
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml")) {
            Ok(Self::XmlFile(path.to_owned()))
        } else if path.is_dir() {
            Ok(Self::Captured(path.to_owned()))
        } else {
            Err(DiscoveryError::Input { text: text.to_owned() })
        }
    }
}

impl TopologySource for TopologyInput {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        match self {
            Self::Synthetic(description) => HwlocSource::synthetic(description).describe(),
            Self::XmlFile(path) => XmlSource::file(path).describe(),
            Self::Captured(folder) => {
                let inner = folder.join("sys");
                if inner.is_dir() {
                    SysfsSource::new(inner).with_proc(folder.join("proc")).describe()
                } else {
                    SysfsSource::new(folder).describe()
                }
            }
        }
    }
}
