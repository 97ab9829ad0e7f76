//! What a pool's owner decides about its scaling.
use serde::{Deserialize, Serialize};

/// Bounds, priors and times of one pool. Out-of-range values are taken as the nearest in range, so no input panics; the
/// schema refuses them before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolConfig {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas; below `min` it counts as `min`.
    pub max: u32,
    /// Prior of a worker's rate in thousandths of an item per second, until measured; at least 1.
    pub rate_per_second_milli: u64,
    /// From ordering a worker until it is ready.
    pub startup_ms: u64,
    /// Time in which a backlog shall be worked off; at least 1.
    pub drain_ms: u64,
    /// Part of a worker's rate that arrivals may use, 1 to 100.
    pub utilization_percent: u32,
    /// Replicas fall only to the most that was wanted within this window.
    pub scale_down_window_ms: u64,
    /// Least time between two reductions.
    pub idle_ms: u64,
}

impl PoolConfig {
    pub(crate) fn prior_milli(&self) -> u64 {
        self.rate_per_second_milli.max(1)
    }

    pub(crate) fn ceiling(&self) -> u32 {
        self.max.max(self.min)
    }
}
