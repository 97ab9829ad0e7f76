//! The simulated cluster: the shipped model, fed with manifests instead of watches.
use super::devices::Devices;
use super::error::SimulateError;
use super::manifests::Manifest;
use fairlead_cluster::{Change, ClaimedDevice, Dump, Event, Model, PodDump, PodWish, Snapshot, annotation_of, to_wire};
use fairlead_crds::{NodePlacement, NodePlacementSpec, NodeTopology, NodeTopologySpec, TenantQuota, WorkerPool, keys};
use fairlead_placement::Reservation;
use k8s_openapi::api::core::v1::{Namespace, Node, NodeCondition, NodeStatus, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, Time,
};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Kinds that are understood, for messages.
pub(super) const KINDS: &str = "Pod, Deployment, StatefulSet, ReplicaSet, Job, WorkerPool, TenantQuota, Namespace, Node, NodeTopology, NodePlacement, ResourceClaim or ResourceSlice";

/// The model with what it was fed.
pub(super) struct World {
    model: Model,
    nodes: BTreeSet<String>,
    placements: BTreeMap<String, NodePlacement>,
    /// By namespace and name; of pods of a dump only what a deletion needs is there.
    pods: BTreeMap<(String, String), Pod>,
    namespaces: BTreeSet<String>,
    devices: Devices,
    /// Pods given so far; makes UIDs and creation times.
    count: i64,
}

impl World {
    /// An empty cluster, everything listed.
    pub(super) fn new(own_namespace: &str) -> Self {
        let mut model = Model::new(own_namespace);
        for event in [
            Event::Nodes(Change::Reset(Vec::new())),
            Event::Pods(Change::Reset(Vec::new())),
            Event::Quotas(Change::Reset(Vec::new())),
            Event::Topologies(Change::Reset(Vec::new())),
            Event::Placements(Change::Reset(Vec::new())),
            Event::Namespaces(Change::Reset(Vec::new())),
            Event::Pools(Change::Reset(Vec::new())),
        ] {
            model.apply(event);
        }
        Self {
            model,
            nodes: BTreeSet::new(),
            placements: BTreeMap::new(),
            pods: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            devices: Devices::default(),
            count: 0,
        }
    }

    /// The cluster of a running extender.
    pub(super) fn of_dump(dump: &Dump) -> Result<Self, fairlead_cluster::DumpError> {
        let named =
            |placement: &NodePlacement| (placement.metadata.name.clone().unwrap_or_default(), placement.clone());
        let known = |pod: &PodDump| {
            let metadata = ObjectMeta { uid: Some(pod.uid.clone()), ..meta(&pod.name, Some(&pod.namespace)) };
            let spec = PodSpec { node_name: pod.node.clone(), ..PodSpec::default() };
            ((pod.namespace.clone(), pod.name.clone()), Pod { metadata, spec: Some(spec), status: None })
        };
        Ok(Self {
            model: Model::from_dump(dump)?,
            nodes: dump.nodes.iter().map(|node| node.name.clone()).collect(),
            placements: dump.placements.iter().map(named).collect(),
            pods: dump.pods.iter().map(known).collect(),
            namespaces: dump.namespaces.iter().map(|namespace| namespace.name.clone()).collect(),
            devices: Devices::default(),
            count: 0,
        })
    }

