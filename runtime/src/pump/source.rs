//! Driving one watcher: pauses after errors, starting over where the watcher would not, and counting.

use super::fold::{Fold, Folded};
use super::{PumpConfig, SourceLabel, StageLabel, WATCH_TIMEOUT_MAX, WatchEvent, WatchStage};
use crate::api::told;
use crate::backoff::Backoff;
use crate::lease::LeaseState;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, InitialListStrategy, ListSemantic, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A page of a list that takes longer is given up, and the list begins again.
const LIST_STALL: Duration = Duration::from_secs(15);
/// Errors further apart than this are separate troubles: the pauses start again from the floor.
const QUIET: Duration = Duration::from_secs(60);
/// After so many refusals in a row to resume a watch the source lists anew: the resource version may be one that the
/// server will never know, for instance after etcd was restored, and the watcher would offer it for ever.
const REFUSALS_MAX: u32 = 4;
/// HTTP 410: the resource version is too old to resume from.
const GONE: u16 = 410;

/// One failure.
struct Trouble {
    stage: WatchStage,
    /// The source must list anew, because the watcher by itself would not.
    anew: bool,
    gone: bool,
}

type Events<K> = BoxStream<'static, watcher::Result<Event<DeserializeGuard<K>>>>;

pub(super) struct Source<K: 'static> {
    api: Api<DeserializeGuard<K>>,
    config: PumpConfig,
    events: Events<K>,
    fold: Fold<K>,
    backoff: Backoff,
    failed_at: Option<Instant>,
    refusals: u32,
    gone: bool,
    /// Term of the lease in which the last list began.
    term: u64,
}

impl<K> Source<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    pub(super) fn new(api: Api<DeserializeGuard<K>>, config: PumpConfig) -> Self {
        Self {
            events: open(&api, &config),
            fold: Fold::default(),
            backoff: Backoff::between(Backoff::FLOOR, config.pause_max, config.seed),
            failed_at: None,
            refusals: 0,
            gone: false,
            term: 0,
            api,
            config,
        }
    }

    /// The next event; waits through every trouble.
    pub(super) async fn next(&mut self) -> WatchEvent<K> {
        loop {
            let polled = tokio::select! {
                biased;
                term = begun(self.config.lease.clone(), self.term) => {
                    self.term = term;
                    self.reopen();
                    continue;
                }
                polled = self.poll() => polled,
            };
            let Some(result) = polled else {
                let text = format!("no page within {} s", LIST_STALL.as_secs());
                self.failed(Trouble { stage: WatchStage::List, anew: true, gone: false }, &text).await;
                continue;
            };
            match result {
                Ok(event) => {
                    if let Some(event) = self.fold(event) {
                        return event;
                    }
                }
                Err(error) => {
                    let trouble = self.judge(&error);
                    self.failed(trouble, &reason(&error)).await;
                }
            }
        }
    }

    /// Term of the lease in which the last list began; 0 before the first.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Starts over with a list.
    fn reopen(&mut self) {
        self.events = open(&self.api, &self.config);
        self.fold = Fold::default();
        self.refusals = 0;
    }

    /// `None`: a list stalled. An open watch needs no limit here: the watcher and the client bound its silence.
    async fn poll(&mut self) -> Option<watcher::Result<Event<DeserializeGuard<K>>>> {
        if self.fold.listing() {
            tokio::time::timeout(LIST_STALL, self.events.next()).await.ok()?
        } else {
            self.events.next().await
        }
    }

    fn fold(&mut self, event: Event<DeserializeGuard<K>>) -> Option<WatchEvent<K>> {
        let label = SourceLabel { source: self.config.source };
        match self.fold.push(event) {
            Folded::Nothing => None,
            Folded::Malformed(invalid) => {
                self.config.metrics.malformed.get_or_create(&label).inc();
                tracing::warn!(
                    source = self.config.source,
                    namespace = invalid.metadata.namespace.as_deref().unwrap_or_default(),
                    name = invalid.metadata.name.as_deref().unwrap_or_default(),
                    error = %invalid.error,
                    "Skipped a malformed object"
                );
                None
            }
            Folded::Emit(event) => {
                let counter = match &event {
                    WatchEvent::Reset(objects) => {
                        tracing::info!(source = self.config.source, objects = objects.len(), "Listed");
                        &self.config.metrics.relists
                    }
                    WatchEvent::Apply(_) | WatchEvent::Delete(_) => {
                        // Only these prove that the watch is open: a list that succeeds says nothing of it, and the two
                        // must not take turns without a pause.
                        self.calm();
                        &self.config.metrics.events
                    }
                };
                counter.get_or_create(&label).inc();
                self.refusals = 0;
                Some(event)
            }
        }
    }

    fn calm(&mut self) {
        self.backoff.reset();
        self.gone = false;
    }

    fn judge(&mut self, error: &watcher::Error) -> Trouble {
        let trouble = |stage| Trouble { stage, anew: false, gone: false };
        match error {
            watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion => trouble(WatchStage::List),
            watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
                self.refusals += 1;
                let gone = status.code == GONE;
                Trouble { stage: WatchStage::Open, anew: gone || self.refusals >= REFUSALS_MAX, gone }
            }
            watcher::Error::WatchStartFailed(_) => trouble(WatchStage::Open),
            watcher::Error::WatchError(status) => Trouble { gone: status.code == GONE, ..trouble(WatchStage::Stream) },
            watcher::Error::WatchFailed(_) => trouble(WatchStage::Stream),
        }
    }

    async fn failed(&mut self, trouble: Trouble, error: &str) {
        let Trouble { stage, anew, gone } = trouble;
        let label = StageLabel { source: self.config.source, stage };
        self.config.metrics.errors.get_or_create(&label).inc();
        if anew {
            self.reopen();
        }
        let quiet = self.failed_at.is_some_and(|at| at.elapsed() > QUIET);
        // A server that says "gone" is back: list soon, but the second time in a row no sooner than after any error.
        if quiet || (gone && !self.gone) {
            self.calm();
        }
        self.gone |= gone;
        self.failed_at = Some(Instant::now());
        let pause = self.backoff.next_delay();
        tracing::warn!(
            source = self.config.source,
            stage = ?stage,
            error,
            anew,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "Watch failed; trying again"
        );
        tokio::time::sleep(pause).await;
    }
}

/// Waits until this process begins a later term than `known`.
async fn begun(lease: Option<watch::Receiver<LeaseState>>, known: u64) -> u64 {
    if let Some(mut lease) = lease
        && let Ok(state) = lease.wait_for(|state| state.leading && state.term > known).await
    {
        return state.term;
    }
    std::future::pending().await
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => told(source),
        watcher::Error::WatchError(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn open<K>(api: &Api<DeserializeGuard<K>>, config: &PumpConfig) -> Events<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let timeout = config.watch_timeout.clamp(Duration::from_secs(1), WATCH_TIMEOUT_MAX);
    let config = watcher::Config {
        label_selector: config.label_selector.clone(),
        field_selector: config.field_selector.clone(),
        timeout: u32::try_from(timeout.as_secs()).ok(),
        // Quorum reads: a list from a stale replica would take back what was already seen.
        list_semantic: ListSemantic::MostRecent,
        initial_list_strategy: InitialListStrategy::ListWatch,
        page_size: Some(config.page_size.max(1)),
        bookmarks: true,
    };
    watcher(api.clone(), config).boxed()
}
