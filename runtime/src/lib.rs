//! What every Fairlead process needs and none should write twice.
//!
//! ```text
//! args ── logs ── client ──┬── pump ──► events of the caller's own type (Reset, Apply, Delete)
//!                          ├── lease ─► LeaseState through a watch channel
//!                          ├── events ► events.k8s.io, only when a fact is new
//!                          └── admin ─► /livez /readyz /metrics /debug/dump
//! server ── tls: mutual, one pinned client, files followed while it serves
//! shutdown: first signal drains, second aborts; readiness falls first, the lease is given back last
//! ```
//!
//! It knows neither our kinds nor our decisions. Every source of randomness takes a seed and every clock is tokio's, so
//! a simulation with a paused clock replays a run exactly.

pub mod admin;
pub mod api;
mod args;
pub mod backoff;
mod client;
pub mod events;
pub mod heartbeat;
pub mod lease;
mod logs;
pub mod metrics;
pub mod pump;
pub mod readiness;
pub mod seed;
pub mod server;
mod shutdown;
#[cfg(test)]
mod testing;
pub mod tls;
#[cfg(test)]
mod tls_test;

pub use admin::{Admin, AdminHandle, DebugDump, DumpFn};
pub use api::{API_DEADLINE, ApiError, causes, deadline};
pub use args::{AdminArgs, ClientArgs, LogArgs, LogFormat};
pub use backoff::Backoff;
pub use client::{ClientError, client, install_tls_provider};
pub use events::{EventRecorder, Fact, Severity};
pub use heartbeat::{Heartbeat, Pulse};
pub use lease::{LeaseConfig, LeaseHandle, LeaseState};
pub use logs::{LogsError, init_logs};
pub use metrics::Metrics;
/// The metrics library of the whole project, re-exported so that a binary needs no version of its own.
pub use prometheus_client;
pub use pump::{DeserializeGuard, PumpConfig, WatchEvent};
pub use readiness::{Readiness, ReadinessHandle};
pub use shutdown::{Ending, Shutdown, ShutdownError};
pub use tls::{Tls, TlsError, TlsFiles};
