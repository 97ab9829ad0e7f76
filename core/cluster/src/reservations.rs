//! Reservations between the wire and the core, and the annotation that a Binding carries.
use crate::fields::MEMORY;
use crate::node::Distrust;
use crate::pod::PodView;
use crate::request::huge_pages;
use fairlead_crds::keys;
use fairlead_crds::node_placement::{Reservation as Wire, ReservedContainer, ReservedHugePages, ReservedMemory};
use fairlead_crds::placement::{ContainerPlacement, Placement};
use fairlead_placement::{PodRef, Reason, Reservation, ReservationFault};
use fairlead_topology::{CpuMask, Machine, NumaHugePages};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Reads a reservation.
///
/// # Errors
/// A CPU list or a number that cannot be read.
pub fn from_wire(wire: &Wire) -> Result<Reservation, ReservationFault> {
    let pod = PodRef { namespace: wire.namespace.clone(), name: wire.name.clone(), uid: wire.pod_uid.clone() };
    let containers = wire.containers.iter().map(|part| (part.name.as_str(), part.cpus.as_str()));
    let memory = wire.memory.iter().map(|part| (part.numa_node, part.bytes));
    let huge_pages = wire
        .memory
        .iter()
        .flat_map(|part| part.huge_pages.iter().map(|pages| (part.numa_node, pages.page_bytes, pages.bytes)));
    Reservation::parse(pod, wire.reserved_at.0.as_millisecond(), &wire.cpus, containers, memory)?
        .with_huge_pages(huge_pages, wire.isolated)
}

/// Writes a reservation. The time is cut to whole seconds when it is serialized.
#[must_use]
pub fn to_wire(reservation: &Reservation) -> Wire {
    let time = i64::try_from(reservation.reserved_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let container = |(name, cpus): &(String, CpuMask)| ReservedContainer { name: name.clone(), cpus: cpus.to_string() };
    let memory = |&(numa_node, bytes): &(u32, u64)| ReservedMemory {
        numa_node: i64::from(numa_node),
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        huge_pages: huge_pages_of(reservation, numa_node),
    };
    Wire {
        pod_uid: reservation.pod.uid.clone(),
        namespace: reservation.pod.namespace.clone(),
        name: reservation.pod.name.clone(),
        reserved_at: Time(time.unwrap_or(Timestamp::UNIX_EPOCH)),
        cpus: reservation.cpus.to_string(),
        containers: reservation.containers.iter().map(container).collect(),
        isolated: reservation.isolated,
        memory: reservation.memory.iter().map(memory).collect(),
    }
}

fn huge_pages_of(reservation: &Reservation, numa_node: u32) -> Vec<ReservedHugePages> {
    let own = reservation.huge_pages.iter().filter(|pages| pages.numa_node == numa_node);
    let amount = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    own.map(|pages| ReservedHugePages { page_bytes: amount(pages.page_bytes), bytes: amount(pages.bytes) }).collect()
}

/// The placement annotation of a reservation: all CPUs it holds, each container's CPUs, and the NUMA nodes the pod's memory is promised on.
#[must_use]
pub fn annotation_of(reservation: &Reservation) -> Placement {
    // Not through a mask: NUMA ids may be sparse and are not bounded as CPU ids are.
    let ids: Vec<String> = reservation.memory.iter().map(|(numa_node, _)| numa_node.to_string()).collect();
    let memory_nodes = ids.join(",");
    let container = |(name, cpus): &(String, CpuMask)| ContainerPlacement {
        name: name.clone(),
        cpus: cpus.to_string(),
        memory_nodes: memory_nodes.clone(),
    };
    Placement {
        cpus: reservation.cpus.to_string(),
        containers: reservation.containers.iter().map(container).collect(),
        isolated: reservation.isolated,
    }
}

/// What a placement annotation says, read once for each version of its pod: a node is looked at anew whenever one of its
/// pods changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// All CPUs held; empty in an annotation of the first releases.
    cpus: CpuMask,
    isolated: bool,
    /// Name, CPUs, and memory nodes.
    containers: Vec<(String, CpuMask, CpuMask)>,
}

