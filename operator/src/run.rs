//! Starts everything in order and ends it in the opposite order: decisions stop, what is under way ends, the lease goes last.
use crate::args::Args;
use crate::certificates;
use crate::clock::Clock;
use crate::crew::{Crew, Ended};
use crate::house::{self, House, Inputs};
use crate::metrics::{Holdings, OperatorMetrics};
use crate::news;
use crate::release::carry::Courier;
use crate::scaling::orders::Orders;
use crate::scaling::pool::Shared;
use crate::scaling::queue::sampler::Sampling;
use crate::scaling::queue::secret::Account;
use crate::scaling::report::PoolReports;
use crate::scaling::supervisor;
use crate::scaling::target::Targets;
use crate::status::writer::{self, Writer};
use crate::view::View;
use fairlead_cluster::Model;
use fairlead_runtime::admin::AdminError;
use fairlead_runtime::events::EventMetrics;
use fairlead_runtime::lease::{self, LeaseMetrics};
use fairlead_runtime::pump::PumpMetrics;
use fairlead_runtime::{
    Admin, ClientError, DebugDump, DumpFn, EventRecorder, Heartbeat, LeaseConfig, Metrics, Readiness, Shutdown, seed,
};
use kube::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "fairlead-operator";
/// After the signal everything has to end within this time; a pod's default grace is 30 s.
const GRACE: Duration = Duration::from_secs(20);
/// Dumps that wait for the house at once.
const DUMPS: usize = 4;

