//! What the extender counts.
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_cluster::{HOLE_SIZES, Snapshot, Survey};
use fairlead_placement::{Phase, Reason};
use fairlead_runtime::Metrics;
use fairlead_runtime::lease::LeaseMetrics;
use fairlead_runtime::prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use fairlead_runtime::prometheus_client::metrics::counter::Counter;
use fairlead_runtime::prometheus_client::metrics::family::{Family, MetricConstructor};
use fairlead_runtime::prometheus_client::metrics::gauge::Gauge;
use fairlead_runtime::prometheus_client::metrics::histogram::Histogram;
use fairlead_runtime::prometheus_client::registry::Unit;
use fairlead_runtime::pump::PumpMetrics;

use crate::answer::Tally;

/// A verb of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Verb {
    Filter,
    Prioritize,
    Preempt,
    Bind,
}

/// Labels of the request histogram.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabel {
    /// Which verb.
    pub verb: Verb,
    /// HTTP status of the reply.
    pub code: u16,
}

/// Label of the verdict counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabel {
    /// [`Reason::name`], or `Fits`.
    pub reason: &'static str,
}

/// Label of the gauge of aligned holes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HoleLabel {
    /// Whole cores.
    pub size: u32,
}

/// Label of the gauge of reservations by phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabel {
    /// [`Phase::name`].
    pub phase: &'static str,
}

/// Label of counters by outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What it came to.
    pub outcome: &'static str,
}

/// Buckets of the request histogram: 20 µs, the floor of a filter call, to the scheduler's own limit of 5 s.
#[derive(Debug, Clone, Copy)]
pub struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        let bounds = [
            0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
            2.0, 5.0,
        ];
        Histogram::new(bounds)
    }
}

/// The extender's counters. Cheap to clone; all clones count on one page.
#[derive(Debug, Clone)]
pub struct ExtenderMetrics {
    requests: Family<RequestLabel, Histogram, Buckets>,
    shed: Counter,
    verdicts: Family<VerdictLabel, Counter>,
    binds: Family<OutcomeLabel, Counter>,
    /// Writes of binds that lost to another writer.
    pub conflicts: Counter,
    /// Writes whose answer was lost and that were resolved by reading.
    pub lost: Counter,
    releases: Family<OutcomeLabel, Counter>,
    wakes: Family<OutcomeLabel, Counter>,
    /// Looks for refused pods with a chance that ended at a limit.
    pub wake_looks_cut: Counter,
    claimed_devices: Family<OutcomeLabel, Counter>,
    snapshot: SnapshotMetrics,
    /// Of the watch pumps.
    pub pumps: PumpMetrics,
    /// Of the reaper's lease.
    pub lease: LeaseMetrics,
}

