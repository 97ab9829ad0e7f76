//! Where what a node's agent observes is not what was promised. Such a node gets no further promise until the two agree.
//!
//! Nothing is remembered: drift is a function of the NodePlacement alone (`spec`, `status`, one annotation), so that a
//! restart or a relist reaches the same verdict (I7). Trust comes back by itself with the first status that agrees, or
//! when a person names the pods whose drift is known and borne ([`unforgiven`]).
use crate::{Beside, Reservation};
use fairlead_topology::CpuMask;

/// How a container with CPUs of its own runs, in the words of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pinning {
    /// Promised and not created yet: never drift.
    Pending,
    /// On the CPUs that were promised, the agent says; it is compared all the same.
    Pinned,
    /// Created while no agent was there, and not corrected yet.
    Unpinned,
    /// Elsewhere, and the runtime refuses to correct it.
    Drifted,
}

/// One container as it was last seen on the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObservedContainer {
    /// UID of its pod.
    pub pod_uid: String,
    /// Name.
    pub name: String,
    /// What the agent says of it.
    pub pinning: Pinning,
    /// The CPUs it runs on.
    pub cpus: CpuMask,
    /// The NUMA nodes (ids) that its memory may come from, ascending; empty: not known.
    pub memory_nodes: Vec<u32>,
}

/// What the agent observed of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// `status.observedGeneration`: the list of reservations that it was held against.
    pub generation: Option<i64>,
    /// Every container with CPUs of its own.
    pub containers: Vec<ObservedContainer>,
}

/// One container that does not run as promised. The text names the field it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Drift {
    /// It runs loose: the agent was not there when it was created.
    #[error("status.containers[podUID={pod_uid},name={container}]: not pinned, CPUs {promised} are promised to it")]
    Unpinned {
        /// UID of the pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// Its promise.
        promised: CpuMask,
    },
    /// It runs on other CPUs.
    #[error("status.containers[podUID={pod_uid},name={container}]: runs on CPUs {observed}, promised are {promised}")]
    OtherCpus {
        /// UID of the pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// Its promise.
        promised: CpuMask,
        /// Where it runs.
        observed: CpuMask,
    },
    /// Its memory may come from other NUMA nodes.
    #[error(
        "status.containers[podUID={pod_uid},name={container}]: memory of NUMA nodes {observed:?}, promised are {promised:?}"
    )]
    OtherMemory {
        /// UID of the pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// NUMA node ids of its promise, ascending.
        promised: Vec<u32>,
        /// NUMA node ids it may use, ascending.
        observed: Vec<u32>,
    },
    /// It runs on CPUs of its own that nobody promised to it.
    #[error("status.containers[podUID={pod_uid},name={container}]: runs on CPUs {observed}, nothing is promised to it")]
    Unpromised {
        /// UID of the pod.
        pod_uid: String,
        /// The container.
        container: String,
        /// Where it runs.
        observed: CpuMask,
    },
}

impl Drift {
    /// UID of the pod that it is about.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        match self {
            Self::Unpinned { pod_uid, .. }
            | Self::OtherCpus { pod_uid, .. }
            | Self::OtherMemory { pod_uid, .. }
            | Self::Unpromised { pod_uid, .. } => pod_uid,
        }
    }
}

/// Holds what was observed against the reservations of `spec` at `generation`, and against what live pods carry beside
/// them; in the order of the observation.
///
/// A reservation without observation is pending and no drift (DESIGN 4). A container without a promise is drift only if the
/// observation is of this very list: an older one may show a pod whose reservation was freed since.
#[must_use]
pub fn drift(generation: i64, reservations: &[Reservation], beside: &Beside, observed: &Observed) -> Vec<Drift> {
    let is_current = observed.generation.is_some_and(|seen| seen >= generation);
    let running = observed.containers.iter().filter(|container| container.pinning != Pinning::Pending);
    running
        .filter_map(|container| {
            let mut held = reservations.iter().chain(&beside.carried).filter(|held| held.pod.uid == container.pod_uid);
            let promise = held.find_map(|held| Some((held, promised_to(held, &container.name)?)));
            match promise {
                Some((held, cpus)) => compare(container, held, cpus),
                None if is_current => Some(Drift::Unpromised {
                    pod_uid: container.pod_uid.clone(),
                    container: container.name.clone(),
                    observed: container.cpus.clone(),
                }),
                None => None,
            }
        })
        .collect()
}

/// UIDs of the pods that were seen to run as promised: every container of their reservation on exactly its CPUs. They are
/// what an agent wrote of this very node, so that a pod's own words (labels, annotations) never make it one of them.
pub fn as_promised<'a>(reservations: &'a [Reservation], observed: &'a Observed) -> impl Iterator<Item = &'a str> {
    let runs = |held: &Reservation, name: &str, cpus: &CpuMask| {
        let seen = observed.containers.iter().find(|seen| seen.pod_uid == held.pod.uid && seen.name == name);
        seen.is_some_and(|seen| seen.pinning == Pinning::Pinned && compare(seen, held, cpus).is_none())
    };
    let all_run = move |held: &&Reservation| held.containers.iter().all(|(name, cpus)| runs(held, name, cpus));
    let held = reservations.iter().filter(|held| !held.containers.is_empty());
    held.filter(all_run).map(|held| held.pod.uid.as_str())
}

fn promised_to<'a>(held: &'a Reservation, container: &str) -> Option<&'a CpuMask> {
    held.containers.iter().find(|(name, _)| name == container).map(|(_, cpus)| cpus)
}

fn compare(seen: &ObservedContainer, held: &Reservation, cpus: &CpuMask) -> Option<Drift> {
    let (pod_uid, container, promised) = (seen.pod_uid.clone(), seen.name.clone(), cpus.clone());
    if seen.pinning == Pinning::Unpinned {
        return Some(Drift::Unpinned { pod_uid, container, promised });
    }
    if seen.pinning == Pinning::Drifted || seen.cpus != *cpus {
        return Some(Drift::OtherCpus { pod_uid, container, promised, observed: seen.cpus.clone() });
    }
    let mut nodes: Vec<u32> = held.memory.iter().map(|&(numa_node, _)| numa_node).collect();
    nodes.sort_unstable();
    let agrees = seen.memory_nodes.is_empty() || seen.memory_nodes == nodes;
    let observed = || seen.memory_nodes.clone();
    (!agrees).then(|| Drift::OtherMemory { pod_uid, container, promised: nodes, observed: observed() })
}

/// What is left to distrust the node for. `borne` is the value of the annotation by which a person says that the drift of
/// some pods is known and borne: their UIDs, separated by commas. It names pods and no time or version, so it never covers
/// what drifts later, needs no clock, and means nothing any more once those pods are gone.
pub fn unforgiven<'a>(drifts: &'a [Drift], borne: &'a str) -> impl Iterator<Item = &'a Drift> {
    drifts.iter().filter(|drift| !borne.split(',').any(|uid| uid.trim() == drift.pod_uid()))
}
