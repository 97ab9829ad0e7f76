//! When each pod was created, ungated and bound, as one watch shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fairlead_crds::keys;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::task::JoinHandle;

/// Label of all pods that are watched.
pub(super) const LABEL: &str = "bench";

/// What was seen of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// First seen.
    pub(super) created: Instant,
    /// It was seen behind the gate.
    pub(super) gated: bool,
    /// First seen without the gate.
    pub(super) ungated: Option<Instant>,
    /// First seen with a node.
    pub(super) bound: Option<Instant>,
}

type Pods = Arc<Mutex<BTreeMap<String, Seen>>>;

/// A running watch over the pods with [`LABEL`]; dropping it ends it.
pub(super) struct Timeline {
    pods: Pods,
    task: JoinHandle<()>,
}

impl Timeline {
    /// Starts watching.
    pub(super) fn start(client: &kube::Client) -> Self {
        let pods = Pods::default();
        let task = tokio::spawn(watch(Api::all(client.clone()), pods.clone()));
        Self { pods, task }
    }

    /// All live pods.
    pub(super) fn pods(&self) -> Vec<Seen> {
        lock(&self.pods).values().copied().collect()
    }

    /// Waits until exactly `count` pods are there and all of them are as `holds` wants; gives them.
    pub(super) async fn all(
        &self,
        what: &str,
        count: usize,
        limit: Duration,
        holds: impl Fn(&Seen) -> bool,
    ) -> Result<Vec<Seen>> {
        let began = Instant::now();
        loop {
            let pods = self.pods();
            let there = pods.iter().filter(|seen| holds(seen)).count();
            if pods.len() == count && there == count {
                return Ok(pods);
            }
            if began.elapsed() > limit {
                bail!("not within {} s: {count} pods {what}; {there} of {} are", limit.as_secs(), pods.len());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(api: Api<Pod>, pods: Pods) {
    let config = watcher::Config::default().labels(LABEL);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let at = Instant::now();
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => take(&mut lock(&pods), &pod, at),
            Ok(Event::Delete(pod)) => drop(lock(&pods).remove(&pod.uid().unwrap_or_default())),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, "the watch was interrupted: times of this round are late"),
        }
    }
}

fn take(pods: &mut BTreeMap<String, Seen>, pod: &Pod, at: Instant) {
    let spec = pod.spec.as_ref();
    let gates = spec.and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
    let gated = gates.iter().any(|gate| gate.name == keys::QUOTA_GATE);
    let fresh = Seen { created: at, gated: false, ungated: None, bound: None };
    let seen = pods.entry(pod.uid().unwrap_or_default()).or_insert(fresh);
    seen.gated |= gated;
    if !gated {
        seen.ungated.get_or_insert(at);
    }
    if spec.is_some_and(|spec| spec.node_name.is_some()) {
        seen.bound.get_or_insert(at);
    }
}

fn lock(pods: &Pods) -> MutexGuard<'_, BTreeMap<String, Seen>> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}
