//! Leader election over a `coordination.k8s.io/v1` Lease: the driver that carries the requests of [`step`] out.
//!
//! The state flips to "not leading" by this process's own clock, before another candidate may lead. Ask
//! [`LeaseHandle::term`] right before each effect, and still give every effect a precondition: election is not fencing.

#[cfg(test)]
mod laws;
pub mod step;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use crate::api::{ApiError, deadline};
use crate::metrics::Metrics;
use crate::seed;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use std::time::Duration;
use step::{Event, Purpose, Record, Request, State, Timing, TimingError, Write, step};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const FIELD_MANAGER: &str = "fairlead-lease";

/// Which lease, who we are in it, and how long things last.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Unique among all processes that ever stand for this lease; see [`unique_identity`].
    pub identity: String,
    /// 15 s, 10 s and 2 s unless changed.
    pub timing: Timing,
    /// Decides the jitter.
    pub seed: u64,
    /// Where to count.
    pub metrics: LeaseMetrics,
}

impl LeaseConfig {
    /// The usual times, a fresh seed, no metrics page.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            timing: Timing::default(),
            seed: seed::fresh(),
            metrics: LeaseMetrics::default(),
        }
    }
}

/// `base` (the pod's name, say) with a random end: a restarted process is another candidate, because it does not know what
/// its predecessor still had under way.
#[must_use]
pub fn unique_identity(base: &str) -> String {
    format!("{base}_{:016x}", seed::fresh())
}

/// Counters of the election.
#[derive(Debug, Clone, Default)]
pub struct LeaseMetrics {
    leading: Gauge,
    terms: Counter,
    failures: Counter,
}

impl LeaseMetrics {
    /// Adds them to the process's page.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            leading: metrics.register("lease_leading", "1 while this process leads", Gauge::default()),
            terms: metrics.register("lease_terms", "Times this process began to lead", Counter::default()),
            failures: metrics.register(
                "lease_failures",
                "Reads and writes of the lease that failed, conflicts not counted",
                Counter::default(),
            ),
        }
    }
}

/// Whether this process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseState {
    /// As of the last change; [`LeaseState::term_now`] also looks at the clock.
    pub leading: bool,
    /// Grows with every time this process begins to lead; what was synced in an earlier term must not be trusted in this.
    pub term: u64,
    /// Leadership ends here unless it is renewed. Changes silently with each renewal: receivers are woken only when
    /// `leading` or `term` changes.
    pub until: Option<Instant>,
}

impl LeaseState {
    const IDLE: Self = Self { leading: false, term: 0, until: None };

    /// The term in which this process leads at this very moment.
    #[must_use]
    pub fn term_now(&self) -> Option<u64> {
        let in_time = self.until.is_some_and(|until| Instant::now() < until);
        (self.leading && in_time).then_some(self.term)
    }
}

/// A running candidature.
#[derive(Debug)]
pub struct LeaseHandle {
    state: watch::Receiver<LeaseState>,
    task: JoinHandle<()>,
}

impl LeaseHandle {
    /// To follow the changes. The channel closes when the candidature has ended, and then says "not leading".
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// The term in which this process leads at this very moment: ask right before each effect.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        self.state.borrow().term_now()
    }

    /// Waits until the candidature has ended, which is after the lease was given back; at most two calls' time after the
    /// token was cancelled.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(error = %error, "The lease task died");
        }
    }
}

/// Stands for the lease until `shutdown`, then gives it back. Cancel the token after the effects are flushed.
///
/// # Errors
/// Times that contradict each other.
pub fn run(client: kube::Client, config: LeaseConfig, shutdown: CancellationToken) -> Result<LeaseHandle, TimingError> {
    config.timing.check()?;
    let (sender, state) = watch::channel(LeaseState::IDLE);
    let driver = Driver {
        api: Api::namespaced(client, &config.namespace),
        publisher: Publisher { sender, metrics: config.metrics.clone() },
        origin: Instant::now(),
        config,
        shutdown,
    };
    Ok(LeaseHandle { state, task: tokio::spawn(driver.drive()) })
}

/// Says "not leading" when it is dropped, so that a task that died does not lead for ever.
struct Publisher {
    sender: watch::Sender<LeaseState>,
    metrics: LeaseMetrics,
}

impl Publisher {
    fn publish(&self, term: Option<u64>, until: Option<Instant>) {
        self.sender.send_if_modified(|state| {
            let next = LeaseState {
                leading: term.is_some(),
                term: term.unwrap_or(state.term),
                until: until.filter(|_| term.is_some()),
            };
            let changed = (state.leading, state.term) != (next.leading, next.term);
            *state = next;
            if changed {
                self.metrics.leading.set(i64::from(next.leading));
                if next.leading {
                    self.metrics.terms.inc();
                    tracing::info!(term = next.term, "Leading");
                } else {
                    tracing::info!(term = next.term, "No longer leading");
                }
            }
            changed
        });
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.publish(None, None);
    }
}

