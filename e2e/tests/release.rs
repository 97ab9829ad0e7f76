//! The chart's life on genuine helm: upgrade restarts what it should, two operators share one lease, uninstall drains.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use fairlead_crds::node_placement::{NodePlacement, PinState, ReservedContainer};
use fairlead_crds::node_topology::{NodeTopology, PinningMode};
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{eventually, seen};
use fairlead_e2e::release;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn pids(bed: &Bed, program: &str) -> BTreeSet<i32> {
    bed.kubelet.running().into_iter().filter(|r| r.program == program).map(|r| r.pid).collect()
}

async fn holder(bed: &Bed) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(bed.client.clone(), RELEASE_NAMESPACE);
    leases.get("fairlead-operator").await.ok()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_failover_and_uninstall() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options::new("release")).await.unwrap();
    let mut values = release::values(&bed);
    bed.install_fairlead(&values).await.unwrap();
    fails_over(&bed).await;
    let before = pids(&bed, "fairlead-operator");
    values["logging"] = json!({ "level": "debug" });
    bed.upgrade_fairlead(&values).await.unwrap();
    eventually("an upgrade restarts both operators", LIMIT, || async {
        let after = pids(&bed, "fairlead-operator");
        Ok(seen(after.is_disjoint(&before) && after.len() == 2, format!("before {before:?}, now {after:?}")))
    })
    .await
    .unwrap();
    explains_and_tops(&bed).await;
    promises_are_kept(&bed).await;
    uninstall_by_the_hook_alone(&bed).await;
    bed.stop().await.unwrap();
}

/// The leader is killed with no chance to vacate: the other one takes over and writes.
async fn fails_over(bed: &Bed) {
    let first = eventually("an operator leads", LIMIT, || async {
        Ok(holder(bed)
            .await
            .map_or(fairlead_e2e::eventually::Seen::NotYet("nobody".into()), fairlead_e2e::eventually::Seen::Yes))
    })
    .await
    .unwrap();
    assert_eq!(pids(bed, "fairlead-operator").len(), 2, "two operators at once");
    let pod = first.split('_').next().unwrap_or_default().to_owned();
    assert_eq!(
        bed.kubelet.signal(Signal::KILL, |running| running.pod == pod),
        1,
        "the leader {first} is a pod of ours"
    );
    eventually("another operator leads", LIMIT, || async {
        let now = holder(bed).await;
        Ok(seen(now.as_ref().is_some_and(|now| *now != first), format!("{now:?}")))
    })
    .await
    .unwrap();
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } },
        { "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota", "metadata": { "name": "shop" }, "spec": { "namespaces": ["shop"], "concurrency": { "hard": 4 } } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "w", "namespace": "shop" },
          "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "w" } }, "template": { "metadata": { "labels": { "app": "w" } },
            "spec": { "containers": [{ "name": "c", "image": "example.com/c:1", "resources": { "requests": { "cpu": "2", "memory": "1Gi" }, "limits": { "cpu": "2", "memory": "1Gi" } } }] } } } },
    ] });
    bed.kubectl.run_with(&["apply", "-f", "-"], Some(&objects.to_string()), LIMIT).await.unwrap();
    eventually("the namespace is labelled", LIMIT, || async {
        let label = bed
            .kubectl
            .run(&["get", "namespace", "shop", "-o", r"jsonpath={.metadata.labels.fairlead\.dev/tenant}"], LIMIT)
            .await?;
        Ok(seen(label == "shop", label))
    })
    .await
    .unwrap();
}

async fn pods(bed: &Bed) -> Vec<Value> {
    let out = bed.kubectl.run(&["-n", "shop", "get", "pods", "-o", "json"], LIMIT).await.unwrap_or_default();
    let pods: Value = serde_json::from_str(&out).unwrap_or_default();
    pods["items"].as_array().cloned().unwrap_or_default()
}

fn gated(pod: &Value) -> bool {
    pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty())
}