    /// The cluster now.
    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        self.model.snapshot()
    }

    pub(super) fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Adds a node with that machine: Ready, offering all it has. A Node manifest may say less.
    pub(super) fn add_node(&mut self, name: &str, spec: NodeTopologySpec) -> Result<(), SimulateError> {
        if !self.nodes.insert(name.to_owned()) {
            return Err(SimulateError::NodeTwice { name: name.to_owned() });
        }
        let machine = fairlead_cluster::machine_of(&spec)
            .map_err(|error| SimulateError::Machine { name: name.to_owned(), message: error.to_string() })?;
        let memory_bytes: u64 = machine.numa_memory_bytes().iter().sum();
        let mut offers = BTreeMap::from([
            ("cpu".to_owned(), Quantity(machine.cpus().len().to_string())),
            ("memory".to_owned(), Quantity(memory_bytes.to_string())),
            ("pods".to_owned(), Quantity("1000".to_owned())),
        ]);
        let mut huge: BTreeMap<u64, u64> = BTreeMap::new();
        for page in (0..machine.numa_ids().len()).flat_map(|numa| machine.numa_huge_pages(numa)) {
            *huge.entry(page.page_bytes).or_default() += page.page_bytes.saturating_mul(page.count);
        }
        offers.extend(huge.into_iter().map(|(page, bytes)| (huge_page_resource(page), Quantity(bytes.to_string()))));
        let node = Node {
            metadata: meta(name, None),
            spec: None,
            status: Some(NodeStatus {
                allocatable: Some(offers.clone()),
                capacity: Some(offers),
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".to_owned(),
                    status: "True".to_owned(),
                    ..NodeCondition::default()
                }]),
                ..NodeStatus::default()
            }),
        };
        self.model.apply(Event::Nodes(Change::Apply(node)));
        let owned = |mut meta: ObjectMeta| {
            meta.owner_references = Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid: uid_of(name),
                ..OwnerReference::default()
            }]);
            meta
        };
        let topology = NodeTopology { metadata: owned(meta(name, None)), spec, status: None };
        self.model.apply(Event::Topologies(Change::Apply(topology)));
        let placement =
            NodePlacement { metadata: owned(meta(name, None)), spec: NodePlacementSpec::default(), status: None };
        self.put_placement(placement);
        Ok(())
    }

    fn put_placement(&mut self, mut placement: NodePlacement) {
        let name = placement.metadata.name.clone().unwrap_or_default();
        let generation = self.placements.get(&name).and_then(|before| before.metadata.generation).unwrap_or(0) + 1;
        placement.metadata.generation = Some(generation);
        placement.metadata.resource_version = Some(generation.to_string());
        self.placements.insert(name, placement.clone());
        self.model.apply(Event::Placements(Change::Apply(placement)));
    }

    /// Takes in anything that is no pod and makes none.
    pub(super) fn apply(&mut self, manifest: &Manifest) -> Result<(), SimulateError> {
        match manifest.kind.as_str() {
            "Namespace" => {
                let namespace: Namespace = manifest.read()?;
                self.namespaces.insert(namespace.metadata.name.clone().unwrap_or_default());
                self.model.apply(Event::Namespaces(change(namespace, manifest.delete)));
            }
            "TenantQuota" => {
                let mut quota: TenantQuota = manifest.read()?;
                quota.metadata.uid.get_or_insert_with(|| uid_of(&manifest.at));
                for namespace in quota.spec.namespaces.clone() {
                    self.ensure_namespace(&namespace);
                }
                self.model.apply(Event::Quotas(change(quota, manifest.delete)));
            }
            "WorkerPool" => {
                let mut pool: WorkerPool = manifest.read()?;
                pool.metadata.namespace.get_or_insert_with(|| "default".to_owned());
                pool.metadata.uid.get_or_insert_with(|| uid_of(&manifest.at));
                self.model.apply(Event::Pools(change(pool, manifest.delete)));
            }
            "Node" => {
                let mut node: Node = manifest.read()?;
                let name = node.metadata.name.clone().unwrap_or_default();
                node.metadata.uid = Some(uid_of(&name));
                self.model.apply(Event::Nodes(change(node, manifest.delete)));
            }
            "NodeTopology" => {
                let topology: NodeTopology = manifest.read()?;
                self.add_node(&topology.metadata.name.clone().unwrap_or_default(), topology.spec)?;
            }
            "NodePlacement" => {
                let given: NodePlacement = manifest.read()?;
                let name = given.metadata.name.clone().unwrap_or_default();
                let mut held = self.placements.get(&name).cloned().ok_or_else(|| SimulateError::NotThere {
                    at: manifest.at.clone(),
                    kind: "the node of NodePlacement".to_owned(),
                    name,
                })?;
                held.spec = given.spec;
                self.put_placement(held);
            }
            "ResourceClaim" => self.devices.claim(manifest)?,
            "ResourceSlice" => self.devices.slice(manifest)?,
            kind => {
                return Err(SimulateError::Kind { at: manifest.at.clone(), kind: kind.to_owned(), known: KINDS });
            }
        }
        Ok(())
    }

    fn ensure_namespace(&mut self, name: &str) {
        if self.namespaces.insert(name.to_owned()) {
            let namespace = Namespace { metadata: meta(name, None), ..Namespace::default() };
            self.model.apply(Event::Namespaces(Change::Apply(namespace)));
        }
    }

    /// Devices allocated to the claims of a pod.
    pub(super) fn devices_of(&self, pod: &Pod) -> Vec<ClaimedDevice> {
        self.devices.of(pod)
    }

    /// A pod that waits for a node. What a pod of an API server has and a manifest lacks is filled in.
    pub(super) fn admit(&mut self, mut pod: Pod) -> Pod {
        self.count += 1;
        let namespace = pod.metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
        let count = self.count;
        pod.metadata.uid.get_or_insert_with(|| format!("simulated-{count:06}"));
        pod.metadata.resource_version = Some("1".to_owned());
        let created = Timestamp::from_second(count).unwrap_or(Timestamp::UNIX_EPOCH);
        pod.metadata.creation_timestamp.get_or_insert(Time(created));
        if let Some(spec) = &mut pod.spec {
            spec.scheduler_name.get_or_insert_with(|| keys::SCHEDULER_NAME.to_owned());
        }
        self.ensure_namespace(&namespace);
        self.keep(pod.clone());
        pod
    }

    fn keep(&mut self, pod: Pod) {
        let key = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
        self.pods.insert(key, pod.clone());
        self.model.apply(Event::Pods(Change::Apply(pod)));
    }

    /// The pod is bound, as the extender's `/bind` leaves it.
    pub(super) fn bind(&mut self, wish: &PodWish, node: &str, reservation: Option<&Reservation>) {
        let key = (wish.id.namespace.clone(), wish.id.name.clone());
        let Some(mut pod) = self.pods.get(&key).cloned() else { return };
        if let (Some(held), Some(mut placement)) = (reservation, self.placements.get(node).cloned()) {
            placement.spec.reservations.push(to_wire(held));
            self.put_placement(placement);
            if let Ok(text) = serde_json::to_string(&annotation_of(held)) {
                let annotations = pod.metadata.annotations.get_or_insert_with(BTreeMap::new);
                annotations.insert(keys::PLACEMENT_ANNOTATION.to_owned(), text);
            }
        }
        if let Some(spec) = &mut pod.spec {
            spec.node_name = Some(node.to_owned());
        }
        let scheduled =
            PodCondition { type_: "PodScheduled".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
        pod.status.get_or_insert_default().conditions = Some(vec![scheduled]);
        self.keep(pod);
    }

    /// The pod is gone, and what it held is given back. The node it was on; `None`: there is no such pod.
    pub(super) fn delete(&mut self, namespace: &str, name: &str) -> Option<String> {
        let pod = self.pods.remove(&(namespace.to_owned(), name.to_owned()))?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        if let Some(mut placement) = self.placements.get(&node).cloned() {
            placement.spec.reservations.retain(|held| held.pod_uid != uid);
            self.put_placement(placement);
        }
        self.model.apply(Event::Pods(Change::Delete(pod)));
        Some(node)
    }
}

