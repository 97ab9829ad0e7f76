//! Objects for the tests of this crate, as the API server would show them.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test support")]
use fairlead_cluster::{Change, Event, Model, PodWish, Snapshot};
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde_json::{Value, json};
use std::sync::Arc;

pub const OWN: &str = "fairlead-system";

pub fn node(name: &str) -> Node {
    node_with(name, "8", "8")
}

pub fn node_with(name: &str, capacity: &str, allocatable: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {
            "capacity": {"cpu": capacity, "memory": "16Gi", "pods": "110"},
            "allocatable": {"cpu": allocatable, "memory": "16Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
    .unwrap()
}

/// Two NUMA nodes of 8 GiB, each with two cores of two threads: CPUs 0-3 and 4-7.
pub fn topology(name: &str) -> NodeTopology {
    serde_json::from_value(json!({
        "metadata": {"name": name, "ownerReferences": [owner(name)]},
        "spec": {
            "source": "Synthetic",
            "packages": [{"id": 0, "cpus": "0-7"}],
            "numaNodes": [
                {"id": 0, "cpus": "0-3", "memoryBytes": 8_i64 << 30, "distances": [{"to": 1, "value": 20}]},
                {"id": 1, "cpus": "4-7", "memoryBytes": 8_i64 << 30},
            ],
            "l3Caches": [],
            "cores": [{"id": 0, "cpus": "0-1"}, {"id": 1, "cpus": "2-3"}, {"id": 2, "cpus": "4-5"}, {"id": 3, "cpus": "6-7"}],
        },
    }))
    .unwrap()
}

fn owner(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": format!("uid-{node}")})
}

/// Reservations as pairs of pod UID and CPU list, all on NUMA node 0 with 1 GiB each.
pub fn placement(node: &str, generation: i64, reservations: &[(&str, &str)]) -> NodePlacement {
    let entries: Vec<Value> = reservations
        .iter()
        .map(|(uid, cpus)| {
            json!({"podUID": uid, "namespace": "shop", "name": uid, "reservedAt": "2026-01-01T00:00:00Z", "cpus": cpus,
                   "containers": [{"name": "main", "cpus": cpus}], "memory": [{"numaNode": 0, "bytes": 1_i64 << 30}]})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": node, "uid": format!("np-{node}"), "generation": generation, "ownerReferences": [owner(node)]},
        "spec": {"reservations": entries},
    }))
    .unwrap()
}

pub fn namespace(name: &str, label: Option<&str>) -> Namespace {
    let labels = label.map(|tenant| json!({"fairlead.dev/tenant": tenant}));
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels.unwrap_or(json!({}))}})).unwrap()
}

/// A quota created in that second of 2026.
pub fn quota(name: &str, second: u32, namespaces: &[&str], spec: Value) -> TenantQuota {
    let mut full = json!({"namespaces": namespaces});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("tq-{name}"), "generation": 1,
                     "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": full,
    }))
    .unwrap()
}

/// What a test pod is like; the rest is the same for all.
#[derive(Clone, Debug)]
pub struct Like {
    pub namespace: &'static str,
    pub cpu: &'static str,
    pub node: Option<&'static str>,
    pub gated: bool,
    pub released: bool,
    pub phase: &'static str,
    pub second: u32,
}

impl Default for Like {
    fn default() -> Self {
        Self { namespace: "shop", cpu: "2", node: None, gated: false, released: false, phase: "Pending", second: 0 }
    }
}

/// A Guaranteed pod with one container; 1 GiB of memory.
pub fn pod(uid: &str, like: &Like) -> Pod {
    let resources = json!({"cpu": like.cpu, "memory": "1Gi"});
    let gates = if like.gated { json!([{"name": "fairlead.dev/quota"}]) } else { json!([]) };
    let annotations = if like.released { json!({"fairlead.dev/released": "1:1"}) } else { json!({}) };
    serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": like.namespace, "uid": uid, "resourceVersion": "1", "annotations": annotations,
                     "creationTimestamp": format!("2026-01-01T00:01:{:02}Z", like.second)},
        "spec": {"nodeName": like.node, "schedulingGates": gates,
                 "containers": [{"name": "main", "resources": {"requests": resources, "limits": resources}}]},
        "status": {"phase": like.phase},
    }))
    .unwrap()
}

pub fn wish(uid: &str, cpu: &'static str) -> PodWish {
    PodWish::of(&pod(uid, &Like { cpu, ..Like::default() }))
}

/// A model in which every kind has been listed.
pub fn model(nodes: Vec<Node>, topologies: Vec<NodeTopology>, placements: Vec<NodePlacement>) -> Model {
    let mut model = Model::new(OWN);
    model.apply(Event::Nodes(Change::Reset(nodes)));
    model.apply(Event::Topologies(Change::Reset(topologies)));
    model.apply(Event::Placements(Change::Reset(placements)));
    model.apply(Event::Pods(Change::Reset(Vec::new())));
    model.apply(Event::Quotas(Change::Reset(Vec::new())));
    model.apply(Event::Namespaces(Change::Reset(Vec::new())));
    model
}

/// One healthy node, `n1`, with these reservations.
pub fn one_node(reservations: &[(&str, &str)]) -> Model {
    model(vec![node("n1")], vec![topology("n1")], vec![placement("n1", 1, reservations)])
}

pub fn add_pod(model: &mut Model, uid: &str, like: &Like) -> Arc<Snapshot> {
    model.apply(Event::Pods(Change::Apply(pod(uid, like))));
    model.snapshot()
}
