//! Pods per second through gate, release, filter, reserve and bind, and where the time goes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fairlead_crds::{TenantQuota, keys};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::report::{Report, percentile};
use super::scrape::{self, Page};
use super::surge;
use super::timeline::{LABEL, Seen, Timeline};
use super::usage::{self, Usage};
use crate::bed::{Bed, Options};
use crate::eventually::{eventually, seen};
use crate::{nodes, release};

const TENANTS: [&str; 2] = ["bench-a", "bench-b"];
const PODS: usize = 300;
const ROUNDS: usize = 3;
const SETUP_LIMIT: Duration = Duration::from_secs(60);
const ROUND_LIMIT: Duration = Duration::from_secs(120);
const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// Eighteen nodes: 300 pods of two CPUs are two thirds of what they hold.
pub(super) fn options() -> Options {
    Options { nodes: nodes::of_each_shape(6), ..Options::new("bench-pipeline") }
}

/// How the pods come.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The Deployments are scaled up and everything flows at once.
    Surge,
    /// All pods wait behind the gate, then the limit is lifted.
    Backlog,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Surge => "surge",
            Self::Backlog => "backlog",
        }
    }
}

/// The pods of one round and when it began.
struct Round {
    began: Instant,
    pods: Vec<Seen>,
}

/// What the processes said of themselves at one moment.
struct Look {
    extender: Page,
    operator: Page,
    scheduler: Page,
    usage: Usage,
}

struct Rig<'a> {
    bed: &'a Bed,
    timeline: Timeline,
}

/// Measures both phases, then the first replica count after a surge of orders.
pub(super) async fn run(bed: &Bed) -> Result<Report> {
    let mut report =
        Report::new("pipeline", "pods through gate, release, filter, reserve and bind; reaction to a surge");
    bed.install_fairlead(&release::values(bed)).await?;
    usage::settle(bed, SETTLE_LIMIT).await;
    usage::report_memory(&mut report, "at rest", &usage::now(bed, &[]).await);
    tenants(bed).await?;
    let rig = Rig { bed, timeline: Timeline::start(&bed.client) };
    for phase in [Phase::Surge, Phase::Backlog] {
        rig.phase(phase, &mut report).await?;
    }
    usage::report_memory(&mut report, "after the pods", &usage::now(bed, &[]).await);
    bed.kubectl.run(&["delete", "tenantquota", TENANTS[0], TENANTS[1]], SETUP_LIMIT).await?;
    surge::run(bed, &mut report).await?;
    notes(&mut report);
    Ok(report)
}

impl Rig<'_> {
    async fn phase(&self, phase: Phase, report: &mut Report) -> Result<()> {
        let before = self.look().await?;
        let mut rounds = Vec::new();
        for index in 0..ROUNDS {
            let round = match phase {
                Phase::Surge => self.surge().await?,
                Phase::Backlog => self.backlog().await?,
            };
            if round.pods.iter().any(|pod| !pod.gated) {
                bail!("a pod was not seen behind the gate");
            }
            tracing::info!(phase = phase.name(), round = index, pods_per_second = rate(&round));
            rounds.push(round);
            // Before anything is deleted: freeing is not part of what is measured.
            if index + 1 == ROUNDS {
                break;
            }
            self.clear().await?;
        }
        let after = self.look().await?;
        times(report, phase, &rounds);
        histograms(report, phase, &before, &after);
        processor(report, phase, &before.usage, &after.usage);
        self.clear().await
    }

    async fn surge(&self) -> Result<Round> {
        for tenant in TENANTS {
            limit(self.bed, tenant, None).await?;
        }
        let began = Instant::now();
        self.scale(PODS / TENANTS.len()).await?;
        let pods = self.timeline.all("bound", PODS, ROUND_LIMIT, |pod| pod.bound.is_some()).await?;
        Ok(Round { began, pods })
    }

    async fn backlog(&self) -> Result<Round> {
        for tenant in TENANTS {
            limit(self.bed, tenant, Some(0)).await?;
        }
        self.scale(PODS / TENANTS.len()).await?;
        self.timeline.all("created", PODS, ROUND_LIMIT, |_| true).await?;
        usage::settle(self.bed, SETTLE_LIMIT).await;
        if self.timeline.pods().iter().any(|pod| pod.ungated.is_some()) {
            bail!("a pod was released above a limit of none");
        }
        let began = Instant::now();
        for tenant in TENANTS {
            set_limit(self.bed, tenant, None).await?;
        }
        let pods = self.timeline.all("bound", PODS, ROUND_LIMIT, |pod| pod.bound.is_some()).await?;
        Ok(Round { began, pods })
    }

    async fn scale(&self, replicas: usize) -> Result<()> {
        for tenant in TENANTS {
            let api: Api<Deployment> = Api::namespaced(self.bed.client.clone(), tenant);
            let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
            api.patch("worker", &PatchParams::default(), &patch).await.context("scale a Deployment")?;
        }
        Ok(())
    }

    /// No pod and no reservation is left, and nobody is busy.
    async fn clear(&self) -> Result<()> {
        self.scale(0).await?;
        self.timeline.all("left", 0, ROUND_LIMIT, |_| true).await?;
        eventually("no reservation is left", ROUND_LIMIT, async || {
            let held =
                scrape::release(self.bed, "fairlead-extender", 9802).await?.sum("fairlead_extender_reservations", &[]);
            Ok(seen(held < 0.5, format!("{held} reservations")))
        })
        .await?;
        usage::settle(self.bed, SETTLE_LIMIT).await;
        Ok(())
    }

    async fn look(&self) -> Result<Look> {
        Ok(Look {
            extender: scrape::release(self.bed, "fairlead-extender", 9802).await?,
            operator: scrape::release(self.bed, "fairlead-operator", 9803).await?,
            scheduler: scrape::release(self.bed, "kube-scheduler", 10259).await?,
            usage: usage::now(self.bed, &[]).await,
        })
    }
}

