//! What the agent counts.
use std::sync::Arc;

use fairlead_runtime::Metrics;
use fairlead_runtime::prometheus_client::encoding::EncodeLabelSet;
use fairlead_runtime::prometheus_client::metrics::counter::Counter;
use fairlead_runtime::prometheus_client::metrics::family::Family;
use fairlead_runtime::prometheus_client::metrics::gauge::Gauge;
use fairlead_runtime::pump::PumpMetrics;

/// Label of the error counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabel {
    /// What was tried.
    pub operation: &'static str,
}

/// The agent's counters. Cheap to clone; all clones count on one page.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    /// Writes of the NodeTopology.
    pub topology_writes: Counter,
    /// NodePlacements created.
    pub placements_created: Counter,
    /// Writes of the NodePlacement's status.
    pub status_writes: Counter,
    errors: Family<OperationLabel, Counter>,
    /// CPUs of the machine.
    pub cpus: Gauge,
    /// Facts on which hwloc and sysfs differ.
    pub disagreements: Gauge,
    /// Reservations on the node.
    pub reservations: Gauge,
    /// CPUs held by them.
    pub reserved_cpus: Gauge,
    /// 1 while the reservations agree with the machine.
    pub consistent: Gauge,
    /// Of the watch pumps.
    pub pumps: PumpMetrics,
}

impl AgentMetrics {
    /// Adds the counters to the process's page.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            topology_writes: metrics.register(
                "agent_topology_writes",
                "Writes of the NodeTopology; they stop once it is published",
                Counter::default(),
            ),
            placements_created: metrics.register(
                "agent_placements_created",
                "NodePlacements created because there was none",
                Counter::default(),
            ),
            status_writes: metrics.register(
                "agent_placement_status_writes",
                "Writes of the NodePlacement's status",
                Counter::default(),
            ),
            errors: metrics.register("agent_errors", "Failures, tried again after a pause", Family::default()),
            cpus: metrics.register("agent_machine_cpus", "CPUs of the machine", Gauge::default()),
            disagreements: metrics.register(
                "agent_machine_disagreements",
                "Facts on which hwloc and sysfs differ; the node is not trusted unless 0",
                Gauge::default(),
            ),
            reservations: metrics.register("agent_reservations", "Reservations on the node", Gauge::default()),
            reserved_cpus: metrics.register("agent_reserved_cpus", "CPUs held by reservations", Gauge::default()),
            consistent: metrics.register(
                "agent_placement_consistent",
                "1 while the reservations agree with the machine",
                Gauge::default(),
            ),
            pumps: PumpMetrics::register(metrics),
        }
    }

    /// Something failed.
    pub fn failed(&self, operation: &'static str) {
        self.errors.get_or_create(&OperationLabel { operation }).inc();
    }
}

/// The page of this process and the counters on it.
#[must_use]
pub fn page() -> (Arc<Metrics>, AgentMetrics) {
    let mut metrics = Metrics::new("agent");
    let counters = AgentMetrics::register(&mut metrics);
    (Arc::new(metrics), counters)
}
