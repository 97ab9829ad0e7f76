//! The checkout's folders, and commands that fail loudly.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The folders of this checkout.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Checkout {
    /// The checkout that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().context("the checkout is gone")?;
        // Asked from where we were started: a relative CARGO_TARGET_DIR is relative to that.
        let mut metadata = Command::new(cargo());
        metadata
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(root.join("Cargo.toml"));
        let metadata: serde_json::Value = serde_json::from_str(&read(&mut metadata)?).context("cargo metadata")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?.into();
        Ok(Self { root, target })
    }

    /// Genuine parts, built.
    pub(crate) fn upstream_bin(&self) -> PathBuf {
        self.target.join("upstream/bin")
    }

    /// `cargo` with arguments, at the root.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&cargo());
        // A relative one would mean another folder at the root.
        command.env("CARGO_TARGET_DIR", &self.target);
        command.args(arguments);
        command
    }

    /// A genuine part with arguments, at the root, writing nothing into the user's home.
    pub(crate) fn part(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(self.upstream_bin().join(name).as_os_str());
        let home = self.target.join("upstream/home");
        for variable in ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &home);
        }
        command.args(arguments);
        command
    }

    /// Any program, at the root.
    pub(crate) fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// How a command reads to a person.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs with our outputs; fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", words(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(command));
    }
    Ok(())
}

/// Runs and returns what it printed; errors still show.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start `{}`", words(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", words(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{}`", words(command)))
}