/// Bound pods per second, from the begin of the round to the last of them.
fn rate(round: &Round) -> f64 {
    let last = round.pods.iter().filter_map(|pod| pod.bound).max();
    #[allow(clippy::cast_precision_loss, reason = "hundreds")]
    let pods = round.pods.len() as f64;
    last.map_or(0.0, |last| pods / (last - round.began).as_secs_f64())
}

fn times(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let name = phase.name();
    let rates: Vec<f64> = rounds.iter().map(rate).collect();
    report.add_rounds(format!("{name}: pods per second, until the last is bound"), &rates, "pods/s");
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
    let of = |stage: &dyn Fn(&Round, &Seen) -> Option<f64>| -> Vec<f64> {
        rounds.iter().flat_map(|round| round.pods.iter().filter_map(move |pod| stage(round, pod))).collect()
    };
    let created = of(&|round, pod| Some(ms(round.began, pod.created)));
    let waited = match phase {
        Phase::Surge => of(&|_, pod| Some(ms(pod.created, pod.ungated?))),
        Phase::Backlog => of(&|round, pod| Some(ms(round.began, pod.ungated?))),
    };
    let scheduled = of(&|_, pod| Some(ms(pod.ungated?, pod.bound?)));
    let whole = match phase {
        Phase::Surge => of(&|_, pod| Some(ms(pod.created, pod.bound?))),
        Phase::Backlog => of(&|round, pod| Some(ms(round.began, pod.bound?))),
    };
    let stages = match phase {
        Phase::Surge => [
            ("scaled up → created", created),
            ("created → ungated", waited),
            ("ungated → bound", scheduled),
            ("created → bound", whole),
        ]
        .to_vec(),
        Phase::Backlog => {
            vec![("limit lifted → ungated", waited), ("ungated → bound", scheduled), ("limit lifted → bound", whole)]
        }
    };
    for (stage, values) in stages {
        for percent in [50, 95] {
            let value = percentile(&values, percent);
            report.add(format!("{name}: {stage}, p{percent}"), value, "ms", values.len());
        }
    }
}

/// Means by the processes' own clocks.
fn histograms(report: &mut Report, phase: Phase, before: &Look, after: &Look) {
    let mut row = |what: &str, page: fn(&Look) -> &Page, metric: &str, labels: &[(&str, &str)]| {
        let spent = page(after).histogram(metric, labels).since(&page(before).histogram(metric, labels));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = spent.count as usize;
        report.add(format!("{}: {what}, mean", phase.name()), spent.mean_milli(), "ms", count);
    };
    for stage in ["Plan", "Ledger", "Gate"] {
        let labels = [("stage", stage)];
        row(&format!("operator's {stage}"), |look| &look.operator, "fairlead_gate_removal_duration_seconds", &labels);
    }
    let algorithm = "scheduler_scheduling_algorithm_duration_seconds";
    row("kube-scheduler's algorithm, extender included", |look| &look.scheduler, algorithm, &[]);
    let whole = "scheduler_pod_scheduling_sli_duration_seconds";
    row("kube-scheduler's queue to bound", |look| &look.scheduler, whole, &[]);
    for verb in ["Filter", "Prioritize", "Bind"] {
        let labels = [("verb", verb)];
        let metric = "fairlead_extender_request_duration_seconds";
        row(&format!("extender's {verb}"), |look| &look.extender, metric, &labels);
    }
}

