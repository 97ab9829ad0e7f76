//! The task of one pool: a turn with each new answer of its queue.
use super::hold::Hold;
use super::judge::{self, Findings, Pace, Refusal, Tenancy, why};
use super::orders::{Limits, Order, Orders};
use super::queue::sampler::{self, Sampling};
use super::queue::{self, Judgement, SourceState};
use super::report::{PoolReport, PoolReports};
use super::selector::selects;
use super::target::{ScaleView, TargetError, Targets};
use crate::book::add;
use crate::clock::now_ms;
use crate::metrics::{OperatorMetrics, ScaleOutcome};
use crate::objects::PoolKey;
use crate::status::apply_body;
use crate::status::writer::{params, reference};
use crate::view::View;
use fairlead_crds::keys::{manager, reason};
use fairlead_crds::worker_pool::QueueSource;
use fairlead_crds::{WorkerPool, WorkerPoolStatus};
use fairlead_fairshare::ResourceVector;
use fairlead_fairshare::protocol::Standing;
use fairlead_runtime::{API_DEADLINE, EventRecorder, Fact, LeaseState, Severity, deadline};
use fairlead_scaling::{Backlog, Decision, DownWindow, Estimator, Hold as Held, Observation, catch_up};
use kube::api::Patch;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The scale is read again after this time: a write carries a `test`, so a look is only needed to notice others.
const SCALE_MS: u64 = 5_000;
/// So often the pod template is read again.
const TEMPLATE_MS: u64 = 10_000;

/// What all pools share.
pub struct Shared {
    /// Client.
    pub client: Client,
    /// The workloads.
    pub targets: Targets,
    /// What all pools ordered.
    pub orders: Orders,
    /// What all pools decided.
    pub reports: PoolReports,
    /// Queues.
    pub sampling: Sampling,
    /// Events.
    pub events: EventRecorder,
    /// Who leads.
    pub lease: watch::Receiver<LeaseState>,
    /// Counters.
    pub metrics: OperatorMetrics,
}

/// The task of one pool.
pub struct PoolTask {
    key: PoolKey,
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<View>>,
    sources: Vec<QueueSource>,
    samplers: Vec<watch::Receiver<SourceState>>,
    stop_samplers: CancellationToken,
    /// Which source the last sample came from: counters of two sources have nothing to do with each other.
    used_source: Option<usize>,
    estimator: Estimator,
    window: DownWindow,
    hold: Hold,
    scale: Option<(ScaleView, u64)>,
    target_fault: Option<Refusal>,
    per_pod: Option<ResourceVector>,
    template_at_ms: u64,
    pace: Pace,
}

/// The pods of a pool as the watch shows them.
#[derive(Debug, Default)]
struct OwnPods {
    ready: u32,
    counted: ResourceVector,
}

impl PoolTask {
    /// A task that knows nothing yet.
    #[must_use]
    pub fn new(key: PoolKey, shared: Arc<Shared>, view: watch::Receiver<Arc<View>>) -> Self {
        Self {
            key,
            shared,
            view,
            sources: Vec::new(),
            samplers: Vec::new(),
            stop_samplers: CancellationToken::new(),
            used_source: None,
            estimator: Estimator::new(),
            window: DownWindow::new(),
            hold: Hold::default(),
            scale: None,
            target_fault: None,
            per_pod: None,
            template_at_ms: 0,
            pace: Pace::default(),
        }
    }