async fn explains_and_tops(bed: &Bed) {
    bed.kubectl.run(&["-n", "shop", "scale", "deployment", "w", "--replicas=8"], LIMIT).await.unwrap();
    eventually("four pods run and four wait", LIMIT, || async {
        let pods = pods(bed).await;
        let waiting = pods.iter().filter(|p| gated(p)).count();
        let bound = pods.iter().filter(|p| p["spec"]["nodeName"].is_string()).count();
        Ok(seen(waiting == 4 && bound == 4, format!("{waiting} wait, {bound} bound")))
    })
    .await
    .unwrap();
    let all = pods(bed).await;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (waiting, bound) = (all.iter().find(|p| gated(p)).unwrap(), all.iter().find(|p| !gated(p)).unwrap());
    let why = bed.kubectl.run(&["fairlead", "explain", "pod", &name(waiting), "-n", "shop"], LIMIT).await.unwrap();
    assert!(why.contains("shop") && why.to_lowercase().contains("wait"), "{why}");
    let why = bed.kubectl.run(&["fairlead", "explain", "pod", &name(bound), "-n", "shop"], LIMIT).await.unwrap();
    assert!(why.contains(bound["spec"]["nodeName"].as_str().unwrap()), "{why}");
    let top = bed.kubectl.run(&["fairlead", "top"], LIMIT).await.unwrap();
    assert!(top.contains("shop"), "{top}");
    let nothing =
        bed.kubectl.output(&["fairlead", "explain", "pod", "no-such-pod", "-n", "shop"], None, LIMIT).await.unwrap();
    assert!(!nothing.success && nothing.stderr.contains("no-such-pod"), "{nothing:?}");
}

/// Every node pins by itself, and what its agent observed is what the extender promised.
async fn promises_are_kept(bed: &Bed) {
    let nodes: Api<NodeTopology> = Api::all(bed.client.clone());
    let placements: Api<NodePlacement> = Api::all(bed.client.clone());
    eventually("four pods run on the CPUs that were promised to them", LIMIT, || async {
        let nodes = nodes.list(&ListParams::default()).await?;
        let modes = nodes.items.into_iter().map(|node| node.spec.pinning.map(|pinning| pinning.mode));
        let owned = modes.filter(|mode| *mode == Some(PinningMode::Own)).count();
        let (mut promised, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for placement in placements.list(&ListParams::default()).await? {
            for reservation in placement.spec.reservations {
                let of = |one: ReservedContainer| (reservation.pod_uid.clone(), one.name, one.cpus);
                promised.extend(reservation.containers.into_iter().map(of));
            }
            let observed = placement.status.unwrap_or_default().containers;
            let pinned = observed.into_iter().filter(|one| one.state == PinState::Pinned);
            kept.extend(pinned.map(|one| (one.pod_uid, one.name, one.cpus)));
        }
        let all = owned == bed.nodes.len() && promised.len() == 4 && kept == promised;
        Ok(seen(all, format!("{owned} nodes pin, promised {promised:?}, pinned {kept:?}")))
    })
    .await
    .unwrap();
}

/// Nobody ran `kubectl fairlead drain`: the chart's own hook does.
async fn uninstall_by_the_hook_alone(bed: &Bed) {
    bed.uninstall_fairlead().await.unwrap();
    eventually("no pod is gated", LIMIT, || async {
        let pods = pods(bed).await;
        let waiting = pods.iter().filter(|p| gated(p)).count();
        Ok(seen(waiting == 0 && pods.len() >= 8, format!("{waiting} of {} pods are gated", pods.len())))
    })
    .await
    .unwrap();
    let left = bed
        .kubectl
        .run(
            &[
                "get",
                "mutatingadmissionpolicies,validatingadmissionpolicies,clusterroles",
                "-o",
                "name",
                "-l",
                "app.kubernetes.io/part-of=fairlead",
            ],
            LIMIT,
        )
        .await
        .unwrap();
    assert_eq!(left.trim(), "", "left behind by uninstall");
}
