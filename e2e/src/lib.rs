//! The genuine control plane: test bed, harness kubelet, demo, tests.

pub mod bed;
pub mod bench;
pub mod commands;
pub mod control_plane;
pub mod demo;
pub mod dice;
pub mod eventually;
pub mod guest;
pub mod http_probe;
pub mod kubelet;
pub mod kwok;
pub mod nodes;
pub mod parts;
mod pki;
pub mod ports;
pub mod processes;
pub mod redis;
pub mod release;
pub mod story;
pub mod up;
pub mod view;

/// Namespace of our release: its pods are run by the harness kubelet, all others are kwok's.
pub const RELEASE_NAMESPACE: &str = "fairlead-system";

/// Progress to standard error; `RUST_LOG` chooses more.
pub fn init_logs() {
    // The bed asks servers that are not there yet: what the client thinks of that is no news.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "fairlead_e2e=info,kube_client=off,warn".into());
    // A second call in one process (tests) finds it done.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}
