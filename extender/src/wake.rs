//! Wakes pods that were refused and would be taken now: one small write to the waiting pod, which kube-scheduler watches.
//!
//! kube-scheduler (1.36) books refusals of extenders under a plugin of its own that any event of the API releases, the
//! update of the waiting pod itself among them, for that pod alone. So an annotation of ours, written through the pod's
//! status, wakes exactly who has a chance, and needs no right to write nodes. Writes are bounded in rate, and a pod that is
//! refused again for somebody else's reason is tried a few times and then left in peace.
use std::sync::Arc;
use std::time::Duration;

use fairlead_cluster::{Awaited, Snapshot, Turn};
use fairlead_placement::{Event, Request, TouchOutcome};
use fairlead_runtime::{API_DEADLINE, LeaseState, Pulse};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::courier::Courier;
use crate::metrics::ExtenderMetrics;

/// Pause between two looks at the snapshot.
const PERIOD: Duration = Duration::from_secs(1);
/// Pods woken at one look: more than kube-scheduler places with CPUs of their own in that time on a small cluster, and few
/// enough that a freed rack does not become a storm of writes.
const PODS_PER_LOOK: usize = 16;
/// Pods that may wait for their turn; the look for more goes on when some of them had theirs.
const PODS_MAX: usize = 256;
/// Longest pause between two tries of one pod, which double from 1 s: so does kube-scheduler's own back-off by default.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Each try shows the extender another sample of the nodes; at 5,000 nodes ten of them are all. Whoever was refused so
/// often, though a node has room, is refused by somebody else.
const TRIES_MAX: u32 = 12;
/// The same for a pod that may not want the node: enough for a replica whose watch is behind.
const TRIES_OF_CHOOSY_MAX: u32 = 3;
/// A waker that is silent for this long is stuck.
pub const SILENCE_MAX: Duration = Duration::from_secs(180);

/// What the waker is given.
pub struct Waker {
    /// The way to the API server.
    pub courier: Courier,
    /// The extender in use has this Lease.
    pub lease: watch::Receiver<LeaseState>,
    /// The counters.
    pub metrics: ExtenderMetrics,
    /// Beaten by the loop.
    pub pulse: Pulse,
}

/// How far the looks for pods with a chance have come.
#[derive(Default)]
struct Round {
    /// What changed since then is looked at.
    before: Arc<Snapshot>,
    /// The snapshot that the round began with, and where its last look ended, if that was before the end.
    under_way: Option<(Arc<Snapshot>, Turn)>,
}

impl Round {
    /// One look, for at most `pods_max` pods; true if it ended at a limit and the next one goes on.
    fn look(&mut self, now: &Arc<Snapshot>, pods_max: usize) -> (Vec<Awaited>, bool) {
        // Before everything was listed nobody is told; what changes until then must not count as seen.
        if !now.synced {
            return (Vec::new(), false);
        }
        if pods_max == 0 {
            return (Vec::new(), true);
        }
        let (begun, behind) = match self.under_way.take() {
            Some((begun, behind)) => (begun, Some(behind)),
            None => (Arc::clone(now), None),
        };
        let look = now.awaited(&self.before, behind.as_ref(), pods_max);
        let cut = look.ended_at.is_some();
        match look.ended_at {
            Some(behind) => self.under_way = Some((begun, behind)),
            // What changed while the round went on may concern those whose turn had been.
            None => self.before = begun,
        }
        (look.found, cut)
    }
}

/// A pod whose turn comes.
struct Sleeper {
    uid: String,
    node: String,
    tries: u32,
    due: Instant,
}

impl Waker {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut round = Round::default();
        let mut sleepers: Vec<Sleeper> = Vec::new();
        loop {
            self.pulse.beat();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if self.lease.borrow().term_now().is_none() {
                // Whoever gets the Lease wakes all that have a chance by then: nobody knows what was missed.
                round = Round::default();
                sleepers.clear();
                continue;
            }
            // Those that had their turn once make room for those that had none.
            let unwoken = sleepers.iter().filter(|sleeper| sleeper.tries == 0).count();
            let (found, cut) = round.look(&self.courier.snapshot(), PODS_MAX.saturating_sub(unwoken));
            if cut {
                self.metrics.wake_looks_cut.inc();
            }
            enlist(&mut sleepers, found, Instant::now());
            self.wake_due(&mut sleepers).await;
        }
    }

    async fn wake_due(&self, sleepers: &mut Vec<Sleeper>) {
        let snapshot = self.courier.snapshot();
        let now = Instant::now();
        let mut left = PODS_PER_LOOK;
        let mut kept = Vec::with_capacity(sleepers.len());
        // Who was never woken comes before who is tried again; else in the order of their importance.
        sleepers.sort_by_key(|sleeper| sleeper.tries);
        for mut sleeper in std::mem::take(sleepers) {
            if left == 0 || sleeper.due > now || self.lease.borrow().term_now().is_none() {
                kept.push(sleeper);
                continue;
            }
            let Some(awaited) = snapshot.still_awaited(&sleeper.uid, &sleeper.node) else { continue };
            left -= 1;
            let tries_max = if awaited.choosy { TRIES_OF_CHOOSY_MAX } else { TRIES_MAX };
            self.touch(awaited).await;
            sleeper.tries += 1;
            sleeper.due = now + PAUSE_MAX.min(PERIOD * 2u32.saturating_pow(sleeper.tries.min(8)));
            if sleeper.tries < tries_max {
                kept.push(sleeper);
            }
        }
        *sleepers = kept;
    }

    async fn touch(&self, Awaited { pod, resource_version, node, .. }: Awaited) {
        let touch = Request::Touch { pod: pod.clone(), resource_version };
        let outcome = match self.courier.carry(&touch, API_DEADLINE).await {
            Some(Event::Touched(TouchOutcome::Done)) => "Woken",
            // Somebody else wrote the pod, which wakes it as well.
            Some(Event::Touched(TouchOutcome::Conflict)) => "Conflict",
            Some(Event::Touched(TouchOutcome::Gone)) => "Gone",
            _ => "Failed",
        };
        self.metrics.woken(outcome);
        tracing::debug!(namespace = pod.namespace, pod = pod.name, node, outcome, "A node has room for a refused pod");
    }
}

/// A pod that is there already keeps its place and its pause: a node that comes and goes is no reason to hurry. Of too many
/// those that were tried most often go, which kube-scheduler's own flush is left for.
fn enlist(sleepers: &mut Vec<Sleeper>, awaited: Vec<Awaited>, now: Instant) {
    for Awaited { pod, node, .. } in awaited {
        if let Some(sleeper) = sleepers.iter_mut().find(|sleeper| sleeper.uid == pod.uid) {
            sleeper.node = node;
            sleeper.tries = sleeper.tries.min(1);
        } else {
            sleepers.push(Sleeper { uid: pod.uid, node, tries: 0, due: now });
        }
    }
    sleepers.sort_by_key(|sleeper| sleeper.tries);
    sleepers.truncate(PODS_MAX);
}
