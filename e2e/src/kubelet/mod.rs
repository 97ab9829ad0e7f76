//! The kubelet of our own release's pods: a host process for each container, run as its pod says.

mod container;
mod environment;
mod host;
mod images;
mod pod;
mod probe;
mod rewrite;
mod runtime;
mod status;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use self::container::PodContext;
use self::rewrite::PortMap;
use self::runtime::Runtimes;
use self::status::{Addresses, Board};
use crate::RELEASE_NAMESPACE;
use crate::parts::Parts;
use crate::processes::Process;

/// A container whose process runs now.
#[derive(Clone, Debug)]
pub struct Running {
    /// Pod name, in the release's namespace.
    pub pod: String,
    /// Container name.
    pub container: String,
    /// Node that the pod is bound to.
    pub node: String,
    /// File name of the program, e.g. `fairlead-operator`.
    pub program: String,
    /// Process id.
    pub pid: i32,
    process: Arc<Process>,
}

impl Running {
    /// The log of this container; restarts append to it.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }
}

/// What all pods of the kubelet share.
pub(crate) struct Shared {
    pub(crate) client: kube::Client,
    pub(crate) parts: Parts,
    pub(crate) dir: PathBuf,
    pub(crate) api_url: String,
    pub(crate) runtimes: Runtimes,
    running: Mutex<BTreeMap<(String, String), Running>>,
    ports: Mutex<BTreeMap<String, PortMap>>,
}

/// Takes a container off the list when its run is over, also when its task is aborted.
pub(crate) struct Listed {
    shared: Arc<Shared>,
    key: (String, String),
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Ok(mut running) = self.shared.running.lock() {
            running.remove(&self.key);
        }
    }
}

impl Shared {
    pub(crate) fn list(self: &Arc<Self>, running: Running) -> Listed {
        let key = (running.pod.clone(), running.container.clone());
        if let Ok(mut list) = self.running.lock() {
            list.insert(key.clone(), running);
        }
        Listed { shared: self.clone(), key }
    }
}

/// The harness kubelet. It runs every pod of [`RELEASE_NAMESPACE`] that is bound to a node without a kubelet of its own.
pub struct Kubelet {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
    following: JoinHandle<()>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Kubelet {
    /// Starts watching. `client` must be allowed what kubelets are; logs go to `dir/logs`, files of pods to `dir/kubelet`.
    /// Files under `dir/nodes/NODE/PATH` stand for the node's own in hostPath volumes. Pods of `genuine_nodes` are left to them.
    #[must_use]
    pub fn start(parts: &Parts, dir: &Path, api_url: &str, client: kube::Client, genuine_nodes: &[String]) -> Self {
        let shared = Arc::new(Shared {
            client,
            parts: parts.clone(),
            dir: dir.to_owned(),
            api_url: api_url.to_owned(),
            runtimes: Runtimes::default(),
            running: Mutex::default(),
            ports: Mutex::default(),
        });
        let following = {
            let shared = shared.clone();
            tokio::spawn(async move { shared.runtimes.follow(shared.client.clone()).await })
        };
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let others: Vec<String> = genuine_nodes.iter().map(|node| format!(",spec.nodeName!={node}")).collect();
        let watch = Watch {
            shared: shared.clone(),
            tasks: tasks.clone(),
            fields: format!("spec.nodeName!={}", others.concat()),
            pods: BTreeMap::new(),
            begun: AtomicUsize::new(0),
        };
        let watching = tokio::spawn(watch.run());
        Self { shared, watching, following, tasks }
    }

    /// All containers that run now.
    #[must_use]
    pub fn running(&self) -> Vec<Running> {
        self.shared.running.lock().map(|running| running.values().cloned().collect()).unwrap_or_default()
    }

    /// Sends a signal to the processes that `pick` chooses; returns how many. SIGKILL is a crash: the container is
    /// restarted by its policy. SIGSTOP and SIGCONT make a process that hangs for a while.
    pub fn signal(&self, signal: Signal, pick: impl Fn(&Running) -> bool) -> usize {
        let chosen: Vec<Running> = self.running().into_iter().filter(pick).collect();
        chosen.iter().for_each(|running| running.process.signal(signal));
        chosen.len()
    }

    /// kill -9 of every process of one of our programs, e.g. `fairlead-extender`; returns how many there were.
    pub fn kill(&self, program: &str) -> usize {
        self.signal(Signal::KILL, |running| running.program == program)
    }

    /// Where `127.0.0.1:port` of a pod really listens.
    #[must_use]
    pub fn host_port(&self, pod: &str, port: u16) -> Option<u16> {
        self.shared.ports.lock().ok()?.get(pod)?.0.get(&port).copied()
    }

    /// Stops all processes; nothing is reported to the API server any more.
    pub async fn stop(&self, grace: Duration) {
        self.watching.abort();
        let running = self.running();
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.drain(..).for_each(|task| task.abort());
        }
        let all: Vec<_> = running.into_iter().map(|running| running.process).collect();
        futures::future::join_all(all.iter().map(|process| process.stop(grace))).await;
        self.following.abort();
        self.shared.runtimes.stop();
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.watching.abort();
        self.following.abort();
        self.shared.runtimes.stop();
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.drain(..).for_each(|task| task.abort());
        }
    }
}

