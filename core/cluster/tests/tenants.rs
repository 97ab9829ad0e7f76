//! Who owns a namespace, who counts, and what the gate let past.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_cluster::{Change, Conflict, ConflictKind, Event, LabelChange, Model, PodWish, Reason, ResourceVector};
use serde_json::json;
use support::{Like, OWN, add_pod, model, namespace, node, one_node, pod, quota};

fn vector(entries: &[(&str, u64)]) -> ResourceVector {
    entries.iter().map(|&(name, amount)| (name.to_owned(), amount)).collect()
}

fn add_quota(model: &mut Model, name: &str, second: u32, namespaces: &[&str], spec: serde_json::Value) {
    model.apply(Event::Quotas(Change::Apply(quota(name, second, namespaces, spec))));
}

#[test]
fn the_oldest_quota_gets_the_namespace_then_the_first_by_name() {
    let mut model = one_node(&[]);
    add_quota(&mut model, "young", 9, &["shop", "lab"], json!({}));
    add_quota(&mut model, "old-b", 1, &["shop"], json!({}));
    add_quota(&mut model, "old-a", 1, &["shop", "shop"], json!({}));
    let snapshot = model.snapshot();
    assert_eq!(snapshot.tenant_of_namespace("shop"), Some("old-a"));
    assert_eq!(snapshot.tenant_of_namespace("lab"), Some("young"));
    let lost = |name: &str| snapshot.tenants.get(name).unwrap().conflicts.clone();
    let claimed = Conflict { namespace: "shop".into(), kind: ConflictKind::ClaimedBy("old-a".into()) };
    assert_eq!((lost("young"), lost("old-b"), lost("old-a")), (vec![claimed.clone()], vec![claimed], vec![]));

    model.apply(Event::Quotas(Change::Delete(quota("old-a", 1, &[], json!({})))));
    let snapshot = model.snapshot();
    assert_eq!(snapshot.tenant_of_namespace("shop"), Some("old-b"));
    assert_eq!(snapshot.tenants.get("old-b").unwrap().namespaces, ["shop"]);
    assert!(!snapshot.tenants.contains_key("old-a"));
}

#[test]
fn namespaces_of_the_cluster_and_our_own_belong_to_nobody() {
    let mut model = one_node(&[]);
    let all = ["kube-system", "kube-public", "kube-node-lease", OWN];
    add_quota(&mut model, "greedy", 1, &all, json!({}));
    let snapshot = model.snapshot();
    for name in all {
        assert_eq!(snapshot.tenant_of_namespace(name), None);
    }
    let conflicts = &snapshot.tenants.get("greedy").unwrap().conflicts;
    assert_eq!(conflicts.len(), 4);
    assert!(conflicts.iter().all(|conflict| conflict.kind == ConflictKind::Forbidden));
}

#[test]
fn labels_follow_the_quotas_and_decide_nothing() {
    let mut model = one_node(&[]);
    add_quota(&mut model, "acme", 1, &["shop", "lab"], json!({}));
    for (name, label) in [("shop", Some("other")), ("lab", Some("acme")), ("left", Some("acme")), ("plain", None)] {
        model.apply(Event::Namespaces(Change::Apply(namespace(name, label))));
    }
    let mut stranger = pod("p", &Like { namespace: "plain", ..Like::default() });
    stranger.metadata.labels = Some([("fairlead.dev/tenant".to_owned(), "acme".to_owned())].into());
    model.apply(Event::Pods(Change::Apply(stranger)));
    let snapshot = model.snapshot();
    let change = |namespace: &str, tenant: Option<&str>| LabelChange {
        namespace: namespace.into(),
        tenant: tenant.map(str::to_owned),
    };
    assert_eq!(snapshot.label_changes(), [change("left", None), change("shop", Some("acme"))]);
    assert!(snapshot.tenants.get("acme").unwrap().released.is_empty());
}

#[test]
fn a_pod_counts_from_the_gate_to_its_end() {
    let mut model = one_node(&[]);
    add_quota(&mut model, "acme", 1, &["shop"], json!({}));
    let like = Like::default();
    add_pod(&mut model, "waits", &Like { gated: true, second: 3, ..like.clone() });
    add_pod(&mut model, "waits-longer", &Like { gated: true, second: 2, ..like.clone() });
    add_pod(&mut model, "released", &like);
    add_pod(&mut model, "runs", &Like { node: Some("n1"), phase: "Running", ..like.clone() });
    add_pod(&mut model, "ended", &Like { node: Some("n1"), phase: "Succeeded", ..like.clone() });
    add_pod(&mut model, "failed", &Like { node: Some("n1"), phase: "Failed", ..like.clone() });
    add_pod(&mut model, "foreign", &Like { namespace: "elsewhere", ..like.clone() });
    let mut leaving = pod("leaving", &Like { node: Some("n1"), phase: "Running", ..like });
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    model.apply(Event::Pods(Change::Apply(leaving)));
    let snapshot = model.snapshot();
    let tenant = &snapshot.tenants.get("acme").unwrap();
    let names = |pods: &[std::sync::Arc<fairlead_cluster::PodView>]| -> Vec<String> {
        pods.iter().map(|pod| pod.id.name.clone()).collect()
    };
    assert_eq!(names(&tenant.released), ["leaving", "released", "runs"]);
    assert_eq!(names(&tenant.waiting), ["waits-longer", "waits"]);
    assert_eq!(tenant.used, vector(&[("cpu", 6_000), ("memory", 3 << 30), ("pods", 3)]));
    assert_eq!(tenant.unbound, vector(&[("cpu", 2_000), ("memory", 1 << 30), ("pods", 1)]));
    assert_eq!(tenant.oldest_waiting_ms, Some(tenant.waiting[0].created_ms));
    let input = tenant.input();
    assert_eq!((input.used.clone(), input.pending.len()), (tenant.used.clone(), 2));

    model.apply(Event::Pods(Change::Delete(pod("runs", &Like::default()))));
    assert_eq!(model.snapshot().tenants.get("acme").unwrap().used["pods"], 2);
}

