//! What a phase of the pipeline comes to: rates, stages of the pods, and who spent the time.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::report::{Report, percentile};
use super::super::scrape::{Histogram, Page};
use super::{Look, PODS, Phase, ROUNDS, Round, Seen};

/// Rows of requests that come less often per pod than this are left out.
const FEW_PER_POD: f64 = 0.2;
const LITTLE_MS_PER_POD: f64 = 0.05;

/// Adds all rows of a phase.
pub(super) fn tell(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let rates: Vec<f64> = rounds.iter().map(rate).collect();
    report.add_rounds(format!("{}: pods per second, until the last is bound", phase.name()), &rates, "pods/s");
    stages(report, phase, rounds);
    if phase != Phase::Plain {
        histograms(report, phase, rounds);
    }
    requests(report, phase, rounds);
    processor(report, phase, rounds);
}

/// Bound pods per second, from the begin of the round to the last of them.
pub(super) fn rate(round: &Round) -> f64 {
    let last = round.pods.iter().filter_map(|pod| pod.bound).max();
    #[allow(clippy::cast_precision_loss, reason = "hundreds")]
    let pods = round.pods.len() as f64;
    last.map_or(0.0, |last| pods / (last - round.began).as_secs_f64())
}

fn stages(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
    let mut add = |stage: &str, of: &dyn Fn(&Round, &Seen) -> Option<f64>| {
        let values: Vec<f64> =
            rounds.iter().flat_map(|round| round.pods.iter().filter_map(move |pod| of(round, pod))).collect();
        for percent in [50, 95] {
            let name = format!("{}: {stage}, p{percent}", phase.name());
            report.add(name, percentile(&values, percent), "ms", values.len());
        }
    };
    match phase {
        Phase::Plain => {
            add("scaled up → created", &|round, pod| Some(ms(round.began, pod.created)));
            add("created → bound", &|_, pod| Some(ms(pod.created, pod.bound?)));
        }
        Phase::Surge => {
            add("scaled up → created", &|round, pod| Some(ms(round.began, pod.created)));
            add("created → ungated", &|_, pod| Some(ms(pod.created, pod.ungated?)));
            add("ungated → bound", &|_, pod| Some(ms(pod.ungated?, pod.bound?)));
            add("created → bound", &|_, pod| Some(ms(pod.created, pod.bound?)));
        }
        Phase::Backlog => {
            add("limit lifted → ungated", &|round, pod| Some(ms(round.began, pod.ungated?)));
            add("ungated → bound", &|_, pod| Some(ms(pod.ungated?, pod.bound?)));
            add("limit lifted → bound", &|round, pod| Some(ms(round.began, pod.bound?)));
        }
    }
}

/// Means by the processes' own clocks.
fn histograms(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let mut row = |what: &str, page: fn(&Look) -> &Page, metric: &str, labels: &[(&str, &str)]| {
        let spent = rounds.iter().fold(Histogram::default(), |sum, round| {
            sum.plus(
                &page(&round.after).histogram(metric, labels).since(&page(&round.before).histogram(metric, labels)),
            )
        });
        report.add(format!("{}: {what}, mean", phase.name()), spent.mean_milli(), "ms", spent.observations());
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

/// What the API server was asked, how long that took, and how often it was in vain.
fn requests(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let name = phase.name();
    let keys = ["verb", "resource", "subresource"];
    let counts = more(rounds, |look| look.api_server.by("apiserver_request_duration_seconds_count", &keys));
    let seconds = more(rounds, |look| look.api_server.by("apiserver_request_duration_seconds_sum", &keys));
    let mut busy: Vec<(&String, f64)> = counts
        .iter()
        // Watches last as long as their watcher wishes.
        .filter(|(key, _)| !key.starts_with("WATCH"))
        .map(|(key, count)| (key, *count))
        .collect();
    busy.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = busy.iter().map(|(_, count)| count).sum();
    report.add(format!("{name}: API requests, all"), per_pod(all), "per pod", PODS * ROUNDS);
    for (key, count) in busy.into_iter().filter(|(_, count)| per_pod(*count) >= FEW_PER_POD) {
        report.add(format!("{name}: API requests, {key}"), per_pod(count), "per pod", PODS * ROUNDS);
        let mean = seconds.get(key).unwrap_or(&0.0) * 1000.0 / count;
        report.add(format!("{name}: API server's time for {key}, mean"), mean, "ms", PODS * ROUNDS);
    }
    let failed = more(rounds, |look| look.api_server.by("apiserver_request_total", &["code", "verb", "resource"]));
    for (key, count) in failed.iter().filter(|(key, count)| !key.starts_with('2') && per_pod(**count) >= 0.01) {
        report.add(format!("{name}: API answers {key}"), per_pod(*count), "per pod", PODS * ROUNDS);
    }
    if phase != Phase::Plain {
        let metric = "fairlead_extender_reservation_conflicts_total";
        let lost: f64 = more(rounds, |look| look.extender.by(metric, &[])).values().sum();
        let what = format!("{name}: reservations that lost to another writer");
        report.add(what, per_pod(lost), "per pod", PODS * ROUNDS);
    }
}

fn processor(report: &mut Report, phase: Phase, rounds: &[Round]) {
    let spent = more(rounds, |look| look.usage.iter().map(|(kind, usage)| (kind.clone(), usage.cpu_ms)).collect());
    let mut kinds: Vec<(String, f64)> = spent.into_iter().map(|(kind, ms)| (kind, per_pod(ms))).collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = kinds.iter().map(|(_, ms)| ms).sum();
    report.add(format!("{}: CPU time per pod, all", phase.name()), all, "ms", PODS * ROUNDS);
    for (kind, ms) in kinds.into_iter().filter(|(_, ms)| *ms >= LITTLE_MS_PER_POD) {
        report.add(format!("{}: CPU time per pod, {kind}", phase.name()), ms, "ms", PODS * ROUNDS);
    }
}

/// How much each series grew in all rounds together.
fn more(rounds: &[Round], of: impl Fn(&Look) -> BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for round in rounds {
        let before = of(&round.before);
        for (key, value) in of(&round.after) {
            let grown = value - before.get(&key).unwrap_or(&0.0);
            *sums.entry(key).or_insert(0.0) += grown.max(0.0);
        }
    }
    sums
}

#[allow(clippy::cast_precision_loss, reason = "hundreds")]
fn per_pod(amount: f64) -> f64 {
    amount / (PODS * ROUNDS) as f64
}

/// How it was measured.
pub(super) fn notes(report: &mut Report) {
    report.note(format!(
        "{PODS} Guaranteed pods of two CPUs in two Deployments, {ROUNDS} rounds, 18 simulated nodes with 960 CPUs; everything \
         runs on the machine above, etcd, API server and simulated kubelets included. without Fairlead: namespaces of nobody \
         and the cluster's own scheduler, both Deployments are scaled up. surge: the same for two tenants. backlog: all pods \
         wait behind the gate, then the tenants' limits are lifted. Times per pod are of one watch, over the pods of all \
         rounds; requests and CPU time are those of everybody from the begin of each round to its last bound pod."
    ));
    report.note(
        "Surge of orders: the story's queues and pools; from the moment when the rate of orders jumps to the Deployment's new \
         replicas in a watch.",
    );
}
