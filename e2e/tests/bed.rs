//! The bed itself, on the genuine parts: nodes become Ready, pods start, the harness kubelet runs ours, nothing is left.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::time::{Duration, Instant};

use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options, resident_bytes};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// A whole-core Deployment for kwok, and a pod of the release: kube-scheduler with its ConfigMap, RBAC and probes.
const OBJECTS: &str = include_str!("bed.yaml");

async fn wait_for<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < LIMIT, "not within {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

async fn pods(bed: &Bed, namespace: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(bed.client.clone(), namespace);
    api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|status| status.restart_count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bed_is_a_cluster_and_leaves_nothing() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options::new("bed-test")).await.unwrap();
    let dir = bed.dir.clone();
    bed.kubectl.run_with(&["apply", "-f", "-"], Some(OBJECTS), LIMIT).await.unwrap();

    simulated_pods_take_their_time(&bed).await;
    our_pods_really_run(&bed).await;
    the_api_server_goes_and_comes_back(&bed).await;
    deleting_a_pod_ends_its_process(&bed).await;

    let pids: Vec<i32> = bed.processes().await.into_iter().map(|(_, pid)| pid).collect();
    assert!(pids.len() >= 6, "{pids:?}");
    assert!(pids.iter().all(|pid| resident_bytes(*pid).unwrap() > 1 << 20));
    bed.stop().await.unwrap();
    for pid in pids {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!command.contains("target/"), "left running: {command}");
    }
    assert!(!dir.exists());
}

async fn simulated_pods_take_their_time(bed: &Bed) {
    let namespace = "default";
    wait_for("pods bound", || async {
        let pods = pods(bed, namespace).await;
        pods.len() == 10 && pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.is_some())
    })
    .await;
    let took = wait_for("pods Ready", || async { pods(bed, namespace).await.iter().all(ready) }).await;
    assert!(took > Duration::from_millis(500), "simulated pods must not start at once: {took:?}");
    let scheduled = pods(bed, namespace).await;
    let kept =
        |pod: &Pod| pod.status.as_ref().unwrap().conditions.as_ref().unwrap().iter().any(|c| c.type_ == "PodScheduled");
    assert!(scheduled.iter().all(kept), "the conditions of others stay");
}

async fn our_pods_really_run(bed: &Bed) {
    let own = || async { pods(bed, RELEASE_NAMESPACE).await };
    wait_for("the scheduler pod Ready by its probe", || async { own().await.first().is_some_and(ready) }).await;
    let running = bed.kubelet.running();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].program, "kube-scheduler");
    let port = bed.kubelet.host_port(&running[0].pod, 10259).unwrap();
    assert_ne!(port, 10259);

    // A pod that asks for the second scheduler is bound by it: its ServiceAccount, RBAC and configuration work.
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"by-second"},
        "spec":{"schedulerName":"second","containers":[{"name":"c","image":"none"}]}}"#;
    bed.kubectl.run_with(&["apply", "-f", "-"], Some(pod), LIMIT).await.unwrap();
    wait_for("bound by the second scheduler", || async {
        let pods = pods(bed, "default").await;
        pods.iter().any(|pod| pod.metadata.name.as_deref() == Some("by-second") && ready(pod))
    })
    .await;

    assert_eq!(bed.kubelet.kill("kube-scheduler"), 1);
    wait_for("restarted and Ready again", || async {
        own().await.first().is_some_and(|pod| restarts(pod) == 1 && ready(pod))
    })
    .await;
    assert_ne!(bed.kubelet.running()[0].pid, running[0].pid);

    // A process that hangs fails its liveness probe.
    assert_eq!(bed.kubelet.signal(Signal::STOP, |running| running.program == "kube-scheduler"), 1);
    wait_for("restarted by its liveness probe", || async {
        own().await.first().is_some_and(|pod| restarts(pod) >= 2 && ready(pod))
    })
    .await;
}

async fn the_api_server_goes_and_comes_back(bed: &Bed) {
    let before = bed.kubelet.running();
    bed.plane.kill_api_server().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    bed.plane.start_api_server().await.unwrap();
    wait_for("nodes are listed again", || async { pods(bed, "default").await.len() == 11 }).await;
    let nodes = bed.kubectl.run(&["get", "nodes", "--no-headers"], LIMIT).await.unwrap();
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 12, "{nodes}");
    assert_eq!(before[0].pid, bed.kubelet.running()[0].pid, "our pods run on while the API server is away");
}

async fn deleting_a_pod_ends_its_process(bed: &Bed) {
    let pod = bed.kubelet.running()[0].pod.clone();
    bed.kubectl.run(&["delete", "pod", "-n", RELEASE_NAMESPACE, &pod], LIMIT).await.unwrap();
    wait_for("its successor Ready", || async {
        let pods = pods(bed, RELEASE_NAMESPACE).await;
        pods.len() == 1 && pods[0].metadata.name.as_ref() != Some(&pod) && ready(&pods[0])
    })
    .await;
    assert!(bed.kubelet.running().iter().all(|running| running.pod != pod));
}
