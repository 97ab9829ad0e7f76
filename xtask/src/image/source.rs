//! Which sources an image is made of: version, repository, commit, time.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell::{Checkout, read};

/// The sources, as labels and documents name them.
pub(crate) struct Source {
    /// Of the workspace.
    pub(crate) version: String,
    pub(crate) repository: String,
    /// SPDX expression.
    pub(crate) license: String,
    /// Commit, with `-dirty` where files differ from it; absent where there is no repository.
    pub(crate) revision: Option<String>,
    /// Time of the commit (RFC 3339), never of the build: the same sources make the same image.
    pub(crate) created: String,
}

impl Source {
    pub(crate) fn of(checkout: &Checkout) -> Result<Self> {
        let text = read(&mut checkout.cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
        // One version, license and repository for all members.
        let fact = |key: &str| {
            let value = metadata["packages"][0][key].as_str();
            value.map(str::to_owned).with_context(|| format!("the workspace's packages state no {key}"))
        };
        let commit = git(checkout, &["log", "-1", "--format=%H %cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"]);
        let commit = commit.as_deref().and_then(|line| line.trim().split_once(' '));
        let dirty = git(checkout, &["status", "--porcelain"]).is_some_and(|list| !list.is_empty());
        let revision = commit.map(|(hash, _)| if dirty { format!("{hash}-dirty") } else { hash.to_owned() });
        let created = commit.map_or("1970-01-01T00:00:00Z", |(_, time)| time).to_owned();
        Ok(Self {
            version: fact("version")?,
            repository: fact("repository")?,
            license: fact("license")?,
            revision,
            created,
        })
    }
}

/// None without git or outside a repository: an archive of the sources can be built too.
fn git(checkout: &Checkout, arguments: &[&str]) -> Option<String> {
    let mut command: Command = checkout.command("git".as_ref());
    let output = command.args(arguments).env("TZ", "UTC0").stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}
