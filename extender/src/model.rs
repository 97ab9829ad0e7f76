//! The one task that owns the model: it swallows what the watches and the binds tell it and publishes snapshots.
//!
//! Everything that is queued is applied before the next snapshot is published, so that a burst costs one snapshot and
//! not one each.
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fairlead_cluster::{Change, Event, Model, Snapshot};
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool};
use fairlead_placement::Promise;
use fairlead_runtime::{DeserializeGuard, Pulse, PumpConfig, Readiness, WatchEvent, pump, seed};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::ExtenderMetrics;

/// Messages that may wait for the task; a pump that finds the queue full waits, which the API server bears.
const QUEUE_MESSAGES: usize = 8192;
/// The task beats at least this often, also where nothing happens.
const BEAT: Duration = Duration::from_secs(5);
/// A task that is silent for this long is stuck: no list of any size takes so long to apply.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the task is told.
#[derive(Debug)]
pub enum Message {
    /// A watch saw something.
    Seen(Box<Event>),
    /// A patch answered with this NodePlacement, which the watch will show a little later.
    Written {
        /// As it is now.
        placement: Box<NodePlacement>,
        /// Told when a snapshot with it is published.
        published: oneshot::Sender<()>,
    },
    /// A bind is about to write something: the promise counts as held from now on.
    Assume {
        /// Which node.
        node: String,
        /// What is promised.
        promise: Box<Promise>,
        /// Told when a snapshot with it is published, if anybody waits for that.
        published: Option<oneshot::Sender<()>>,
    },
    /// That bind came to nothing.
    Forget {
        /// UID of the pod.
        pod_uid: String,
    },
}

/// A queue to the task.
#[must_use]
pub fn queue() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(QUEUE_MESSAGES)
}

/// Applies and publishes until the queue closes or `shutdown`.
pub async fn run(
    mut model: Model,
    mut inbox: mpsc::Receiver<Message>,
    published: Arc<ArcSwap<Snapshot>>,
    metrics: ExtenderMetrics,
    pulse: Pulse,
    shutdown: CancellationToken,
) {
    let mut batch = Vec::with_capacity(QUEUE_MESSAGES);
    loop {
        let count = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            count = tokio::time::timeout(BEAT, inbox.recv_many(&mut batch, QUEUE_MESSAGES)) => count,
        };
        pulse.beat();
        match count {
            Err(_) => continue,
            Ok(0) => return,
            Ok(_) => {}
        }
        let waiting: Vec<_> = batch.drain(..).filter_map(|message| apply(&mut model, message)).collect();
        let snapshot = model.snapshot();
        metrics.published(&snapshot);
        published.store(snapshot);
        for told in waiting {
            // Who asked may have run out of time.
            let _ = told.send(());
        }
    }
}

fn apply(model: &mut Model, message: Message) -> Option<oneshot::Sender<()>> {
    match message {
        Message::Seen(event) => model.apply(*event),
        Message::Assume { node, promise, published } => {
            model.assume(&node, *promise);
            return published;
        }
        Message::Forget { pod_uid } => model.forget(&pod_uid),
        Message::Written { placement, published } => {
            model.apply(Event::Written(*placement));
            return Some(published);
        }
    }
    None
}

/// Starts one watch for each kind that the model knows; each is an entry of `readiness` until its first list.
pub fn watch_everything(
    client: &Client,
    queue: &mpsc::Sender<Message>,
    readiness: &Readiness,
    metrics: &ExtenderMetrics,
    shutdown: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let watches = Watches { client, queue, readiness, metrics, shutdown, seed: seed::fresh() };
    vec![
        watches.start::<Node>("nodes", Event::Nodes),
        watches.start::<Pod>("pods", Event::Pods),
        watches.start::<Namespace>("namespaces", Event::Namespaces),
        watches.start::<TenantQuota>("tenantquotas", Event::Quotas),
        watches.start::<WorkerPool>("workerpools", Event::Pools),
        watches.start::<NodeTopology>("nodetopologies", Event::Topologies),
        watches.start::<NodePlacement>("nodeplacements", Event::Placements),
    ]
}

struct Watches<'a> {
    client: &'a Client,
    queue: &'a mpsc::Sender<Message>,
    readiness: &'a Readiness,
    metrics: &'a ExtenderMetrics,
    shutdown: &'a CancellationToken,
    seed: u64,
}

impl Watches<'_> {
    fn start<K>(&self, source: &'static str, event: fn(Change<K>) -> Event) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let api: Api<DeserializeGuard<K>> = Api::all(self.client.clone());
        let config = PumpConfig::new(source, self.seed).metrics(&self.metrics.pumps);
        let ready = self.readiness.register(format!("list {source}"));
        let wrap = move |seen| Message::Seen(Box::new(event(change(seen))));
        pump::spawn(api, config, ready, self.queue.clone(), wrap, self.shutdown.clone())
    }
}

fn change<K>(seen: WatchEvent<K>) -> Change<K> {
    match seen {
        WatchEvent::Reset(all) => Change::Reset(all),
        WatchEvent::Apply(object) => Change::Apply(object),
        WatchEvent::Delete(object) => Change::Delete(object),
    }
}
