//! The test bed: one genuine cluster with simulated nodes, a queue, and our release in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::RELEASE_NAMESPACE;
use crate::commands::Tool;
use crate::control_plane::ControlPlane;
use crate::kubelet::Kubelet;
use crate::kwok::{self, StageTimes};
use crate::nodes::{self, SimulatedNode};
use crate::parts::Parts;
use crate::processes::{Process, log_tail};
use crate::redis::Redis;
use crate::release;

const GRACE: Duration = Duration::from_secs(4);
const NODES_READY_LIMIT: Duration = Duration::from_secs(60);
const HELM_LIMIT: Duration = Duration::from_secs(240);
/// Folders of dead beds that are kept for their logs.
const KEPT_BEDS: usize = 2;

/// What a bed is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the folder under `target/bed`.
    pub name: String,
    /// Simulated nodes.
    pub nodes: Vec<SimulatedNode>,
    /// Names of nodes whose genuine kubelets will join (see `guest`): they get identities, and nobody here runs their pods.
    pub genuine_nodes: Vec<String>,
    /// How long simulated pods take.
    pub stages: StageTimes,
    /// Password of the queue; no queue without.
    pub redis_password: Option<String>,
}

impl Options {
    /// Twelve nodes of three shapes, pods that start in about 2 s, a queue.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: nodes::twelve(),
            genuine_nodes: Vec::new(),
            stages: StageTimes::default(),
            redis_password: Some("orders-are-secret".to_owned()),
        }
    }
}

/// A running bed. [`Bed::stop`] ends it; dropping it kills it and leaves its folder for its logs.
pub struct Bed {
    /// Where everything comes from.
    pub parts: Parts,
    /// Folder of this bed: logs, data, kubeconfigs.
    pub dir: PathBuf,
    /// The API server and its controllers.
    pub plane: ControlPlane,
    /// The kubelet of the release's pods.
    pub kubelet: Kubelet,
    /// The queue, if there is one.
    pub redis: Option<Redis>,
    /// Genuine kubectl, as administrator.
    pub kubectl: Tool,
    /// Genuine helm, as administrator.
    pub helm: Tool,
    /// A client, as administrator.
    pub client: kube::Client,
    /// The simulated nodes.
    pub nodes: Vec<SimulatedNode>,
    kwok: Process,
}

impl Bed {
    /// Starts everything; returns when all nodes are Ready.
    pub async fn start(options: Options) -> Result<Self> {
        // The only provider of the graph; a second bed in one process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parts = Parts::find()?;
        let dir = new_folder(&parts.target.join("bed"), &options.name)?;
        let names: Vec<String> = options.nodes.iter().map(|node| node.name.clone()).collect();
        let identities = [names.clone(), options.genuine_nodes.clone()].concat();
        tracing::info!(dir = %dir.display(), "starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler");
        let plane = ControlPlane::start(&parts, &dir, &identities).await?;
        let admin = plane.admin_kubeconfig();
        let client = plane.client(&admin).await?;
        tracing::info!(nodes = names.len(), "starting kwok and its nodes");
        nodes::create(&client, &options.nodes).await?;
        let kwok = kwok::start(&parts, &dir, &plane, options.stages).await?;
        let redis = match &options.redis_password {
            Some(password) => Some(Redis::start(&dir, password).await?),
            None => None,
        };
        let kubelet = Kubelet::start(&parts, &dir, &plane.url(), client.clone(), &options.genuine_nodes);
        kwok.wait_ready(NODES_READY_LIMIT, || all_ready(&client, names.len())).await?;
        Ok(Self {
            kubectl: Tool::kubectl(&parts, &dir, &admin)?,
            helm: Tool::helm(&parts, &dir, &admin)?,
            nodes: options.nodes,
            parts,
            dir,
            plane,
            kubelet,
            redis,
            client,
            kwok,
        })
    }

