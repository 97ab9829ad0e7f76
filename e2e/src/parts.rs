//! Where the bed finds what it starts: genuine parts, our binaries, charts, and where it may write.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Folders of one checkout. `cargo xtask` hands them over by environment; a plain `cargo test` finds them by itself.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder: everything the bed writes lies below it.
    pub target: PathBuf,
    /// Genuine parts: kube-apiserver, etcd, kwok, helm, kubectl, …
    pub upstream: PathBuf,
    /// Our binaries.
    pub binaries: PathBuf,
}

impl Parts {
    /// Reads `FAIRLEAD_ROOT`, `FAIRLEAD_TARGET`, `FAIRLEAD_UPSTREAM_BIN` and `FAIRLEAD_BIN`, each with a default below the one before.
    pub fn find() -> Result<Self> {
        let root = env_path("FAIRLEAD_ROOT").unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let root = std::path::absolute(&root)?;
        let root = root.canonicalize().unwrap_or(root);
        let target = env_path("FAIRLEAD_TARGET").unwrap_or_else(|| root.join("target"));
        let upstream = env_path("FAIRLEAD_UPSTREAM_BIN").unwrap_or_else(|| target.join("upstream/bin"));
        let binaries = env_path("FAIRLEAD_BIN").unwrap_or_else(|| target.join("debug"));
        Ok(Self { root, target, upstream, binaries })
    }

    /// A genuine part by its name; tells how to get it when it is not there.
    pub fn upstream(&self, name: &str) -> Result<PathBuf> {
        let path = self.upstream.join(name);
        if !path.is_file() {
            bail!(
                "{name} is not built ({} is missing): run `cargo xtask test`, `demo` or `up`, which build it",
                path.display()
            );
        }
        Ok(path)
    }

    /// One of our binaries by its name.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.binaries.join(name);
        if !path.is_file() {
            bail!("{name} is not built ({} is missing): run `cargo build --workspace`", path.display());
        }
        Ok(path)
    }

    /// The archive of the agent's image, as `cargo xtask image` writes it with its quick profile.
    pub fn agent_image(&self) -> Result<PathBuf> {
        let path = self.target.join("images/quick/fairlead-agent.tar");
        if !path.is_file() {
            bail!("{} is missing: run `cargo xtask test --tier node`, which makes it", path.display());
        }
        Ok(path)
    }

    /// Kernel and drivers of the guest.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.target.join("upstream/kernel")
    }

    /// The folder of one of our charts.
    #[must_use]
    pub fn chart(&self, name: &str) -> PathBuf {
        self.root.join("charts").join(name)
    }
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
