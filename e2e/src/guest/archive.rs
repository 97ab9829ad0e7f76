//! Container images made of a folder, without a builder: one layer and a configuration, as `docker save` writes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

/// What is in an image.
pub(super) struct Image<'a> {
    /// Full name with its tag; never pulled.
    pub(super) name: &'a str,
    /// Command of a container that names none.
    pub(super) entrypoint: &'a [&'a str],
    /// Files: path inside without its leading slash, and where they come from.
    pub(super) files: &'a [(&'a str, PathBuf)],
    /// Symbolic links: path inside, and what they show.
    pub(super) links: &'a [(&'a str, &'a str)],
}

impl Image<'_> {
    /// Writes `FOLDER/FILE.tar`, which `ctr images import` reads.
    pub(super) fn write(&self, folder: &Path, file: &str) -> Result<()> {
        let work = folder.join(format!("{file}.work"));
        let (root, out) = (work.join("root"), work.join("out"));
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(&out)?;
        for (path, from) in self.files {
            let to = root.join(path);
            to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
        for (path, target) in self.links {
            let link = root.join(path);
            link.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::os::unix::fs::symlink(target, link)?;
        }
        tar(&root, &out.join("layer.tar"))?;
        let digest = sha256(&out.join("layer.tar"))?;
        let configuration = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        std::fs::write(out.join("config.json"), configuration.to_string())?;
        std::fs::write(out.join("manifest.json"), manifest.to_string())?;
        tar(&out, &folder.join(format!("{file}.tar")))?;
        Ok(std::fs::remove_dir_all(work)?)
    }
}

fn tar(folder: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--file"]);
    // Named one by one: a leading `./` in the names is nothing that an importer must understand.
    let mut names: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    command.arg(file).arg("--directory").arg(folder).args(names.iter().map(std::fs::DirEntry::file_name));
    output(&mut command).map(drop)
}

fn sha256(file: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg(file))?;
    text.split_whitespace().next().map(str::to_owned).context("sha256sum said nothing")
}

/// Runs a host tool and gives what it printed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
