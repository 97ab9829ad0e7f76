//! One node: its machine, what is free on it, and whether it is trusted.
use crate::around::Neighbour;
use crate::brief::Stamp;
use crate::fields::{CPU, MEMORY, add, offers, owning_node};
use crate::holes::Holes;
use crate::observed::{Watched, distrust_of};
use crate::pod::PodView;
use crate::pod_table::PodTable;
use crate::pools::Pools;
use crate::reservations::{carried_by_all, from_wire};
use crate::shapes::{Shape, Shapes};
use crate::table::Named;
use fairlead_crds::node_placement::Reservation as WireReservation;
use fairlead_crds::{NodePlacement, NodeTopology};
use fairlead_fairshare::ResourceVector;
use fairlead_placement::{Beside, Promise, Reason, Reservation, ReservationFault, Room};
use fairlead_topology::{CpuMask, FreeSummary, Machine, NumaHugePages};
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A Node as far as anything is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeFacts {
    pub(crate) uid: String,
    pub(crate) ready: bool,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: ResourceVector,
    /// Milli-CPU of `status.capacity`: what the kubelet counts.
    pub(crate) capacity_milli: u64,
    /// CPUs that the node has and does not offer, rounded up.
    pub(crate) system_reserve: u32,
}

impl NodeFacts {
    pub(crate) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let allocatable = offers(status.and_then(|status| status.allocatable.as_ref()));
        let capacity = offers(status.and_then(|status| status.capacity.as_ref()));
        let milli = |list: &ResourceVector| list.get(CPU).copied().unwrap_or(0);
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
            capacity_milli: milli(&capacity),
            system_reserve: whole_cpus(milli(&capacity).saturating_sub(milli(&allocatable))),
            allocatable,
        }
    }
}

/// Milli-CPU in CPUs, rounded up.
fn whole_cpus(milli: u64) -> u32 {
    u32::try_from(milli.div_ceil(1000)).unwrap_or(u32::MAX)
}

/// A NodeTopology, checked once.
#[derive(Clone, Debug)]
pub(crate) struct TopologyFacts {
    pub(crate) owner: Option<String>,
    pub(crate) shape: Arc<Shape>,
}

impl TopologyFacts {
    pub(crate) fn of(topology: &NodeTopology, shapes: &mut Shapes) -> Self {
        Self { owner: owning_node(&topology.metadata).map(str::to_owned), shape: shapes.of(&topology.spec) }
    }
}

impl PartialEq for TopologyFacts {
    fn eq(&self, other: &Self) -> bool {
        self.owner == other.owner && (Arc::ptr_eq(&self.shape, &other.shape) || self.shape.spec == other.shape.spec)
    }
}

impl Eq for TopologyFacts {}

/// A NodePlacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacementEntry {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) owner: Option<String>,
    pub(crate) reservations: Result<Vec<Reservation>, Unread>,
    pub(crate) watched: Watched,
    /// UIDs of the pods that the agent saw to run on exactly what this very object promises them.
    pub(crate) as_promised: Vec<String>,
}

/// Reservations that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unread {
    pub(crate) fault: ReservationFault,
    /// As they are written.
    pub(crate) written: Vec<WireReservation>,
}

impl Eq for Unread {}

impl PlacementEntry {
    pub(crate) fn of(placement: &NodePlacement) -> Self {
        let read: Result<_, _> = placement.spec.reservations.iter().map(from_wire).collect();
        let unread = |fault| Unread { fault, written: placement.spec.reservations.clone() };
        let watched = Watched::of(placement);
        Self {
            as_promised: watched.as_promised(read.as_deref().unwrap_or_default()),
            uid: placement.metadata.uid.clone().unwrap_or_default(),
            generation: placement.metadata.generation.unwrap_or(0),
            owner: owning_node(&placement.metadata).map(str::to_owned),
            reservations: read.map_err(unread),
            watched,
        }
    }

    pub(crate) fn is_of(&self, node_uid: &str) -> bool {
        self.owner.as_deref() == Some(node_uid)
    }
}

/// Why a node gets no pods with CPUs of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrust {
    /// The reason from the closed list.
    pub reason: Reason,
    /// What exactly, naming the field.
    pub detail: String,
}

