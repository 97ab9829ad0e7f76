//! Small files of sysfs: lists, numbers, sizes; a file that is not there is a value, not an error.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fairlead_topology::CpuMask;

use crate::DiscoveryError;

/// `devices/system` below a sysfs root.
#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { base: root.join("devices/system") }
    }

    /// The trimmed content; none if there is no such file.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, DiscoveryError> {
        read(&self.base.join(name))
    }

    /// A list in the kernel's format, of CPUs or nodes.
    pub(super) fn list(&self, name: &str) -> Result<Option<CpuMask>, DiscoveryError> {
        let parse = |text: String| {
            let path = self.base.join(name);
            CpuMask::parse_list(&text).map_err(|source| DiscoveryError::List { path, source })
        };
        self.text(name)?.map(parse).transpose()
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, DiscoveryError> {
        self.parsed(name, "a number", |text| text.parse().ok())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, DiscoveryError> {
        self.parsed(name, "a number", |text| text.parse().ok())
    }

    /// A size as caches write it: `32768K`.
    pub(super) fn size_bytes(&self, name: &str) -> Result<Option<u64>, DiscoveryError> {
        self.parsed(name, "a size like 512K", |text| {
            let (digits, shift) = match text.as_bytes().last()? {
                b'K' => (&text[..text.len() - 1], 10),
                b'M' => (&text[..text.len() - 1], 20),
                b'G' => (&text[..text.len() - 1], 30),
                _ => (text, 0),
            };
            digits.parse::<u64>().ok()?.checked_mul(1 << shift)
        })
    }

    /// Numbers between white space.
    pub(super) fn row(&self, name: &str) -> Result<Option<Vec<u32>>, DiscoveryError> {
        self.parsed(name, "a row of numbers", |text| text.split_whitespace().map(|item| item.parse().ok()).collect())
    }

    /// The `MemTotal` line of a meminfo file.
    pub(super) fn mem_total_bytes(&self, name: &str) -> Result<Option<u64>, DiscoveryError> {
        Self::mem_total_bytes_of(&self.base.join(name))
    }

    /// As [`Files::mem_total_bytes`], for any path.
    pub(super) fn mem_total_bytes_of(path: &Path) -> Result<Option<u64>, DiscoveryError> {
        let Some(text) = read(path)? else {
            return Ok(None);
        };
        let Some(line) = text.lines().find(|line| line.contains("MemTotal:")) else {
            return Ok(None);
        };
        let total = line.split_whitespace().rev().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        match total.and_then(|kib| kib.checked_mul(1024)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(DiscoveryError::Number {
                path: path.to_owned(),
                text: line.to_owned(),
                expected: "a line like MemTotal: 1024 kB",
            }),
        }
    }

    /// The numbers N of the entries `prefixN` in a folder; none if there is no such folder.
    pub(super) fn numbered(&self, folder: &str, prefix: &str) -> Result<CpuMask, DiscoveryError> {
        let path = self.base.join(folder);
        let failed = |source| DiscoveryError::Read { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(CpuMask::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut numbers = CpuMask::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                numbers.insert(number);
            }
        }
        Ok(numbers)
    }

    fn parsed<T>(
        &self,
        name: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, DiscoveryError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(DiscoveryError::Number { path: self.base.join(name), text, expected }),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, DiscoveryError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DiscoveryError::Read { path: path.to_owned(), source }),
    }
}
