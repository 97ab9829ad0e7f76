//! What the operator counts, and the gauges of tenants and pools that are computed when somebody asks.
use crate::scaling::report::{PoolReport, PoolReports};
use crate::view::{TenantFacts, View};
use fairlead_fairshare::{ResourceVector, dominant};
use fairlead_runtime::Metrics;
use fairlead_runtime::metrics::{Collector, MetricDoc};
use fairlead_runtime::prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use fairlead_runtime::prometheus_client::metrics::counter::Counter;
use fairlead_runtime::prometheus_client::metrics::family::Family;
use fairlead_runtime::prometheus_client::metrics::gauge::ConstGauge;
use fairlead_runtime::prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use fairlead_runtime::prometheus_client::metrics::{MetricType, TypedMetric};
use fairlead_runtime::prometheus_client::registry::Unit;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Part of a release that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Stage {
    /// From the pod's creation until its gate was removed.
    Waiting,
    /// One plan over all tenants.
    Plan,
    /// One ledger write.
    Ledger,
    /// One gate removal.
    Gate,
}

/// Label of the stages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    stage: Stage,
}

/// Label of a tenant's counters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantLabel {
    tenant: String,
}

/// Label of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// How a write of replicas ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ScaleOutcome {
    /// Written.
    Written,
    /// Somebody else had changed the replicas.
    Conflict,
    /// Refused, or no answer.
    Failed,
}

/// Label of the scale writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScaleLabel {
    outcome: ScaleOutcome,
}

/// Counters and histograms. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    /// Ledger writes that found another version.
    pub ledger_conflicts: Counter,
    releases: Family<TenantLabel, Counter>,
    /// Tenants that `releases` has a line for.
    released: Arc<Mutex<BTreeSet<String>>>,
    refusals: Family<ReasonLabel, Counter>,
    stages: Family<StageLabel, Histogram>,
    scale_writes: Family<ScaleLabel, Counter>,
    queue_failures: Family<ReasonLabel, Counter>,
}

impl OperatorMetrics {
    /// Adds them to the process's page.
    pub fn register(metrics: &mut Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        Self {
            releases: metrics.register("releases", "Pods whose gate was removed, by tenant", Family::default()),
            released: Arc::default(),
            refusals: metrics.register("refusals", "Waiting pods that were told this reason", Family::default()),
            ledger_conflicts: metrics.register(
                "ledger_conflicts",
                "Ledger writes that found another version, as after a change of leader",
                Counter::default(),
            ),
            stages: metrics.register_with_unit(
                "gate_removal_duration",
                "Time per stage of a release: waiting (creation to removal), plan, ledger and gate writes",
                Unit::Seconds,
                Family::new_with_constructor(histogram),
            ),
            scale_writes: metrics.register("scale_writes", "Writes of replicas, by outcome", Family::default()),
            queue_failures: metrics.register(
                "queue_failures",
                "Looks at a queue that failed, by reason",
                Family::default(),
            ),
        }
    }

    /// Times a stage until the guard is dropped.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> StageTimer {
        StageTimer { histogram: self.stages.get_or_create_owned(&StageLabel { stage }), start: Instant::now() }
    }

    /// A gate was removed.
    pub fn released(&self, tenant: &str, waited_ms: u64) {
        self.releases.get_or_create(&TenantLabel { tenant: tenant.to_owned() }).inc();
        self.released.lock().insert(tenant.to_owned());
        let seconds = std::time::Duration::from_millis(waited_ms).as_secs_f64();
        self.stages.get_or_create(&StageLabel { stage: Stage::Waiting }).observe(seconds);
    }

    /// Forgets the tenants that are no more: a name that nobody has any longer is not shown for ever.
    pub fn keep_tenants(&self, there: impl Fn(&str) -> bool) {
        self.released.lock().retain(|tenant| {
            let stays = there(tenant);
            if !stays {
                self.releases.remove(&TenantLabel { tenant: tenant.clone() });
            }
            stays
        });
    }

    /// A pod was told why it waits.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Replicas were written, or not.
    pub fn scaled(&self, outcome: ScaleOutcome) {
        self.scale_writes.get_or_create(&ScaleLabel { outcome }).inc();
    }

    /// A queue could not be read.
    pub fn queue_failed(&self, reason: &'static str) {
        self.queue_failures.get_or_create(&ReasonLabel { reason }).inc();
    }
}

/// Observes when it is dropped.
#[derive(Debug)]
pub struct StageTimer {
    histogram: Histogram,
    start: Instant,
}

impl Drop for StageTimer {
    fn drop(&mut self) {
        self.histogram.observe(self.start.elapsed().as_secs_f64());
    }
}

const TENANT_GAUGES: [(&str, &str); 9] = [
    ("tenant_base", "Part of the cluster that the weight gives, by resource (cpu in milli-CPU, memory in bytes)"),
    ("tenant_entitled", "Part of the cluster that the tenant is entitled to, capped by demand and hard limits"),
    ("tenant_used", "Requests of released, live pods and of those being released"),
    ("tenant_hard", "Hard limits; absent where unlimited"),
    ("tenant_share", "Used part of the tenant's dominant resource, in percent"),
    ("tenant_pending", "Pods behind the gate, by reason"),
    ("tenant_oldest_wait_seconds", "Age of the oldest pod behind the gate; 0 when none waits"),
    ("tenant_intents", "Releases that are decided and not settled"),
    ("tenant_releasing", "1 while the release protocol of the tenant is ready"),
];

