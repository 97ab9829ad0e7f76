//! The task of one pool: a turn with each new answer of its queue. It writes only while this process leads, and goes on
//! watching for a while when it no longer does: most lost leases come back.
mod look;
mod outcome;

use super::denials::Denials;
use super::hold::Hold;
use super::judge::{self, Pace, Refusal, why};
use super::orders::{Limits, Order, Orders};
use super::queue::sampler::Sampling;
use super::queue::{self, Judgement, SourceState};
use super::report::PoolReports;
use super::target::{ScaleView, Targets};
use crate::book::add;
use crate::clock::Clock;
use crate::metrics::OperatorMetrics;
use crate::objects::PoolKey;
use crate::view::View;
use fairlead_crds::WorkerPool;
use fairlead_crds::keys::reason;
use fairlead_crds::worker_pool::{QueueSource, ScaleTargetRef};
use fairlead_fairshare::ResourceVector;
use fairlead_fairshare::protocol::Standing;
use fairlead_runtime::{EventRecorder, LeaseState};
use fairlead_scaling::{Decision, DownWindow, Estimator, Observation, catch_up};
use kube::Client;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
    /// Time; the samplers' is the same.
    pub clock: Clock,
}

/// The task of one pool.
pub struct PoolTask {
    key: PoolKey,
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<View>>,
    /// The last term in which this task wrote or could have.
    term: Option<u64>,
    target: Option<ScaleTargetRef>,
    sources: Vec<QueueSource>,
    samplers: Vec<watch::Receiver<SourceState>>,
    stop_samplers: CancellationToken,
    /// Which source the last sample came from: counters of two sources have nothing to do with each other.
    used_source: Option<usize>,
    estimator: Estimator,
    window: DownWindow,
    hold: Hold,
    denials: Denials,
    scale: Option<ScaleView>,
    /// When it was read or written; `None` if it is to be read before anything else.
    scale_at_ms: Option<u64>,
    target_fault: Option<Refusal>,
    per_pod: Option<ResourceVector>,
    template_at_ms: Option<u64>,
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
            term: None,
            target: None,
            sources: Vec::new(),
            samplers: Vec::new(),
            stop_samplers: CancellationToken::new(),
            used_source: None,
            estimator: Estimator::new(),
            window: DownWindow::new(),
            hold: Hold::default(),
            denials: Denials::default(),
            scale: None,
            scale_at_ms: None,
            target_fault: None,
            per_pod: None,
            template_at_ms: None,
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
        self.leave();
    }

    /// The pool is not driven by this process, now or for good.
    fn leave(&self) {
        self.shared.orders.forget(&self.key);
        self.shared.reports.remove(&self.key);
    }

    /// At this very moment, in the term of the view, and by what was listed in that term.
    fn leads(&self, view: &View) -> bool {
        view.may_scale() && self.shared.lease.borrow().term_now() == Some(view.term)
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
        let leads = self.leads(view);
        if leads {
            if self.term != Some(view.term) {
                self.begin_term(view.term);
            }
            self.read_target(pool).await;
        }
        let now_ms = self.shared.clock.ms();
        let judgement = self.judge_queue(now_ms);
        let own = self.own_pods(view);
        self.observe(now_ms, &judgement, own.ready);
        let mut refusal = self.refusal(view, pool, now_ms);
        let may_grow = refusal.is_none() && !self.denials.stop_growth(now_ms);
        let decided = self.decide(view, pool, now_ms, &own, may_grow && leads);
        if !leads {
            // Parked: rates and the down window are kept up to date, and nothing is ordered, told or shown.
            self.leave();
            return;
        }
        if let (None, Some((from, decision, _))) = (&refusal, &decided)
            && decision.replicas != *from
            && self.leads(view)
        {
            refusal = match self.denials.standing(now_ms, *from, decision.replicas) {
                Some(denied) => Some(denied),
                None => self.order(pool, *from, decision).await,
            };
        }
        self.publish(view, pool, &judgement, refusal, decided.map(|(_, decision, cap)| (decision, cap)), own.ready)
            .await;
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
        let (Some(scale), Some(pods)) = (&self.scale, view.pods.get(&self.key.namespace)) else { return own };
        let releasing = view.tenant_of(&self.key.namespace).map(|(_, facts)| &facts.releasing);
        for note in pods.values().filter(|note| scale.selector.as_ref().is_some_and(|own| own.selects(&note.labels))) {
            let ended = note.view.standing == Standing::Ended;
            own.ready += u32::from(note.ready && !ended);
            if note.view.standing == Standing::Released || releasing.is_some_and(|uids| uids.contains(&note.uid)) {
                add(&mut own.counted, &note.request);
            }
        }
        own
    }

    fn quota_fault<'a>(&self, view: &'a View) -> Option<&'a String> {
        let tenant = view.snapshot.tenant_of_namespace(&self.key.namespace);
        tenant.and_then(|name| view.snapshot.tenants.get(name)).and_then(|tenant| tenant.error.as_ref())
    }

    fn refusal(&self, view: &View, pool: &WorkerPool, now_ms: u64) -> Option<Refusal> {
        if let Some(message) = judge::rival(&self.key, pool, &view.objects.pools, &view.objects.autoscalers) {
            return Some(Refusal::no(reason::SCALE_CONFLICT, message));
        }
        if let Some(fault) = &self.target_fault {
            return Some(fault.clone());
        }
        if let Some(error) = self.quota_fault(view) {
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
        may_grow: bool,
    ) -> Option<(u32, Decision, Option<u32>)> {
        let current = self.scale.as_ref()?.replicas;
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
            (if may_grow { decision.replicas.max(current) } else { current }, (decision, cap))
        });
        Some((current, decision, cap))
    }
}