/// The NodePlacement of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementView {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.reservations`, in its order; empty if one of them cannot be read.
    pub reservations: Vec<Reservation>,
    /// Whether all of them can be read.
    pub readable: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its condition Ready is True.
    pub ready: bool,
    /// Cordoned.
    pub unschedulable: bool,
    /// `status.allocatable`.
    pub allocatable: ResourceVector,
    /// The machine, if a consistent description of it is there.
    pub machine: Option<Arc<Machine>>,
    /// Why it gets no pods with CPUs of their own; `None`: it does.
    pub distrust: Option<Distrust>,
    /// Its NodePlacement.
    pub placement: Option<PlacementView>,
    /// CPUs that nobody holds: by a reservation, by the placement a live pod carries, or by a promise of this process.
    /// Empty on a node that is not trusted.
    pub free: CpuMask,
    /// Bytes that nobody holds, by dense NUMA index, without the part of the system; empty on a node that is not trusted.
    pub memory_free_bytes: Vec<u64>,
    /// CPUs that must stay in the shared pool: what the node keeps for its system, and what the pods in the pool request,
    /// promises of this process included.
    pub shared_reserve: u32,
    /// Bytes that the pods in the shared pool request. They may take them on any NUMA node and are not subtracted anywhere.
    pub shared_memory_bytes: u64,
    /// Requests of all live pods bound here.
    pub requested: ResourceVector,
    /// The part of `requested` of pods that belong to no tenant.
    pub unmanaged: ResourceVector,
    /// Huge pages that nobody holds; empty on a node that is not trusted.
    pub(crate) huge_pages_free: Vec<NumaHugePages>,
    /// What is free, counted for fast answers; there on trusted nodes.
    pub(crate) summary: Option<FreeSummary>,
    /// How many CPUs of `free` are the shared pool's: all but the isolated ones.
    pub(crate) free_len: u32,
    /// UIDs of pods that hold or were promised something here and are not bound here: rare, and of interest to those pods alone.
    pub(crate) loose: Vec<String>,
    /// What is held here beside the reservations.
    pub beside: Beside,
    /// UIDs of live pods here whose placement annotation cannot be read: only a reservation tells what they run on.
    pub(crate) unreadable: Vec<String>,
    /// Aligned holes in `free`.
    pub holes: Holes,
    /// The pods that hold or were promised CPUs of their own here and matter to others.
    pub(crate) neighbours: Vec<Neighbour>,
    /// What all of this was made from, for the dump.
    pub(crate) facts: Arc<NodeFacts>,
    pub(crate) topology: Option<Arc<TopologyFacts>>,
    pub(crate) entry: Option<Arc<PlacementEntry>>,
    pub(crate) stamp: Stamp,
}

impl Named for NodeView {
    fn name(&self) -> &str {
        &self.name
    }
}

/// All that a view is made from.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    pub(crate) node: &'a Arc<NodeFacts>,
    pub(crate) topology: Option<&'a Arc<TopologyFacts>>,
    pub(crate) placement: Option<&'a Arc<PlacementEntry>>,
    pub(crate) promises: Vec<Promise>,
    /// The pods bound here by ascending UID, and whether they belong to a tenant.
    pub(crate) pods: Vec<(&'a PodView, bool)>,
    pub(crate) pools: &'a Pools,
    /// Of all nodes, and of none.
    pub(crate) all_pods: &'a PodTable,
    pub(crate) stamp: Stamp,
}

/// Requests of the live pods of a node.
#[derive(Default)]
struct Load {
    requested: ResourceVector,
    /// The part of pods that belong to no tenant.
    unmanaged: ResourceVector,
    /// Milli-CPU in the shared pool.
    shared_milli: u64,
    /// Bytes of the pods in the shared pool.
    shared_memory_bytes: u64,
}

