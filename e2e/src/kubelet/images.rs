//! Which host program stands for an image: what the image would have as its entrypoint.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::parts::Parts;

/// The program of a container: the image's own, or the one that `command` names.
pub(crate) fn program(parts: &Parts, image: &str, command: Option<&str>) -> Result<PathBuf> {
    let repository = image.split('@').next().unwrap_or(image);
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let name = last.split(':').next().unwrap_or(last);
    if let Some(command) = command {
        let asked = Path::new(command).file_name().and_then(|name| name.to_str()).unwrap_or(command);
        if asked != name {
            bail!("image {image} has no program {command}: the harness knows {name} for it");
        }
    }
    match name {
        "fairlead-extender" | "fairlead-operator" | "fairlead-agent" | "kubectl-fairlead" => parts.binary(name),
        "kube-scheduler" => parts.upstream(name),
        _ => bail!("image {image} is none that the harness can run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> (tempfile::TempDir, Parts) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kubectl-fairlead", "kube-scheduler"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let path = dir.path().to_owned();
        (dir, Parts { root: path.clone(), target: path.clone(), upstream: path.clone(), binaries: path })
    }

    #[test]
    fn repositories_with_ports_tags_and_digests() {
        let (dir, parts) = parts();
        let cli = program(&parts, "localhost:5000/fairlead/kubectl-fairlead:0.1.0", Some("/usr/bin/kubectl-fairlead"))
            .unwrap();
        assert_eq!(cli, dir.path().join("kubectl-fairlead"));
        let scheduler = program(&parts, "example.org/kube-scheduler:v1@sha256:00", None).unwrap();
        assert_eq!(scheduler, dir.path().join("kube-scheduler"));
    }

    #[test]
    fn what_the_image_does_not_hold_is_refused() {
        let (_dir, parts) = parts();
        assert!(program(&parts, "kube-scheduler", Some("/bin/sh")).is_err());
        assert!(program(&parts, "nginx:1", None).is_err());
    }
}
