//! `image`: our programs as OCI images, each one static binary and the list of what it is made of. No container engine.

mod hwloc;
mod layer;
mod manifest;
mod sbom;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::hwloc::Hwloc;
use self::layer::{Entries, Entry};
use self::manifest::Facts;
use self::sbom::{Crate, Linked, Metadata};
use self::source::Source;
use crate::install;
use crate::shell::{Checkout, read, run, words};

/// One image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Image {
    /// The webhook beside kube-scheduler.
    FairleadExtender,
    /// Release, scaling, status.
    FairleadOperator,
    /// One on each node.
    FairleadAgent,
    /// The command line; the chart's drain hook runs it.
    KubectlFairlead,
}

/// How a binary is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// For use.
    Release,
    /// For tests: compiled in a hurry.
    Quick,
}

/// What the chart's values name as repository, in full.
const REGISTRY: &str = "docker.io";

impl Image {
    fn name(self) -> &'static str {
        match self {
            Self::FairleadExtender => "fairlead-extender",
            Self::FairleadOperator => "fairlead-operator",
            Self::FairleadAgent => "fairlead-agent",
            Self::KubectlFairlead => "kubectl-fairlead",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::KubectlFairlead => "fairlead-cli",
            other => other.name(),
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::FairleadExtender => "Fairlead's scheduler extender",
            Self::FairleadOperator => "Fairlead's operator",
            Self::FairleadAgent => "Fairlead's node agent",
            Self::KubectlFairlead => "Fairlead's command line",
        }
    }

    /// Repository as the chart's values name it.
    fn repository(self) -> String {
        format!("fairlead/{}", self.name())
    }
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => "quick",
        }
    }
}

/// Writes the archives of `only`, or of all, with their lists, into `output`; prints a line for each.
#[allow(clippy::print_stdout, reason = "the lines that people read")]
pub(crate) fn image(checkout: &Checkout, only: &[Image], profile: Profile, output: Option<&Path>) -> Result<()> {
    let kitchen = Kitchen::ready(checkout)?;
    let folder = output.map_or_else(|| checkout.target.join("images").join(profile.name()), Path::to_owned);
    for image in Image::value_variants().iter().filter(|image| only.is_empty() || only.contains(image)) {
        let made = kitchen.make(*image, profile, &folder)?;
        println!("{} {} {}, {} kB", made.reference, made.digest, made.path.display(), made.size_bytes / 1000);
    }
    Ok(())
}

/// The agent's archive for the genuine node of the tests.
pub(crate) fn agent(checkout: &Checkout) -> Result<PathBuf> {
    let folder = checkout.target.join("images").join(Profile::Quick.name());
    Ok(Kitchen::ready(checkout)?.make(Image::FairleadAgent, Profile::Quick, &folder)?.path)
}

struct Made {
    path: PathBuf,
    reference: String,
    digest: String,
    size_bytes: usize,
}

/// What every image needs.
struct Kitchen<'a> {
    checkout: &'a Checkout,
    /// Target triple.
    target: String,
    /// `GOARCH`.
    architecture: &'static str,
    metadata: Metadata,
    lock: String,
    source: Source,
    rustc: String,
}

