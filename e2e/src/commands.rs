//! The genuine `kubectl` and `helm`, run as a person would, each with a deadline.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt as _;

use crate::control_plane::base_env;
use crate::parts::Parts;
use crate::processes::{guarded, spawn_guarded};

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command-line tool bound to one cluster. Its caches lie in the bed's folder.
#[derive(Clone, Debug)]
pub struct Tool {
    name: String,
    program: PathBuf,
    env: Vec<(String, String)>,
    dir: PathBuf,
}

impl Tool {
    /// `kubectl`; `kubectl fairlead …` finds our plugin.
    pub fn kubectl(parts: &Parts, dir: &Path, kubeconfig: &Path) -> Result<Self> {
        Self::new(parts, dir, kubeconfig, "kubectl")
    }

    /// `helm`.
    pub fn helm(parts: &Parts, dir: &Path, kubeconfig: &Path) -> Result<Self> {
        Self::new(parts, dir, kubeconfig, "helm")
    }

    fn new(parts: &Parts, dir: &Path, kubeconfig: &Path, name: &str) -> Result<Self> {
        let home = dir.join("home");
        std::fs::create_dir_all(&home)?;
        let mut env = base_env(&home);
        for (key, value) in &mut env {
            if key == "PATH" {
                *value = format!("{}:{}:{value}", parts.binaries.display(), parts.upstream.display());
            }
        }
        env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
        Ok(Self { name: name.to_owned(), program: parts.upstream(name)?, env, dir: parts.root.clone() })
    }

    /// Runs it in the checkout's folder; fails with what it said when it does not succeed within `limit`.
    pub async fn run(&self, args: &[&str], limit: Duration) -> Result<String> {
        self.run_with(args, None, limit).await
    }

    /// The same with text on standard input.
    pub async fn run_with(&self, args: &[&str], stdin: Option<&str>, limit: Duration) -> Result<String> {
        let output = self.output(args, stdin, limit).await?;
        if !output.success {
            bail!("{} {} failed:\n{}{}", self.name, args.join(" "), output.stderr, output.stdout);
        }
        Ok(output.stdout)
    }

    /// The same, where failing is an answer too.
    pub async fn output(&self, args: &[&str], stdin: Option<&str>, limit: Duration) -> Result<Output> {
        let mut command = guarded(&self.program);
        command
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_guarded(command).await.with_context(|| format!("start {}", self.name))?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), stdin) {
            pipe.write_all(text.as_bytes()).await?;
        }
        let what = || format!("{} {} took longer than {} s", self.name, args.join(" "), limit.as_secs());
        let output = tokio::time::timeout(limit, child.wait_with_output()).await.with_context(what)??;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
