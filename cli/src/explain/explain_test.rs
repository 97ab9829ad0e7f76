//! Explanations of pods in a small cluster: two nodes, two tenants, one of them at its limit.
use super::explanation;
use super::model::{Explanation, Inputs, State, explain};
use super::render::text;
use crate::args::{ExplainPodArgs, Output};
use crate::fake_server::{access, list, refusal};
use crate::gather::snapshot;
use fairlead_cluster::{Change, Event, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use std::sync::Arc;

fn of<K: DeserializeOwned>(values: &[Value]) -> Change<K> {
    Change::Reset(values.iter().map(|value| from_value(value.clone()).unwrap()).collect())
}

fn node(name: &str, cpus: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "uid": format!("uid-{name}") }, "status": {
        "capacity": { "cpu": cpus, "memory": "32Gi", "pods": "110" },
        "allocatable": { "cpu": cpus, "memory": "32Gi", "pods": "110" },
        "conditions": [ { "type": "Ready", "status": "True" } ] } })
}

fn owner(name: &str) -> Value {
    json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-{name}") }])
}

/// Two NUMA nodes of 4 cores with 2 threads each: CPUs 0-7 and 8-15.
fn topology(name: &str) -> Value {
    let cores: Vec<Value> =
        (0..8).map(|core| json!({ "id": core, "cpus": format!("{}-{}", core * 2, core * 2 + 1) })).collect();
    let numa = |id: u32, cpus: &str| json!({ "id": id, "cpus": cpus, "memoryBytes": 16u64 << 30, "distances": [] });
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology",
        "metadata": { "name": name, "ownerReferences": owner(name) }, "spec": {
        "source": "Synthetic", "pinning": { "mode": "Own", "reason": "Test" }, "packages": [ { "id": 0, "cpus": "0-15" } ],
        "numaNodes": [ numa(0, "0-7"), numa(1, "8-15") ],
        "l3Caches": [ { "id": 0, "cpus": "0-7", "sizeBytes": 1 }, { "id": 1, "cpus": "8-15", "sizeBytes": 1 } ],
        "cores": cores } })
}

fn placement(name: &str, reservations: &Value) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement",
        "metadata": { "name": name, "uid": format!("p-{name}"), "generation": 3, "ownerReferences": owner(name) },
        "spec": { "reservations": reservations } })
}

fn quota(name: &str, weight: u32, hard_cpu: &str) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": { "name": name, "uid": format!("q-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "namespaces": [name], "weight": weight, "resources": { "hard": { "cpu": hard_cpu } } } })
}

/// A Guaranteed pod of `cpus` whole CPUs, gated unless bound to a node.
fn pod(namespace: &str, name: &str, cpus: u32, second: u32, bound: Option<&str>) -> Value {
    let amounts = json!({ "cpu": cpus.to_string(), "memory": "1Gi" });
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "resourceVersion": "5",
            "creationTimestamp": format!("2026-01-01T00:01:{second:02}Z"), "labels": { "fairlead.dev/tenant": namespace } },
        "spec": { "schedulerName": "fairlead-scheduler",
            "containers": [ { "name": "main", "resources": { "requests": amounts, "limits": amounts } } ] } });
    match bound {
        Some(node) => pod["spec"]["nodeName"] = json!(node),
        None => pod["spec"]["schedulingGates"] = json!([ { "name": "fairlead.dev/quota" } ]),
    }
    pod
}

fn cluster(pods: &[Value], reservations: &Value) -> Arc<Snapshot> {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    snapshot([
        Event::Nodes(of(&[node("n1", "16"), node("n2", "16")])),
        Event::Pods(of(pods)),
        Event::Namespaces(of(&[namespace("acme"), namespace("globex"), namespace("plain")])),
        Event::Quotas(of(&[quota("acme", 3, "100"), quota("globex", 1, "8")])),
        Event::Topologies(of(&[topology("n1"), topology("n2")])),
        Event::Pools(of(&[])),
        Event::Placements(of(&[placement("n1", reservations), placement("n2", &json!([]))])),
    ])
}

fn explained(pod: &Value, snapshot: Option<&Snapshot>) -> Explanation {
    let pod: Pod = from_value(pod.clone()).unwrap();
    let now = Timestamp::from_second(1_767_225_720).unwrap();
    let missing = if snapshot.is_some() { Vec::new() } else { vec!["list nodes in all namespaces".to_owned()] };
    explain(&Inputs { pod: &pod, devices: Vec::new(), snapshot, quota: None, missing, now })
}

