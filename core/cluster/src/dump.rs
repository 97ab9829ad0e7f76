//! All facts of a snapshot as plain data, and the model that they make again: what a running extender answers can be
//! asked again elsewhere, and the answer is the same byte for byte (I6).
//!
//! Nodes, pods, pools and namespaces are cut to what decisions read: of Nodes and Pods of a large cluster everything else
//! is most of the bytes, and may be secret. The kinds of our own are whole but for their status, of which only what
//! decides is there. Objects that decide nothing (a NodeTopology without a Node) are left out. Lists are sorted.
use crate::model::Model;
use crate::node::{NodeFacts, NodeView, PlacementEntry};
use crate::pod::{Owner, PodView};
use crate::pools::PoolView;
use crate::reservations::{Carried, from_wire, to_wire};
use crate::snapshot::{NamespaceView, Snapshot};
use crate::tenant::QuotaFacts;
use fairlead_crds::node_placement::Reservation as WireReservation;
use fairlead_crds::worker_pool::ScaleTargetRef;
use fairlead_crds::{
    NodePlacement, NodePlacementSpec, NodePlacementStatus, NodeTopology, TenantQuota, TopologyWish, keys,
};
use fairlead_fairshare::ResourceVector;
use fairlead_placement::{PodRef, Promise, ReservationFault};
use fairlead_topology::{ContainerCpus, CpuRequest, HugePageNeed, Role};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version that is written, and the only one that is read.
pub const DUMP_VERSION: u32 = 1;

/// All facts of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dump {
    /// [`DUMP_VERSION`].
    pub version: u32,
    /// Namespace of Fairlead itself.
    pub own_namespace: String,
    /// Every kind had been listed.
    pub synced: bool,
    /// Nodes by name.
    pub nodes: Vec<NodeDump>,
    /// NodeTopologies of those nodes: name, owner, spec.
    pub topologies: Vec<NodeTopology>,
    /// NodePlacements of those nodes: name, UID, generation, owner, the annotation `fairlead.dev/trust`, spec, and of the
    /// status what was observed.
    pub placements: Vec<NodePlacement>,
    /// TenantQuotas: name, UID, generation, creation, spec.
    pub quotas: Vec<TenantQuota>,
    /// WorkerPools by namespace, the oldest first.
    pub pools: Vec<PoolDump>,
    /// Namespaces by name.
    pub namespaces: Vec<NamespaceDump>,
    /// Pods by namespace, name and UID.
    pub pods: Vec<PodDump>,
    /// What binds under way were counting on.
    pub promises: Vec<PromiseDump>,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDump {
    /// Name.
    pub name: String,
    #[serde(flatten)]
    facts: NodeFacts,
}

/// A WorkerPool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolDump {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Creation, ms since the Unix epoch.
    pub created_ms: u64,
    /// `spec.scaleTargetRef`.
    pub target: ScaleTargetRef,
    /// `status.selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `spec.topology`.
    #[serde(default)]
    pub topology: TopologyWish,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceDump {
    /// Name.
    pub name: String,
    /// Its tenant label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// It is being deleted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminating: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields of PodView, which documents them")]
pub struct PodDump {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    pub created_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    pub scheduler: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nominated: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub quota_gated: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub otherwise_gated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleting: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminal: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub ready: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub repels: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub choosy: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub refused: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub claims_devices: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wishes: BTreeMap<String, String>,
    pub request: ResourceVector,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<ExclusiveDump>,
}

/// Exclusive CPUs that a pod could get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExclusiveDump {
    /// Containers with whole CPUs.
    pub containers: Vec<ContainerDump>,
    /// Memory of the pod, bytes.
    pub memory_bytes: u64,
    /// Huge pages: size of a page and bytes in such pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<(u64, u64)>,
}

/// A container with whole CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDump {
    /// Name.
    pub name: String,
    /// How many.
    pub cpus: u32,
    /// App, Sidecar or Init.
    pub role: RoleDump,
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the variants of Role, which documents them")]
pub enum RoleDump {
    App,
    Sidecar,
    Init,
}

/// A promise of a bind under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromiseDump {
    /// Which node.
    pub node: String,
    /// UID of the pod.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Milli-CPU from the shared pool.
    pub shared_milli: u64,
    /// CPUs of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<WireReservation>,
}

/// Why a dump makes no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// Written by another version.
    #[error("version: {version} is not known, this program reads {DUMP_VERSION}; use the one that wrote the dump")]
    Version {
        /// What it says.
        version: u32,
    },
    /// A promise that cannot be read.
    #[error("promises[podUID={pod_uid}].reservation: {source}")]
    Promise {
        /// UID of its pod.
        pod_uid: String,
        /// What is wrong.
        #[source]
        source: ReservationFault,
    },
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

