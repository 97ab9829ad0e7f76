//! What the extender costs: kube-scheduler's own algorithm time per pod with and without it, in interleaved rounds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::fleet::Fleet;
use super::plain::{self, Plain};
use super::report::{Report, median};
use super::scrape::{self, Histogram, Page};
use super::timeline::{LABEL, Timeline};
use super::usage;
use crate::bed::{Bed, Options};
use crate::eventually::{eventually, seen};
use crate::release;
use fairlead_crds::keys;

const NAMESPACE: &str = "bench";
/// Nodes in the cluster, the simulated ones included.
const SIZES: [usize; 2] = [1_000, 5_000];
const ROUNDS: usize = 5;
const PODS: usize = 150;
/// Pods of the round that is not counted.
const WARM_UP: usize = 30;
/// One pod each so often: slower than the scheduler, so that the API server's work for one pod is done before the next.
const PACE: Duration = Duration::from_millis(33);
/// No round begins later than this after the start.
const LAST_ROUND: Duration = Duration::from_secs(480);
const ROUND_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(45);
const GROW_LIMIT: Duration = Duration::from_secs(60);

/// Twelve simulated nodes and no queue.
pub(super) fn options() -> Options {
    Options { redis_password: None, ..Options::new("bench-scheduler") }
}

/// Who places the pods of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// kube-scheduler alone.
    Without,
    /// With the extender's scores among others.
    Score,
    /// With an extender that returns the one node.
    Decide,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Without, Self::Score, Self::Decide];

    fn scheduler(self) -> &'static str {
        match self {
            Self::Score | Self::Decide => keys::SCHEDULER_NAME,
            Self::Without => plain::NAME,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Without => "without extender",
            Self::Score => "with extender, score mode",
            Self::Decide => "with extender, decide mode",
        }
    }
}

/// What one round measured.
#[derive(Clone, Copy, Debug)]
struct Round {
    mode: Mode,
    algorithm_ms: f64,
    scheduler_cpu_ms: f64,
    extender_cpu_ms: f64,
    bound_ms: f64,
}

struct Rig<'a> {
    bed: &'a Bed,
    plain: Plain,
    timeline: Timeline,
    began: Instant,
    rounds_made: usize,
}

/// Measures both sizes.
pub(super) async fn run(bed: &Bed) -> Result<Report> {
    let began = Instant::now();
    let mut values = release::values(bed);
    // One of each: standbys would only take time from those that work.
    values["scheduler"] = json!({ "replicas": 1 });
    values["operator"]["replicas"] = json!(1);
    bed.install_fairlead(&values).await?;
    let plain = Plain::start(bed).await?;
    namespace(bed).await?;
    freeze_controllers(bed).await?;
    let timeline = Timeline::start(&bed.client);
    let mut rig = Rig { bed, plain, timeline, began, rounds_made: 0 };
    let mut report =
        Report::new("scheduler", "kube-scheduler's own algorithm time per pod with and without the extender");
    let mut fleet = Fleet::new(bed).await?;
    for size in SIZES {
        grow(bed, &mut fleet, size).await?;
        rig.size(size, &mut report).await?;
    }
    usage::report_memory(
        &mut report,
        &format!("at {} nodes", SIZES[1]),
        &usage::now(bed, &[rig.plain.process()]).await,
    );
    notes(&mut report);
    Ok(report)
}

/// Returns when the extender knows all nodes and nobody is busy with them any more.
async fn grow(bed: &Bed, fleet: &mut Fleet, size: usize) -> Result<()> {
    let began = Instant::now();
    tracing::info!(nodes = size, "creating nodes with their machines");
    fleet.grow(size).await?;
    eventually("the extender knows all nodes", GROW_LIMIT, async || {
        let page = scrape::release(bed, "fairlead-extender", 9802).await?;
        let known = page.sum("fairlead_extender_snapshot_nodes", &[]);
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        let all = known >= size as f64;
        Ok(seen(all, format!("{known} nodes")))
    })
    .await?;
    usage::settle(bed, SETTLE_LIMIT).await;
    tracing::info!(seconds = began.elapsed().as_secs(), "the nodes are there");
    Ok(())
}

