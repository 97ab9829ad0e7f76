//! The run: manifests one after another, each pod placed as extender and scheduler would place it.
use super::devices::{self, DeviceAfter};
use super::error::SimulateError;
use super::manifests::{self, Manifest};
use super::world::{World, selector_text};
use crate::args::SimulatePlacementArgs;
use crate::drawing::{Holder, Scene};
use fairlead_cluster::{Detail, NodeView, PodView, PodWish, Snapshot};
use fairlead_crds::keys;
use fairlead_placement::{PodRef, Reason, Reservation};
use fairlead_topology::Choice;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where the chart is installed by the book; it matters only if a TenantQuota names it.
const OWN_NAMESPACE: &str = "fairlead-system";
/// Pods of one workload manifest; more is a mistake in a what-if.
const REPLICAS_MAX: i64 = 100_000;

/// All that came out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    /// In the order of the manifests.
    pub(super) steps: Vec<Step>,
    /// Pods that found a node, and that did not.
    pub(super) placed: usize,
    pub(super) refused: usize,
    /// The nodes in the end.
    pub(super) nodes: Vec<NodeAfter>,
}

/// What happened to one pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) pod: String,
    pub(super) verdict: Verdict,
    /// Where it is, or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// Why it is refused: the most frequent reason of the closed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) containers: Vec<ContainerAfter>,
    /// Bytes promised by NUMA node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) memory_bytes: BTreeMap<u32, u64>,
    /// Devices of its claims that its CPUs could be near.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) devices: Vec<DeviceAfter>,
    /// What every node said, term by term; the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) answers: Vec<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Verdict {
    Placed,
    Refused,
    Deleted,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerAfter {
    pub(super) name: String,
    pub(super) cpus: String,
    pub(super) memory_nodes: String,
}

/// One node's answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// What speaks against the node besides the extender: not Ready, cordoned, too little of a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) obstacle: Option<String>,
    #[serde(flatten)]
    pub(super) detail: Detail,
}

impl Answer {
    fn fits(&self) -> bool {
        self.obstacle.is_none() && self.detail.reason.is_none()
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeAfter {
    pub(super) name: String,
    pub(super) cpus: u32,
    pub(super) free_cpus: String,
    #[serde(skip)]
    pub(super) drawing: String,
}

/// Runs everything.
pub(super) fn run(args: &SimulatePlacementArgs) -> Result<Run, SimulateError> {
    let manifests = manifests::read(&args.files)?;
    let mut world = match &args.from_dump {
        None => World::new(OWN_NAMESPACE),
        Some(file) => of_dump(file)?,
    };
    for node in &args.nodes {
        world.add_node(&node.name, node.spec()?)?;
    }
    let mut steps = match (&args.pod, args.files.is_empty()) {
        (Some((namespace, name)), _) => {
            let snapshot = world.snapshot();
            let pod = named(&snapshot, namespace, name)?;
            vec![judge(&snapshot, &snapshot.wish_of_view(pod)).0]
        }
        (None, true) => asked_again(&world.snapshot()),
        (None, false) => Vec::new(),
    };
    let selectors = selectors(&manifests)?;
    for manifest in &manifests {
        if manifest.text_at("/metadata/name").is_none() {
            return Err(SimulateError::NoName { at: manifest.at.clone() });
        }
        match manifest.kind.as_str() {
            "Pod" => steps.push(pod(&mut world, manifest)?),
            "Deployment" | "StatefulSet" | "ReplicaSet" | "Job" => {
                for pod in workload(manifest)? {
                    steps.push(place(&mut world, pod));
                }
            }
            "WorkerPool" => world.apply(&with_selector(manifest, &selectors)?)?,
            _ => world.apply(manifest)?,
        }
    }
    if !world.has_nodes() {
        return Err(SimulateError::NoNodes);
    }
    let count = |verdict| steps.iter().filter(|step: &&Step| step.verdict == verdict).count();
    let (placed, refused) = (count(Verdict::Placed), count(Verdict::Refused));
    let snapshot = world.snapshot();
    Ok(Run { steps, placed, refused, nodes: snapshot.nodes.iter().map(|node| after(node)).collect() })
}

/// What the extender of the dump answers on `/debug/explain`, byte for byte.
pub(super) fn explained(file: &Path, namespace: &str, name: &str) -> Result<String, SimulateError> {
    let snapshot = of_dump(file)?.snapshot();
    let explanation = serde_json::to_value(snapshot.explain(named(&snapshot, namespace, name)?));
    Ok(explanation.map_err(|source| SimulateError::Answer { source })?.to_string())
}

fn named<'a>(snapshot: &'a Snapshot, namespace: &str, name: &str) -> Result<&'a PodView, SimulateError> {
    let missing = || SimulateError::NotInDump { name: format!("{namespace}/{name}") };
    snapshot.pod_named(namespace, name).ok_or_else(missing)
}

