//! Small files of sysfs: lists, numbers, sizes; a file that is not there is a value, not an error.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use fairlead_topology::{CpuMask, MAX_CPUS};

use crate::DiscoveryError;

/// Longest file read; the longest of the kernel's here, a list of every second CPU, has a tenth of it.
const BYTES_MAX: u64 = 1 << 20;

/// Files below one folder.
#[derive(Debug)]
pub(super) struct Files {
    base: PathBuf,
}

impl Files {
    /// `devices/system` below a sysfs root.
    pub(super) fn new(root: &Path) -> Self {
        Self::below(root.join("devices/system"))
    }

    pub(super) fn below(base: PathBuf) -> Self {
        Self { base }
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

    /// A mask in the kernel's format: words of 32 bits in hexadecimal, the highest first.
    pub(super) fn mask(&self, name: &str) -> Result<Option<CpuMask>, DiscoveryError> {
        self.parsed(name, "a mask like 00000000,0000ffff", |text| {
            let mut mask = CpuMask::new();
            for (base, word) in (0..MAX_CPUS).step_by(32).zip(text.rsplit(',')) {
                let word = u32::from_str_radix(word, 16).ok()?;
                mask.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| base + bit));
            }
            Some(mask)
        })
    }

    /// A hexadecimal number of at most 32 bits, as PCI devices write them: `0x10de`.
    pub(super) fn hexadecimal(&self, name: &str) -> Result<Option<u32>, DiscoveryError> {
        self.parsed(name, "a number like 0x10de", |text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok())
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
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let Some(line) = text.lines().find(|line| line.contains("MemTotal:")) else {
            return Ok(None);
        };
        let total = line.split_whitespace().rev().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        match total.and_then(|kib| kib.checked_mul(1024)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(DiscoveryError::Number {
                path: self.base.join(name),
                text: line.to_owned(),
                expected: "a line like MemTotal: 1024 kB",
            }),
        }
    }

    /// The numbers N of the entries `prefixN` in a folder; none if there is no such folder.
    pub(super) fn numbered(&self, folder: &str, prefix: &str) -> Result<CpuMask, DiscoveryError> {
        let number = |name: String| name.strip_prefix(prefix).and_then(|number| number.parse().ok());
        Ok(self.entries(folder)?.into_iter().filter_map(number).filter(|&number| number < MAX_CPUS).collect())
    }

    /// Names of the entries in a folder that are text, in no order; none if there is no such folder.
    pub(super) fn entries(&self, folder: &str) -> Result<Vec<String>, DiscoveryError> {
        let path = self.base.join(folder);
        let failed = |source| DiscoveryError::Read { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// Where a link leads, as it is written; none if it is no link.
    pub(super) fn link(&self, name: &str) -> Option<String> {
        fs::read_link(self.base.join(name)).ok()?.into_os_string().into_string().ok()
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
    let failed = |source| DiscoveryError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        // Opening a pipe that somebody put into a captured tree would wait for ever.
        Ok(meta) if !meta.is_file() => return Err(failed(ErrorKind::InvalidInput.into())),
        Ok(_) => {}
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    match read {
        // Some tools that capture trees pad files with zeros.
        Ok(_) => {
            Ok(Some(text.trim_matches(|character: char| character == '\0' || character.is_whitespace()).to_owned()))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// A CPU's folder goes while it is being read if it goes offline.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
