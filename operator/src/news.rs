//! What the watches bring, in one channel for the one task that owns the model.
use fairlead_cluster::Change;
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
use fairlead_runtime::pump::{self, PumpMetrics};
use fairlead_runtime::{DeserializeGuard, PumpConfig, Readiness, WatchEvent};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use tokio::sync::mpsc;
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
    sender: mpsc::Sender<News>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches<'_> {
    fn start<K>(&mut self, source: &'static str, wrap: fn(WatchEvent<K>) -> News)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let config = PumpConfig::new(source, self.seed).metrics(self.metrics);
        let ready = self.readiness.register(format!("watch {source}"));
        self.tasks.push(pump::spawn(api, config, ready, self.sender.clone(), wrap, self.shutdown.clone()));
    }
}

/// Starts all watches; their tasks run until `shutdown`, and whoever starts them looks after them.
#[must_use]
pub fn watch_all(
    client: &Client,
    readiness: &Readiness,
    metrics: &PumpMetrics,
    seed: u64,
    shutdown: &CancellationToken,
) -> (mpsc::Receiver<News>, Vec<JoinHandle<()>>) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let shutdown = shutdown.clone();
    let mut watches = Watches { client, readiness, metrics, seed, sender, shutdown, tasks: Vec::new() };
    watches.start("nodes", News::Node);
    watches.start("pods", News::Pod);
    watches.start("namespaces", News::Namespace);
    watches.start("tenantquotas", News::Quota);
    watches.start("nodetopologies", News::Topology);
    watches.start("workerpools", News::Pool);
    watches.start("horizontalpodautoscalers", News::Autoscaler);
    (receiver, watches.tasks)
}
