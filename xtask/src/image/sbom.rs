//! What a binary is made of, as an SPDX 2.3 document: its crates, hwloc where it is linked, Rust's standard library.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::layer::digest;
use super::source::Source;
use crate::shell::{Checkout, read};

/// Name and version: two versions of one crate are two.
pub(crate) type Crate = (String, String);

/// `cargo metadata`, as far as it is told.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: std::path::PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Metadata {
    pub(crate) fn read(checkout: &Checkout, target: &str) -> Result<Self> {
        let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
        serde_json::from_str(&read(&mut checkout.cargo(&arguments))?).context("cargo metadata")
    }

    /// Folders in which the sources of other people's crates lie, one each.
    pub(crate) fn registries(&self) -> BTreeSet<&std::path::Path> {
        let foreign = self.packages.iter().filter(|package| package.source.is_some());
        foreign.filter_map(|package| package.manifest_path.parent()?.parent()).collect()
    }
}

/// The crates that are compiled into a package's binary, its own included.
pub(crate) fn crates(checkout: &Checkout, package: &str, target: &str) -> Result<BTreeSet<Crate>> {
    let arguments = ["tree", "--locked", "--package", package, "--target", target, "--edges", "normal"];
    let mut command = checkout.cargo(&arguments);
    let text = read(command.args(["--prefix", "none", "--format", "{p}"]))?;
    let crates = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    });
    Ok(crates.collect())
}

/// What is linked that is no crate.
pub(crate) struct Linked {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) license: &'static str,
    /// A package URL (purl).
    pub(crate) purl: Option<String>,
}

/// The document for one binary of `root`.
pub(crate) fn document(
    metadata: &Metadata,
    lock: &str,
    root: &Crate,
    crates: &BTreeSet<Crate>,
    linked: &[Linked],
    source: &Source,
) -> Result<Vec<u8>> {
    let checksums = checksums(lock);
    let mut packages = Vec::new();
    let mut ids = BTreeMap::new();
    for package in &metadata.packages {
        let key = (package.name.clone(), package.version.clone());
        if crates.contains(&key) {
            ids.insert(package.id.as_str(), reference(&package.name, &package.version));
            packages.push(described(package, checksums.get(&key)));
        }
    }
    let root = reference(&root.0, &root.1);
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &root)];
    for node in &metadata.resolve.nodes {
        let Some(from) = ids.get(node.id.as_str()) else { continue };
        let to = node.dependencies.iter().filter_map(|dependency| ids.get(dependency.as_str()));
        relations.extend(to.map(|to| relation(from, "DEPENDS_ON", to)));
    }
    for library in linked {
        let id = reference(library.name, &library.version);
        relations.push(relation(&root, "STATIC_LINK", &id));
        let mut package = package(&id, library.name, &library.version, library.license);
        if let Some(purl) = &library.purl {
            package["externalRefs"] = external(purl);
        }
        packages.push(package);
    }
    let content = json!({ "packages": packages, "relationships": relations });
    let namespace = format!("{}/spdx/{}", source.repository, digest(&serde_json::to_vec(&content)?));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": root.trim_start_matches("SPDXRef-"),
        "documentNamespace": namespace,
        "creationInfo": { "created": source.created, "creators": ["Tool: cargo-xtask-image"] },
        "packages": packages,
        "relationships": relations,
    });
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn described(of: &Package, checksum: Option<&String>) -> Value {
    // The slash is cargo's older way to write it.
    let license = of.license.as_deref().map_or("NOASSERTION".to_owned(), |license| license.replace('/', " OR "));
    let mut package = package(&reference(&of.name, &of.version), &of.name, &of.version, &license);
    if of.source.is_some() {
        package["externalRefs"] = external(&format!("pkg:cargo/{}@{}", of.name, of.version.replace('+', "%2B")));
    }
    if let Some(checksum) = checksum {
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": checksum }]);
    }
    package
}

