//! A machine that hwloc exported as XML, format 1 or 2, read without hwloc.

mod reading;
mod scan;

use std::path::{Path, PathBuf};

use crate::{Discovered, DiscoveryError, TopologySource};
use reading::Reading;

/// XML of hwloc as a source.
///
/// What it cannot tell: isolated CPUs, ranks of kinds of CPUs unless they were forced, and in format 1 distances and
/// kinds of memory. CPUs that were disallowed when they were left out of the export count as offline.
#[derive(Debug, Clone)]
pub struct XmlSource {
    input: Input,
}

#[derive(Debug, Clone)]
enum Input {
    Text(String),
    File(PathBuf),
}

impl XmlSource {
    /// The XML itself, at most 16 MiB.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { input: Input::Text(text.to_owned()) }
    }

    /// A file of at most 16 MiB; a longer one is refused unread.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { input: Input::File(path.to_owned()) }
    }
}

impl TopologySource for XmlSource {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        let found = match &self.input {
            Input::Text(text) => Reading::of(text)?,
            Input::File(path) => Reading::of(&scan::read(path)?)?,
        };
        Ok(found.describe()?)
    }
}
