//! A pod as far as anything is decided by it.
use crate::devices::ClaimedDevice;
use crate::fields::created_ms;
use crate::pools::{PoolView, Pools};
use crate::request::{effective, exclusive, shared_milli};
use crate::reservations::Carried;
use crate::wish::{ClaimWish, Ownership, Understood};
use fairlead_crds::keys;
use fairlead_fairshare::{PendingPod, ResourceVector};
use fairlead_placement::{PodFacts, PodRef, Reason};
use fairlead_topology::CpuRequest;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What every text of [`fairlead_placement::Reason`] begins with.
const REASON_PREFIX: &str = "fairlead: ";

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// For example `ReplicaSet`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// A pod as the watch shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Namespace, name, UID.
    pub id: PodRef,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The controller, if it has one.
    pub owner: Option<Owner>,
    /// Creation, ms since the Unix epoch.
    pub created_ms: u64,
    /// `spec.priority`, 0 if absent.
    pub priority: i32,
    /// `spec.schedulerName`.
    pub scheduler: String,
    /// `spec.nodeName`, if bound.
    pub node: Option<String>,
    /// `status.nominatedNodeName`: where a scheduler makes room for it, or is about to bind it.
    pub nominated: Option<String>,
    /// It has the gate [`keys::QUOTA_GATE`].
    pub quota_gated: bool,
    /// It has another gate.
    pub otherwise_gated: bool,
    /// Value of the annotation [`keys::RELEASED_ANNOTATION`].
    pub released: Option<String>,
    /// Value of the annotation [`keys::PLACEMENT_ANNOTATION`].
    pub placement: Option<String>,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its phase is Succeeded or Failed.
    pub terminal: bool,
    /// Its condition Ready is True.
    pub ready: bool,
    /// It may keep others away from its node: it requires not to be near some pods.
    pub repels: bool,
    /// It admits some nodes only: by a node selector or by a required node affinity, which are not read here.
    pub choosy: bool,
    /// A scheduler refused it for a reason of ours: its condition PodScheduled is False with one of our texts.
    pub refused: bool,
    /// It has resource claims (DRA).
    pub claims_devices: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations `topology.fairlead.dev/…`, keys without that prefix.
    pub wishes: BTreeMap<String, String>,
    /// Effective request, `pods` 1 included.
    pub request: ResourceVector,
    /// The exclusive CPUs that it could get by its request alone, whatever it or its pool wishes.
    pub exclusive: Option<CpuRequest>,
    /// What `placement` says; none on a pod of another scheduler.
    pub(crate) carried: Option<Result<Carried, String>>,
}

impl PodView {
    /// Reads a pod; `None` if it has no UID, which no pod of an API server lacks.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let gates = || spec.and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default().iter();
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let scheduler = spec.and_then(|spec| spec.scheduler_name.clone()).unwrap_or_default();
        let placement = annotation(keys::PLACEMENT_ANNOTATION);
        Some(Self {
            id: PodRef {
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().filter(|uid| !uid.is_empty())?,
            },
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owner: controller(meta),
            created_ms: created_ms(meta),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            carried: Carried::of(&scheduler, placement.as_deref()),
            scheduler,
            node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            nominated: status.and_then(|status| status.nominated_node_name.clone()).filter(|node| !node.is_empty()),
            quota_gated: gates().any(|gate| gate.name == keys::QUOTA_GATE),
            otherwise_gated: gates().any(|gate| gate.name != keys::QUOTA_GATE),
            released: annotation(keys::RELEASED_ANNOTATION),
            placement,
            deleting: meta.deletion_timestamp.is_some(),
            terminal: matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")),
            ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            repels: spec.is_some_and(requires_distance),
            choosy: spec.is_some_and(chooses_nodes),
            refused: conditions.iter().any(refused_by_us),
            claims_devices: spec.is_some_and(|spec| spec.resource_claims.iter().flatten().next().is_some()),
            labels: meta.labels.clone().unwrap_or_default(),
            wishes: wishes(meta),
            request: effective(pod),
            exclusive: exclusive(pod),
        })
    }

    /// The pod behind the gate, as the order of release wants it.
    #[must_use]
    pub fn pending(&self) -> PendingPod {
        PendingPod {
            uid: self.id.uid.clone(),
            request: self.request.clone(),
            priority: self.priority,
            created_ms: self.created_ms,
        }
    }

    /// Milli-CPU it takes from the shared pool of its node.
    pub(crate) fn shared_milli(&self, has_own_cpus: bool) -> u64 {
        shared_milli(&self.request, self.exclusive.as_ref().filter(|_| has_own_cpus))
    }
}