    /// Runs until `stop`; a turn that has begun is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let view = self.view.borrow().clone();
            let Some(pool) = view.objects.pools.get(&self.key).cloned() else { break };
            self.turn(&view, &pool).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.next_answer() => {}
            }
        }
        self.stop_samplers.cancel();
        self.shared.orders.forget(&self.key);
        self.shared.reports.remove(&self.key);
    }

    /// Until a source has something new, but no longer than a while: other things change too.
    async fn next_answer(&mut self) {
        let longest = tokio::time::sleep(self.shared.sampling.period * 2);
        let answers = self.samplers.iter_mut().map(|source| Box::pin(source.changed()));
        let answers: Vec<_> = answers.collect();
        if answers.is_empty() {
            return longest.await;
        }
        tokio::select! {
            (ended, _, _) = futures::future::select_all(answers) => {
                if ended.is_err() {
                    // A sampler that died gives no reason to spin.
                    tokio::time::sleep(self.shared.sampling.period).await;
                }
            }
            () = longest => {}
        }
    }

    async fn turn(&mut self, view: &View, pool: &WorkerPool) {
        self.follow_spec(pool);
        self.read_target(pool).await;
        let now_ms = now_ms();
        let judgement = self.judge_queue(now_ms);
        let own = self.own_pods(view);
        self.observe(now_ms, &judgement, own.ready);
        let mut refusal = self.refusal(view, pool, now_ms);
        let decided = self.decide(view, pool, now_ms, &own, refusal.is_none());
        if let (None, Some((from, decision, _))) = (&refusal, &decided)
            && decision.replicas != *from
            && self.shared.lease.borrow().term_now() == Some(view.term)
        {
            refusal = self.order(pool, *from, decision).await;
        }
        self.publish(view, pool, &judgement, refusal, decided.map(|(_, decision, cap)| (decision, cap)), own.ready)
            .await;
    }

    fn follow_spec(&mut self, pool: &WorkerPool) {
        if self.sources == pool.spec.queue_sources {
            return;
        }
        self.stop_samplers.cancel();
        self.stop_samplers = CancellationToken::new();
        self.sources.clone_from(&pool.spec.queue_sources);
        let start =
            |source| sampler::start(&self.shared.sampling, &self.key.namespace, source, self.stop_samplers.clone());
        self.samplers = self.sources.iter().map(start).collect();
    }

    /// Reads scale and template where what is known of them is old.
    async fn read_target(&mut self, pool: &WorkerPool) {
        let (namespace, target) = (&self.key.namespace, &pool.spec.scale_target_ref);
        let old = |at_ms: u64, limit: u64| now_ms().saturating_sub(at_ms) >= limit;
        if self.scale.as_ref().is_none_or(|(_, at_ms)| old(*at_ms, SCALE_MS)) {
            match self.shared.targets.scale(namespace, target).await {
                Ok(scale) => {
                    self.hold.see(now_ms(), scale.replicas);
                    self.scale = Some((scale, now_ms()));
                    self.target_fault = None;
                }
                Err(error) => {
                    if matches!(error, TargetError::NotFound { .. } | TargetError::NoSuchKind { .. }) {
                        self.scale = None;
                        self.shared.targets.forget(target);
                    }
                    self.target_fault = Some(target_refusal(&error));
                }
            }
        }
        if self.target_fault.is_none() && old(self.template_at_ms, TEMPLATE_MS) {
            self.template_at_ms = now_ms();
            match self.shared.targets.pod_request(namespace, target).await {
                Ok(Some(request)) => self.per_pod = Some(request),
                Ok(None) => self.per_pod = Some(ResourceVector::from([(fairlead_fairshare::PODS.to_owned(), 1)])),
                Err(error) => tracing::warn!(pool = %self.key, %error, "The pod template was not read"),
            }
        }
    }

    fn judge_queue(&mut self, now_ms: u64) -> Judgement {
        let stale = |source: &QueueSource| u64::try_from(source.stale_after_seconds).unwrap_or(1).max(1) * 1000;
        let states: Vec<(u64, SourceState)> = self
            .sources
            .iter()
            .zip(&mut self.samplers)
            .map(|(source, state)| (stale(source), state.borrow_and_update().clone()))
            .collect();
        queue::judge(&states, now_ms)
    }

    fn observe(&mut self, now_ms: u64, judgement: &Judgement, ready: u32) {
        let used = judgement.used.map(|(index, _)| index);
        let same = used == self.used_source || used.is_none();
        let counters = judgement.used.filter(|_| same).map(|(_, sample)| sample);
        self.used_source = used.or(self.used_source);
        let (added_total, done_total) =
            (counters.and_then(|sample| sample.added_total), counters.and_then(|sample| sample.done_total));
        self.estimator.observe(now_ms, &Observation { backlog: &judgement.backlog, added_total, done_total, ready });
    }

    fn own_pods(&self, view: &View) -> OwnPods {
        let mut own = OwnPods::default();
        let (Some((scale, _)), Some(pods)) = (&self.scale, view.pods.get(&self.key.namespace)) else { return own };
        let releasing = view.tenant_of(&self.key.namespace).map(|(_, facts)| &facts.releasing);
        for note in pods.values().filter(|note| selects(scale.selector.as_ref(), &note.labels)) {
            let ended = note.view.standing == Standing::Ended;
            own.ready += u32::from(note.ready && !ended);
            if note.view.standing == Standing::Released || releasing.is_some_and(|uids| uids.contains(&note.uid)) {
                add(&mut own.counted, &note.request);
            }
        }
        own
    }

    fn refusal(&self, view: &View, pool: &WorkerPool, now_ms: u64) -> Option<Refusal> {
        if let Some(message) = judge::rival(&self.key, pool, &view.objects.pools, &view.objects.autoscaled) {
            return Some(Refusal::no(reason::SCALE_CONFLICT, message));
        }
        if let Some(fault) = &self.target_fault {
            return Some(fault.clone());
        }
        let tenant = view.snapshot.tenant_of_namespace(&self.key.namespace);
        if let Some(error) = tenant.and_then(|name| view.snapshot.tenants.get(name)).and_then(|t| t.error.as_ref()) {
            return Some(Refusal::no(why::QUOTA_INVALID, format!("the tenant's limits cannot be read: {error}")));
        }
        if self.per_pod.is_none() {
            let message = "what one pod asks for is not known yet".to_owned();
            return Some(Refusal { status: None, reason: why::UNREAD, message });
        }
        self.hold
            .held_until(now_ms)
            .map(|_| Refusal::no(why::HELD, "somebody else changed the replicas; the change stands for a minute"))
    }

    /// The replicas there are, the decision, and the cap; `None` before the target was read.
    fn decide(
        &mut self,
        view: &View,
        pool: &WorkerPool,
        now_ms: u64,
        own: &OwnPods,
        may_order: bool,
    ) -> Option<(u32, Decision, Option<u32>)> {
        let current = self.scale.as_ref()?.0.replicas;
        let config = judge::config(&pool.spec);
        let tenant = view.tenant_of(&self.key.namespace);
        let per_pod = self.per_pod.clone()?;
        let order = Order {
            tenant: tenant.map(|(name, _)| name.to_owned()).unwrap_or_default(),
            replicas: current,
            per_pod,
            counted: own.counted.clone(),
        };
        let limits = tenant.map(|(_, facts)| Limits { hard: &facts.hard, used: &facts.used });
        let (estimator, window) = (&self.estimator, &mut self.window);
        let (decision, cap) = self.shared.orders.place(&self.key, order, limits, |cap| {
            let decision = catch_up(&config, estimator, window, now_ms, current, own.ready, cap);
            (if may_order { decision.replicas.max(current) } else { current }, (decision, cap))
        });
        Some((current, decision, cap))
    }

    async fn order(&mut self, pool: &WorkerPool, from: u32, decision: &Decision) -> Option<Refusal> {
        let to = decision.replicas;
        let target = &pool.spec.scale_target_ref;
        match self.shared.targets.order(&self.key.namespace, target, from, to).await {
            Ok(()) => {
                self.shared.metrics.scaled(ScaleOutcome::Written);
                self.hold.wrote(to);
                if let Some((scale, at_ms)) = &mut self.scale {
                    scale.replicas = to;
                    *at_ms = now_ms();
                }
                tracing::info!(pool = %self.key, from, to, "Scaled");
                self.tell(pool, Severity::Normal, "Scaled", scaled_text(from, decision));
                None
            }
            Err(error) => {
                let conflict = matches!(error, TargetError::Conflict { .. });
                self.shared.metrics.scaled(if conflict { ScaleOutcome::Conflict } else { ScaleOutcome::Failed });
                if matches!(error, TargetError::Api { outcome_unknown: true, .. }) {
                    self.hold.may_have_written(to);
                }
                tracing::warn!(pool = %self.key, from, to, %error, "Not scaled");
                // Whatever it was: the next turn looks at the scale as it is.
                if let Some((_, at_ms)) = &mut self.scale {
                    *at_ms = 0;
                }
                (!conflict).then(|| target_refusal(&error))
            }
        }
    }

    async fn publish(
        &mut self,
        view: &View,
        pool: &WorkerPool,
        judgement: &Judgement,
        refusal: Option<Refusal>,
        decided: Option<(Decision, Option<u32>)>,
        ready: u32,
    ) {
        let now_ms = now_ms();
        let ordered = self.scale.as_ref().map_or(0, |(scale, _)| scale.replicas);
        let (decision, quota) = decided.unzip();
        let quota = quota.flatten();
        let tenancy = if view.tenant_of(&self.key.namespace).is_some() { Tenancy::Some } else { Tenancy::None };
        let findings = Findings {
            refusal,
            backlog: judgement.backlog,
            queue_message: &judgement.message,
            tenancy,
            decision: decision.as_ref(),
            quota,
            ordered,
            ready,
        };
        let backlog = match judgement.backlog {
            Backlog::Known { length, in_flight, .. } => Some((length, in_flight)),
            Backlog::Unknown { .. } => None,
        };
        let wanted = decision.filter(|_| backlog.is_some()).map(|decision| decision.wanted);
        let report = PoolReport { wanted, ordered, ready, quota, backlog, decision };
        self.shared.reports.put(&self.key, report);
        let known = self.pace.known(pool.status.as_ref(), now_ms).cloned().unwrap_or_default();
        let status = judge::status(&findings, &known.conditions, pool.metadata.generation, now_ms);
        let leads = self.shared.lease.borrow().term_now() == Some(view.term);
        if leads && self.pace.is_due(pool.status.as_ref(), &status, now_ms) {
            self.tell_changes(pool, &known, &status);
            self.write_status(pool, status, now_ms).await;
        }
    }

    async fn write_status(&mut self, pool: &WorkerPool, status: WorkerPoolStatus, now_ms: u64) {
        let PoolKey { namespace, name } = &self.key;
        let api: Api<WorkerPool> = Api::namespaced(self.shared.client.clone(), namespace);
        let body = apply_body("WorkerPool", Some(namespace), name, pool.metadata.uid.as_deref(), &status);
        let params = params(manager::POOL_STATUS);
        let write = deadline("write status", API_DEADLINE, api.patch_status(name, &params, &Patch::Apply(&body))).await;
        match write {
            Ok(_) => self.pace.wrote(status, now_ms),
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(pool = %self.key, error = %error.chain(), "Status was not written");
                // Not at once again.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// A condition that turned bad is an event.
    fn tell_changes(&self, pool: &WorkerPool, before: &WorkerPoolStatus, after: &WorkerPoolStatus) {
        for now in &after.conditions {
            let was = before.conditions.iter().find(|c| c.type_ == now.type_);
            let same = was.is_some_and(|was| (&was.status, &was.reason) == (&now.status, &now.reason));
            let bad = match now.type_.as_str() {
                fairlead_crds::keys::condition::LIMITED_BY_QUOTA => now.status == "True",
                _ => now.status == "False" && now.reason != why::QUEUE_UNKNOWN,
            };
            if bad && !same {
                self.tell(pool, Severity::Warning, &now.reason, now.message.clone());
            }
        }
    }

    fn tell(&self, pool: &WorkerPool, severity: Severity, reason: &str, message: String) {
        self.shared.events.record(Fact {
            regarding: reference(pool, "WorkerPool"),
            severity,
            reason: reason.to_owned(),
            action: "Scale".to_owned(),
            message,
        });
    }
}

fn target_refusal(error: &TargetError) -> Refusal {
    let message = error.to_string();
    match error {
        TargetError::NoSuchKind { .. } | TargetError::NotFound { .. } => Refusal::no(reason::TARGET_NOT_FOUND, message),
        TargetError::Forbidden { .. } => Refusal::no(why::FORBIDDEN, message),
        _ => Refusal { status: None, reason: why::UNREAD, message },
    }
}

/// Why the replicas changed, for people.
fn scaled_text(from: u32, decision: &Decision) -> String {
    if let Some(Held::Unknown(why)) = decision.hold {
        let to = decision.replicas;
        return format!(
            "replicas from {from} to {to}, the pool's own bounds; the backlog is unknown ({})",
            why.as_str()
        );
    }
    let terms = &decision.terms;
    let per_second = |milli: u64| format!("{}.{}", milli / 1000, milli % 1000 / 100);
    let arrivals = terms.arrivals_milli.map_or_else(|| "unknown".to_owned(), |rate| format!("{}/s", per_second(rate)));
    let limited = decision.limited_by.map_or(String::new(), |limit| format!(", limited by {}", limit.as_str()));
    format!(
        "replicas from {from} to {}: backlog {}, arrivals {arrivals}, one worker {}/s{limited}",
        decision.replicas,
        terms.length.saturating_add(terms.in_flight),
        per_second(terms.service_milli)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_scaling::{Limit, Terms, UnknownReason};

    #[test]
    fn the_event_says_why() {
        let terms = Terms { arrivals_milli: Some(102_500), service_milli: 10_000, length: 40, ..Terms::default() };
        let decision = Decision { wanted: 30, replicas: 20, limited_by: Some(Limit::Quota), hold: None, terms };
        assert_eq!(
            scaled_text(4, &decision),
            "replicas from 4 to 20: backlog 40, arrivals 102.5/s, one worker 10.0/s, limited by Quota"
        );
        let unknown = Decision { hold: Some(Held::Unknown(UnknownReason::Unreachable)), replicas: 2, ..decision };
        let text = scaled_text(0, &unknown);
        assert!(text.contains("unknown (Unreachable)") && !text.contains("backlog 0"), "{text}");
    }

    #[test]
    fn target_errors_become_reasons() {
        let missing = TargetError::NotFound { kind: "Deployment".into(), name: "w".into() };
        assert_eq!(target_refusal(&missing).reason, "TargetNotFound");
        let forbidden = TargetError::Forbidden { operation: "read the scale", kind: "X".into() };
        assert_eq!(
            (target_refusal(&forbidden).reason, target_refusal(&forbidden).status),
            ("ScaleForbidden", Some(false))
        );
        let away = TargetError::Api { what: "gone".into(), outcome_unknown: true };
        assert_eq!((target_refusal(&away).reason, target_refusal(&away).status), ("ScaleUnread", None));
    }
}
