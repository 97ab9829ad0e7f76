//! Entitlements, shares, release order, the release protocol: who may have how much, who goes next, and how a release
//! is written so that no crash or second leader ever takes a tenant above its hard limits.
//!
//! Everything here is a pure function of its arguments: no clock, no I/O, no randomness; integers only.
mod entitlement;
mod limit;
mod order;
mod pass;
pub mod protocol;
mod reason;
mod share;
mod turns;
mod water;

pub use entitlement::{MAX_WEIGHT, TenantDemand, base, capped_demand, entitlements};
pub use limit::{HARD_PERCENT, PODS, Refusal, ResourceVector, admits, first_refusal, max_admissible, max_more};
pub use order::{PendingPod, Release, ReleaseInput, ReleasePlan, TenantInput, Waiting, line, plan, plan_within};
pub use reason::WaitReason;
pub use share::{Dominant, Share, dominant};
pub use turns::Turns;
pub use water::{Demands, WaterLine};