    /// `KUBECONFIG` of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.admin_kubeconfig()
    }

    /// Installs both charts with genuine helm and waits until the release is ready. `values` are those of
    /// `charts/fairlead`, usually [`release::values`]; namespace and simulated machines are made before.
    pub async fn install_fairlead(&self, values: &Value) -> Result<()> {
        tracing::info!("installing the charts");
        release::prepare(self).await?;
        let crds = self.parts.chart("fairlead-crds");
        let crds = crds.display().to_string();
        let args = ["install", "fairlead-crds", &crds, "--namespace", RELEASE_NAMESPACE, "--wait"];
        self.helm.run(&args, HELM_LIMIT).await?;
        self.release("install", values).await
    }

    /// `helm upgrade` with the whole of `values`.
    pub async fn upgrade_fairlead(&self, values: &Value) -> Result<()> {
        self.release("upgrade", values).await
    }

    /// `helm uninstall` of the release, its hooks included; the CRDs stay.
    pub async fn uninstall_fairlead(&self) -> Result<()> {
        let args = ["uninstall", "fairlead", "--namespace", RELEASE_NAMESPACE, "--wait", "--timeout", "180s"];
        self.helm.run(&args, HELM_LIMIT).await.with_context(|| self.release_logs())?;
        Ok(())
    }

    async fn release(&self, verb: &str, values: &Value) -> Result<()> {
        let file = self.dir.join("values.json");
        std::fs::write(&file, values.to_string())?;
        let (chart, file) = (self.parts.chart("fairlead").display().to_string(), file.display().to_string());
        let args = [
            verb,
            "fairlead",
            &chart,
            "--namespace",
            RELEASE_NAMESPACE,
            "--values",
            &file,
            "--wait",
            "--timeout",
            "180s",
        ];
        self.helm.run(&args, HELM_LIMIT).await.with_context(|| self.release_logs())?;
        Ok(())
    }

    /// The ends of the logs of the release's containers, for a failure's report.
    #[must_use]
    pub fn release_logs(&self) -> String {
        let mut out = String::new();
        let logs = std::fs::read_dir(self.dir.join("logs")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> =
            logs.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains('_')).collect();
        files.sort();
        // Twelve agents say the same twelve times.
        files.dedup_by_key(|path| path.file_stem().map(|stem| kind_of(&stem.to_string_lossy())));
        for file in files {
            out.push_str(&format!("{}:\n{}", file.display(), log_tail(&file, 12)));
        }
        out
    }

    /// Copies all logs to where they outlive the bed, `target/bed/last-failure`, in place of those of an earlier one.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        let kept = self.parts.target.join("bed/last-failure");
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        std::fs::create_dir_all(&kept)?;
        for entry in std::fs::read_dir(self.dir.join("logs"))? {
            let path = entry?.path();
            if let (Some(name), true) = (path.file_name(), path.is_file()) {
                std::fs::copy(&path, kept.join(name))?;
            }
        }
        Ok(kept)
    }

    /// Every process of the bed, by name: genuine parts, and `POD/CONTAINER` for the release.
    pub async fn processes(&self) -> Vec<(String, i32)> {
        let mut all = self.plane.processes().await;
        all.push((self.kwok.name().to_owned(), self.kwok.pid()));
        if let Some(redis) = &self.redis {
            all.extend(redis.pid().await.map(|pid| ("redis-server".to_owned(), pid)));
        }
        all.extend(
            self.kubelet
                .running()
                .into_iter()
                .map(|running| (format!("{}/{}", running.pod, running.container), running.pid)),
        );
        all
    }

    /// Ends everything in order, and removes the bed's folder unless `FAIRLEAD_KEEP` is set.
    pub async fn stop(self) -> Result<()> {
        let began = Instant::now();
        self.kubelet.stop(GRACE).await;
        self.kwok.stop(GRACE).await;
        if let Some(redis) = &self.redis {
            redis.kill().await;
        }
        self.plane.stop().await;
        tracing::info!(seconds = began.elapsed().as_secs_f32(), "the bed is stopped");
        if std::env::var_os("FAIRLEAD_KEEP").is_none() {
            std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Resident memory of a process.
pub fn resident_bytes(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1).context("statm without resident pages")?.parse()?;
    Ok(pages * u64::try_from(rustix::param::page_size())?)
}

fn kind_of(stem: &str) -> String {
    let (pod, container) = stem.split_once('_').unwrap_or((stem, ""));
    let kind = pod.rsplit_once('-').map_or(pod, |(kind, _)| kind);
    format!("{kind}_{container}")
}

async fn all_ready(client: &kube::Client, count: usize) -> bool {
    let api: Api<Node> = Api::all(client.clone());
    let Ok(nodes) = api.list(&ListParams::default()).await else { return false };
    let ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let tainted =
            node.spec.as_ref().is_some_and(|spec| spec.taints.as_ref().is_some_and(|taints| !taints.is_empty()));
        !tainted && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    nodes.items.iter().filter(ready).count() == count
}

/// A fresh folder; those of beds whose process is gone are removed, but for the last ones.
fn new_folder(beds: &Path, name: &str) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    std::fs::create_dir_all(beds)?;
    let mut dead: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(beds)?.flatten() {
        let path = entry.path();
        // Without an owner it is no bed, or one that is being made this moment.
        if std::fs::read_to_string(path.join("owner")).is_ok_and(|owner| !is_alive(&owner)) {
            dead.push((entry.metadata()?.modified()?, path));
        }
    }
    dead.sort();
    for (_, path) in dead.iter().rev().skip(KEPT_BEDS) {
        match std::fs::remove_dir_all(path) {
            // Another bed that starts now may sweep the same folder.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let dir = beds.join(format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("owner"), identity(std::process::id())?)?;
    Ok(dir)
}

/// Process id and start time: together they name one process for good, while ids come round again.
pub(crate) fn identity(pid: u32) -> Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold anything.
    let after_name = stat.rsplit_once(')').context("stat without a name")?.1;
    let started = after_name.split_whitespace().nth(19).context("stat without a start time")?;
    if after_name.trim_start().starts_with('Z') {
        bail!("process {pid} has ended");
    }
    Ok(format!("{pid} {started}"))
}

/// Whether the process that [`identity`] named still lives.
pub(crate) fn is_alive(identity_text: &str) -> bool {
    let pid = identity_text.split_whitespace().next().and_then(|pid| pid.parse().ok());
    pid.and_then(|pid| identity(pid).ok()).is_some_and(|now| now == identity_text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_of_one_process_only() {
        let me = identity(std::process::id()).unwrap();
        assert!(is_alive(&me));
        let (pid, started) = me.split_once(' ').unwrap();
        let earlier = started.parse::<u64>().unwrap() - 1;
        assert!(!is_alive(&format!("{pid} {earlier}")));
    }

    #[test]
    fn folders_of_dead_beds_are_swept() {
        let beds = tempfile::tempdir().unwrap();
        for i in 0..5 {
            let old = beds.path().join(format!("old-{i}"));
            std::fs::create_dir(&old).unwrap();
            std::fs::write(old.join("owner"), "1 18446744073709551615").unwrap();
        }
        std::fs::write(beds.path().join("up.log"), "").unwrap();
        std::fs::create_dir(beds.path().join("last-failure")).unwrap();
        let first = new_folder(beds.path(), "a").unwrap();
        let second = new_folder(beds.path(), "a").unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read_dir(beds.path()).unwrap().count(), KEPT_BEDS + 2 + 2, "what is no bed stays");
    }
}