fn change<K>(object: K, delete: bool) -> Change<K> {
    if delete { Change::Delete(object) } else { Change::Apply(object) }
}

fn huge_page_resource(page_bytes: u64) -> String {
    const MI: u64 = 1 << 20;
    const GI: u64 = 1 << 30;
    match page_bytes {
        bytes if bytes.is_multiple_of(GI) => format!("hugepages-{}Gi", bytes / GI),
        bytes if bytes.is_multiple_of(MI) => format!("hugepages-{}Mi", bytes / MI),
        bytes => format!("hugepages-{}Ki", bytes / 1024),
    }
}

/// Simulated objects are named by what they are.
fn uid_of(name: &str) -> String {
    format!("simulated-{name}")
}

fn meta(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        uid: Some(uid_of(name)),
        resource_version: Some("1".to_owned()),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

/// A label selector as the scale subresource writes it.
///
/// # Errors
/// Key and fault of a requirement that an API server would refuse.
pub(super) fn selector_text(selector: &LabelSelector) -> Result<String, (String, &'static str)> {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| Ok(format!("{key}={value}")));
    let requirement = |one: &LabelSelectorRequirement| {
        let (key, values) = (&one.key, one.values.as_deref().unwrap_or_default());
        let wrong = |message| Err((key.clone(), message));
        match (one.operator.as_str(), values) {
            ("In", [_, ..]) => Ok(format!("{key} in ({})", values.join(","))),
            ("NotIn", [_, ..]) => Ok(format!("{key} notin ({})", values.join(","))),
            ("Exists", []) => Ok(key.clone()),
            ("DoesNotExist", []) => Ok(format!("!{key}")),
            ("In" | "NotIn", []) => wrong("values is empty: In and NotIn need some"),
            ("Exists" | "DoesNotExist", _) => wrong("values must be empty with Exists and DoesNotExist"),
            _ => wrong("operator must be In, NotIn, Exists or DoesNotExist"),
        }
    };
    let expressions = selector.match_expressions.iter().flatten().map(requirement);
    Ok(labels.chain(expressions).collect::<Result<Vec<_>, _>>()?.join(","))
}