const POOL_GAUGES: [(&str, &str); 4] = [
    ("pool_wanted_replicas", "Replicas that the queue asks for, before quota; absent while the queue is unknown"),
    ("pool_ordered_replicas", "Replicas of the target"),
    ("pool_ready_replicas", "Ready pods of the target"),
    ("pool_backlog", "Work in the queue by state, undelivered and in_flight; absent while unknown"),
];

/// Gauges of tenants and pools, from what the operator holds at the time of asking. A replica that does not lead shows no
/// tenants and no pools: it decides nothing about them.
#[derive(Debug)]
pub struct Holdings {
    view: watch::Receiver<Arc<View>>,
    pools: PoolReports,
    now_ms: fn() -> u64,
}

impl Holdings {
    /// Adds the gauges to the process's page.
    pub fn register(metrics: &mut Metrics, view: watch::Receiver<Arc<View>>, pools: PoolReports) {
        let docs = TENANT_GAUGES.iter().chain(&POOL_GAUGES);
        let docs: Vec<MetricDoc> =
            docs.map(|(name, help)| MetricDoc::collected(name, MetricType::Gauge, help)).collect();
        metrics.register_collector(docs, Box::new(Self { view, pools, now_ms: crate::clock::now_ms }));
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

struct Rows<'a>(Vec<(Labels<'a>, i64)>);

impl<'a> Rows<'a> {
    fn push(&mut self, labels: Labels<'a>, value: u64) {
        self.0.push((labels, i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn vector(&mut self, tenant: &'a str, vector: &'a ResourceVector) {
        for (resource, amount) in vector {
            self.push(vec![("tenant", tenant), ("resource", resource)], *amount);
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?;
        for (labels, value) in &self.0 {
            ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn tenant_rows<'a>(
    name: &str,
    tenant: &'a str,
    facts: &'a TenantFacts,
    view: &'a View,
    now_ms: u64,
    rows: &mut Rows<'a>,
) {
    match name {
        "tenant_base" => rows.vector(tenant, &facts.base),
        "tenant_entitled" => rows.vector(tenant, &facts.entitled),
        "tenant_used" => rows.vector(tenant, &facts.used),
        "tenant_hard" => rows.vector(tenant, &facts.hard),
        "tenant_share" => {
            let share = dominant(&view.total, &facts.used).map_or(0, |top| top.percent());
            rows.push(vec![("tenant", tenant)], share);
        }
        "tenant_pending" => {
            for (reason, pods) in &facts.reasons {
                rows.push(vec![("tenant", tenant), ("reason", reason)], *pods as u64);
            }
        }
        "tenant_oldest_wait_seconds" => {
            let waited = facts.oldest_waiting_ms.map_or(0, |since| now_ms.saturating_sub(since) / 1000);
            rows.push(vec![("tenant", tenant)], waited);
        }
        "tenant_intents" => rows.push(vec![("tenant", tenant)], facts.in_flight as u64),
        _ => rows.push(vec![("tenant", tenant)], u64::from(facts.ready)),
    }
}

fn pool_rows<'a>(name: &str, namespace: &'a str, pool: &'a str, report: &PoolReport, rows: &mut Rows<'a>) {
    let labels = || vec![("namespace", namespace), ("pool", pool)];
    match name {
        "pool_wanted_replicas" => {
            if let Some(wanted) = report.wanted {
                rows.push(labels(), u64::from(wanted));
            }
        }
        "pool_ordered_replicas" => rows.push(labels(), u64::from(report.ordered)),
        "pool_ready_replicas" => rows.push(labels(), u64::from(report.ready)),
        _ => {
            if let Some((undelivered, in_flight)) = report.backlog {
                for (state, items) in [("undelivered", undelivered), ("in_flight", in_flight)] {
                    let mut labels = labels();
                    labels.push(("state", state));
                    rows.push(labels, items);
                }
            }
        }
    }
}

impl Collector for Holdings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let view = self.view.borrow().clone();
        let now_ms = (self.now_ms)();
        for (name, help) in TENANT_GAUGES {
            let mut rows = Rows(Vec::new());
            for (tenant, facts) in view.tenants.iter().filter(|_| view.leading) {
                tenant_rows(name, tenant, facts, &view, now_ms, &mut rows);
            }
            rows.encode(&mut encoder, name, help)?;
        }
        let pools = self.pools.all();
        for (name, help) in POOL_GAUGES {
            let mut rows = Rows(Vec::new());
            for (key, report) in &pools {
                pool_rows(name, &key.namespace, &key.name, report, &mut rows);
            }
            rows.encode(&mut encoder, name, help)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_that_are_gone_are_not_shown() {
        let mut page = Metrics::new("operator");
        let metrics = OperatorMetrics::register(&mut page);
        for tenant in ["acme", "globex", "acme"] {
            metrics.released(tenant, 10);
        }
        metrics.keep_tenants(|tenant| tenant == "acme");
        let text = page.encode().unwrap();
        assert!(text.contains("tenant=\"acme\"} 2") && !text.contains("globex"), "{text}");
        metrics.released("globex", 10);
        assert!(page.encode().unwrap().contains("tenant=\"globex\"} 1"));
    }
}