#[test]
fn a_waiting_pod_knows_its_place_in_the_line() {
    let first = pod("acme", "first", 4, 1, None);
    let second = pod("acme", "second", 4, 2, None);
    let other = pod("globex", "other", 4, 0, None);
    let snapshot = cluster(&[first, second.clone(), other], &json!([]));
    let explanation = explained(&second, Some(&snapshot));
    assert_eq!(explanation.state, State::WaitingForRelease);
    let waiting = explanation.waiting.as_ref().unwrap();
    assert_eq!(
        (waiting.position, waiting.line_length, waiting.own_before),
        (Some(2), Some(3), Some(1)),
        "weight 3 to 1"
    );
    let numbers = explanation.tenant_numbers.as_ref().unwrap();
    assert_eq!(numbers.waiting_pods, 2);
    let text = text(&explanation);
    assert!(text.contains("position 2 of 3"), "{text}");
    assert!(text.contains("Tenant acme, weight 3: 0 pods released, 2 waiting"), "{text}");
}

#[test]
fn a_pod_of_a_tenant_at_its_limit_is_told_the_numbers() {
    let held = pod("globex", "held", 8, 0, Some("n2"));
    let stuck = pod("globex", "stuck", 4, 1, None);
    let snapshot = cluster(&[held, stuck.clone()], &json!([]));
    let explanation = explained(&stuck, Some(&snapshot));
    let waiting = explanation.waiting.unwrap();
    assert_eq!((waiting.reason.as_str(), waiting.position), ("WaitingForTenantQuota", None));
    assert_eq!(
        explanation.next,
        ["globex uses 8 of 8 cpu; it goes when pods end and at most 4 are in use, or when spec.resources.hard.cpu of \
          TenantQuota globex is raised"]
    );
}

#[test]
fn a_pod_above_the_limit_is_told_that_it_can_never_go() {
    let huge = pod("globex", "huge", 12, 1, None);
    let snapshot = cluster(std::slice::from_ref(&huge), &json!([]));
    let explanation = explained(&huge, Some(&snapshot));
    assert_eq!(explanation.waiting.unwrap().reason, "ExceedsHardLimit");
    assert!(explanation.next[0].starts_with("it can never go as it is: it asks for 12 cpu and the limit is 8;"));
}

#[test]
fn the_operators_own_words_come_first() {
    let mut stuck = pod("globex", "stuck", 4, 1, None);
    stuck["status"] = json!({ "conditions": [ { "type": "fairlead.dev/Released", "status": "False",
        "reason": "WaitingForFairShareTurn", "message": "as the operator said", "lastTransitionTime": "2026-01-01T00:01:30Z" } ] });
    let snapshot = cluster(std::slice::from_ref(&stuck), &json!([]));
    let explanation = explained(&stuck, Some(&snapshot));
    assert_eq!(explanation.summary, "waits behind the gate since 30s: as the operator said");
}

#[test]
fn a_placed_pod_shows_its_exact_cpus_and_the_other_nodes() {
    let mut placed = pod("acme", "placed", 4, 1, Some("n1"));
    placed["metadata"]["annotations"] = json!({
        "fairlead.dev/placement": r#"{"containers":[{"name":"main","cpus":"0-3","memoryNodes":"0"}]}"# });
    let reservations = json!([ { "podUID": "uid-placed", "namespace": "acme", "name": "placed",
        "reservedAt": "2026-01-01T00:01:01Z", "cpus": "0-3", "containers": [ { "name": "main", "cpus": "0-3" } ],
        "memory": [ { "numaNode": 0, "bytes": 1 << 30 } ] } ]);
    let snapshot = cluster(std::slice::from_ref(&placed), &reservations);
    let explanation = explained(&placed, Some(&snapshot));
    assert_eq!(explanation.summary, "is bound to node n1 with CPUs 0-3 of its own");
    let there = explanation.placement.as_ref().unwrap();
    assert_eq!(there.notes, ["4 CPUs on 2 cores, in 1 of 2 NUMA nodes, 1 of 1 sockets, 1 of 2 L3 caches"]);
    assert_eq!(explanation.nodes.len(), 1, "the other node");
    assert!(explanation.nodes[0].fits && explanation.nodes[0].node == "n2");
    let text = text(&explanation);
    assert!(text.contains("CPUs 0-3; memory 1Gi on NUMA node 0"), "{text}");
}

#[tokio::test]
async fn a_placed_pod_is_told_what_its_devices_had_to_do_with_its_cpus() {
    let mut placed = pod("acme", "placed", 4, 1, Some("n1"));
    placed["spec"]["resourceClaims"] = json!([
        { "name": "gpu", "resourceClaimName": "mine" }, { "name": "nic", "resourceClaimName": "gone" },
    ]);
    let claim = json!({ "metadata": { "name": "mine", "namespace": "acme" }, "spec": {}, "status": { "allocation": {
        "devices": { "results": [ { "driver": "d", "pool": "n1", "device": "g", "request": "r" } ] } } } });
    let slice = json!({ "metadata": { "name": "s" }, "spec": { "driver": "d", "nodeName": "n1",
        "pool": { "name": "n1", "generation": 1, "resourceSliceCount": 1 },
        "devices": [ { "name": "g", "attributes": { "resource.kubernetes.io/numaNode": { "int": 0 } } } ] } });
    let answer = move |question: &str| match question {
        "GET /apis/resource.k8s.io/v1/namespaces/acme/resourceclaims/mine" => (200, claim.clone()),
        "GET /apis/resource.k8s.io/v1/resourceslices" => list(std::slice::from_ref(&slice)),
        _ => (404, json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 })),
    };
    let (served, asked) = access(answer);
    let mut missing = Vec::new();
    let live: Pod = from_value(placed.clone()).unwrap();
    let devices = super::devices::read(&served, &live, &mut missing).await.unwrap();
    let snapshot = cluster(std::slice::from_ref(&placed), &json!([]));
    let cpus = fairlead_topology::CpuMask::parse_list("6-9").unwrap();
    let notes = super::devices::notes(&devices, snapshot.node_named("n1").unwrap(), &cpus);
    let gone = "its CPUs were chosen without the devices of its claim nic: its ResourceClaim does not exist";
    assert_eq!(notes, ["2 of its 4 CPUs are near d/n1/g of its claim gpu", gone]);
    assert_eq!(asked.lock().unwrap().len(), 3);
    let (forbidding, _) = access(|_| refusal(403, "forbidden"));
    assert_eq!(super::devices::read(&forbidding, &live, &mut missing).await.unwrap(), []);
    assert_eq!(missing, ["get resourceclaims.resource.k8s.io in namespace acme"]);
}