impl ExtenderMetrics {
    /// Adds the counters to the process's page.
    #[allow(clippy::too_many_lines, reason = "a table, one entry for each counter")]
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            requests: metrics.register_with_unit(
                "extender_request_duration",
                "Server time of a request, from its complete body to its reply, by verb and HTTP status",
                Unit::Seconds,
                Family::new_with_constructor(Buckets),
            ),
            shed: metrics.register(
                "extender_requests_shed",
                "Requests refused with 503 because too many were in flight",
                Counter::default(),
            ),
            verdicts: metrics.register(
                "extender_verdicts",
                "Nodes judged by filter, by reason of the refusal or Fits",
                Family::default(),
            ),
            binds: metrics.register("extender_binds", "Binds by outcome", Family::default()),
            conflicts: metrics.register(
                "extender_reservation_conflicts",
                "Writes of binds (reservation or Binding) that lost to another writer and were tried again",
                Counter::default(),
            ),
            lost: metrics.register(
                "extender_lost_answers",
                "Writes without an answer, resolved by reading the live object",
                Counter::default(),
            ),
            releases: metrics.register(
                "extender_releases",
                "Reservations looked at by the reaper because their pod seems gone, by outcome",
                Family::default(),
            ),
            wakes: metrics.register(
                "extender_wakes",
                "Refused pods written to because a node has room for them now, by outcome",
                Family::default(),
            ),
            wake_looks_cut: metrics.register(
                "extender_wake_looks_cut",
                "Looks for refused pods that a node has room for now, ended at a limit of pods or wishes and gone on with later",
                Counter::default(),
            ),
            claimed_devices: metrics.register(
                "extender_claimed_devices",
                "Devices of resource claims looked up for binds, by outcome: Near, or why CPUs were chosen without them",
                Family::default(),
            ),
            snapshot: SnapshotMetrics::register(metrics),
            pumps: PumpMetrics::register(metrics),
            lease: LeaseMetrics::register(metrics),
        }
    }

    /// A request was answered.
    pub fn answered(&self, verb: Verb, code: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabel { verb, code }).observe(took.as_secs_f64());
    }

    /// A request was refused because too many were in flight.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Nodes were judged.
    pub fn judged(&self, tally: &Tally) {
        let add = |reason, count: u32| {
            if count > 0 {
                self.verdicts.get_or_create(&VerdictLabel { reason }).inc_by(u64::from(count));
            }
        };
        add("Fits", tally.fits);
        for (reason, &count) in Reason::ALL.iter().zip(&tally.refused) {
            add(reason.name(), count);
        }
    }

    /// A bind ended.
    pub fn bound(&self, outcome: &'static str) {
        self.binds.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The reaper was done with one reservation.
    pub fn released(&self, outcome: &'static str) {
        self.releases.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// All reservations were looked at.
    pub fn surveyed(&self, survey: &Survey) {
        self.snapshot.survey(survey);
    }

    /// A refused pod was to be tried again.
    pub fn woken(&self, outcome: &'static str) {
        self.wakes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A device of a claim was looked up for a bind.
    pub fn device_looked_up(&self, outcome: &'static str) {
        self.claimed_devices.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A snapshot was published.
    pub fn published(&self, snapshot: &Snapshot) {
        self.snapshot.show(snapshot);
    }
}

/// What a snapshot shows.
#[derive(Debug, Clone)]
struct SnapshotMetrics {
    reservations: Gauge,
    phases: Family<PhaseLabel, Gauge>,
    generation: Gauge,
    published: Gauge<f64, AtomicU64>,
    nodes: Gauge,
    aligned_holes: Family<HoleLabel, Gauge>,
    nodes_distrusted: Family<VerdictLabel, Gauge>,
}

impl SnapshotMetrics {
    fn register(metrics: &mut Metrics) -> Self {
        Self {
            reservations: metrics.register(
                "extender_reservations",
                "Reservations of all nodes as the watch shows them",
                Gauge::default(),
            ),
            phases: metrics.register(
                "extender_reservation_phases",
                "Reservations by how far they have come: Reserved, Bound, Observed (seen to run as promised), Lapsed",
                Family::default(),
            ),
            generation: metrics.register(
                "extender_snapshot_generation",
                "Generation of the snapshot in use; it rises with every change seen",
                Gauge::default(),
            ),
            published: metrics.register_with_unit(
                "extender_snapshot_published_timestamp",
                "When the snapshot in use was published, since the Unix epoch",
                Unit::Seconds,
                Gauge::default(),
            ),
            nodes: metrics.register("extender_snapshot_nodes", "Nodes in the snapshot", Gauge::default()),
            aligned_holes: metrics.register(
                "extender_aligned_holes",
                "Disjoint sets of so many wholly free cores, each within one L3 cache, on all trusted nodes",
                Family::default(),
            ),
            nodes_distrusted: metrics.register(
                "extender_nodes_without_promises",
                "Nodes that get no pods with CPUs of their own, by reason",
                Family::default(),
            ),
        }
    }

    fn show(&self, snapshot: &Snapshot) {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.generation.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
        self.nodes.set(whole(snapshot.nodes.len()));
        self.reservations.set(whole(snapshot.reservations()));
        for (size, count) in HOLE_SIZES.into_iter().zip(snapshot.holes().0) {
            self.aligned_holes.get_or_create(&HoleLabel { size }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        // Of all reasons, so that one that has gone says 0 and not what it was.
        for reason in Reason::ALL {
            let nodes = snapshot.distrusted().get(&reason).copied().unwrap_or(0);
            self.nodes_distrusted.get_or_create(&VerdictLabel { reason: reason.name() }).set(whole(nodes));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.published.set(now.as_secs_f64());
    }

    fn survey(&self, survey: &Survey) {
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Released) {
            let count = survey.phases.get(&phase).copied().unwrap_or(0);
            let gauge = self.phases.get_or_create(&PhaseLabel { phase: phase.name() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// The page of this process and the counters on it.
#[must_use]
pub fn page() -> (Arc<Metrics>, ExtenderMetrics) {
    let mut metrics = Metrics::new("extender");
    let counters = ExtenderMetrics::register(&mut metrics);
    (Arc::new(metrics), counters)
}
