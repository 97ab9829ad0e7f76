//! What the watches bring, in one channel for the one task that owns the model.
use fairlead_cluster::Change;
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
use fairlead_runtime::pump::{self, PumpMetrics};
use fairlead_runtime::seed;
use fairlead_runtime::{DeserializeGuard, LeaseState, PumpConfig, Readiness, WatchEvent};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Events between watches and model: enough for a burst, small enough to push back on the watches.
const CHANNEL: usize = 4096;

/// One event of one watch.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, from the watch into the model")]
pub enum News {
    /// Nodes.
    Node(WatchEvent<Node>),
    /// Pods of all namespaces.
    Pod(WatchEvent<Pod>),
    /// Namespaces.
    Namespace(WatchEvent<Namespace>),
    /// TenantQuotas.
    Quota(WatchEvent<TenantQuota>),
    /// NodeTopologies.
    Topology(WatchEvent<NodeTopology>),
    /// WorkerPools.
    Pool(WatchEvent<WorkerPool>),
    /// HorizontalPodAutoscalers.
    Autoscaler(WatchEvent<HorizontalPodAutoscaler>),
}

/// News and the term of the lease in which the list behind it began: what is older than the term that lasts shows a
/// cluster that may have gone on without us.
#[derive(Debug)]
pub struct Dated {
    /// Term; 0 before the first.
    pub term: u64,
    /// What happened.
    pub news: News,
}

impl News {
    /// The kind of object, if this is all of it after a list.
    #[must_use]
    pub fn listed(&self) -> Option<Kind> {
        let (kind, listed) = match self {
            Self::Node(event) => (Kind::Node, is_reset(event)),
            Self::Pod(event) => (Kind::Pod, is_reset(event)),
            Self::Namespace(event) => (Kind::Namespace, is_reset(event)),
            Self::Quota(event) => (Kind::Quota, is_reset(event)),
            Self::Topology(event) => (Kind::Topology, is_reset(event)),
            Self::Pool(event) => (Kind::Pool, is_reset(event)),
            Self::Autoscaler(event) => (Kind::Autoscaler, is_reset(event)),
        };
        listed.then_some(kind)
    }
}

fn is_reset<K>(event: &WatchEvent<K>) -> bool {
    matches!(event, WatchEvent::Reset(_))
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Node,
    Pod,
    Namespace,
    Quota,
    Topology,
    Pool,
    Autoscaler,
}

/// The model's form of a watch event.
pub fn change<K>(event: WatchEvent<K>) -> Change<K> {
    match event {
        WatchEvent::Reset(all) => Change::Reset(all),
        WatchEvent::Apply(one) => Change::Apply(one),
        WatchEvent::Delete(one) => Change::Delete(one),
    }
}

struct Watches<'a> {
    client: &'a Client,
    readiness: &'a Readiness,
    metrics: &'a PumpMetrics,
    seed: u64,
    sender: mpsc::Sender<Dated>,
    lease: watch::Receiver<LeaseState>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches<'_> {
    fn start<K>(&mut self, source: &'static str, wrap: fn(WatchEvent<K>) -> News)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let config = PumpConfig::new(source, self.seed).metrics(self.metrics).lease(self.lease.clone());
        let ready = self.readiness.register(format!("watch {source}"));
        let wrap = move |event, term| Dated { term, news: wrap(event) };
        self.tasks.push(pump::spawn_dated(api, config, ready, self.sender.clone(), wrap, self.shutdown.clone()));
    }
}

/// Starts all watches; their tasks run until `shutdown`, and whoever starts them looks after them.
#[must_use]
pub fn watch_all(
    client: &Client,
    readiness: &Readiness,
    metrics: &PumpMetrics,
    lease: watch::Receiver<LeaseState>,
    shutdown: &CancellationToken,
) -> (mpsc::Receiver<Dated>, Vec<JoinHandle<()>>) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let (seed, shutdown) = (seed::fresh(), shutdown.clone());
    let mut watches = Watches { client, readiness, metrics, seed, sender, lease, shutdown, tasks: Vec::new() };
    watches.start("nodes", News::Node);
    watches.start("pods", News::Pod);
    watches.start("namespaces", News::Namespace);
    watches.start("tenantquotas", News::Quota);
    watches.start("nodetopologies", News::Topology);
    watches.start("workerpools", News::Pool);
    watches.start("horizontalpodautoscalers", News::Autoscaler);
    (receiver, watches.tasks)
}