fn processor(report: &mut Report, phase: Phase, before: &Usage, after: &Usage) {
    let pods = PODS * ROUNDS;
    #[allow(clippy::cast_precision_loss, reason = "hundreds")]
    let per_pod = |ms: f64| ms / pods as f64;
    let mut kinds: Vec<(&str, f64)> =
        after.keys().map(|kind| (kind.as_str(), per_pod(usage::spent_ms(kind, before, after)))).collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (kind, ms) in kinds.into_iter().filter(|(_, ms)| *ms >= 0.05) {
        report.add(format!("{}: CPU time per pod, {kind}", phase.name()), ms, "ms", pods);
    }
}

fn notes(report: &mut Report) {
    report.note(format!(
        "{PODS} Guaranteed pods of two CPUs, two Deployments of two tenants, {ROUNDS} rounds, 18 simulated nodes with 960 \
         CPUs, all on the machine above, etcd and API server included. surge: both Deployments are scaled up and everything \
         flows at once. backlog: all pods wait behind the gate, then the tenants' limits are lifted. Times per pod are of one \
         watch, over the pods of all rounds; CPU time is that of the whole phase, creation and removal of {} rounds included.",
        ROUNDS - 1
    ));
}

/// Two tenants with a namespace and an idle Deployment each.
async fn tenants(bed: &Bed) -> Result<()> {
    for tenant in TENANTS {
        for object in objects(tenant) {
            bed.kubectl.run_with(&["apply", "-f", "-"], Some(&object.to_string()), SETUP_LIMIT).await?;
        }
    }
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    for tenant in TENANTS {
        eventually("the namespace is managed", SETUP_LIMIT, async || {
            let labels = namespaces.get(tenant).await?.metadata.labels.unwrap_or_default();
            Ok(seen(labels.contains_key(keys::TENANT_LABEL), format!("labels {labels:?}")))
        })
        .await?;
    }
    Ok(())
}

fn objects(tenant: &str) -> [Value; 3] {
    let amounts = json!({ "cpu": "2", "memory": "1Gi" });
    let labels = json!({ "app": "worker", LABEL: "pipeline" });
    let container = json!({
        "name": "worker", "image": "example.com/worker:1", "resources": { "requests": amounts, "limits": amounts },
    });
    [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": tenant } }),
        json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": "TenantQuota",
            "metadata": { "name": tenant }, "spec": { "namespaces": [tenant], "weight": 1 },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "worker", "namespace": tenant },
            "spec": {
                "replicas": 0, "selector": { "matchLabels": { "app": "worker" } },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
            },
        }),
    ]
}

/// Sets a tenant's limit and waits until the operator has seen it.
async fn limit(bed: &Bed, tenant: &str, hard: Option<i64>) -> Result<()> {
    let api: Api<TenantQuota> = Api::all(bed.client.clone());
    let generation = set_limit(bed, tenant, hard).await?;
    eventually("the operator has seen the limit", SETUP_LIMIT, async || {
        let status = api.get(tenant).await?.status;
        let observed = status.and_then(|status| status.observed_generation);
        Ok(seen(observed >= generation, format!("generation {observed:?} of {generation:?}")))
    })
    .await
}

async fn set_limit(bed: &Bed, tenant: &str, hard: Option<i64>) -> Result<Option<i64>> {
    let api: Api<TenantQuota> = Api::all(bed.client.clone());
    let concurrency = hard.map_or(Value::Null, |hard| json!({ "hard": hard }));
    let patch = Patch::Merge(json!({ "spec": { "concurrency": concurrency } }));
    let quota = api.patch(tenant, &PatchParams::default(), &patch).await.context("set a tenant's limit")?;
    Ok(quota.metadata.generation)
}
