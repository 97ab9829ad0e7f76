//! The admin port: is it alive, is it ready, what does it count, and, for those who may ask, what does it hold.

mod dump;
mod health;

use crate::heartbeat::Heartbeat;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::server::{Limits, serve};
use axum::Router;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use dump::{DUMP_PATH, DebugDump, DumpFn, EXPLAIN_PATH, ExplainFn};

/// Kubelet, Prometheus and a person need a handful; a flood must not take the process's file descriptors.
const CONNECTIONS: usize = 64;
/// Scrapes of a large registry and dumps cost memory; whoever comes above this asks again.
const HEAVY_REQUESTS: usize = 4;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(1);

/// Why the admin port is not open.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on --admin-address {address}")]
pub struct AdminError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// `/readyz`: 200 only when nothing is missing.
    pub readiness: Readiness,
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// `/livez`: 200 unless a loop is stuck.
    pub heartbeat: Heartbeat,
    /// `/debug/dump`, absent unless given.
    pub dump: Option<DebugDump>,
}

/// An open admin port.
#[derive(Debug)]
pub struct AdminHandle {
    /// The address it really has, for port 0.
    pub address: SocketAddr,
    /// Ends after the shutdown.
    pub task: JoinHandle<()>,
}

impl Admin {
    /// The routes, to be tried without a socket.
    pub fn router(self) -> Router {
        let heavy = Arc::new(Semaphore::new(HEAVY_REQUESTS));
        let mut router = Router::new()
            .route("/livez", get(health::livez).with_state(self.heartbeat))
            .route("/readyz", get(health::readyz).with_state(self.readiness))
            .route("/metrics", get(health::metrics).with_state((self.metrics, heavy.clone())));
        if let Some(dump) = self.dump {
            if dump.explain.is_some() {
                router = router.route(EXPLAIN_PATH, get(dump::explain).with_state((dump.clone(), heavy.clone())));
            }
            router = router.route(DUMP_PATH, get(dump::dump).with_state((dump, heavy)));
        }
        router
    }

    /// Opens the port and serves in a task of its own until `shutdown`. Give it a token that is cancelled last, so that
    /// `/readyz` says 503 and `/livez` 200 while the process drains.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn serve(self, address: SocketAddr, shutdown: CancellationToken) -> Result<AdminHandle, AdminError> {
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let limits = Limits { connections: CONNECTIONS, header_read_timeout: Some(HEADER_READ_TIMEOUT), drain: DRAIN };
        tracing::info!(address = %bound, "Admin port is open");
        Ok(AdminHandle { address: bound, task: tokio::spawn(serve(listener, self.router(), limits, None, shutdown)) })
    }
}