fn of_dump(file: &Path) -> Result<World, SimulateError> {
    let (name, text) = manifests::contents(file)?;
    let dump = serde_json::from_str(&text).map_err(|source| SimulateError::Dump { file: name.clone(), source })?;
    World::of_dump(&dump).map_err(|source| SimulateError::DumpFacts { file: name, source: Box::new(source) })
}

/// What the extender would answer for each pod that waits for a node in the dump: each alone, as it was asked.
fn asked_again(snapshot: &Snapshot) -> Vec<Step> {
    let waits = |pod: &&Arc<PodView>| {
        let gated = pod.quota_gated || pod.otherwise_gated;
        pod.node.is_none() && !gated && !pod.terminal && !pod.deleting && pod.scheduler == keys::SCHEDULER_NAME
    };
    let mut waiting: Vec<&Arc<PodView>> = snapshot.pods.iter().filter(waits).collect();
    waiting.sort_by_key(|pod| (&pod.id.namespace, &pod.id.name));
    waiting.into_iter().map(|pod| judge(snapshot, &snapshot.wish_of_view(pod)).0).collect()
}

fn pod(world: &mut World, manifest: &Manifest) -> Result<Step, SimulateError> {
    if !manifest.delete {
        return Ok(place(world, manifest.read()?));
    }
    let namespace = manifest.text_at("/metadata/namespace").unwrap_or("default");
    let name = manifest.text_at("/metadata/name").unwrap_or_default();
    let node = world.delete(namespace, name).ok_or_else(|| SimulateError::NotThere {
        at: manifest.at.clone(),
        kind: "Pod".to_owned(),
        name: format!("{namespace}/{name}"),
    })?;
    Ok(Step {
        pod: format!("{namespace}/{name}"),
        verdict: Verdict::Deleted,
        node: Some(node).filter(|node| !node.is_empty()),
        reason: None,
        containers: Vec::new(),
        memory_bytes: BTreeMap::new(),
        devices: Vec::new(),
        answers: Vec::new(),
    })
}

/// As the scheduler does with our scores alone: of the nodes that fit the best, of equals the first by name. What else
/// kube-scheduler weighs (spreading, affinity, taints) is not simulated.
fn place(world: &mut World, pod: Pod) -> Step {
    let pod = world.admit(pod);
    let snapshot = world.snapshot();
    let wish = PodWish { devices: world.devices_of(&pod), ..snapshot.wish_of(&pod) };
    let (step, reservation) = judge(&snapshot, &wish);
    if let Some(node) = &step.node {
        world.bind(&wish, node, reservation.as_ref());
    }
    step
}

/// Where the pod would go, and what would be reserved for it there.
fn judge(snapshot: &Snapshot, wish: &PodWish) -> (Step, Option<Reservation>) {
    let answers = answers(snapshot, wish);
    let mut step = Step {
        pod: format!("{}/{}", wish.id.namespace, wish.id.name),
        verdict: Verdict::Refused,
        node: None,
        reason: None,
        containers: Vec::new(),
        memory_bytes: BTreeMap::new(),
        devices: Vec::new(),
        answers,
    };
    let best = step.answers.first().filter(|answer| answer.fits()).map(|answer| answer.detail.node.clone());
    let chosen = best.and_then(|node| Some((snapshot.choose(snapshot.index_of(&node)?, wish).ok()?, node)));
    let Some((choice, node)) = chosen else {
        step.reason = most_frequent(&step.answers);
        return (step, None);
    };
    let reservation = wish.exclusive.is_some().then(|| reservation(&wish.id, choice));
    if let Some(held) = &reservation {
        let placement = fairlead_cluster::annotation_of(held);
        let after = |one: fairlead_crds::placement::ContainerPlacement| ContainerAfter {
            name: one.name,
            cpus: one.cpus,
            memory_nodes: one.memory_nodes,
        };
        step.containers = placement.containers.into_iter().map(after).collect();
        step.memory_bytes = held.memory.iter().copied().collect();
        step.devices = snapshot.node_named(&node).map(|view| devices::after(wish, view)).unwrap_or_default();
    }
    (Step { verdict: Verdict::Placed, node: Some(node), ..step }, reservation)
}

fn reservation(pod: &PodRef, choice: Choice) -> Reservation {
    Reservation::of_choice(pod.clone(), 0, choice)
}

fn answers(snapshot: &Snapshot, wish: &PodWish) -> Vec<Answer> {
    let of_node = |node: &NodeView| {
        let detail = snapshot.why_not(&node.name, wish)?;
        Some(Answer { obstacle: obstacle(node, wish), detail })
    };
    let mut answers: Vec<Answer> = snapshot.nodes.iter().filter_map(|node| of_node(node)).collect();
    answers.sort_by(|a, b| {
        let key = |one: &Answer| (Reverse(one.fits()), Reverse(one.detail.score.unwrap_or(0)));
        (key(a), &a.detail.node).cmp(&(key(b), &b.detail.node))
    });
    answers
}