fn controller(meta: &ObjectMeta) -> Option<Owner> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
}

fn requires_distance(spec: &PodSpec) -> bool {
    let anti = spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required = anti.and_then(|anti| anti.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_some_and(|terms| !terms.is_empty())
}

fn chooses_nodes(spec: &PodSpec) -> bool {
    let near = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = near.is_some_and(|near| near.required_during_scheduling_ignored_during_execution.is_some());
    required || spec.node_selector.as_ref().is_some_and(|labels| !labels.is_empty())
}

/// kube-scheduler joins the texts of all nodes into the message of the condition.
fn refused_by_us(condition: &PodCondition) -> bool {
    let told = condition.message.as_deref().is_some_and(|message| message.contains(REASON_PREFIX));
    condition.type_ == "PodScheduled" && condition.status == "False" && told
}

/// The annotations that state a wish, keys without their prefix.
fn wishes(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let annotations = meta.annotations.iter().flatten();
    let field = |(key, value): (&String, &String)| {
        Some((key.strip_prefix(keys::WISH_ANNOTATION_PREFIX)?.to_owned(), value.clone()))
    };
    annotations.filter_map(field).collect()
}

/// Why a pod gets no node because of what it wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishRefusal {
    /// The reason from the closed list.
    pub reason: Reason,
    /// What exactly, and what to write instead.
    pub detail: String,
}

/// What a pod to be placed asks for, its wishes and those of its pool understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWish {
    /// Namespace, name, UID. The UID is empty for a pod that was never created (simulation).
    pub id: PodRef,
    /// Creation, ms since the Unix epoch.
    pub created_ms: u64,
    /// It has any scheduling gate.
    pub gated: bool,
    /// The operator released it: it has the annotation, which nobody else may write.
    pub released: bool,
    /// The exclusive CPUs it asks for and does not renounce.
    pub exclusive: Option<CpuRequest>,
    /// Effective request, `pods` 1 included.
    pub request: ResourceVector,
    /// Milli-CPU it takes from the shared pool of its node.
    pub shared_milli: u64,
    /// What it wishes, and who says so.
    pub wish: Understood,
    /// Devices allocated to its claims, as far as they were looked up: the extender does at bind, for a pod that wishes
    /// to be near them.
    pub devices: Vec<ClaimedDevice>,
    /// Why nothing can be done for it whatever the node.
    pub refusal: Option<WishRefusal>,
}