impl Rig<'_> {
    async fn size(&mut self, nodes: usize, report: &mut Report) -> Result<()> {
        for mode in Mode::ALL {
            self.round(mode, WARM_UP).await?;
        }
        let before = self.extender().await?;
        let mut rounds = Vec::new();
        for index in 0..ROUNDS {
            if self.began.elapsed() > LAST_ROUND {
                tracing::warn!(nodes, rounds = index, "the time is up: fewer rounds");
                break;
            }
            // Whoever comes second finds warmer caches: they take turns.
            let mut turn = Mode::ALL;
            turn.rotate_left(index % Mode::ALL.len());
            for mode in turn {
                let round = self.round(mode, PODS).await?;
                tracing::info!(nodes, ?round);
                rounds.push(round);
            }
        }
        if rounds.is_empty() {
            bail!("no time was left for {nodes} nodes");
        }
        let after = self.extender().await?;
        tell(report, nodes, &rounds);
        for verb in ["Filter", "Prioritize", "Bind"] {
            let histogram =
                |page: &Page| page.histogram("fairlead_extender_request_duration_seconds", &[("verb", verb)]);
            let spent = histogram(&after).since(&histogram(&before));
            let count = spent.observations();
            report.add(format!("{nodes} nodes: extender's own {verb}, mean"), spent.mean_milli(), "ms", count);
            report.add(
                format!("{nodes} nodes: extender's own {verb}, p99 at most"),
                spent.at_most_milli(99.0),
                "ms",
                count,
            );
        }
        Ok(())
    }

    /// Creates pods at a steady pace, waits until they are bound, and removes every trace of them.
    async fn round(&mut self, mode: Mode, pods: usize) -> Result<Round> {
        self.rounds_made += 1;
        let others = [self.plain.process()];
        let used_before = usage::now(self.bed, &others).await;
        let before = self.algorithm(mode).await?;
        let api: Api<Pod> = Api::namespaced(self.bed.client.clone(), NAMESPACE);
        let mut pace = tokio::time::interval(PACE);
        for index in 0..pods {
            pace.tick().await;
            let pod = pod(&format!("r{}-{index}", self.rounds_made), mode)?;
            api.create(&PostParams::default(), &pod).await.context("create a pod")?;
        }
        let all = self.timeline.all("bound", pods, ROUND_LIMIT, |pod| pod.bound.is_some()).await?;
        let spent = self.algorithm(mode).await?.since(&before);
        let used = usage::now(self.bed, &others).await;
        #[allow(clippy::cast_precision_loss, reason = "hundreds")]
        let count = pods as f64;
        if (spent.count - count).abs() > 0.5 {
            bail!("{} scheduled {} times for {pods} pods", mode.scheduler(), spent.count);
        }
        let waits: Vec<f64> =
            all.iter().filter_map(|pod| Some((pod.bound? - pod.created).as_secs_f64() * 1000.0)).collect();
        let scheduler = match mode {
            Mode::Score | Mode::Decide => "kube-scheduler of Fairlead",
            Mode::Without => others[0].0.as_str(),
        };
        let round = Round {
            mode,
            algorithm_ms: spent.mean_milli(),
            scheduler_cpu_ms: usage::spent_ms(scheduler, &used_before, &used) / count,
            extender_cpu_ms: usage::spent_ms("fairlead-extender", &used_before, &used) / count,
            bound_ms: median(&waits),
        };
        self.clear(&api).await?;
        Ok(round)
    }

    async fn clear(&self, api: &Api<Pod>) -> Result<()> {
        // Without grace: nobody runs these pods who could end them.
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        api.delete_collection(&now, &ListParams::default()).await?;
        self.timeline.all("left", 0, ROUND_LIMIT, |_| true).await?;
        eventually("no reservation is left", ROUND_LIMIT, async || {
            let held = self.extender().await?.sum("fairlead_extender_reservations", &[]);
            Ok(seen(held < 0.5, format!("{held} reservations")))
        })
        .await?;
        usage::settle(self.bed, Duration::from_secs(8)).await;
        Ok(())
    }

    async fn extender(&self) -> Result<Page> {
        scrape::release(self.bed, "fairlead-extender", 9802).await
    }

    async fn algorithm(&self, mode: Mode) -> Result<Histogram> {
        let page = match mode {
            Mode::Score | Mode::Decide => scrape::release(self.bed, "kube-scheduler", 10259).await?,
            Mode::Without => scrape::scheduler(self.bed, self.plain.port).await?,
        };
        Ok(page.histogram("scheduler_scheduling_algorithm_duration_seconds", &[]))
    }
}

