//! Pools: queues looked at, replicas decided and ordered through `/scale`, within the tenant's quota.
//!
//! ```text
//! sampler (a task a source) ─► SourceState ─┐
//! View (tenant, pods, rivals) ──────────────┼─► pool task ─► decision ─► PATCH scale ─► status, events
//! Orders (what other pools ordered) ────────┘
//! ```
pub mod allow;
pub mod denials;
pub mod hold;
pub mod judge;
pub mod orders;
pub mod pool;
pub mod queue;
pub mod report;
pub mod supervisor;
pub mod target;
