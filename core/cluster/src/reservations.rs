//! Reservations between the wire and the core, and the annotation that a Binding carries.
use crate::node::Distrust;
use crate::pod::PodView;
use fairlead_crds::keys;
use fairlead_crds::node_placement::{Reservation as Wire, ReservedContainer, ReservedMemory};
use fairlead_crds::placement::{ContainerPlacement, Placement};
use fairlead_placement::{PodRef, Reason, Reservation, ReservationFault};
use fairlead_topology::{CpuMask, Machine};
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
    Reservation::parse(pod, wire.reserved_at.0.as_millisecond(), &wire.cpus, containers, memory)
}

/// Writes a reservation. The time is cut to whole seconds when it is serialized.
#[must_use]
pub fn to_wire(reservation: &Reservation) -> Wire {
    let time = i64::try_from(reservation.reserved_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let container = |(name, cpus): &(String, CpuMask)| ReservedContainer { name: name.clone(), cpus: cpus.to_string() };
    let memory = |&(numa_node, bytes): &(u32, u64)| ReservedMemory {
        numa_node: i64::from(numa_node),
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        huge_pages: Vec::new(),
    };
    Wire {
        pod_uid: reservation.pod.uid.clone(),
        namespace: reservation.pod.namespace.clone(),
        name: reservation.pod.name.clone(),
        reserved_at: Time(time.unwrap_or(Timestamp::UNIX_EPOCH)),
        cpus: reservation.cpus.to_string(),
        containers: reservation.containers.iter().map(container).collect(),
        isolated: false,
        memory: reservation.memory.iter().map(memory).collect(),
    }
}

/// The placement annotation of a reservation: each container's CPUs, and the NUMA nodes the pod's memory is promised on.
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
    Placement { containers: reservation.containers.iter().map(container).collect(), isolated: false }
}

/// What a bound pod runs on by its placement annotation; none without the annotation. It came with the pod's Binding, and
/// where the admission policies are on nobody may write or change it. Where they are off anybody may, so on a pod of
/// another scheduler, which gets no CPUs of its own, it says nothing. The annotation does not say how the memory is split,
/// so all of it counts on each NUMA node that it names.
///
/// # Errors
/// An annotation of a pod of our scheduler that cannot be read, or is of another machine: that pod runs on CPUs of its
/// own, and nobody knows which. Also if it asks for none by now: a resize to a fraction takes no CPUs from it.
fn carried_by(pod: &PodView, machine: &Machine) -> Result<Option<Reservation>, Distrust> {
    let ours = pod.scheduler == keys::SCHEDULER_NAME;
    let Some(text) = pod.placement.as_ref().filter(|_| ours) else { return Ok(None) };
    let unreadable = |why: String| Distrust {
        reason: Reason::NodeDistrusted,
        detail: format!("annotation {} of pod {}/{}: {why}", keys::PLACEMENT_ANNOTATION, pod.id.namespace, pod.id.name),
    };
    let list = |text: &str| CpuMask::parse_list(text).map_err(|error| unreadable(error.to_string()));
    let placement: Placement = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let bytes = pod.exclusive.as_ref().map_or(0, |wanted| wanted.memory_bytes);
    let mut held = Reservation {
        pod: pod.id.clone(),
        reserved_at_ms: 0,
        cpus: CpuMask::new(),
        containers: Vec::with_capacity(placement.containers.len()),
        memory: Vec::new(),
    };
    for container in placement.containers {
        let cpus = list(&container.cpus)?;
        if !cpus.is_subset(machine.cpus()) {
            return Err(unreadable(format!("the machine has no CPUs {}", cpus.subtract(machine.cpus()))));
        }
        held.cpus.union_with(&machine.whole_cores(&cpus));
        held.containers.push((container.name, cpus));
        for numa_node in list(&container.memory_nodes)?.iter() {
            if held.memory.iter().all(|(known, _)| *known != numa_node) {
                held.memory.push((numa_node, bytes));
            }
        }
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
