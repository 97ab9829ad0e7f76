//! The one task that owns the model, the book of pods and the release protocols. Everything that is decided about
//! releases is decided here, one event after the other; everybody else gets [`View`]s.
//!
//! ```text
//! watches ─ News ─┐                    ┌─ errands (courier) ─► API server
//! lease ──────────┼─► House ── pass ───┼─ conditions, stamps ─► API server
//! reports ────────┘      ▲             └─ View ─► namespaces, status, pools, metrics, dump
//!        └── answers ────┘
//! ```
mod intake;
mod pass;

pub use intake::unwatched;

use crate::book::PodBook;
use crate::clock::Clock;
use crate::metrics::OperatorMetrics;
use crate::news::{Dated, Kind};
use crate::objects::Objects;
use crate::release::attempts::{Attempts, Written};
use crate::release::carry::Courier;
use crate::release::conditions::Telling;
use crate::release::desk::Desk;
use crate::release::errand::{Errand, Report};
use crate::release::orphans::Orphans;
use crate::release::refusals::Refusals;
use crate::view::View;
use fairlead_cluster::Model;
use fairlead_fairshare::Turns;
use fairlead_fairshare::protocol::{PodView, Uid};
use fairlead_runtime::{LeaseState, Pulse};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Changes that come within this time are decided on together.
const COALESCE: Duration = Duration::from_millis(50);
/// Retries of the protocols, and a look at what only time changes.
const TICK: Duration = Duration::from_secs(1);
/// Events taken in before others are heard.
const BATCH: usize = 512;
/// What is under way at the end gets this long: every call has a deadline of 5 s.
const DRAIN: Duration = Duration::from_secs(6);

/// The loop beats at least this often, or it is stuck.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Asks the house for a dump of its protocols.
pub type DumpRequest = oneshot::Sender<Value>;

/// What came back from the API server.
#[derive(Debug)]
enum Answer {
    Protocol(Report),
    /// A condition was written (the pod's new view), or not.
    Told(Uid, Written, Option<PodView>),
    /// A pod that came past the gate was stamped, or not.
    Stamped(Uid, Written),
}

/// What the house is given.
pub struct Inputs {
    /// From the watches.
    pub news: mpsc::Receiver<Dated>,
    /// Who leads.
    pub lease: watch::Receiver<LeaseState>,
    /// Who asks for a dump.
    pub dumps: mpsc::Receiver<DumpRequest>,
    /// Beaten by the loop.
    pub pulse: Pulse,
}

/// The house.
pub struct House {
    model: Model,
    book: PodBook,
    objects: Objects,
    desks: BTreeMap<String, Desk>,
    /// Namespace to tenant, as of the last pass.
    claims: BTreeMap<String, String>,
    /// Gate removals that wait for earlier ones of other tenants.
    turns: Turns<Errand>,
    telling: Telling,
    refusals: Refusals,
    orphans: Orphans,
    /// The last round of any desk that is gone.
    round: u64,
    stamping: Attempts,
    leading: bool,
    term: u64,
    /// In which term each kind was last listed.
    listed: BTreeMap<Kind, u64>,
    window_percent: u32,
    clock: Clock,
    courier: Courier,
    metrics: OperatorMetrics,
    answers: JoinSet<Answer>,
    view: watch::Sender<Arc<View>>,
    /// Anything happened since the last pass.
    dirty: bool,
    passed_at: Instant,
    told_at: Instant,
}

impl House {
    /// An empty house. The first view says that nothing is synced.
    #[must_use]
    pub fn new(
        mut model: Model,
        courier: Courier,
        metrics: OperatorMetrics,
        window_percent: u32,
    ) -> (Self, watch::Receiver<Arc<View>>) {
        let view = View::empty(model.snapshot());
        let (view, receiver) = watch::channel(Arc::new(view));
        let now = Instant::now();
        let house = Self {
            model,
            book: PodBook::default(),
            objects: Objects::default(),
            desks: BTreeMap::new(),
            claims: BTreeMap::new(),
            turns: Turns::default(),
            telling: Telling::default(),
            refusals: Refusals::default(),
            orphans: Orphans::default(),
            round: 0,
            stamping: Attempts::default(),
            leading: false,
            term: 0,
            listed: BTreeMap::new(),
            window_percent,
            clock: Clock::new(),
            courier,
            metrics,
            answers: JoinSet::new(),
            view,
            dirty: false,
            passed_at: now,
            told_at: now,
        };
        (house, receiver)
    }

    /// Runs until `shutdown`, then finishes what is under way.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            inputs.pulse.beat();
            let due = self.passed_at + COALESCE;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = inputs.lease.changed() => {
                    let state = inputs.lease.borrow_and_update().term_now();
                    self.lease(if changed.is_ok() { state } else { None });
                    if changed.is_err() {
                        break;
                    }
                }
                _ = tick.tick() => {
                    // A lease that was not renewed in time is lost even if nobody said so yet.
                    let state = inputs.lease.borrow().term_now();
                    self.lease(state);
                    self.tick();
                    self.dirty = true;
                }
                () = tokio::time::sleep_until(due), if self.dirty => self.pass(),
                Some(answer) = self.answers.join_next() => self.answered(answer),
                Some(news) = inputs.news.recv() => {
                    self.take(news);
                    for _ in 0..BATCH {
                        match inputs.news.try_recv() {
                            Ok(news) => self.take(news),
                            Err(_) => break,
                        }
                    }
                }
                Some(asker) = inputs.dumps.recv() => {
                    // Whoever asked may be gone.
                    drop(asker.send(self.dump()));
                }
            }
        }
        self.drain().await;
    }

    /// No new decisions; what was sent is waited for.
    async fn drain(&mut self) {
        let rest = async { while self.answers.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            tracing::warn!("Some writes did not end in time; the ledgers know of them");
        }
    }

    fn dump(&self) -> Value {
        let desks = self.desks.iter().map(|(tenant, desk)| {
            let state = desk.state();
            let entry = serde_json::json!({
                "ready": state.is_ready(),
                "epoch": state.epoch(),
                "inFlight": state.in_flight(),
                "stuck": state.stuck().map(ToString::to_string).collect::<Vec<_>>(),
                "trouble": state.trouble().map(|trouble| format!("{trouble:?}")),
                "namespaces": desk.namespaces,
                "state": format!("{state:?}"),
            });
            (tenant.clone(), entry)
        });
        Value::Object(desks.collect())
    }
}