impl Parts<'_> {
    fn machine(&self) -> Result<Arc<Machine>, Distrust> {
        let missing = |detail: &str| Distrust { reason: Reason::NoTopology, detail: detail.to_owned() };
        let topology = self.topology.ok_or_else(|| missing("no NodeTopology of that name"))?;
        let rejected = |detail| Distrust { reason: Reason::TopologyRejected, detail };
        let Some(owner) = &topology.owner else {
            return Err(rejected("metadata.ownerReferences: the NodeTopology is not owned by one Node".to_owned()));
        };
        if *owner != self.node.uid {
            return Err(missing("the NodeTopology is of a former node of that name"));
        }
        let machine = topology.shape.machine.clone().map_err(rejected)?;
        let (cpus, capacity) = (machine.cpus().len(), self.node.capacity_milli);
        if u64::from(cpus) * 1000 > capacity {
            return Err(rejected(format!(
                "the NodeTopology has {cpus} CPUs, the kubelet counts {} (status.capacity.cpu of the Node): CPUs that it \
                 hides cannot be given to pods",
                capacity / 1000
            )));
        }
        Ok(machine)
    }

    fn reservations(&self) -> Result<&[Reservation], Distrust> {
        let missing = |detail: &str| Distrust { reason: Reason::NoPlacementObject, detail: detail.to_owned() };
        let placement = self.placement.ok_or_else(|| missing("no NodePlacement of that name"))?;
        match &placement.owner {
            Some(owner) if *owner == self.node.uid => {}
            Some(_) => return Err(missing("the NodePlacement is of a former node of that name")),
            None => return Err(missing("metadata.ownerReferences: the NodePlacement is not owned by one Node")),
        }
        placement.reservations.as_deref().map_err(|unread| distrust(&unread.fault))
    }

    /// Memory of the machine that the node does not offer.
    fn system_memory_bytes(&self) -> u64 {
        let all = self
            .machine()
            .map_or(0, |machine| (0..machine.numa_ids().len()).map(|index| machine.numa_ordinary_bytes(index)).sum());
        self.node.allocatable.get(MEMORY).map_or(all, |offered| all.saturating_sub(*offered))
    }

    /// The reservations of this very node; none if they cannot be read.
    fn listed(&self) -> &[Reservation] {
        self.reservations().unwrap_or_default()
    }

    /// What the live pods ask for.
    fn load(&self, beside: &Beside) -> Load {
        let held = self.listed().iter().chain(beside.unlisted(&[], ""));
        let mut with_own_cpus: Vec<&str> = held.map(|held| held.pod.uid.as_str()).collect();
        with_own_cpus.sort_unstable();
        let mut load = Load::default();
        for (pod, managed) in self.pods.iter().filter(|(pod, _)| !pod.terminal) {
            add(&mut load.requested, &pod.request);
            if !managed {
                add(&mut load.unmanaged, &pod.request);
            }
            let has_own_cpus = with_own_cpus.binary_search(&pod.id.uid.as_str()).is_ok();
            load.shared_milli = pod.shared_milli(has_own_cpus).saturating_add(load.shared_milli);
            if !has_own_cpus {
                let bytes = pod.request.get(MEMORY).copied().unwrap_or(0);
                load.shared_memory_bytes = load.shared_memory_bytes.saturating_add(bytes);
            }
        }
        load
    }

    /// What the live pods run on by their annotations, and the pods of which nobody can tell. Also those with a
    /// reservation that the watch shows: the live list that a bind decides on may have lost it.
    fn carried(&self) -> (Vec<Reservation>, Vec<(String, Distrust)>) {
        let Ok(machine) = self.machine() else { return Default::default() };
        carried_by_all(self.pods.iter().map(|(pod, _)| *pod).filter(|pod| !pod.terminal), &machine)
    }

    fn neighbours(&self, beside: &Beside) -> Vec<Neighbour> {
        // The pods bound here come in the order of their UIDs, and were looked at a moment ago.
        let bound = |uid: &str| {
            let at = self.pods.binary_search_by(|(pod, _)| pod.id.uid.as_str().cmp(uid)).ok()?;
            self.pods.get(at).map(|(pod, _)| *pod)
        };
        let pod_of = |uid: &str| bound(uid).or_else(|| self.all_pods.get(uid).map(|pod| &**pod));
        Neighbour::on(self.name, self.listed(), beside, self.pools, pod_of)
    }

    fn room(&self, beside: &Beside) -> Result<(Arc<Machine>, Room), Distrust> {
        let machine = self.machine()?;
        let reservations = self.reservations()?;
        let room = Room::of(&machine, reservations, beside, "", 0).map_err(|fault| distrust(&fault))?;
        if let Some(topology) = self.topology.filter(|topology| !topology.shape.is_owned()) {
            return Err(Distrust { reason: Reason::NodeNotOwned, detail: topology.shape.pinning_text() });
        }
        match self.placement.and_then(|entry| distrust_of(entry.generation, &entry.watched, reservations, beside)) {
            Some(drifted) => Err(drifted),
            None => Ok((machine, room)),
        }
    }
}