impl Carried {
    /// Reads the annotation of a pod of our scheduler. It came with the pod's Binding, and where the admission policies are
    /// on nobody may write or change it. Where they are off anybody may, so on a pod of another scheduler, which gets no CPUs
    /// of its own, it says nothing.
    pub(crate) fn of(scheduler: &str, text: Option<&str>) -> Option<Result<Self, String>> {
        text.filter(|_| scheduler == keys::SCHEDULER_NAME).map(Self::read)
    }

    fn read(text: &str) -> Result<Self, String> {
        let list = |text: &str| CpuMask::parse_list(text).map_err(|error| error.to_string());
        let placement: Placement = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let container = |part: ContainerPlacement| Ok((part.name, list(&part.cpus)?, list(&part.memory_nodes)?));
        Ok(Self {
            cpus: list(&placement.cpus)?,
            isolated: placement.isolated,
            containers: placement.containers.into_iter().map(container).collect::<Result<_, String>>()?,
        })
    }
}

/// What a bound pod runs on by its placement annotation; none without the annotation. It does not say how the memory is
/// split, so all of it counts on each NUMA node that it names; so do the huge pages.
///
/// # Errors
/// An annotation of a pod of our scheduler that cannot be read, or is of another machine: that pod runs on CPUs of its
/// own, and nobody knows which. Also if it asks for none by now: a resize to a fraction takes no CPUs from it.
fn carried_by(pod: &PodView, machine: &Machine) -> Result<Option<Reservation>, Distrust> {
    let unreadable = |why: String| Distrust {
        reason: Reason::NodeDistrusted,
        detail: format!("annotation {} of pod {}/{}: {why}", keys::PLACEMENT_ANNOTATION, pod.id.namespace, pod.id.name),
    };
    let Some(read) = &pod.carried else { return Ok(None) };
    let carried = read.as_ref().map_err(|why| unreadable(why.clone()))?;
    // Not by what it may ask for itself by now: it was promised all of its memory, and a resize gives none back.
    let (bytes, needs) = (pod.request.get(MEMORY).copied().unwrap_or(0), huge_pages(&pod.request));
    let mut held = Reservation {
        pod: pod.id.clone(),
        reserved_at_ms: 0,
        cpus: carried.cpus.clone(),
        containers: Vec::with_capacity(carried.containers.len()),
        memory: Vec::new(),
        huge_pages: Vec::new(),
        isolated: carried.isolated,
    };
    let says_all = !carried.cpus.is_empty();
    for (name, cpus, memory_nodes) in &carried.containers {
        // An annotation of the first releases does not tell the idle siblings; then only whole cores were promised.
        if says_all {
            held.cpus.union_with(cpus);
        } else {
            held.cpus.union_with(&machine.whole_cores(cpus));
            held.cpus.union_with(cpus);
        }
        held.containers.push((name.clone(), cpus.clone()));
        for numa_node in memory_nodes.iter() {
            if held.memory.iter().all(|(known, _)| *known != numa_node) {
                held.memory.push((numa_node, bytes));
                held.huge_pages.extend(needs.iter().map(|need| NumaHugePages {
                    numa_node,
                    page_bytes: need.page_bytes,
                    bytes: need.whole_bytes(),
                }));
            }
        }
    }
    if !held.cpus.is_subset(machine.cpus()) {
        let strange = held.cpus.subtract(machine.cpus());
        return Err(unreadable(format!("the machine has no CPUs {strange}")));
    }
    Ok(Some(held))
}

/// What all of these carry, and the pods (by UID) of which nobody can tell.
pub(crate) fn carried_by_all<'a>(
    pods: impl Iterator<Item = &'a PodView>,
    machine: &Machine,
) -> (Vec<Reservation>, Vec<(String, Distrust)>) {
    let (mut carried, mut unreadable) = (Vec::new(), Vec::new());
    for pod in pods {
        match carried_by(pod, machine) {
            Ok(held) => carried.extend(held),
            Err(distrust) => unreadable.push((pod.id.uid.clone(), distrust)),
        }
    }
    (carried, unreadable)
}