impl PodWish {
    /// A pod by itself: as if it belonged to no WorkerPool. [`crate::Snapshot::wish_of`] knows the pools.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        Self::in_pools(pod, &Pools::default())
    }

    pub(crate) fn in_pools(pod: &Pod, pools: &Pools) -> Self {
        let meta = &pod.metadata;
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
        let annotations = meta.annotations.as_ref();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let mine = Membership::of(pools, &namespace, &labels, controller(meta).as_ref());
        let request = effective(pod);
        let plain = Self {
            id: PodRef {
                namespace,
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().unwrap_or_default(),
            },
            created_ms: created_ms(meta),
            gated: !gates.is_empty(),
            released: annotations.is_some_and(|all| all.contains_key(keys::RELEASED_ANNOTATION)),
            shared_milli: 0,
            exclusive: exclusive(pod),
            request,
            wish: Understood::default(),
            devices: Vec::new(),
            refusal: None,
        };
        plain.wishing(&wishes(meta), &mine)
    }

    /// The same of a pod that the watch shows.
    pub(crate) fn of_view(view: &PodView, pools: &Pools) -> Self {
        let plain = Self {
            id: view.id.clone(),
            created_ms: view.created_ms,
            gated: view.quota_gated || view.otherwise_gated,
            released: view.released.is_some(),
            shared_milli: 0,
            exclusive: view.exclusive.clone(),
            request: view.request.clone(),
            wish: Understood::default(),
            devices: Vec::new(),
            refusal: None,
        };
        let mine = Membership::of(pools, &view.id.namespace, &view.labels, view.owner.as_ref());
        plain.wishing(&view.wishes, &mine)
    }

    /// Whether where its devices are makes a difference to it: it gets CPUs of its own and does not renounce.
    #[must_use]
    pub fn wants_devices_near(&self) -> bool {
        self.exclusive.is_some() && self.wish.claims.value == ClaimWish::Near
    }

    /// Whether what lies around it on a node matters to it.
    pub(crate) fn looks_around(&self) -> bool {
        self.wish.looks_around() || !self.devices.is_empty()
    }

    fn wishing(mut self, annotations: &BTreeMap<String, String>, mine: &Membership<'_>) -> Self {
        match Understood::of(annotations, mine.pool) {
            Ok(wish) => {
                self.wish = wish;
                self.refusal = mine.unread.map(unknown);
            }
            Err(fault) => {
                self.refusal = Some(WishRefusal { reason: Reason::WishInvalid, detail: fault.to_string() });
            }
        }
        if self.wish.cpus.value == Ownership::Shared {
            self.exclusive = None;
        }
        if self.wish.needs_own_cpus() && self.exclusive.is_none() && self.refusal.is_none() {
            self.refusal = Some(WishRefusal { reason: Reason::WishImpossible, detail: self.why_impossible() });
        }
        if let Some(wanted) = &mut self.exclusive {
            wanted.wish = self.wish.choice();
        }
        self.shared_milli = shared_milli(&self.request, self.exclusive.as_ref());
        self
    }

    fn why_impossible(&self) -> String {
        if self.wish.cpus.value == Ownership::Shared {
            let (cpus, class) = (self.wish.cpus.source, self.wish.class.source);
            return format!(
                "class: Isolated ({class:?}) is for CPUs of their own, and cpus: Shared ({cpus:?}) wants none: leave one out"
            );
        }
        let (field, source) = match self.wish.cpus.value {
            Ownership::Exclusive => ("cpus: Exclusive", self.wish.cpus.source),
            _ => ("class: Isolated", self.wish.class.source),
        };
        format!(
            "{field} ({source:?}) needs a Guaranteed pod (requests equal to limits for cpu and memory in every container, \
             none for the pod as a whole) with a container that asks for whole CPUs"
        )
    }
}

/// Which WorkerPool a pod is of.
struct Membership<'a> {
    pool: Option<&'a PoolView>,
    /// One that goes before it, if it is the pod's at all.
    unread: Option<&'a PoolView>,
}

impl<'a> Membership<'a> {
    fn of(pools: &'a Pools, namespace: &str, labels: &BTreeMap<String, String>, owner: Option<&Owner>) -> Self {
        let pool = pools.of_pod(namespace, labels).map(|pool| &**pool);
        Self { pool, unread: pools.unread_of_pod(namespace, labels, owner).map(|pool| &**pool) }
    }
}

fn unknown(pool: &PoolView) -> WishRefusal {
    let PoolView { name, target, selector_text, .. } = pool;
    let said = selector_text.as_ref().map_or("is missing".to_owned(), |text| format!("{text:?} cannot be read"));
    WishRefusal {
        reason: Reason::WishUnknown,
        detail: format!(
            "WorkerPool {name} wishes a topology for the pods of {} {}, and its status.selector {said}: whether this pod is \
             one of them is not known until the operator has read the target; see the pool's conditions",
            target.kind, target.name
        ),
    }
}

impl PodView {
    /// What the bind and reap steps want to know, with the wish of the pod's pool.
    pub(crate) fn facts(&self, pools: &Pools) -> PodFacts {
        let wish = PodWish::of_view(self, pools);
        PodFacts {
            uid: self.id.uid.clone(),
            resource_version: self.resource_version.clone(),
            node: self.node.clone(),
            deleting: self.deleting,
            gated: wish.gated,
            terminal: self.terminal,
            exclusive: wish.exclusive,
            may_hold: self.exclusive.is_some(),
            refused: wish.refusal.map(|refusal| refusal.reason),
            shared_milli: wish.shared_milli,
        }
    }
}