fn tell(report: &mut Report, nodes: usize, rounds: &[Round]) {
    let of = |mode: Mode, part: fn(&Round) -> f64| -> Vec<f64> {
        rounds.iter().filter(|round| round.mode == mode).map(part).collect()
    };
    let algorithm = |mode: Mode| of(mode, |round| round.algorithm_ms);
    for mode in Mode::ALL {
        report.add_rounds(format!("{nodes} nodes: algorithm per pod {}", mode.words()), &algorithm(mode), "ms");
    }
    for mode in [Mode::Score, Mode::Decide] {
        let with = algorithm(mode);
        let ratios: Vec<f64> =
            with.iter().zip(algorithm(Mode::Without)).map(|(with, without)| with / without).collect();
        report.add_rounds(format!("{nodes} nodes: {} : without, per turn of rounds", mode.words()), &ratios, "");
    }
    for mode in Mode::ALL {
        let cpu = of(mode, |round| round.scheduler_cpu_ms);
        report.add_rounds(format!("{nodes} nodes: scheduler's CPU time per pod {}", mode.words()), &cpu, "ms");
    }
    for mode in [Mode::Score, Mode::Decide] {
        let cpu = of(mode, |round| round.extender_cpu_ms);
        report.add_rounds(format!("{nodes} nodes: extender's CPU time per pod {}", mode.words()), &cpu, "ms");
    }
    for mode in Mode::ALL {
        let waits = of(mode, |round| round.bound_ms);
        report.add_rounds(format!("{nodes} nodes: created to bound, median pod {}", mode.words()), &waits, "ms");
    }
}

fn notes(report: &mut Report) {
    report.note(format!(
        "Algorithm time: mean of scheduler_scheduling_algorithm_duration_seconds over the {PODS} pods of a round, which are \
         created one every {} ms; the value is the median of the rounds. Guaranteed pods of two CPUs in a namespace without \
         tenant. Both schedulers are kube-scheduler with the chart's configuration, one without `extenders`; default sampling.",
        PACE.as_millis()
    ));
    report.note(
        "Nodes beyond the twelve simulated ones are objects only, with the machines of three shapes. One replica of scheduler \
         and operator; kube-controller-manager is stopped while it would declare the nodes lost.",
    );
}

/// A namespace of nobody, ready for pods.
pub(super) async fn namespace(bed: &Bed) -> Result<()> {
    bed.kubectl.run(&["create", "namespace", NAMESPACE], ROUND_LIMIT).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(bed.client.clone(), NAMESPACE);
    eventually("the namespace has its ServiceAccount", ROUND_LIMIT, async || {
        Ok(seen(accounts.get_opt("default").await?.is_some(), "none"))
    })
    .await
}

/// Nobody renews the nodes' leases: kube-controller-manager would taint them after 50 s.
pub(super) async fn freeze_controllers(bed: &Bed) -> Result<()> {
    let processes = bed.plane.processes().await;
    let pid = processes.iter().find(|(name, _)| name == "kube-controller-manager").map(|(_, pid)| *pid);
    let pid = pid.and_then(Pid::from_raw).context("no kube-controller-manager runs")?;
    kill_process(pid, Signal::STOP).context("stop kube-controller-manager")
}

fn pod(name: &str, mode: Mode) -> Result<Pod> {
    let amounts = json!({ "cpu": "2", "memory": "1Gi" });
    let decide = format!("{}mode", keys::WISH_ANNOTATION_PREFIX);
    let annotations = if mode == Mode::Decide { json!({ decide: "Decide" }) } else { json!({}) };
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { LABEL: "scheduler" }, "annotations": annotations },
        "spec": {
            "schedulerName": mode.scheduler(),
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "worker", "image": "example.com/worker:1",
                "resources": { "requests": amounts, "limits": amounts },
            }],
        },
    }))?)
}