/// Whether one of the reservations is the pod's.
pub(crate) fn holds(reservations: &[Reservation], pod_uid: &str) -> bool {
    reservations.iter().any(|held| held.pod.uid == pod_uid)
}

fn distrust(fault: &ReservationFault) -> Distrust {
    Distrust { reason: Reason::NodeDistrusted, detail: fault.to_string() }
}

impl NodeView {
    pub(crate) fn build(mut parts: Parts<'_>) -> Self {
        let promises = std::mem::take(&mut parts.promises);
        let (carried, unreadable) = parts.carried();
        let listed = parts.listed();
        let system_reserve = parts.node.system_reserve;
        let system_memory_bytes = parts.system_memory_bytes();
        let mut beside = Beside { carried, promises, system_reserve, system_memory_bytes, shared_milli: 0 };
        let load = parts.load(&beside);
        beside.shared_milli = load.shared_milli;
        let machine = parts.machine().ok();
        let unknown = unreadable.iter().find(|(uid, _)| !holds(listed, uid));
        let room = parts.room(&beside).and_then(|room| unknown.map_or(Ok(room), |(_, why)| Err(why.clone())));
        let (room, summary, distrust) = match room {
            Ok((machine, room)) => {
                let summary = FreeSummary::new(&machine, &room.as_node());
                (Some(room), Some(summary), None)
            }
            Err(distrust) => (None, None, Some(distrust)),
        };
        let (free, memory_free_bytes, huge_pages_free) =
            room.map(|room| (room.cpus, room.memory_bytes, room.huge_pages)).unwrap_or_default();
        let neighbours = parts.neighbours(&beside);
        let groups = parts.topology.map_or(&[][..], |topology| &topology.shape.groups);
        let holes = machine.as_ref().map(|machine| Holes::of(machine, groups, &free)).unwrap_or_default();
        let bound = |uid: &str| parts.pods.binary_search_by(|(pod, _)| pod.id.uid.as_str().cmp(uid)).is_ok();
        let promised = beside.promises.iter().map(|promise| &promise.pod_uid);
        let loose = listed.iter().map(|held| &held.pod.uid).chain(promised).filter(|uid| !bound(uid));
        Self {
            name: parts.name.to_owned(),
            uid: parts.node.uid.clone(),
            ready: parts.node.ready,
            unschedulable: parts.node.unschedulable,
            allocatable: parts.node.allocatable.clone(),
            loose: loose.cloned().collect(),
            placement: parts.placement.filter(|placement| placement.is_of(&parts.node.uid)).map(|placement| {
                PlacementView {
                    uid: placement.uid.clone(),
                    generation: placement.generation,
                    reservations: listed.to_vec(),
                    readable: placement.reservations.is_ok(),
                }
            }),
            free_len: machine.as_ref().map_or(0, |machine| free.subtract(machine.isolated()).len()),
            machine,
            distrust,
            free,
            memory_free_bytes,
            huge_pages_free,
            shared_reserve: beside.shared_reserve("", 0),
            shared_memory_bytes: load.shared_memory_bytes,
            requested: load.requested,
            unmanaged: load.unmanaged,
            summary,
            unreadable: unreadable.into_iter().map(|(uid, _)| uid).collect(),
            beside,
            neighbours,
            holes,
            facts: Arc::clone(parts.node),
            topology: parts.topology.cloned(),
            entry: parts.placement.cloned(),
            stamp: parts.stamp,
        }
    }

    /// What a pod holds here already, by a reservation that the watch shows or by a promise of this process; not what it
    /// only carries.
    #[must_use]
    pub fn held_by(&self, pod_uid: &str) -> Option<&Reservation> {
        let promised = self.beside.promises.iter().filter_map(|promise| promise.reservation.as_ref());
        self.listed().iter().chain(promised).find(|held| held.pod.uid == pod_uid)
    }

    /// The reservations that the watch shows.
    pub(crate) fn listed(&self) -> &[Reservation] {
        self.placement.as_ref().map_or(&[], |placement| &placement.reservations)
    }
}
