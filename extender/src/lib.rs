//! The scheduler extender: filter, prioritize, preempt and bind for a kube-scheduler.
//!
//! ```text
//! watches ─► model (one task) ─► snapshot, swapped atomically
//!                 ▲                 │
//!                 │                 ├─► answer, preempt: /filter /prioritize /preempt, bytes to bytes, pure
//!  Assume, Forget,│Written          │
//!                 └── bind, reaper ◄┘   placement's steps; courier carries their requests to the API server
//! ```
//!
//! Nothing is remembered that cannot be read again: after a restart the watches tell what was reserved.
pub mod answer;
pub mod args;
pub mod bind;
pub mod courier;
pub mod devices;
pub mod dump;
pub mod duty;
pub mod http;
mod json;
pub mod metrics;
pub mod model;
pub mod preempt;
pub mod reaper;
mod run;
mod scan;
mod turns;
pub mod wake;
pub mod wire;

pub use run::{RunError, run};
