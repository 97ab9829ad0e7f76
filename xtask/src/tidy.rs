//! `tidy`: the import table between our crates, budgets, and what may not be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::{Checkout, read};

/// Lines of a source file.
const FILE_BUDGET: usize = 600;

/// Which of ours a crate may use (DESIGN §3), and what of others it may not name as a dependency.
const IMPORTS: [(&str, &[&str], &[&str]); 15] = [
    ("fairlead-topology", &[], PURE),
    ("fairlead-fairshare", &[], PURE),
    ("fairlead-scaling", &[], PURE),
    ("fairlead-placement", &["fairlead-topology"], PURE),
    ("fairlead-crds", &[], &["tokio"]),
    (
        "fairlead-cluster",
        &["fairlead-topology", "fairlead-placement", "fairlead-fairshare", "fairlead-scaling", "fairlead-crds"],
        CLOCKLESS,
    ),
    ("fairlead-runtime", &[], &[]),
    ("fairlead-extender", SERVER, &[]),
    ("fairlead-operator", SERVER, &[]),
    ("fairlead-discovery", &["fairlead-topology", "fairlead-crds"], &["tokio", "kube"]),
    (
        "fairlead-agent",
        &["fairlead-topology", "fairlead-placement", "fairlead-discovery", "fairlead-crds", "fairlead-runtime"],
        &[],
    ),
    ("fairlead-cli", CLI, &[]),
    ("fairlead-sim", EVERYTHING, &[]),
    // The conformance cases of sim run against the genuine API server too; nothing else of it is used.
    ("fairlead-e2e", &["fairlead-crds", "fairlead-sim"], &[]),
    ("xtask", &[], &[]),
];
const PURE: &[&str] = &["kube", "tokio", "time", "chrono", "jiff", "rand", "fastrand"];
const CLOCKLESS: &[&str] = &["tokio", "time", "chrono", "rand", "fastrand"];
const SERVER: &[&str] = &[
    "fairlead-topology",
    "fairlead-placement",
    "fairlead-fairshare",
    "fairlead-scaling",
    "fairlead-cluster",
    "fairlead-crds",
    "fairlead-runtime",
];
const EVERYTHING: &[&str] = &[
    "fairlead-topology",
    "fairlead-placement",
    "fairlead-fairshare",
    "fairlead-scaling",
    "fairlead-cluster",
    "fairlead-crds",
    "fairlead-runtime",
    "fairlead-extender",
    "fairlead-operator",
    "fairlead-discovery",
    "fairlead-agent",
];
const CLI: &[&str] = &[
    "fairlead-topology",
    "fairlead-placement",
    "fairlead-fairshare",
    "fairlead-scaling",
    "fairlead-cluster",
    "fairlead-discovery",
    "fairlead-crds",
];

/// Crates in the graph of each binary, its own included (DESIGN §6).
const GRAPH_BUDGETS: [(&str, usize); 4] =
    [("fairlead-extender", 230), ("fairlead-agent", 230), ("fairlead-cli", 230), ("fairlead-operator", 480)];

/// A second one of these would be a second TLS stack.
const ONE_TLS: [&str; 4] = ["aws-lc-rs", "openssl", "native-tls", "boring"];