struct Handle {
    deletion: watch::Sender<Option<Duration>>,
    task: AbortHandle,
}

struct Watch {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
    /// Selects the pods to run.
    fields: String,
    /// By UID.
    pods: BTreeMap<String, Handle>,
    /// How many were begun: numbers their addresses.
    begun: AtomicUsize,
}

impl Watch {
    async fn run(mut self) {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), RELEASE_NAMESPACE);
        let config = watcher::Config::default().fields(&self.fields);
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => {
                    listed.extend(pod.uid());
                    self.seen(pod);
                }
                Ok(Event::InitDone) => self.keep(&listed),
                Ok(Event::Apply(pod)) => self.seen(pod),
                Ok(Event::Delete(pod)) => self.gone(&pod.uid().unwrap_or_default()),
                Err(error) => tracing::debug!(%error, "pods are not being watched, trying again"),
            }
        }
    }

    fn seen(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        });
        if !self.pods.contains_key(&uid) {
            match self.begin(pod) {
                Ok(handle) => drop(self.pods.insert(uid.clone(), handle)),
                Err(error) => return tracing::warn!(%error, "a pod cannot be run"),
            }
        }
        if let Some(handle) = self.pods.get(&uid).filter(|_| grace.is_some()) {
            handle.deletion.send_if_modified(|known| {
                known.is_none() && {
                    *known = grace;
                    true
                }
            });
        }
    }

    fn begin(&self, pod: Pod) -> Result<Handle> {
        let names = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let board = Board::new(names.map(|container| container.name.clone()));
        let ports = PortMap::for_pod(&pod)?;
        if let Ok(mut all) = self.shared.ports.lock() {
            all.insert(pod.name_any(), ports.clone());
        }
        let uid = pod.uid().unwrap_or_default();
        let dir = self.shared.dir.join("kubelet").join(format!("{}_{}", pod.name_any(), uid.get(..8).unwrap_or(&uid)));
        std::fs::create_dir_all(&dir)?;
        let count = self.begun.fetch_add(1, Ordering::Relaxed);
        let addresses = Addresses {
            // Nobody listens there; EndpointSlices refuse the loopback addresses that are really used.
            pod_ip: format!("10.245.{}.{}", count / 250 % 250, count % 250 + 1),
            host_ip: "10.1.0.1".to_owned(),
        };
        let (deletion, asked) = watch::channel(None);
        let context = Arc::new(PodContext { shared: self.shared.clone(), pod, dir, ports, board, addresses });
        let task = tokio::spawn(pod::live(context, asked)).abort_handle();
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.retain(|task| !task.is_finished());
            tasks.push(task.clone());
        }
        Ok(Handle { deletion, task })
    }

    fn gone(&mut self, uid: &str) {
        if let Some(handle) = self.pods.remove(uid) {
            handle.task.abort();
        }
    }

    fn keep(&mut self, listed: &BTreeSet<String>) {
        let lost: Vec<String> = self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        lost.iter().for_each(|uid| self.gone(uid));
    }
}
