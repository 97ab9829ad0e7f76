//! Wiring: client, watches, model, HTTP, reaper, admin port, and the order in which they end.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fairlead_cluster::{Model, Snapshot};
use fairlead_runtime::admin::AdminError;
use fairlead_runtime::lease::step::TimingError;
use fairlead_runtime::lease::unique_identity;
use fairlead_runtime::server::{Limits, serve};
use fairlead_runtime::tls::RELOAD_PERIOD;
use fairlead_runtime::{
    Admin, ClientError, DebugDump, Ending, Heartbeat, LeaseConfig, Readiness, Shutdown, ShutdownError, Tls, TlsError,
    client, lease,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, Exposed};
use crate::bind::Binder;
use crate::courier::Courier;
use crate::dump::{dump, explain};
use crate::duty::Duty;
use crate::http::{App, HttpLimits, router};
use crate::metrics;
use crate::model::{self, watch_everything};
use crate::reaper::{self, LEASE_NAME, Reaper};
use crate::wake::{self, Waker};

/// On top of the bind's own deadline: answering, freeing what is under way, giving the Lease back.
const GRACE: Duration = Duration::from_secs(20);
/// A connection over the network may be silent for this long: longer than Go's client keeps an idle one (90 s), or a
/// request could meet a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// A bind that ran out of time has long been answered when its reservation may be reaped.
const REAP_GRACE: Duration = Duration::from_secs(6);

/// Why the extender ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals cannot be heard.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The times of the Lease contradict each other.
    #[error(transparent)]
    Lease(#[from] TimingError),
    /// The port of the verbs would be open to everybody.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The TLS material cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port of the verbs cannot be opened.
    #[error("failed to listen on --listen-address {address}")]
    Listen {
        /// As given.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the extender until a signal.
///
/// # Errors
/// It could not start; once it runs, every trouble is logged, counted and tried again.
pub async fn run(args: Args) -> Result<(), RunError> {
    // Before anything else: without its material an exposed extender does not start.
    let tls = material(&args).await?;
    let shutdown = Shutdown::install()?;
    // Cancelled last: binds that are being answered need the model and the watches, probes need the admin port.
    let closed = CancellationToken::new();
    let client = client(&args.client, "extender").await?;
    let (page, counters) = metrics::page();
    let readiness = Readiness::new(shutdown.token());
    let heartbeat = Heartbeat::new();
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let (queue, inbox) = model::queue();
    let pumps = watch_everything(&client, &queue, &readiness, &counters, &closed);
    let task = tokio::spawn(model::run(
        Model::new(args.own_namespace.as_str()),
        inbox,
        snapshot.clone(),
        counters.clone(),
        heartbeat.register("model", model::SILENCE_MAX),
        closed.clone(),
    ));
    let courier = Courier::new(client.clone(), snapshot.clone(), queue, counters.clone());
    let deadline = Duration::from_millis(args.bind_deadline_ms);

    let lease_token = CancellationToken::new();
    let mut config = LeaseConfig::new(&args.own_namespace, LEASE_NAME, unique_identity(&args.own_name));
    config.metrics = counters.lease.clone();
    let lease = lease::run(client.clone(), config, lease_token.clone())?;
    // Over the network a scheduler reaches any replica.
    let duty = if tls.is_some() { Duty::while_leading(lease.watch()) } else { Duty::Alone };
    let waker = Waker {
        courier: courier.clone(),
        lease: lease.watch(),
        metrics: counters.clone(),
        pulse: heartbeat.register("waker", wake::SILENCE_MAX),
    };
    let reaper = Reaper {
        courier: courier.clone(),
        lease: lease.watch(),
        grace: deadline + REAP_GRACE,
        metrics: counters.clone(),
        pulse: heartbeat.register("reaper", reaper::SILENCE_MAX),
    };

    let listening = readiness.register("listen");
    let admin = Admin { readiness, metrics: page, heartbeat, dump: Some(debug(client, &snapshot)) };
    let admin = admin.serve(args.admin.admin_address, closed.clone()).await?;
    let listener = listen(args.listen_address).await?;
    listening.ready();

    let in_flight = args.max_in_flight as usize;
    let limits = HttpLimits { body_bytes: usize::try_from(args.max_body_bytes).unwrap_or(usize::MAX), in_flight };
    let binder = Arc::new(Binder::new(courier, deadline, counters.clone(), duty));
    let router = router(App { snapshot, binder, metrics: counters, limits });
    // kube-scheduler keeps its connections open between binds, so there are more of them than requests.
    let header_read_timeout = tls.as_ref().map(|_| IDLE_LIMIT);
    let limits = Limits { connections: 4 * in_flight, header_read_timeout, drain: deadline };
    let followed = tls.clone().map(|tls| tokio::spawn(tls.follow(RELOAD_PERIOD, shutdown.token())));
    let work = Box::pin(async {
        tokio::join!(
            serve(listener, router, limits, tls, shutdown.token()),
            reaper.run(shutdown.token()),
            waker.run(shutdown.token()),
        );
        // After the last write: whoever takes it binds.
        lease_token.cancel();
        lease.ended().await;
    });
    if shutdown.run_until(deadline + GRACE, work).await == Ending::Overran {
        tracing::warn!("Ended with work under way; the next extender continues it");
    }
    closed.cancel();
    for task in pumps.into_iter().chain([task, admin.task]).chain(followed) {
        drop(task.await);
    }
    Ok(())
}

/// What `/debug` tells of the snapshot.
fn debug(client: kube::Client, snapshot: &Arc<ArcSwap<Snapshot>>) -> DebugDump {
    let (dumped, explained) = (snapshot.clone(), snapshot.clone());
    DebugDump {
        client,
        dump: Arc::new(move || dump(&dumped.load())),
        explain: Some(Arc::new(move |namespace, name| explain(&explained.load(), namespace, name))),
    }
}

/// The TLS material, if the flags name some; an address that others reach demands it.
async fn material(args: &Args) -> Result<Option<Tls>, RunError> {
    Ok(match args.serving()? {
        Some(files) => Some(Tls::load(files).await?),
        None => None,
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    let failed = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %bound, "Listening for the scheduler");
    Ok(listener)
}