impl Snapshot {
    /// All facts that this snapshot was made from.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let views = || self.nodes.iter();
        let mut pods: Vec<PodDump> = self.pods.iter().map(|pod| pod_dump(pod)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
        Dump {
            version: DUMP_VERSION,
            own_namespace: self.own_namespace.to_string(),
            synced: self.synced,
            nodes: views().map(|v| NodeDump { name: v.name.clone(), facts: NodeFacts::clone(&v.facts) }).collect(),
            topologies: views().filter_map(|view| topology(view)).collect(),
            placements: views().filter_map(|view| Some(placement(&view.name, view.entry.as_ref()?))).collect(),
            quotas: self.quotas.iter().map(|(name, facts)| quota(name, facts)).collect(),
            pools: self.pools.iter().map(|(namespace, pool)| pool_dump(namespace, pool)).collect(),
            namespaces: self.namespaces.iter().map(|(name, view)| namespace(name, view)).collect(),
            pods,
            promises: views().flat_map(|view| promises(view)).collect(),
        }
    }
}

impl Model {
    /// The model that these facts make.
    ///
    /// # Errors
    /// [`DumpError`].
    pub fn from_dump(dump: &Dump) -> Result<Self, DumpError> {
        if dump.version != DUMP_VERSION {
            return Err(DumpError::Version { version: dump.version });
        }
        let mut model = Self::new(dump.own_namespace.as_str());
        for node in &dump.nodes {
            model.set_node(&node.name, Some(Arc::new(node.facts.clone())));
        }
        dump.topologies.iter().for_each(|topology| model.see_topology(topology));
        for placement in &dump.placements {
            let name = placement.metadata.name.as_deref().unwrap_or_default();
            model.set_placement(name, Some(Arc::new(PlacementEntry::of(placement))));
        }
        for quota in &dump.quotas {
            let name = quota.metadata.name.as_deref().unwrap_or_default();
            model.set_quota(name, Some(Arc::new(QuotaFacts::of(quota))));
        }
        for pool in &dump.pools {
            let PoolDump { name, created_ms, target, selector, topology, .. } = pool.clone();
            let view = PoolView::new(name, created_ms, target, selector, topology);
            model.set_pool(&pool.namespace, &pool.name, Some(view));
        }
        for namespace in &dump.namespaces {
            let view = NamespaceView { label: namespace.label.clone(), terminating: namespace.terminating };
            model.set_namespace(&namespace.name, Some(view));
        }
        dump.pods.iter().for_each(|pod| model.set_pod(pod_view(pod)));
        for promise in &dump.promises {
            let unread = |source| DumpError::Promise { pod_uid: promise.pod_uid.clone(), source };
            let reservation = promise.reservation.as_ref().map(from_wire).transpose().map_err(unread)?;
            let (pod_uid, shared_milli) = (promise.pod_uid.clone(), promise.shared_milli);
            model.assume(&promise.node, Promise { pod_uid, shared_milli, reservation });
        }
        if dump.synced {
            model.all_listed();
        }
        Ok(model)
    }
}

fn owners(node: &str, uid: Option<&String>) -> Option<Vec<OwnerReference>> {
    let owner = |uid: &String| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.clone(),
        ..OwnerReference::default()
    };
    uid.map(|uid| vec![owner(uid)])
}

fn time(ms: u64) -> Option<Time> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Timestamp::from_millisecond(ms).ok().map(Time)
}

fn topology(view: &NodeView) -> Option<NodeTopology> {
    let facts = view.topology.as_ref()?;
    let mut topology = NodeTopology::new(&view.name, facts.shape.spec.clone());
    topology.metadata.owner_references = owners(&view.name, facts.owner.as_ref());
    Some(topology)
}

fn placement(node: &str, entry: &PlacementEntry) -> NodePlacement {
    let reservations = match &entry.reservations {
        Ok(read) => read.iter().map(to_wire).collect(),
        Err(unread) => unread.written.clone(),
    };
    let watched = &entry.watched;
    let borne =
        (!watched.borne.is_empty()).then(|| [(keys::TRUST_ANNOTATION.to_owned(), watched.borne.clone())].into());
    let seen = watched.generation.is_some() || !watched.containers.is_empty();
    NodePlacement {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            uid: Some(entry.uid.clone()).filter(|uid| !uid.is_empty()),
            generation: Some(entry.generation),
            owner_references: owners(node, entry.owner.as_ref()),
            annotations: borne,
            ..ObjectMeta::default()
        },
        spec: NodePlacementSpec { reservations },
        status: seen.then(|| NodePlacementStatus {
            observed_generation: watched.generation,
            containers: watched.containers.clone(),
            ..NodePlacementStatus::default()
        }),
    }
}

