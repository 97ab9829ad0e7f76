//! Tar archives and blobs whose bytes depend on their content only: sorted, owned by root, without times.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// One regular file.
pub(crate) struct Entry {
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn data(bytes: Vec<u8>) -> Self {
        Self { mode: 0o644, bytes }
    }

    pub(crate) fn program(bytes: Vec<u8>) -> Self {
        Self { mode: 0o755, bytes }
    }
}

/// Files by their path from the root, without a leading slash.
pub(crate) type Entries = BTreeMap<String, Entry>;

/// The archive, with every parent folder once and before what lies in it.
pub(crate) fn tar(files: &Entries) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut whole: BTreeMap<String, Option<&Entry>> = BTreeMap::new();
    for (path, file) in files {
        let parents = Path::new(path).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        whole.extend(parents.map(|parent| (format!("{}/", parent.display()), None)));
        whole.insert(path.clone(), Some(file));
    }
    for (path, file) in whole {
        let mut header = Header::new_ustar();
        let bytes = file.map_or(&[][..], |file| &file.bytes);
        header.set_entry_type(if file.is_some() { EntryType::Regular } else { EntryType::Directory });
        header.set_mode(file.map_or(0o755, |file| file.mode));
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, &path, bytes).with_context(|| format!("archive {path}"))?;
    }
    Ok(archive.into_inner()?)
}

/// Gzip without a name and a time in its header.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// `sha256:` and the hash in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn folders_come_first_and_once_and_nothing_tells_when_or_by_whom() {
        let files = Entries::from([
            ("usr/bin/b".to_owned(), Entry::program(vec![1])),
            ("usr/bin/a".to_owned(), Entry::program(vec![2])),
            ("sbom".to_owned(), Entry::data(vec![3])),
        ]);
        let bytes = tar(&files).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.mtime().unwrap(), header.uid().unwrap(), header.username().unwrap()),
                    (0, 0, Some(""))
                );
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected =
            [("sbom", 0o644), ("usr/", 0o755), ("usr/bin/", 0o755), ("usr/bin/a", 0o755), ("usr/bin/b", 0o755)];
        assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn gzip_keeps_the_bytes_and_tells_no_time() {
        let packed = gzip(b"cores").unwrap();
        assert_eq!(packed[4..8], [0; 4]);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "cores");
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), abc);
    }
}