/// What kube-scheduler itself would say of the node's state and resources.
fn obstacle(node: &NodeView, wish: &PodWish) -> Option<String> {
    if !node.ready {
        return Some("not Ready".to_owned());
    }
    if node.unschedulable {
        return Some("cordoned".to_owned());
    }
    let used = |resource: &str| node.requested.get(resource).copied().unwrap_or(0);
    let short = wish.request.iter().find(|(resource, wanted)| {
        let offered = node.allocatable.get(*resource).copied().unwrap_or(0);
        used(resource).saturating_add(**wanted) > offered
    });
    let short = short.map(|(resource, _)| format!("Insufficient {resource}"));
    short.or_else(|| devices::obstacle(wish, node))
}

/// Of equals the first of the closed list.
fn most_frequent(answers: &[Answer]) -> Option<&'static str> {
    let count = |reason: &Reason| answers.iter().filter(|answer| answer.detail.reason == Some(reason.name())).count();
    let all = Reason::ALL.iter().map(|reason| (count(reason), reason.name())).filter(|(count, _)| *count > 0);
    all.rev().max_by_key(|(count, _)| *count).map(|(_, name)| name)
}

fn after(node: &NodeView) -> NodeAfter {
    let reservations = node.placement.iter().flat_map(|placement| &placement.reservations);
    let holders: Vec<Holder> = reservations.map(|held| Holder::of(held, String::new())).collect();
    let drawing = node.machine.as_ref().map(|machine| {
        Scene { machine, holders: &holders, memory_free_bytes: &node.memory_free_bytes, only: None }.draw()
    });
    NodeAfter {
        name: node.name.clone(),
        cpus: node.machine.as_ref().map_or(0, |machine| machine.cpus().len()),
        free_cpus: node.free.to_string(),
        drawing: drawing.unwrap_or_default(),
    }
}

/// The part of a workload that makes pods.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workload {
    metadata: ObjectMeta,
    spec: WorkloadSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec {
    replicas: Option<i64>,
    parallelism: Option<i64>,
    selector: Option<LabelSelector>,
    template: PodTemplateSpec,
}

fn workload(manifest: &Manifest) -> Result<Vec<Pod>, SimulateError> {
    let Workload { metadata, spec } = manifest.read()?;
    let count = spec.replicas.or(spec.parallelism).unwrap_or(1).clamp(0, REPLICAS_MAX);
    let name = metadata.name.unwrap_or_default();
    let template = spec.template;
    Ok((0..count)
        .map(|index| {
            let mut meta = template.metadata.clone().unwrap_or_default();
            meta.name = Some(format!("{name}-{index}"));
            meta.namespace = metadata.namespace.clone();
            Pod { metadata: meta, spec: template.spec.clone(), status: None }
        })
        .collect())
}

/// Namespace, kind and name of a workload to the label selector of its pods.
type Selectors = BTreeMap<(String, String, String), String>;

fn selectors(manifests: &[Manifest]) -> Result<Selectors, SimulateError> {
    let mut found = Selectors::new();
    for manifest in manifests.iter().filter(|one| ["Deployment", "StatefulSet", "ReplicaSet"].contains(&&*one.kind)) {
        let Workload { metadata, spec } = manifest.read()?;
        let namespace = metadata.namespace.unwrap_or_else(|| "default".to_owned());
        let key = (namespace, manifest.kind.clone(), metadata.name.unwrap_or_default());
        let wrong = |(key, message)| SimulateError::Selector { at: manifest.at.clone(), key, message };
        found.insert(key, spec.selector.as_ref().map_or(Ok(String::new()), selector_text).map_err(wrong)?);
    }
    Ok(found)
}

/// A pool knows its pods by what the scale subresource of its target says; here the target's manifest says it.
fn with_selector(manifest: &Manifest, selectors: &Selectors) -> Result<Manifest, SimulateError> {
    let mut object = manifest.object.clone();
    let target =
        |field: &str| manifest.text_at(&format!("/spec/scaleTargetRef/{field}")).unwrap_or_default().to_owned();
    let namespace = manifest.text_at("/metadata/namespace").unwrap_or("default").to_owned();
    let known = selectors.get(&(namespace.clone(), target("kind"), target("name"))).filter(|text| !text.is_empty());
    if let (None, Some(selector)) = (manifest.text_at("/status/selector"), known) {
        object["status"]["selector"] = selector.clone().into();
    }
    let wishes = object.pointer("/spec/topology").is_some_and(|wish| !wish.is_null());
    if wishes && !manifest.delete && object.pointer("/status/selector").is_none_or(serde_json::Value::is_null) {
        return Err(SimulateError::PoolWithoutSelector {
            at: manifest.at.clone(),
            name: format!("{namespace}/{}", manifest.text_at("/metadata/name").unwrap_or_default()),
            target: format!("{} {}", target("kind"), target("name")),
        });
    }
    Ok(Manifest { at: manifest.at.clone(), kind: manifest.kind.clone(), delete: manifest.delete, object })
}