/// Why the operator did not start, or did not end as it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("failed to make a client of the API server")]
    Client(#[source] ClientError),
    /// The admin port is taken.
    #[error("failed to open the admin port")]
    Admin(#[source] AdminError),
    /// The lease's times contradict each other.
    #[error("failed to stand for the lease {LEASE}")]
    Lease(#[source] lease::step::TimingError),
    /// A part ended although nobody asked for it.
    #[error("failed to keep all parts running")]
    Ended(#[source] Ended),
}

/// Everything that is counted.
pub struct Counting {
    metrics: Metrics,
    operator: OperatorMetrics,
    pumps: PumpMetrics,
    lease: LeaseMetrics,
    events: EventMetrics,
}

impl Counting {
    /// All counters of the operator, registered.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Metrics::new("operator");
        let operator = OperatorMetrics::register(&mut metrics);
        let pumps = PumpMetrics::register(&mut metrics);
        let lease = LeaseMetrics::register(&mut metrics);
        let events = EventMetrics::register(&mut metrics);
        Self { metrics, operator, pumps, lease, events }
    }
}

impl Default for Counting {
    fn default() -> Self {
        Self::new()
    }
}

/// The metrics page with everything that the operator can show, for the reference.
#[must_use]
pub fn metrics_page() -> Metrics {
    let Counting { mut metrics, operator, .. } = Counting::new();
    // A view needs a model; the docs do not depend on what is in it.
    let snapshot = Model::new("fairlead-system").snapshot();
    let view = View::empty(snapshot);
    let (_, receiver) = watch::channel(Arc::new(view));
    Holdings::register(&mut metrics, receiver, PoolReports::default());
    drop(operator);
    metrics
}

/// Runs until the shutdown is over.
///
/// # Errors
/// It could not start, or a part of it died; see [`RunError`].
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), RunError> {
    let client = fairlead_runtime::client(&args.client, "operator").await.map_err(RunError::Client)?;
    let token = shutdown.token();
    let Counting { mut metrics, operator, pumps, lease: lease_metrics, events: event_metrics } = Counting::new();
    let (readiness, heartbeat) = (Readiness::new(token.clone()), Heartbeat::new());
    // Cancelled one after the other at the end.
    let (lease_end, admin_end) = (CancellationToken::new(), CancellationToken::new());

    let mut lease_config = LeaseConfig::new(&args.own_namespace, LEASE, lease::unique_identity(&args.identity));
    lease_config.metrics = lease_metrics;
    let lease = lease::run(client.clone(), lease_config, lease_end.clone()).map_err(RunError::Lease)?;
    let (events, events_task) = EventRecorder::start(
        client.clone(),
        "fairlead.dev/operator",
        &args.identity,
        &event_metrics,
        lease_end.clone(),
    );

    let mut crew = Crew::new();
    let (news, watches) = news::watch_all(&client, &readiness, &pumps, lease.watch(), &token);
    for watch in watches {
        crew.take_on("watch", watch);
    }
    let courier = Courier::new(
        client.clone(),
        args.identity.clone(),
        lease.watch(),
        usize::from(args.release_concurrency),
        operator.clone(),
    );
    let mut model = Model::new(&args.own_namespace);
    for event in house::unwatched() {
        model.apply(event);
    }
    let (house, view) = House::new(model, courier, operator.clone(), args.release_window_percent);
    let (dump_sender, dumps) = mpsc::channel(DUMPS);
    let pulse = heartbeat.register("house", house::SILENCE);
    let inputs = Inputs { news, lease: lease.watch(), dumps, pulse };
    crew.take_on("house", tokio::spawn(house.run(inputs, token.clone())));

    let reports = PoolReports::default();
    Holdings::register(&mut metrics, view.clone(), reports.clone());
    let shared = shared(&args, &client, &lease, &events, &reports, &operator);
    let pulse = heartbeat.register("pools", supervisor::SILENCE);
    crew.take_on("pools", tokio::spawn(supervisor::run(shared, view.clone(), pulse, token.clone())));
    let pulse = heartbeat.register("writer", writer::SILENCE);
    let writer = Writer::new(client.clone(), view.clone(), lease.watch(), events.clone(), operator.clone(), pulse);
    crew.take_on("writer", tokio::spawn(writer.run(token.clone())));

    if let Some(name) = &args.extender_client_name {
        let pulse = heartbeat.register("certificates", certificates::SILENCE);
        let desk = certificates::Desk::new(client.clone(), &args.own_namespace, name, lease.watch(), pulse);
        crew.take_on("certificates", tokio::spawn(desk.run(token.clone())));
    }

    let dump = DebugDump { client, dump: dump(view, reports, dump_sender), explain: None };
    let admin = Admin { readiness, metrics: Arc::new(metrics), heartbeat, dump: Some(dump) };
    let admin = admin.serve(args.admin.admin_address, admin_end.clone()).await.map_err(RunError::Admin)?;

    let mut ended = crew.on_duty(&token).await;
    let work = async {
        let late = crew.drained().await;
        ended = ended.take().or(late);
        lease_end.cancel();
        lease.ended().await;
        drop(events);
        drop(events_task.await);
    };
    shutdown.run_until(GRACE, work).await;
    admin_end.cancel();
    drop(admin.task.await);
    ended.map_or(Ok(()), |ended| Err(RunError::Ended(ended)))
}

fn shared(
    args: &Args,
    client: &Client,
    lease: &fairlead_runtime::LeaseHandle,
    events: &EventRecorder,
    reports: &PoolReports,
    metrics: &OperatorMetrics,
) -> Arc<Shared> {
    let clock = Clock::new();
    let sampling = Sampling {
        client: client.clone(),
        allow: Arc::new(args.allow_list()),
        account: Account { namespace: args.own_namespace.clone(), name: args.service_account.clone() },
        period: Duration::from_millis(args.scaling_period_ms),
        seed: seed::fresh(),
        metrics: metrics.clone(),
        clock,
    };
    Arc::new(Shared {
        client: client.clone(),
        targets: Targets::new(client.clone()),
        orders: Orders::default(),
        reports: reports.clone(),
        sampling,
        events: events.clone(),
        lease: lease.watch(),
        metrics: metrics.clone(),
        clock,
    })
}

/// Called on a thread that may block.
fn dump(view: watch::Receiver<Arc<View>>, reports: PoolReports, house: mpsc::Sender<house::DumpRequest>) -> DumpFn {
    Arc::new(move || {
        let (sender, receiver) = oneshot::channel();
        let protocols = match house.blocking_send(sender) {
            Ok(()) => receiver.blocking_recv().unwrap_or(Value::Null),
            Err(_) => Value::Null,
        };
        let view = view.borrow().clone();
        json!({ "view": view.dump(), "protocols": protocols, "pools": reports.dump() })
    })
}