impl<'a> Kitchen<'a> {
    fn ready(checkout: &'a Checkout) -> Result<Self> {
        install::install()?;
        install::install_image()?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("images are made on x86_64 and aarch64, this machine is {other}"),
        };
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        standard_library(checkout, &target)?;
        Ok(Self {
            checkout,
            architecture,
            metadata: Metadata::read(checkout, &target)?,
            target,
            lock: std::fs::read_to_string(checkout.root.join("Cargo.lock")).context("Cargo.lock")?,
            source: Source::of(checkout)?,
            rustc: read(checkout.command("rustc".as_ref()).arg("--version"))?,
        })
    }

    fn make(&self, image: Image, profile: Profile, folder: &Path) -> Result<Made> {
        let crates = sbom::crates(self.checkout, image.package(), &self.target)?;
        let wants_hwloc = crates.iter().any(|(name, _)| name == "hwlocality-sys");
        let hwloc = wants_hwloc.then(|| hwloc::build(self.checkout)).transpose()?;
        let binary = self.compile(image, profile, hwloc.as_ref())?;
        let sbom = self.sbom(image, &crates, hwloc.as_ref())?;
        let program = format!("usr/bin/{}", image.name());
        let facts = self.facts(image, &program);
        let bytes = std::fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
        let files =
            Entries::from([(program, Entry::program(bytes)), ("sbom.spdx.json".to_owned(), Entry::data(sbom.clone()))]);
        let archive = manifest::archive(&facts, &files)?;
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        manifest::write(&folder.join(format!("{}.spdx.json", image.name())), &sbom)?;
        let path = folder.join(format!("{}.tar", image.name()));
        manifest::write(&path, &archive.bytes)?;
        Ok(Made { path, reference: facts.reference, digest: archive.digest, size_bytes: archive.bytes.len() })
    }

    /// Each alone, so that an image is the same whichever others are made with it.
    fn compile(&self, image: Image, profile: Profile, hwloc: Option<&Hwloc>) -> Result<PathBuf> {
        let arguments = ["build", "--locked", "--profile", profile.name(), "--target", &self.target];
        let mut command = self.checkout.cargo(&arguments);
        command.args(["--package", image.package(), "--bin", image.name()]);
        self.static_binary(&mut command, hwloc);
        run(&mut command)?;
        let binary = self.checkout.target.join(&self.target).join(profile.name()).join(image.name());
        Ok(binary)
    }

    fn static_binary(&self, command: &mut Command, hwloc: Option<&Hwloc>) {
        let suffix = self.target.replace('-', "_");
        command.env(format!("CC_{suffix}"), "musl-gcc");
        if let Some(hwloc) = hwloc {
            command.env(format!("PKG_CONFIG_ALLOW_CROSS_{suffix}"), "1");
            command.env(format!("PKG_CONFIG_LIBDIR_{suffix}"), &hwloc.pkgconfig);
        }
        // Where the sources lie must not be seen in the binary.
        let mut places = vec![(self.checkout.root.as_path(), "/fairlead")];
        places.extend(self.metadata.registries().into_iter().map(|registry| (registry, "/crates")));
        let flags: Vec<String> =
            places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect();
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    }

    fn sbom(&self, image: Image, crates: &BTreeSet<Crate>, hwloc: Option<&Hwloc>) -> Result<Vec<u8>> {
        let version = self.rustc.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
        let mut linked = vec![Linked { name: "rust-std", version, license: "MIT OR Apache-2.0", purl: None }];
        linked.extend(hwloc.map(|hwloc| Linked {
            name: "hwloc",
            version: hwloc.version.clone(),
            license: "BSD-3-Clause",
            purl: Some(format!("pkg:deb/debian/hwloc@{}?arch=source", hwloc.version)),
        }));
        let root = (image.package().to_owned(), self.source.version.clone());
        sbom::document(&self.metadata, &self.lock, &root, crates, &linked, &self.source)
    }

    fn facts(&self, image: Image, program: &str) -> Facts {
        let source = &self.source;
        let mut labels = BTreeMap::from([
            ("org.opencontainers.image.title", image.name().to_owned()),
            ("org.opencontainers.image.description", image.description().to_owned()),
            ("org.opencontainers.image.version", source.version.clone()),
            ("org.opencontainers.image.created", source.created.clone()),
            ("org.opencontainers.image.source", source.repository.clone()),
            ("org.opencontainers.image.licenses", source.license.clone()),
        ]);
        labels.extend(source.revision.iter().map(|revision| ("org.opencontainers.image.revision", revision.clone())));
        Facts {
            reference: format!("{REGISTRY}/{}:{}", image.repository(), source.version),
            architecture: self.architecture,
            program: format!("/{program}"),
            created: source.created.clone(),
            labels,
        }
    }
}

/// Rust's standard library for musl.
fn standard_library(checkout: &Checkout, target: &str) -> Result<()> {
    let library = read(checkout.command("rustc".as_ref()).args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    let mut rustup = checkout.command("rustup".as_ref());
    rustup.args(["target", "add", target]);
    let help = format!("Rust's standard library for {target} is missing, and `{}` could not add it", words(&rustup));
    run(&mut rustup).context(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every image that the chart's values name: ours, and the stock kube-scheduler.
    #[test]
    fn the_chart_names_these_images_and_no_others() {
        let values = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/fairlead/values.yaml");
        let values: BTreeMap<String, serde_json::Value> =
            serde_saphyr::from_str(&std::fs::read_to_string(values).unwrap()).unwrap();
        let named: BTreeSet<String> = values
            .values()
            .filter_map(|part| part["image"]["repository"].as_str().map(str::to_owned))
            .filter(|repository| repository.starts_with("fairlead/"))
            .collect();
        assert_eq!(named, Image::value_variants().iter().map(|image| image.repository()).collect());
    }
}