struct Driver {
    api: Api<Lease>,
    config: LeaseConfig,
    publisher: Publisher,
    origin: Instant,
    shutdown: CancellationToken,
}

impl Driver {
    async fn drive(self) {
        let mut state = State::new(self.config.seed);
        let mut event = Event::Tick;
        loop {
            let request;
            (state, request) = self.turn(&state, event);
            // A write that was decided on but not sent is forgotten: the stop decides anew.
            let stop = self.shutdown.is_cancelled() && !state.stopping();
            event = match request {
                _ if stop => Event::Stop,
                Request::Done => return,
                Request::Wait { until_ms } => self.wait(&state, until_ms).await,
                Request::Read => self.carry(&state, self.read()).await,
                Request::Write(write) => self.carry(&state, self.write(write)).await,
            };
        }
    }

    fn turn(&self, state: &State, event: Event) -> (State, Request) {
        let now_ms = self.now_ms();
        let (state, request) = step(&self.config.timing, &self.config.identity, state, now_ms, event);
        let until = state.leads_until_ms().map(|until_ms| self.at(until_ms));
        // A process that was told to go does not begin to lead, even if the answer that makes it the holder comes now.
        let term = state.term_at(now_ms).filter(|_| !self.shutdown.is_cancelled());
        self.publisher.publish(term, until);
        (state, request)
    }

    async fn wait(&self, state: &State, until_ms: u64) -> Event {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if !state.stopping() => Event::Stop,
            () = tokio::time::sleep_until(self.at(until_ms)) => Event::Tick,
        }
    }

    /// Leadership ends on time, and at a stop, also while a call hangs.
    async fn carry(&self, state: &State, call: impl Future<Output = Event>) -> Event {
        let mut call = std::pin::pin!(call);
        let over = async {
            let lapsed = async {
                match state.leads_until_ms() {
                    Some(until_ms) => tokio::time::sleep_until(self.at(until_ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = lapsed => {}
                () = self.shutdown.cancelled() => {}
            }
        };
        tokio::select! {
            biased;
            () = over => self.publisher.publish(None, None),
            event = &mut call => return event,
        }
        call.await
    }

    async fn read(&self) -> Event {
        let call = async { self.api.get_opt(&self.config.name).await };
        match deadline("read Lease", self.call_limit(), call).await {
            Ok(None) => Event::Read(None),
            Ok(Some(lease)) => record(lease).map_or(Event::Failed, |record| Event::Read(Some(record))),
            Err(error) => self.failed(&error),
        }
    }

    async fn write(&self, write: Write) -> Event {
        let body = self.body(&write);
        let call = async {
            match &write.expect {
                Some(_) => {
                    let params =
                        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                    self.api.patch(&self.config.name, &params, &Patch::Merge(&body)).await
                }
                None => {
                    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                    let lease = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
                    self.api.create(&params, &lease).await
                }
            }
        };
        match deadline("write Lease", self.call_limit(), call).await {
            Ok(lease) => record(lease).map_or(Event::Failed, Event::Written),
            // Not found: deleted since it was seen. Either way the record is not what was expected.
            Err(error) if error.is_conflict() || error.is_not_found() => Event::Conflict,
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &ApiError) -> Event {
        self.config.metrics.failures.inc();
        tracing::warn!(lease = %self.config.name, error = %error.chain(), "Lease call failed");
        Event::Failed
    }

    /// What is written: with the version it must replace in its metadata, the API server refuses it with 409 if somebody
    /// else wrote before.
    fn body(&self, write: &Write) -> Value {
        // For people who read the Lease; nothing of ours compares it.
        let now = json!(MicroTime(k8s_openapi::jiff::Timestamp::now()));
        let mut metadata = json!({ "name": self.config.name, "namespace": self.config.namespace });
        if let Some(version) = &write.expect {
            metadata["resourceVersion"] = json!(version);
        }
        let mut spec = json!({
            "holderIdentity": self.config.identity,
            "leaseDurationSeconds": self.config.timing.duration_ms.div_ceil(1000),
            "leaseTransitions": write.transitions,
            "renewTime": now,
        });
        match write.purpose {
            Purpose::Acquire => spec["acquireTime"] = now,
            Purpose::Renew => {}
            Purpose::Release => spec["holderIdentity"] = Value::Null,
        }
        json!({ "metadata": metadata, "spec": spec })
    }

    /// Three tries fit before the renew deadline.
    fn call_limit(&self) -> Duration {
        Duration::from_millis(self.config.timing.renew_deadline_ms / 3)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }
}

/// `None`: the server sent a lease without a version, which cannot be compared and swapped.
fn record(lease: Lease) -> Option<Record> {
    let spec = lease.spec.unwrap_or_default();
    Some(Record {
        version: lease.metadata.resource_version?,
        holder: spec.holder_identity.unwrap_or_default(),
        duration_ms: u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0) * 1000,
        transitions: u64::try_from(spec.lease_transitions.unwrap_or(0)).unwrap_or(0),
    })
}
