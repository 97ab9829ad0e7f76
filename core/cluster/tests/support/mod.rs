//! Objects for the tests of this crate, as the API server would show them.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "test support")]
use fairlead_cluster::Reason;
use fairlead_cluster::{Change, Event, Model, PodWish, Snapshot};
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool};
use fairlead_placement::{
    BindError, BindRequest, Event as BindEvent, PatchOutcome, PlacementRead, PodRead, Request, TouchOutcome, bind,
};
use fairlead_topology::CpuMask;
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
            "pinning": {"mode": "Own", "reason": "Test"},
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
    /// CPUs in its placement annotation.
    pub carries: Option<&'static str>,
    /// CPU of a second container.
    pub beside: Option<&'static str>,
    pub scheduler: &'static str,
    /// Its label `app`.
    pub app: Option<&'static str>,
    /// Kind and name of its controller; of a ReplicaSet the part of the name after the last `-` is its label
    /// `pod-template-hash`.
    pub owner: Option<(&'static str, &'static str)>,
    /// Annotations `topology.fairlead.dev/…`, keys without the prefix.
    pub wishes: &'static [(&'static str, &'static str)],
}

impl Default for Like {
    fn default() -> Self {
        Self {
            namespace: "shop",
            cpu: "2",
            node: None,
            gated: false,
            released: false,
            phase: "Pending",
            second: 0,
            carries: None,
            beside: None,
            scheduler: "fairlead-scheduler",
            app: None,
            owner: None,
            wishes: &[],
        }
    }
}

/// A Guaranteed pod; 1 GiB of memory for each container.
pub fn pod(uid: &str, like: &Like) -> Pod {
    let container = |(name, cpu): (&str, &str)| {
        let resources = json!({"cpu": cpu, "memory": "1Gi"});
        json!({"name": name, "resources": {"requests": resources, "limits": resources}})
    };
    let containers = std::iter::once(("main", like.cpu)).chain(like.beside.map(|cpu| ("beside", cpu)));
    let containers: Vec<Value> = containers.map(container).collect();
    let gates = if like.gated { json!([{"name": "fairlead.dev/quota"}]) } else { json!([]) };
    let mut annotations = if like.released { json!({"fairlead.dev/released": "1:1"}) } else { json!({}) };
    for (field, value) in like.wishes {
        annotations[format!("topology.fairlead.dev/{field}")] = json!(value);
    }
    let mut labels = like.app.map_or(json!({}), |app| json!({"app": app}));
    if let Some(hash) =
        like.owner.filter(|(kind, _)| *kind == "ReplicaSet").and_then(|(_, name)| name.rsplit('-').next())
    {
        labels["pod-template-hash"] = json!(hash);
    }
    let owner =
        |(kind, name)| json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true});
    let owners: Vec<Value> = like.owner.map(owner).into_iter().collect();
    if let Some(cpus) = like.carries {
        let placement = json!({"containers": [{"name": "main", "cpus": cpus, "memoryNodes": "0"}]});
        annotations["fairlead.dev/placement"] = json!(placement.to_string());
    }
    serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": like.namespace, "uid": uid, "resourceVersion": "1", "annotations": annotations, "labels": labels,
                     "ownerReferences": owners,
                     "creationTimestamp": format!("2026-01-01T00:01:{:02}Z", like.second)},
        "spec": {"schedulerName": like.scheduler, "nodeName": like.node, "schedulingGates": gates,
                 "containers": containers},
        "status": {"phase": like.phase},
    }))
    .unwrap()
}

/// A WorkerPool of the namespace shop that selects the pods with that label `app`, created in that second of 2026.
pub fn pool(name: &str, second: u32, app: Option<&str>, topology: Value) -> WorkerPool {
    let spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "maxReplicas": 9,
        "queueSources": [], "topology": topology});
    let selector = app.map(|app| format!("app={app}"));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": spec,
        "status": {"selector": selector},
    }))
    .unwrap()
}

/// A NodePlacement whose agent observed containers `main`: pod UID, state, CPUs.
pub fn observed(mut placement: NodePlacement, generation: i64, containers: &[(&str, &str, &str)]) -> NodePlacement {
    let container = |&(uid, state, cpus): &(&str, &str, &str)| json!({"podUID": uid, "name": "main", "state": state, "cpus": cpus, "memoryNodes": ""});
    let containers: Vec<Value> = containers.iter().map(container).collect();
    let status = json!({"observedGeneration": generation, "containers": containers});
    placement.status = serde_json::from_value(status).unwrap();
    placement
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
    model.apply(Event::Pools(Change::Reset(Vec::new())));
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

/// The CPUs that a bind of the pod to `n1` reserves, or why it is refused: the shipped steps with the watch for an API
/// server.
pub fn bound(snapshot: &Snapshot, uid: &str, cpu: &'static str) -> Result<CpuMask, Reason> {
    bound_on(snapshot, "n1", &pod(uid, &Like { cpu, ..Like::default() }))
}

pub fn bound_on(snapshot: &Snapshot, node: &str, pod: &Pod) -> Result<CpuMask, Reason> {
    let request = BindRequest { pod: PodWish::of(pod).id, node: node.to_owned() };
    drive(snapshot, request, pod, |node| {
        let mut read = snapshot.placement(node);
        if let PlacementRead::Found(facts) = &mut read {
            facts.around = snapshot.around_in(node, facts, &snapshot.wish_of(pod));
        }
        read
    })
}

/// The CPUs that a bind of the pod to `n1` would reserve, if every reading of the NodePlacement gives this.
pub fn reserved(snapshot: &Snapshot, pod: &Pod, read: &PlacementRead) -> Result<CpuMask, Reason> {
    let request = BindRequest { pod: PodWish::of(pod).id, node: "n1".to_owned() };
    drive(snapshot, request, pod, |_| read.clone())
}

fn drive(
    snapshot: &Snapshot,
    request: BindRequest,
    pod: &Pod,
    read: impl Fn(&str) -> PlacementRead,
) -> Result<CpuMask, Reason> {
    let uid = request.pod.uid.clone();
    let start = BindEvent::Start { request, pod: snapshot.facts_of(pod), now_ms: 0 };
    let (mut state, mut asked) = bind::step(&bind::State::default(), &start);
    let mut freed = false;
    loop {
        let event = match asked.pop().unwrap() {
            Request::ReadPlacement { node, .. } => {
                let mut read = read(&node);
                if let (PlacementRead::Found(facts), true) = (&mut read, freed) {
                    facts.reservations.retain(|held| held.pod.uid != uid);
                }
                BindEvent::Placement(read)
            }
            // What is reserved for another wish of the pod is freed first.
            Request::ReadPod { .. } => BindEvent::Pod(PodRead::Found(snapshot.facts_of(pod).unwrap())),
            Request::Touch { .. } => BindEvent::Touched(TouchOutcome::Done),
            Request::Release { .. } => {
                freed = true;
                BindEvent::Patched(PatchOutcome::Done { generation: 99 })
            }
            Request::Reserve { reservation, .. } => return Ok(reservation.cpus),
            Request::Bind { .. } => return Ok(CpuMask::new()),
            Request::Answer(Err(BindError::Node(reason))) => return Err(reason),
            other => panic!("{other:?}"),
        };
        (state, asked) = bind::step(&state, &event);
    }
}
