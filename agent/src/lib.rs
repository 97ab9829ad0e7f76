//! The node agent: publishes the machine of its node as NodeTopology, creates the node's NodePlacement, pins containers to
//! what is reserved there, and says in its status what it found.
//!
//! ```text
//! hwloc + sysfs, or a synthetic text ─► machine ─► spec ─► server-side apply of NodeTopology
//! watch of the own NodePlacement ─┬─► judge ──────────────┬─► status (conditions Consistent and Pinned, containers)
//!                                 └─► pin ◄─► pinner ─────┘
//!                                                ▲
//! container runtime ◄── NRI ─────────────────────┘
//! ```
//!
//! Two tasks: one speaks to the API server, the other answers the container runtime from memory and never waits for the
//! first. Time is monotonic everywhere it decides; the wall clock stands in conditions only.
//!
//! Both objects are owned by the Node's UID. A Node that was deleted and came back is another: the garbage collector
//! deletes the objects of the earlier one, and the agent creates them anew. So it needs no right to delete.
pub mod agent;
pub mod args;
pub mod judge;
pub mod machine;
pub mod metrics;
pub mod nri;
pub mod objects;
pub mod pin;
pub mod pinner;
mod run;
mod seen;
mod trouble;

pub use run::{RunError, run};
pub use seen::Seen;
