//! What the agent counts.
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::node_placement::PinState;
use fairlead_crds::node_topology::PinningMode;
use fairlead_runtime::Metrics;
use fairlead_runtime::prometheus_client::encoding::EncodeLabelSet;
use fairlead_runtime::prometheus_client::metrics::counter::Counter;
use fairlead_runtime::prometheus_client::metrics::family::{Family, MetricConstructor};
use fairlead_runtime::prometheus_client::metrics::gauge::Gauge;
use fairlead_runtime::prometheus_client::metrics::histogram::Histogram;
use fairlead_runtime::prometheus_client::registry::Unit;
use fairlead_runtime::pump::PumpMetrics;

use crate::pinner::Report;

/// Label of the error counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabel {
    /// What was tried.
    pub operation: &'static str,
}

/// Label of the answers to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabel {
    /// What the runtime asked.
    pub call: &'static str,
}

/// Label of the containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// How it runs.
    pub state: &'static str,
}

/// Buckets of the answers: 20 µs to the runtime's own limit of 2 s.
#[derive(Debug, Clone, Copy)]
pub struct AnswerBuckets;

impl MetricConstructor<Histogram> for AnswerBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new([
            0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0,
        ])
    }
}

/// What is counted of the pinning.
#[derive(Debug, Clone)]
pub struct PinMetrics {
    answers: Family<CallLabel, Histogram, AnswerBuckets>,
    /// Registrations with the runtime.
    pub connections: Counter,
    /// Containers that were not created.
    pub refusals: Counter,
    /// Containers that the runtime was asked to change.
    pub updates: Counter,
    /// Checkpoints that could not be read or written.
    pub checkpoint_failures: Counter,
    containers: Family<StateLabel, Gauge>,
    shared_cpus: Gauge,
    owned: Gauge,
}

impl PinMetrics {
    fn register(metrics: &mut Metrics) -> Self {
        Self {
            answers: metrics.register_with_unit(
                "agent_runtime_answer",
                "Time from a question of the container runtime to its answer",
                Unit::Seconds,
                Family::new_with_constructor(AnswerBuckets),
            ),
            connections: metrics.register(
                "agent_runtime_connections",
                "Times the container runtime told all it has: once, and once after each restart of either",
                Counter::default(),
            ),
            refusals: metrics.register(
                "agent_refused_containers",
                "Containers not created because they could not run as promised; the kubelet tries again",
                Counter::default(),
            ),
            updates: metrics.register(
                "agent_updated_containers",
                "Containers that the container runtime was asked to move",
                Counter::default(),
            ),
            checkpoint_failures: metrics.register(
                "agent_checkpoint_failures",
                "Checkpoints that could not be read or written",
                Counter::default(),
            ),
            containers: metrics.register(
                "agent_containers",
                "Containers by how they run: Shared, or with CPUs of their own Pending, Pinned, Unpinned, Drifted",
                Family::default(),
            ),
            shared_cpus: metrics.register("agent_shared_cpus", "CPUs of the shared pool", Gauge::default()),
            owned: metrics.register(
                "agent_pinning_owned",
                "1 while this agent pins the node's containers",
                Gauge::default(),
            ),
        }
    }

    /// A call was answered.
    pub fn answered(&self, call: &'static str, took: Option<Duration>) {
        if let Some(took) = took {
            self.answers.get_or_create(&CallLabel { call }).observe(took.as_secs_f64());
        }
    }

    /// Shows what is reported.
    pub fn show(&self, report: &Report) {
        let owned = report.pinning.as_ref().is_some_and(|pinning| pinning.mode == PinningMode::Own);
        self.owned.set(i64::from(owned));
        let Some(observed) = &report.observed else { return };
        let count = |state| observed.containers.iter().filter(|container| container.state == state).count();
        let lines = [
            ("Pending", count(PinState::Pending)),
            ("Pinned", count(PinState::Pinned)),
            ("Unpinned", count(PinState::Unpinned)),
            ("Drifted", count(PinState::Drifted)),
            ("Shared", observed.shared_containers),
        ];
        for (state, count) in lines {
            self.containers.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.shared_cpus.set(i64::from(observed.shared_cpu_count));
    }
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
    /// Of the pinning.
    pub pinning: PinMetrics,
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
            pinning: PinMetrics::register(metrics),
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
