//! CPU masks as text: the kernel's list format, `0-3,8,10-11`, and serde as such a string.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{CpuMask, MAX_CPUS};

/// Why a text is no CPU list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// Neither a number nor `first-last`.
    #[error("CPU list: {item:?} is neither a CPU number nor a range like 0-3")]
    NotANumber {
        /// The piece between two commas.
        item: String,
    },
    /// The range ends before it starts.
    #[error("CPU list: range {item:?} ends before it starts; write the lower CPU first")]
    Backwards {
        /// The piece between two commas.
        item: String,
    },
    /// The id is above what a machine can have.
    #[error("CPU list: {item:?} names a CPU above {max}, the highest id supported")]
    OutOfRange {
        /// The piece between two commas.
        item: String,
        /// The highest id that is taken.
        max: u32,
    },
}

fn number(item: &str, text: &str) -> Result<u32, CpuListError> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits {
        return Err(CpuListError::NotANumber { item: excerpt(item) });
    }
    // Digits that do not fit a u32 are a CPU number all the same, only too high a one.
    match text.parse::<u32>() {
        Ok(id) if id < MAX_CPUS => Ok(id),
        _ => Err(CpuListError::OutOfRange { item: excerpt(item), max: MAX_CPUS - 1 }),
    }
}

/// Keeps an error message short whatever the input was.
fn excerpt(item: &str) -> String {
    item.chars().take(40).collect()
}

impl CpuMask {
    /// Reads the kernel's list format; surrounding white space is ignored, the empty text is the empty set, items
    /// may come in any order and overlap.
    ///
    /// # Errors
    /// [`CpuListError`] names the item that is no number, runs backwards or is not below [`MAX_CPUS`].
    pub fn parse_list(text: &str) -> Result<Self, CpuListError> {
        let mut mask = Self::new();
        let text = text.trim();
        if text.is_empty() {
            return Ok(mask);
        }
        for item in text.split(',') {
            let item = item.trim();
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(item, first)?, number(item, last)?),
                None => {
                    let id = number(item, item)?;
                    (id, id)
                }
            };
            if last < first {
                return Err(CpuListError::Backwards { item: excerpt(item) });
            }
            mask.insert_range(first, last);
        }
        Ok(mask)
    }
}

impl FromStr for CpuMask {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_list(text)
    }
}

impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({self})")
    }
}

impl Serialize for CpuMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_list(&text).map_err(de::Error::custom)
    }
}