fn package(id: &str, name: &str, version: &str, license: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license,
        "copyrightText": "NOASSERTION",
    })
}

fn external(purl: &str) -> Value {
    json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }])
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// An SPDX identifier: letters, digits, dots and hyphens.
fn reference(name: &str, version: &str) -> String {
    let allowed = |character: char| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' };
    format!("SPDXRef-{}", format!("{name}-{version}").chars().map(allowed).collect::<String>())
}

/// SHA-256 of each crate's archive, from the text of `Cargo.lock`, whose form is cargo's own and stable.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    lock.split("[[package]]")
        .filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"fairlead-agent\"\nversion = \"0.1.0\"\ndependencies = [\n \"a_b\",\n]\n\n\
        [[package]]\nname = \"a_b\"\nversion = \"1.0.0+x\"\nsource = \"registry\"\nchecksum = \"00ff\"\n";

    fn metadata() -> Metadata {
        serde_json::from_value(json!({
            "packages": [
                { "id": "1", "name": "fairlead-agent", "version": "0.1.0", "license": "Apache-2.0", "source": null, "manifest_path": "/a/Cargo.toml" },
                { "id": "2", "name": "a_b", "version": "1.0.0+x", "license": "MIT/Apache-2.0", "source": "registry", "manifest_path": "/r/a_b/Cargo.toml" },
                { "id": "3", "name": "other", "version": "1.0.0", "license": null, "source": "registry", "manifest_path": "/r/other/Cargo.toml" },
            ],
            "resolve": { "nodes": [
                { "id": "1", "dependencies": ["2", "3"] }, { "id": "2", "dependencies": [] }, { "id": "3", "dependencies": ["2"] },
            ] },
        }))
        .unwrap()
    }

    fn made() -> Value {
        let root = ("fairlead-agent".to_owned(), "0.1.0".to_owned());
        let crates = BTreeSet::from([root.clone(), ("a_b".to_owned(), "1.0.0+x".to_owned())]);
        let linked = [Linked { name: "hwloc", version: "2.9.0-1".to_owned(), license: "BSD-3-Clause", purl: None }];
        let source = Source {
            version: "0.1.0".to_owned(),
            repository: "https://example.org/r".to_owned(),
            license: "Apache-2.0".to_owned(),
            revision: None,
            created: "1970-01-01T00:00:00Z".to_owned(),
        };
        let bytes = document(&metadata(), LOCK, &root, &crates, &linked, &source).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_document_lists_what_is_in_the_binary_and_nothing_else() {
        let document = made();
        let names: Vec<&str> =
            document["packages"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["fairlead-agent", "a_b", "hwloc"]);
        let foreign = &document["packages"][1];
        assert_eq!(
            (&foreign["SPDXID"], &foreign["licenseDeclared"], &foreign["checksums"][0]["checksumValue"]),
            (&json!("SPDXRef-a-b-1.0.0-x"), &json!("MIT OR Apache-2.0"), &json!("00ff"))
        );
        assert_eq!(foreign["externalRefs"][0]["referenceLocator"], "pkg:cargo/a_b@1.0.0%2Bx");
    }

    #[test]
    fn every_relation_is_between_packages_of_the_document() {
        let document = made();
        let known: BTreeSet<&str> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| package["SPDXID"].as_str().unwrap())
            .chain(["SPDXRef-DOCUMENT"])
            .collect();
        let relations = document["relationships"].as_array().unwrap();
        assert_eq!(relations.len(), 3);
        for relation in relations {
            for end in ["spdxElementId", "relatedSpdxElement"] {
                assert!(known.contains(relation[end].as_str().unwrap()), "{relation}");
            }
        }
    }

    #[test]
    fn registries_are_the_folders_of_other_peoples_crates() {
        assert_eq!(metadata().registries(), BTreeSet::from([std::path::Path::new("/r")]));
    }
}