#[test]
fn an_annotation_without_reservation_is_not_trusted() {
    let mut placed = pod("acme", "placed", 4, 1, Some("n1"));
    placed["metadata"]["annotations"] = json!({
        "fairlead.dev/placement": r#"{"containers":[{"name":"main","cpus":"0-3","memoryNodes":"0"}]}"# });
    let snapshot = cluster(std::slice::from_ref(&placed), &json!([]));
    let there = explained(&placed, Some(&snapshot)).placement.unwrap();
    assert!(there.notes[0].contains("holds no reservation"), "{:?}", there.notes);
}

#[test]
fn a_released_pod_that_fits_nowhere_names_each_node() {
    let mut wide = pod("acme", "wide", 32, 1, None);
    wide["spec"]["schedulingGates"] = json!([]);
    wide["metadata"]["annotations"] = json!({ "fairlead.dev/released": "1:1" });
    let snapshot = cluster(std::slice::from_ref(&wide), &json!([]));
    let explanation = explained(&wide, Some(&snapshot));
    assert_eq!(explanation.state, State::WaitingForNode);
    let answers: Vec<_> =
        explanation.nodes.iter().map(|answer| (answer.node.as_str(), answer.reason.as_str())).collect();
    assert_eq!(answers, [("n1", "MachineTooSmall"), ("n2", "MachineTooSmall")]);
    assert!(explanation.next[0].starts_with("no node can take it now"));
}

#[test]
fn other_states_are_told_apart() {
    let snapshot = cluster(&[], &json!([]));
    let mut foreign = pod("plain", "foreign", 1, 1, None);
    foreign["spec"]["schedulingGates"] = json!([ { "name": "foreign/gate" } ]);
    assert!(explained(&foreign, Some(&snapshot)).summary.contains("foreign/gate"));
    foreign["spec"] = json!({ "schedulerName": "default-scheduler", "containers": [] });
    assert_eq!(explained(&foreign, Some(&snapshot)).state, State::WaitingForOtherScheduler);
    let gated = pod("plain", "gated", 1, 1, None);
    assert!(explained(&gated, Some(&snapshot)).summary.contains("is in no TenantQuota"));
}

#[test]
fn who_may_read_only_the_pod_is_told_what_is_left_out() {
    let mut quota_of_acme = quota("acme", 3, "100");
    quota_of_acme["status"] = json!({ "releasedPods": 7, "waitingPods": 2, "used": { "cpu": "28" } });
    let waiting = pod("acme", "first", 4, 1, None);
    let (pod, quota) = (from_value(waiting).unwrap(), from_value(quota_of_acme).unwrap());
    let missing = vec!["list nodes in all namespaces".to_owned()];
    let now = Timestamp::from_second(1_767_225_720).unwrap();
    let explanation =
        explain(&Inputs { pod: &pod, devices: Vec::new(), snapshot: None, quota: Some(&quota), missing, now });
    let numbers = explanation.tenant_numbers.as_ref().unwrap();
    let cpu = numbers.resources.iter().find(|row| row.resource == "cpu").unwrap();
    assert_eq!((cpu.used, cpu.hard, cpu.request), (28_000, Some(100_000), 4_000));
    assert!(text(&explanation).contains("you lack the right to list nodes in all namespaces"));
}

#[test]
fn who_may_not_read_the_quota_is_not_told_that_there_is_none() {
    let mut waiting = pod("acme", "first", 4, 1, None);
    let explanation = explained(&waiting, None);
    assert_eq!(explanation.tenant.as_deref(), Some("acme"), "by the label");
    assert!(explanation.summary.starts_with("waits behind the gate"), "{}", explanation.summary);
    assert!(explanation.next.is_empty(), "{:?}", explanation.next);
    waiting["metadata"]["labels"] = json!({});
    let explanation = explained(&waiting, None);
    let text = text(&explanation);
    assert!(text.contains("acme/first (tenant not known)") && !text.contains("in no TenantQuota"), "{text}");
    assert!(explanation.next.is_empty(), "{:?}", explanation.next);
}

#[tokio::test]
async fn the_right_to_the_own_quota_is_named() {
    let (access, _) = access(|question| match question {
        "GET /api/v1/namespaces/acme/pods/first" => (200, pod("acme", "first", 4, 1, None)),
        _ => refusal(403, "forbidden"),
    });
    let args = ExplainPodArgs { name: "first".into(), namespace: None, output: Output::Table };
    let explanation = explanation(&access, &args).await.unwrap();
    assert_eq!(explanation.tenant.as_deref(), Some("acme"));
    let missing = explanation.missing_rights;
    assert!(missing.contains(&"get tenantquotas.fairlead.dev acme".to_owned()), "{missing:?}");
}

#[test]
fn an_ended_pod_holds_what_is_not_given_back_yet() {
    let mut ended = pod("acme", "done", 4, 1, Some("n1"));
    ended["status"] = json!({ "phase": "Succeeded" });
    let mut reservation = json!({ "podUID": "uid-done", "namespace": "acme", "name": "done",
        "reservedAt": "2026-01-01T00:01:01Z", "cpus": "0-3", "containers": [ { "name": "main", "cpus": "0-3" } ],
        "memory": [ { "numaNode": 0, "bytes": 1 << 30 } ] });
    let summary = |reservations: &Value| {
        let explanation = explained(&ended, Some(&cluster(std::slice::from_ref(&ended), reservations)));
        assert_eq!(explanation.state, State::Ended);
        explanation.summary
    };
    assert_eq!(summary(&json!([reservation])), "has ended; its CPUs 0-3 on node n1 are not given back yet");
    assert_eq!(summary(&json!([])), "has ended and holds nothing any more");
    reservation["cpus"] = json!("3-");
    assert!(summary(&json!([reservation])).contains("cannot be read"));
    assert_eq!(explained(&ended, None).summary, "has ended", "nothing is claimed that was not looked at");
}

#[test]
fn what_depends_on_the_operators_window_is_not_guessed() {
    let mut vast = pod("acme", "vast", 90, 1, None);
    let snapshot = cluster(std::slice::from_ref(&vast), &json!([]));
    let explanation = explained(&vast, Some(&snapshot));
    assert_eq!(explanation.waiting.unwrap().reason, "NotJudgedYet");
    vast["status"] = json!({ "conditions": [ { "type": "fairlead.dev/Released", "status": "False",
        "reason": "WaitingForCapacity", "message": "asks for 90 cpu", "lastTransitionTime": "2026-01-01T00:01:30Z" } ] });
    let explanation = explained(&vast, Some(&snapshot));
    assert_eq!(explanation.waiting.unwrap().reason, "WaitingForCapacity");
    assert!(explanation.next[0].contains("add nodes"), "{:?}", explanation.next);
}

#[test]
fn a_release_that_fails_says_what_to_repair() {
    let mut stuck = pod("acme", "stuck", 4, 1, None);
    let snapshot = cluster(std::slice::from_ref(&stuck), &json!([]));
    for (reason, advice) in [("ReleaseStalled", "TenantQuota acme"), ("ReleaseRefused", "admission webhook")] {
        stuck["status"] = json!({ "conditions": [ { "type": "fairlead.dev/Released", "status": "False",
            "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:01:30Z" } ] });
        let explanation = explained(&stuck, Some(&snapshot));
        assert!(explanation.next[0].contains(advice), "{:?}", explanation.next);
        assert!(fairlead_fairshare::WaitReason::ALL.contains(&reason));
    }
}