/// Written in halves, so that this file does not hold what it looks for: hosts of package registries (a build finds them
/// by its tools' configuration), and paths of one machine.
const FORBIDDEN: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("proxy.golang", ".org"),
    concat!("sum.golang", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("deb.debian", ".org"),
    concat!("..", "/shared"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    links: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Fails with everything that is not tidy.
pub(crate) fn tidy(checkout: &Checkout) -> Result<()> {
    let text = read(&mut checkout.cargo(&["metadata", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
    let mut findings = imports(&metadata);
    findings.extend(tls(&metadata));
    for (package, budget) in GRAPH_BUDGETS {
        let count = graph(checkout, package)?.len();
        if count > budget {
            findings.push(format!("{package}: {count} crates in its graph, more than {budget}"));
        }
    }
    let links: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package.name.as_str(), package.links.as_deref()?)))
        .collect();
    for (name, _) in graph(checkout, "xtask")? {
        if let Some(library) = links.get(name.as_str()) {
            findings
                .push(format!("xtask: uses {name}, which links {library}; it must build before anything is installed"));
        }
    }
    findings.extend(files(checkout)?);
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    Ok(())
}

fn imports(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&Package> =
        metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id)).collect();
    let names: BTreeSet<&str> = ours.iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in &ours {
        let Some((_, may, never)) = IMPORTS.iter().find(|(name, ..)| *name == package.name) else {
            findings.push(format!("{}: not in the import table of xtask/src/tidy.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if names.contains(name) && !may.contains(&name) {
                findings.push(format!("{} may not use {name}", package.name));
            }
            // Tests may look at a clock.
            if dependency.kind.is_none() && never.contains(&name) {
                findings.push(format!("{} may not depend on {name}", package.name));
            }
        }
    }
    findings
}

fn tls(metadata: &Metadata) -> Vec<String> {
    let mut findings: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| ONE_TLS.contains(&package.name.as_str()))
        .map(|package| format!("{} is in the graph: rustls with ring is the only TLS", package.name))
        .collect();
    let versions: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| package.name == "rustls")
        .map(|package| package.version.as_str())
        .collect();
    if versions.len() > 1 {
        findings.push(format!("more than one rustls: {}", versions.join(", ")));
    }
    findings
}

/// Names and versions of the crates that a package's binary is made of: two versions of one crate are two.
fn graph(checkout: &Checkout, package: &str) -> Result<BTreeSet<(String, String)>> {
    let arguments = ["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let text = read(&mut checkout.cargo(&arguments))?;
    let crates = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    Ok(crates.collect())
}

fn files(checkout: &Checkout) -> Result<Vec<String>> {
    let list =
        read(checkout.command("git".as_ref()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut findings = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // Deleted and not committed yet, or no text.
        let Ok(text) = std::fs::read_to_string(checkout.root.join(name)) else { continue };
        findings.extend(judge(name, &text));
    }
    Ok(findings)
}

fn judge(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "rs") {
        let lines = text.lines().count();
        if lines > FILE_BUDGET {
            findings.push(format!("{name}: {lines} lines, more than {FILE_BUDGET}"));
        }
        if !text.starts_with("//!") {
            findings.push(format!("{name}: its first line does not say what it is for (//!)"));
        }
    }
    // Cargo writes its lock file itself.
    if path.file_name().is_some_and(|file| file == "Cargo.lock") {
        return findings;
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(found) = FORBIDDEN.iter().find(|forbidden| line.contains(**forbidden)) {
            findings.push(format!("{name}:{}: {found} may not be committed", number + 1));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        };
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            links: None,
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn other_edges_between_our_crates_are_found() {
        let packages = vec![
            package("fairlead-topology", &[("tokio", Some("dev"))]),
            package("fairlead-scaling", &[("tokio", None)]),
            package("fairlead-placement", &[("fairlead-topology", None)]),
            package("fairlead-crds", &[("fairlead-topology", Some("dev"))]),
            package("fairlead-new", &[]),
        ];
        let workspace_members = packages.iter().map(|package| package.id.clone()).collect();
        let findings = imports(&Metadata { packages, workspace_members });
        assert_eq!(
            findings,
            [
                "fairlead-scaling may not depend on tokio",
                "fairlead-crds may not use fairlead-topology",
                "fairlead-new: not in the import table of xtask/src/tidy.rs",
            ]
        );
    }

    #[test]
    fn files_are_judged_by_length_first_line_and_forbidden_strings() {
        let long = format!("//! Long.\n{}", "\n".repeat(FILE_BUDGET));
        assert_eq!(judge("a.rs", &long).len(), 1);
        assert_eq!(judge("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(judge("a.md", &format!("see {}\n", FORBIDDEN[0])).len(), 1);
        assert!(judge("Cargo.lock", FORBIDDEN[0]).is_empty());
        assert!(judge("a.rs", "//! Fine.\n").is_empty());
    }
}
