//! The watch pump: list and watch of one kind, folded into events that a synchronous model can swallow.
//!
//! `kube::runtime::Controller` is not used: it drains a randomly seeded set, so its order differs in every process. Here the
//! order is that of the API server, and the only randomness, the jitter of the pauses, comes from a seed.

mod fold;
mod source;
#[cfg(test)]
mod tests;

use crate::backoff::Backoff;
use crate::lease::LeaseState;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::seed;
use futures::Stream;
use kube::{Api, Resource};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Lets one malformed object fail alone instead of its whole list; `Api<DeserializeGuard<K>>` is what a pump takes.
pub use kube::core::DeserializeGuard;

/// Usual life of one watch request. The server ends it, after a last bookmark, and it is resumed from there without a
/// list; a connection that died silently (no reset came) is noticed at most 5 s later. The price is one cheap request a
/// watch in 20 s, answered from the server's watch cache: for the ten or so watches of an operator or extender, one in
/// two seconds. Processes that run on every node take more: see [`WATCH_TIMEOUT_MAX`].
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest life of one watch request: two watches each on 5,000 nodes are 170 requests a second.
pub const WATCH_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What happened to the objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent<K> {
    /// All there is, after a list: whatever is not in it is gone.
    Reset(Vec<K>),
    /// Created or changed.
    Apply(K),
    /// Deleted, in its last state.
    Delete(K),
}

/// What to watch and how.
#[derive(Debug, Clone)]
pub struct PumpConfig {
    /// Name of the source in metrics and logs, such as "pods".
    pub source: &'static str,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Only objects with these fields, such as "metadata.name=n1".
    pub field_selector: Option<String>,
    /// Objects per page of a list.
    pub page_size: u32,
    /// Life of one watch request, 1 s to [`WATCH_TIMEOUT_MAX`].
    pub watch_timeout: Duration,
    /// Longest pause after an error; [`Backoff::CEILING`] but for processes that run on every node.
    pub pause_max: Duration,
    /// Lists anew whenever this process begins to lead: a watch that was blind shows what was long ago.
    pub lease: Option<watch::Receiver<LeaseState>>,
    /// Decides the jitter of the pauses after errors.
    pub seed: u64,
    /// Where to count.
    pub metrics: PumpMetrics,
}

impl PumpConfig {
    /// Everything of the kind, pages of 500 as client-go takes, a watch of [`WATCH_TIMEOUT`], no metrics page. The
    /// seed is mixed with the name, so that the sources of one process do not pause in step.
    #[must_use]
    pub fn new(source: &'static str, seed: u64) -> Self {
        Self {
            source,
            label_selector: None,
            field_selector: None,
            page_size: 500,
            watch_timeout: WATCH_TIMEOUT,
            pause_max: Backoff::CEILING,
            lease: None,
            seed: seed::derive(seed, source),
            metrics: PumpMetrics::default(),
        }
    }

    /// Counts on the process's metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: &PumpMetrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Lists anew in each term of this lease.
    #[must_use]
    pub fn lease(mut self, lease: watch::Receiver<LeaseState>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Only objects with these labels.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    /// Only objects with these fields.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }
}

/// Label of a pump's counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// [`PumpConfig::source`].
    pub source: &'static str,
}

/// Where a watch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WatchStage {
    /// The list was refused, broke or took too long.
    List,
    /// The watch could not be opened.
    Open,
    /// The open watch broke, or the server sent an error on it.
    Stream,
}

/// Labels of the error counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    /// [`PumpConfig::source`].
    pub source: &'static str,
    /// Where it failed.
    pub stage: WatchStage,
}

/// Counters that all pumps of a process share.
#[derive(Debug, Clone, Default)]
pub struct PumpMetrics {
    relists: Family<SourceLabel, Counter>,
    events: Family<SourceLabel, Counter>,
    malformed: Family<SourceLabel, Counter>,
    errors: Family<StageLabel, Counter>,
}

impl PumpMetrics {
    /// Adds the counters to the process's page.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            relists: metrics.register("watch_relists", "Complete lists taken, the first included", Family::default()),
            events: metrics.register("watch_events", "Changes seen between lists", Family::default()),
            malformed: metrics.register(
                "watch_malformed_objects",
                "Objects skipped because they do not fit their kind",
                Family::default(),
            ),
            errors: metrics.register("watch_errors", "Failures of lists and watches", Family::default()),
        }
    }
}

/// Lists and watches for ever: a [`WatchEvent::Reset`] first, again after every relist; errors are logged, counted and
/// paused on, never passed up. Write `pump::watch::<Pod>(Api::all(client), config)`.
///
/// A malformed object is skipped, logged and counted. One that was good before stays as it last was until the next list.
pub fn watch<K>(api: Api<DeserializeGuard<K>>, config: PumpConfig) -> impl Stream<Item = WatchEvent<K>> + Send
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    futures::stream::unfold(source::Source::new(api, config), |mut source| async move {
        let event = source.next().await;
        Some((event, source))
    })
}

/// Runs [`watch`] in a task that sends into `events`, each event turned by `wrap` into the receiver's own type.
/// Releases `ready` when the first Reset is in the channel; ends on `shutdown` or when the receiver is gone.
pub fn spawn<K, E>(
    api: Api<DeserializeGuard<K>>,
    config: PumpConfig,
    ready: ReadinessHandle,
    events: mpsc::Sender<E>,
    wrap: impl Fn(WatchEvent<K>) -> E + Send + 'static,
    shutdown: CancellationToken,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    E: Send + 'static,
{
    spawn_dated(api, config, ready, events, move |event, _term| wrap(event), shutdown)
}

/// [`spawn`] with [`PumpConfig::lease`]: `wrap` is also given the term in which the list behind the event began.
pub fn spawn_dated<K, E>(
    api: Api<DeserializeGuard<K>>,
    config: PumpConfig,
    ready: ReadinessHandle,
    events: mpsc::Sender<E>,
    wrap: impl Fn(WatchEvent<K>, u64) -> E + Send + 'static,
    shutdown: CancellationToken,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    E: Send + 'static,
{
    let pump = async move {
        let mut source = source::Source::new(api, config);
        loop {
            let event = source.next().await;
            let reset = matches!(event, WatchEvent::Reset(_));
            if events.send(wrap(event, source.term())).await.is_err() {
                return;
            }
            if reset {
                ready.ready();
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = pump => {}
        }
    })
}