#[test]
fn limits_that_cannot_be_read_are_named() {
    let mut model = one_node(&[]);
    let limits =
        json!({"weight": 3, "concurrency": {"hard": 5}, "resources": {"hard": {"cpu": "1500m", "memory": "1Gi"}}});
    add_quota(&mut model, "good", 1, &["a"], limits);
    add_quota(&mut model, "bad", 1, &["b"], json!({"resources": {"hard": {"cpu": "many", "memory": "1Gi"}}}));
    add_quota(&mut model, "weightless", 1, &["c"], json!({"weight": 0}));
    let snapshot = model.snapshot();
    let good = &snapshot.tenants.get("good").unwrap();
    assert_eq!((good.weight, good.error.as_ref()), (3, None));
    assert_eq!(good.hard, vector(&[("cpu", 1_500), ("memory", 1 << 30), ("pods", 5)]));
    let bad = &snapshot.tenants.get("bad").unwrap();
    assert!(bad.error.as_ref().unwrap().starts_with("spec.resources.hard[cpu]: "), "{:?}", bad.error);
    assert_eq!(bad.hard, vector(&[("memory", 1 << 30)]));
    assert_eq!(
        snapshot.tenants.get("weightless").unwrap().error.as_deref(),
        Some("spec.weight: 0 is too small; the least is 1")
    );
}

#[test]
fn totals_leave_out_what_is_not_shared() {
    let mut cordoned = node("n2");
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    let mut down = node("n3");
    down.status.as_mut().unwrap().conditions = None;
    let mut model = model(vec![node("n1"), cordoned, down], vec![], vec![]);
    add_quota(&mut model, "acme", 1, &["shop"], json!({}));
    let running = |namespace| Like { namespace, node: Some("n1"), phase: "Running", ..Like::default() };
    add_pod(&mut model, "ours", &running("shop"));
    add_pod(&mut model, "theirs", &running("kube-system"));
    let snapshot = add_pod(&mut model, "unbound", &Like::default());
    let left = |pods: u64, cpu: u64, gib: u64| vector(&[("cpu", cpu), ("memory", gib << 30), ("pods", pods)]);
    assert_eq!(snapshot.total(), left(109, 6_000, 15));
    assert_eq!(snapshot.free(), left(108, 4_000, 14));
    assert_eq!(snapshot.unbound(), vector(&[("cpu", 2_000), ("memory", 1 << 30), ("pods", 1)]));
    // The tenant goes: its pods are unmanaged from then on.
    model.apply(Event::Quotas(Change::Reset(Vec::new())));
    assert_eq!(model.snapshot().total(), left(108, 4_000, 14));
}

#[test]
fn the_backstop_stops_what_came_past_the_gate_at_the_limit() {
    let mut model = one_node(&[]);
    add_quota(&mut model, "acme", 1, &["shop"], json!({"concurrency": {"hard": 2}}));
    let wish = |uid: &str, like: &Like| PodWish::of(&pod(uid, like));
    let like = |second| Like { second, ..Like::default() };
    for (uid, second) in [("a", 1), ("b", 2), ("c", 3)] {
        add_pod(&mut model, uid, &like(second));
    }
    let snapshot = model.snapshot();
    let judged = |uid, second| snapshot.backstop(&wish(uid, &like(second)));
    assert_eq!((judged("a", 1), judged("b", 2)), (None, None), "the older ones go");
    assert_eq!(judged("c", 3), Some(Reason::TenantOverHardLimit));
    let released = Like { released: true, ..like(3) };
    assert_eq!(snapshot.backstop(&wish("c", &released)), None, "the operator decided");
    let elsewhere = Like { namespace: "lab", ..like(3) };
    assert_eq!(snapshot.backstop(&wish("d", &elsewhere)), None);
    assert_eq!(snapshot.backstop(&wish("d", &Like { gated: true, ..elsewhere })), Some(Reason::PodGated));
    assert_eq!(Model::new(OWN).snapshot().backstop(&wish("a", &like(1))), Some(Reason::NotSynced));
}
