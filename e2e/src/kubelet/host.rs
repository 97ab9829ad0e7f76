//! The files of a simulated node that pods mount: those of a kubelet that pins nothing.

use std::path::Path;

use anyhow::{Context, Result};

/// By path on the node, as a kubelet with the policy `none` writes them.
const FILES: [(&str, &str); 3] = [
    (
        "var/lib/kubelet/config.yaml",
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncpuManagerPolicy: none\n",
    ),
    ("var/lib/kubelet/cpu_manager_state", r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#),
    ("var/lib/kubelet/memory_manager_state", r#"{"policyName":"None","machineState":{},"checksum":4236770233}"#),
];

/// Writes those that are missing under `root`, which stands for the node's own root.
pub(crate) fn lay_out(root: &Path) -> Result<()> {
    for (path, text) in FILES {
        let file = root.join(path);
        if file.exists() {
            continue;
        }
        let folder = file.parent().context("a file without folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_put_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join(FILES[0].0);
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        std::fs::write(&config, "cpuManagerPolicy: static\n").unwrap();
        lay_out(root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "cpuManagerPolicy: static\n");
        assert!(root.path().join(FILES[2].0).is_file());
    }
}
