//! The scheduler extender: filter, prioritize and bind for the kube-scheduler of the same pod.
//!
//! ```text
//! watches ─► model (one task) ─► snapshot, swapped atomically
//!                 ▲                 │
//!                 │                 ├─► answer: /filter /prioritize, bytes to bytes, pure
//!  Assume, Forget,│Written          │
//!                 └── bind, reaper ◄┘   placement's steps; courier carries their requests to the API server
//! ```
//!
//! Nothing is remembered that cannot be read again: after a restart the watches tell what was reserved.
pub mod answer;
pub mod args;
pub mod bind;
pub mod courier;
pub mod dump;
pub mod http;
mod json;
pub mod metrics;
pub mod model;
pub mod reaper;
mod run;
pub mod wire;

pub use run::{RunError, run};
