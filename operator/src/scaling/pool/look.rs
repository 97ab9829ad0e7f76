//! What a pool's task looks at: the spec that it follows, its target's scale and pod template.
use super::super::hold::{Hold, Told};
use super::super::judge::{Pace, why};
use super::super::queue::sampler;
use super::super::target::{ScaleView, TargetError};
use super::outcome::target_refusal;
use super::{Denials, PoolTask};
use fairlead_crds::WorkerPool;
use fairlead_crds::keys::condition;
use fairlead_fairshare::ResourceVector;
use fairlead_scaling::DownWindow;
use tokio_util::sync::CancellationToken;

/// The scale is read again after this time: a write carries a `test`, so a look is only needed to notice others.
const SCALE_MS: u64 = 5_000;
/// So often the pod template is read again.
const TEMPLATE_MS: u64 = 10_000;

impl PoolTask {
    pub(super) fn follow_spec(&mut self, pool: &WorkerPool) {
        if self.target.as_ref() != Some(&pool.spec.scale_target_ref) {
            self.target = Some(pool.spec.scale_target_ref.clone());
            self.forget_target();
        }
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

    /// Another leader may have acted since the term before: what it may have changed is looked at again before anything is
    /// written. What only time changes (rates, the down window, a human's change that is held) stays.
    pub(super) fn begin_term(&mut self, term: u64) {
        self.term = Some(term);
        self.hold.begin_term();
        self.denials = Denials::default();
        self.pace = Pace::default();
        (self.scale_at_ms, self.template_at_ms) = (None, None);
    }

    /// Another target, or one of the same name that was created anew: its replicas are nobody's change of what the old one
    /// had, and what the old one was given says nothing about it. The queue, and what is known of it, is the same.
    fn forget_target(&mut self) {
        (self.scale, self.scale_at_ms) = (None, None);
        self.target_fault = None;
        self.hold = Hold::default();
        self.denials = Denials::default();
        self.window = DownWindow::new();
        self.per_pod = None;
        self.template_at_ms = None;
        self.shared.orders.forget(&self.key);
    }

    /// Reads scale and template where what is known of them is old.
    pub(super) async fn read_target(&mut self, pool: &WorkerPool) {
        let (namespace, target) = (self.key.namespace.clone(), &pool.spec.scale_target_ref);
        let clock = self.shared.clock;
        let old = |at_ms: Option<u64>, limit: u64| at_ms.is_none_or(|at_ms| clock.ms().saturating_sub(at_ms) >= limit);
        if old(self.scale_at_ms, SCALE_MS) {
            match self.shared.targets.scale(&namespace, target).await {
                Ok(scale) => self.take_scale(pool, scale),
                Err(error) => {
                    if matches!(error, TargetError::NotFound { .. } | TargetError::NoSuchKind { .. }) {
                        self.forget_target();
                        self.shared.targets.forget(target);
                    }
                    self.target_fault = Some(target_refusal(&error));
                }
            }
        }
        if self.target_fault.is_none() && old(self.template_at_ms, TEMPLATE_MS) {
            self.template_at_ms = Some(clock.ms());
            match self.shared.targets.pod_request(&namespace, target).await {
                Ok(Some(request)) => self.per_pod = Some(request),
                Ok(None) => self.per_pod = Some(ResourceVector::from([(fairlead_fairshare::PODS.to_owned(), 1)])),
                Err(error) => tracing::warn!(pool = %self.key, %error, "The pod template was not read"),
            }
        }
    }

    fn take_scale(&mut self, pool: &WorkerPool, scale: ScaleView) {
        if self.scale.as_ref().is_some_and(|known| known.uid != scale.uid) {
            self.forget_target();
        }
        let now_ms = self.shared.clock.ms();
        self.hold.see(now_ms, scale.replicas, told(pool));
        (self.scale, self.scale_at_ms) = (Some(scale), Some(now_ms));
        self.target_fault = None;
    }
}

fn told(pool: &WorkerPool) -> Told {
    let Some(status) = &pool.status else { return Told::default() };
    let active = status.conditions.iter().find(|c| c.type_ == condition::SCALING_ACTIVE);
    let held = active.is_some_and(|c| c.status == "False" && c.reason == why::HELD);
    Told { ordered: u32::try_from(status.ordered_replicas).ok(), held }
}
