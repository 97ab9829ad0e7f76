//! The checkpoint: what a restarted agent knows before the API server answers.
//!
//! One JSON file with a checksum, replaced whole: written beside, fsync, renamed, the folder fsynced. A file that cannot
//! be used is no error: everything in it can be had from the runtime and the API server, only later.
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::pin::Remembered;

const FILE_NAME: &str = "pinning.json";
const LOCK_NAME: &str = "agent.lock";
/// 1,024 reservations and the containers of some hundred pods.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FORMAT: u32 = 1;

/// Why the checkpoint folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The lock file cannot be opened.
    #[error("failed to open {}", path.display())]
    OpenLock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds the lock.
    #[error("another agent runs on this node: it holds {}", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is far too long.
    #[error("{} has {bytes} bytes: at most {FILE_BYTES_MAX} are read", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It is no checkpoint, or not whole.
    #[error("{} is corrupt: {message}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// It was written on another node.
    #[error("{} was written on node {found:?}, this is {expected:?}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Where it was written.
        found: String,
        /// Where it is read.
        expected: String,
    },
    /// Writing failed.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    format: u32,
    node: String,
    checksum: u32,
    body: Box<RawValue>,
}

/// The checkpoint folder of one node.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    dir: PathBuf,
    node_name: String,
}

impl Checkpoint {
    /// The folder, of the node of that name.
    #[must_use]
    pub fn new(dir: &Path, node_name: &str) -> Self {
        Self { dir: dir.to_owned(), node_name: node_name.to_owned() }
    }

    /// Takes the lock that one agent of the node may hold. It is given back when the file is closed, also by a kill.
    ///
    /// # Errors
    /// [`CheckpointError::Taken`], [`CheckpointError::OpenLock`].
    pub fn lock(&self) -> Result<File, CheckpointError> {
        let path = self.dir.join(LOCK_NAME);
        let failed = |source| CheckpointError::OpenLock { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(CheckpointError::Taken { path }),
            Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Reads it; none if there is none. Blocks for a moment.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(&self) -> Result<Option<Remembered>, CheckpointError> {
        let path = self.dir.join(FILE_NAME);
        let failed = |source| CheckpointError::Read { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(CheckpointError::TooLong { path, bytes });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        let corrupt = |message: String| CheckpointError::Corrupt { path: path.clone(), message };
        let envelope: Envelope = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        if envelope.format != FORMAT {
            return Err(corrupt(format!("format {}, not {FORMAT}", envelope.format)));
        }
        let found = crc32(envelope.body.get().as_bytes());
        if found != envelope.checksum {
            return Err(corrupt(format!("checksum {found}, not {}", envelope.checksum)));
        }
        if envelope.node != self.node_name {
            return Err(CheckpointError::Foreign { path, found: envelope.node, expected: self.node_name.clone() });
        }
        serde_json::from_str(envelope.body.get()).map(Some).map_err(|error| corrupt(error.to_string()))
    }

    /// Replaces it. Blocks until it is on the disk.
    ///
    /// # Errors
    /// The file of before is still there, whole.
    pub fn write(&self, remembered: &Remembered) -> Result<(), CheckpointError> {
        let path = self.dir.join(FILE_NAME);
        let failed = |source| CheckpointError::Write { path: path.clone(), source };
        let body = serde_json::value::to_raw_value(remembered).map_err(|error| failed(error.into()))?;
        let checksum = crc32(body.get().as_bytes());
        let envelope = Envelope { format: FORMAT, node: self.node_name.clone(), checksum, body };
        let text = serde_json::to_vec(&envelope).map_err(|error| failed(error.into()))?;
        let beside = path.with_extension("new");
        let replace = || {
            let mut file = File::create(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        replace().map_err(failed)
    }
}

/// CRC-32 as IEEE 802.3 and zlib have it (reflected, polynomial 0xEDB88320): finds every torn write and every flipped
/// bit; it is no protection against who may write the folder.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::{Claim, Promise};
    use fairlead_topology::CpuMask;

    fn remembered() -> Remembered {
        let cpus = CpuMask::parse_list("2-3").unwrap();
        let claim =
            Claim { cpus: cpus.clone(), memory_nodes: CpuMask::from_ids([0]), held: cpus.clone(), isolated: false };
        let promise = Promise { cpus: cpus.clone(), containers: [("c".to_owned(), cpus)].into(), ..Promise::default() };
        Remembered {
            promises: [("uid".to_owned(), promise)].into(),
            claims: [("id".to_owned(), claim)].into(),
            ..Remembered::default()
        }
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(dir.path(), "n1");
        assert!(checkpoint.read().unwrap().is_none());
        checkpoint.write(&Remembered::default()).unwrap();
        checkpoint.write(&remembered()).unwrap();
        assert_eq!(checkpoint.read().unwrap(), Some(remembered()));
        let other = Checkpoint::new(dir.path(), "n2").read().unwrap_err();
        assert!(other.to_string().ends_with("was written on node \"n1\", this is \"n2\""), "{other}");
    }

    #[test]
    fn cut_or_changed_anywhere_it_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(dir.path(), "n1");
        checkpoint.write(&remembered()).unwrap();
        let path = dir.path().join(FILE_NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(checkpoint.read(), Err(CheckpointError::Corrupt { .. })), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_ne!(checkpoint.read().ok().flatten(), Some(Remembered::default()), "changed at {at}");
            assert!(checkpoint.read().map_or(true, |read| read == Some(remembered())), "changed at {at}");
        }
    }

    #[test]
    fn a_second_agent_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(dir.path(), "n1");
        let first = checkpoint.lock().unwrap();
        assert!(matches!(checkpoint.lock(), Err(CheckpointError::Taken { .. })));
        drop(first);
        assert!(checkpoint.lock().is_ok());
        let nowhere = Checkpoint::new(&dir.path().join("no"), "n1");
        assert!(matches!(nowhere.lock(), Err(CheckpointError::OpenLock { .. })));
        assert!(matches!(nowhere.write(&remembered()), Err(CheckpointError::Write { .. })));
    }
}
