//! An OCI image layout in one archive: one layer, its config, its manifest, and the index that names it.
//!
//! Formats: OCI Image Format Specification 1.1 (config, manifest, image-layout).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layer::{Entries, Entry, digest, gzip, tar};

/// What an image says of itself beside its files.
pub(crate) struct Facts {
    /// Reference under which an import stores it: registry, repository, tag.
    pub(crate) reference: String,
    /// `GOARCH` of the specification.
    pub(crate) architecture: &'static str,
    /// Path of its program.
    pub(crate) program: String,
    /// Time of the sources (RFC 3339).
    pub(crate) created: String,
    pub(crate) labels: BTreeMap<&'static str, String>,
}

/// Of nobody: the number that "nonroot" has in most images without a shell.
const USER: &str = "65532:65532";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An archive, and the digest of the manifest in it, which is the image's.
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

/// Packs `files` as an image.
pub(crate) fn archive(facts: &Facts, files: &Entries) -> Result<Archive> {
    let mut blobs = Entries::new();
    let unpacked = tar(files)?;
    let diff_id = digest(&unpacked);
    let layer = blob(&mut blobs, LAYER, gzip(&unpacked)?);
    let config = blob(&mut blobs, CONFIG, serde_json::to_vec(&config(facts, &diff_id))?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": facts.labels,
    });
    let mut manifest = blob(&mut blobs, MANIFEST, serde_json::to_vec(&manifest)?);
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["platform"] = json!({ "architecture": facts.architecture, "os": "linux" });
    // containerd takes the name from its own key, others from the standard's.
    manifest["annotations"] = json!({
        "io.containerd.image.name": facts.reference,
        "org.opencontainers.image.ref.name": facts.reference,
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    blobs.insert("index.json".to_owned(), Entry::data(serde_json::to_vec(&index)?));
    blobs.insert("oci-layout".to_owned(), Entry::data(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    Ok(Archive { bytes: tar(&blobs)?, digest })
}

fn config(facts: &Facts, diff_id: &str) -> Value {
    json!({
        "created": facts.created,
        "architecture": facts.architecture,
        "os": "linux",
        "config": {
            "User": USER,
            // Pods name the program without its folder.
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": [facts.program],
            "Labels": facts.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": facts.created, "created_by": "cargo xtask image" }],
    })
}

/// Adds a blob and describes it.
fn blob(blobs: &mut Entries, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    blobs.insert(format!("blobs/{}", digest.replace(':', "/")), Entry::data(bytes));
    descriptor
}

/// Writes a file that is never half there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, bytes).with_context(|| format!("write {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("rename to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn packed() -> Archive {
        let facts = Facts {
            reference: "registry.example/fairlead/agent:1".to_owned(),
            architecture: "amd64",
            program: "/usr/bin/agent".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            labels: BTreeMap::from([("org.opencontainers.image.title", "agent".to_owned())]),
        };
        archive(&facts, &Entries::from([("usr/bin/agent".to_owned(), Entry::program(vec![7; 9000]))])).unwrap()
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        files
    }

    #[test]
    fn every_descriptor_is_true_of_its_blob_from_the_index_down_to_the_unpacked_layer() {
        let archive = packed();
        let files = unpack(&archive.bytes);
        let follow = |descriptor: &Value| {
            let named = descriptor["digest"].as_str().unwrap();
            let bytes = files[&format!("blobs/{}", named.replace(':', "/"))].clone();
            assert_eq!((named, descriptor["size"].as_u64()), (digest(&bytes).as_str(), Some(bytes.len() as u64)));
            bytes
        };
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = read(&files["index.json"]);
        assert_eq!(index["manifests"][0]["digest"], archive.digest.as_str());
        let manifest = read(&follow(&index["manifests"][0]));
        let config = read(&follow(&manifest["config"]));
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&follow(&manifest["layers"][0])[..]).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer).as_str());
        assert_eq!(unpack(&layer)["usr/bin/agent"], [7; 9000]);
        assert_eq!(
            (&config["config"]["User"], &files["oci-layout"][..22]),
            (&json!(USER), &b"{\"imageLayoutVersion\":"[..])
        );
    }

    #[test]
    fn the_same_content_is_the_same_archive() {
        assert_eq!(packed().bytes, packed().bytes);
    }
}