fn quota(name: &str, facts: &QuotaFacts) -> TenantQuota {
    let mut quota = TenantQuota::new(name, facts.spec.clone());
    quota.metadata.uid = Some(facts.uid.clone()).filter(|uid| !uid.is_empty());
    quota.metadata.generation = Some(facts.generation);
    quota.metadata.creation_timestamp = time(facts.created_ms);
    quota
}

fn pool_dump(namespace: &str, pool: &PoolView) -> PoolDump {
    PoolDump {
        namespace: namespace.to_owned(),
        name: pool.name.clone(),
        created_ms: pool.created_ms,
        target: pool.target.clone(),
        selector: pool.selector_text.clone(),
        topology: pool.wish.clone(),
    }
}

fn namespace(name: &str, view: &NamespaceView) -> NamespaceDump {
    NamespaceDump { name: name.to_owned(), label: view.label.clone(), terminating: view.terminating }
}

fn promises(view: &NodeView) -> impl Iterator<Item = PromiseDump> {
    view.beside.promises.iter().map(|promise| PromiseDump {
        node: view.name.clone(),
        pod_uid: promise.pod_uid.clone(),
        shared_milli: promise.shared_milli,
        reservation: promise.reservation.as_ref().map(to_wire),
    })
}

fn pod_dump(pod: &PodView) -> PodDump {
    let PodView { id, resource_version, owner, created_ms, priority, scheduler, .. } = pod.clone();
    let PodView { node, nominated, quota_gated, otherwise_gated, released, placement, .. } = pod.clone();
    let PodView { deleting, terminal, ready, repels, choosy, refused, claims_devices, .. } = pod.clone();
    let PodView { labels, wishes, request, exclusive, .. } = pod.clone();
    PodDump {
        namespace: id.namespace,
        name: id.name,
        uid: id.uid,
        resource_version,
        owner,
        created_ms,
        priority,
        scheduler,
        node,
        nominated,
        quota_gated,
        otherwise_gated,
        released,
        placement,
        deleting,
        terminal,
        ready,
        repels,
        choosy,
        refused,
        claims_devices,
        labels,
        wishes,
        request,
        exclusive: exclusive.map(exclusive_dump),
    }
}

fn pod_view(pod: &PodDump) -> PodView {
    let PodDump { namespace, name, uid, .. } = pod.clone();
    PodView {
        id: PodRef { namespace, name, uid },
        resource_version: pod.resource_version.clone(),
        owner: pod.owner.clone(),
        created_ms: pod.created_ms,
        priority: pod.priority,
        scheduler: pod.scheduler.clone(),
        node: pod.node.clone(),
        nominated: pod.nominated.clone(),
        quota_gated: pod.quota_gated,
        otherwise_gated: pod.otherwise_gated,
        released: pod.released.clone(),
        placement: pod.placement.clone(),
        deleting: pod.deleting,
        terminal: pod.terminal,
        ready: pod.ready,
        repels: pod.repels,
        choosy: pod.choosy,
        refused: pod.refused,
        claims_devices: pod.claims_devices,
        labels: pod.labels.clone(),
        wishes: pod.wishes.clone(),
        request: pod.request.clone(),
        exclusive: pod.exclusive.clone().map(exclusive_of),
        carried: Carried::of(&pod.scheduler, pod.placement.as_deref()),
    }
}

fn exclusive_dump(wanted: CpuRequest) -> ExclusiveDump {
    let container = |container: ContainerCpus| ContainerDump {
        name: container.name,
        cpus: container.cpus,
        role: match container.role {
            Role::App => RoleDump::App,
            Role::Sidecar => RoleDump::Sidecar,
            Role::Init => RoleDump::Init,
        },
    };
    ExclusiveDump {
        containers: wanted.containers.into_iter().map(container).collect(),
        memory_bytes: wanted.memory_bytes,
        huge_pages: wanted.huge_pages.into_iter().map(|need| (need.page_bytes, need.bytes)).collect(),
    }
}

fn exclusive_of(dump: ExclusiveDump) -> CpuRequest {
    let container = |container: ContainerDump| ContainerCpus {
        name: container.name,
        cpus: container.cpus,
        role: match container.role {
            RoleDump::App => Role::App,
            RoleDump::Sidecar => Role::Sidecar,
            RoleDump::Init => Role::Init,
        },
    };
    let need = |(page_bytes, bytes)| HugePageNeed { page_bytes, bytes };
    CpuRequest {
        containers: dump.containers.into_iter().map(container).collect(),
        memory_bytes: dump.memory_bytes,
        huge_pages: dump.huge_pages.into_iter().map(need).collect(),
        ..CpuRequest::default()
    }
}
