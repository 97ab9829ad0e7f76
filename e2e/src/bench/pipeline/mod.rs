//! Pods per second through gate, release, filter, reserve and bind, beside the same pods without Fairlead.

mod rows;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fairlead_crds::{TenantQuota, keys};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::report::Report;
use super::scrape::{self, Page};
use super::surge;
use super::timeline::{LABEL, Seen, Timeline};
use super::usage::{self, Usage};
use crate::bed::{Bed, Options};
use crate::eventually::{eventually, seen};
use crate::{nodes, release};

/// Namespaces of nobody, and those of two tenants that are called the same.
const PLAIN: [&str; 2] = ["bench-plain-a", "bench-plain-b"];
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// As `Surge`, in namespaces of nobody and with the cluster's own scheduler.
    Plain,
    /// Deployments are scaled up and everything flows at once.
    Surge,
    /// All pods wait behind the gate, then the limit is lifted.
    Backlog,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "without Fairlead",
            Self::Surge => "surge",
            Self::Backlog => "backlog",
        }
    }

    fn namespaces(self) -> [&'static str; 2] {
        if self == Self::Plain { PLAIN } else { TENANTS }
    }
}

/// The pods of one round, and everybody's counters around it.
struct Round {
    began: Instant,
    pods: Vec<Seen>,
    before: Look,
    after: Look,
}

/// What the processes said of themselves at one moment.
struct Look {
    extender: Page,
    operator: Page,
    scheduler: Page,
    api_server: Page,
    usage: Usage,
}

struct Rig<'a> {
    bed: &'a Bed,
    timeline: Timeline,
}

/// Measures all phases, then the first replica count after a surge of orders.
pub(super) async fn run(bed: &Bed) -> Result<Report> {
    let mut report =
        Report::new("pipeline", "pods through gate, release, filter, reserve and bind; reaction to a surge of orders");
    bed.install_fairlead(&release::values(bed)).await?;
    usage::settle(bed, SETTLE_LIMIT).await;
    usage::report_memory(&mut report, "at rest", &usage::now(bed, &[]).await);
    workloads(bed).await?;
    let rig = Rig { bed, timeline: Timeline::start(&bed.client) };
    for phase in [Phase::Plain, Phase::Surge, Phase::Backlog] {
        let mut rounds = Vec::new();
        for index in 0..ROUNDS {
            let round = rig.round(phase).await?;
            tracing::info!(phase = phase.name(), round = index, pods_per_second = rows::rate(&round));
            rounds.push(round);
        }
        rows::tell(&mut report, phase, &rounds);
    }
    usage::report_memory(&mut report, "after the pods", &usage::now(bed, &[]).await);
    bed.kubectl.run(&["delete", "tenantquota", TENANTS[0], TENANTS[1]], SETUP_LIMIT).await?;
    surge::run(bed, &mut report).await?;
    rows::notes(&mut report);
    Ok(report)
}

impl Rig<'_> {
    async fn round(&self, phase: Phase) -> Result<Round> {
        for tenant in TENANTS {
            limit(self.bed, tenant, (phase == Phase::Backlog).then_some(0)).await?;
        }
        if phase == Phase::Backlog {
            self.scale(phase, PODS / 2).await?;
            self.timeline.all("created", PODS, ROUND_LIMIT, |_| true).await?;
            usage::settle(self.bed, SETTLE_LIMIT).await;
            if self.timeline.pods().iter().any(|pod| pod.ungated.is_some()) {
                bail!("a pod was released above a limit of none");
            }
        }
        // The pages are read outside of what is measured: they cost their servers time.
        let mut before = self.look().await?;
        before.usage = usage::now(self.bed, &[]).await;
        let began = Instant::now();
        if phase == Phase::Backlog {
            for tenant in TENANTS {
                set_limit(self.bed, tenant, None).await?;
            }
        } else {
            self.scale(phase, PODS / 2).await?;
        }
        let pods = self.timeline.all("bound", PODS, ROUND_LIMIT, |pod| pod.bound.is_some()).await?;
        let after = self.look().await?;
        if pods.iter().any(|pod| pod.gated == (phase == Phase::Plain)) {
            bail!("a pod was not seen behind the gate, or was there though it belongs to nobody");
        }
        self.clear(phase).await?;
        Ok(Round { began, pods, before, after })
    }

    async fn scale(&self, phase: Phase, replicas: usize) -> Result<()> {
        for namespace in phase.namespaces() {
            let api: Api<Deployment> = Api::namespaced(self.bed.client.clone(), namespace);
            let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
            api.patch("worker", &PatchParams::default(), &patch).await.context("scale a Deployment")?;
        }
        Ok(())
    }

    /// No pod and no reservation is left, and nobody is busy.
    async fn clear(&self, phase: Phase) -> Result<()> {
        self.scale(phase, 0).await?;
        self.timeline.all("left", 0, ROUND_LIMIT, |_| true).await?;
        eventually("no reservation is left", ROUND_LIMIT, async || {
            let page = scrape::release(self.bed, "fairlead-extender", 9802).await?;
            let held = page.sum("fairlead_extender_reservations", &[]);
            Ok(seen(held < 0.5, format!("{held} reservations")))
        })
        .await?;
        usage::settle(self.bed, SETTLE_LIMIT).await;
        Ok(())
    }

    async fn look(&self) -> Result<Look> {
        Ok(Look {
            usage: usage::now(self.bed, &[]).await,
            extender: scrape::release(self.bed, "fairlead-extender", 9802).await?,
            operator: scrape::release(self.bed, "fairlead-operator", 9803).await?,
            scheduler: scrape::release(self.bed, "kube-scheduler", 10259).await?,
            api_server: scrape::api_server(self.bed).await?,
        })
    }
}

/// Four namespaces with an idle Deployment each, two of them of tenants.
async fn workloads(bed: &Bed) -> Result<()> {
    for namespace in PLAIN.into_iter().chain(TENANTS) {
        let objects = objects(namespace, TENANTS.contains(&namespace));
        for object in objects {
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

fn objects(namespace: &str, managed: bool) -> Vec<Value> {
    let amounts = json!({ "cpu": "2", "memory": "1Gi" });
    let labels = json!({ "app": "worker", LABEL: "pipeline" });
    let container = json!({
        "name": "worker", "image": "example.com/worker:1", "resources": { "requests": amounts, "limits": amounts },
    });
    let mut objects = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "worker", "namespace": namespace },
            "spec": {
                "replicas": 0, "selector": { "matchLabels": { "app": "worker" } },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
            },
        }),
    ];
    if managed {
        objects.push(json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": "TenantQuota",
            "metadata": { "name": namespace }, "spec": { "namespaces": [namespace], "weight": 1 },
        }));
    }
    objects
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
