//! The reservations of the node's NodePlacement as the pinning needs them.
use std::collections::BTreeMap;

use fairlead_crds::NodePlacement;
use fairlead_crds::node_placement::Reservation;
use fairlead_topology::CpuMask;
use serde::{Deserialize, Serialize};

/// Promises by pod UID.
pub type Promises = BTreeMap<String, Promise>;

/// Which state of which object promises were read from: of two of one object the higher generation is newer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// UID of the NodePlacement; empty while there is none.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
}

impl Version {
    /// Whether `self` is an earlier state of the same object.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        self.uid == other.uid && self.generation < other.generation
    }
}

/// What one pod was promised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// All CPUs taken, idle siblings included.
    pub cpus: CpuMask,
    /// CPUs by container.
    pub containers: BTreeMap<String, CpuMask>,
    /// NUMA nodes on which memory is promised; empty: none in particular.
    pub memory_nodes: CpuMask,
    /// The CPUs are isolated ones.
    pub isolated: bool,
    /// Why it cannot be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Reads the promises of an object. One that cannot be read is kept with its fault, and takes the CPUs that can.
#[must_use]
pub fn promises_of(placement: Option<&NodePlacement>) -> (Version, Promises) {
    let Some(placement) = placement else { return (Version::default(), Promises::new()) };
    let version = Version {
        uid: placement.metadata.uid.clone().unwrap_or_default(),
        generation: placement.metadata.generation.unwrap_or_default(),
    };
    let promises = placement.spec.reservations.iter().map(|wire| (wire.pod_uid.clone(), promise(wire))).collect();
    (version, promises)
}

fn promise(wire: &Reservation) -> Promise {
    let mut fault = None;
    let uid = &wire.pod_uid;
    let mut mask = |field: &str, text: &str| match CpuMask::parse_list(text) {
        Ok(mask) => mask,
        Err(error) => {
            fault.get_or_insert(format!("spec.reservations[podUID={uid}].{field}: {error}"));
            CpuMask::new()
        }
    };
    let mut cpus = mask("cpus", &wire.cpus);
    let mut containers = BTreeMap::new();
    for container in &wire.containers {
        let own = mask("containers.cpus", &container.cpus);
        cpus.union_with(&own);
        containers.insert(container.name.clone(), own);
    }
    let with_bytes = wire.memory.iter().filter(|part| part.bytes > 0 || !part.huge_pages.is_empty());
    // The kind's schema bounds the ids; what is out of bounds is no node of any machine and is found missing there.
    let ids =
        with_bytes.map(|part| u32::try_from(part.numa_node).map_or(u32::from(u16::MAX), |id| id.min(u16::MAX.into())));
    Promise {
        namespace: wire.namespace.clone(),
        name: wire.name.clone(),
        cpus,
        containers,
        memory_nodes: CpuMask::from_ids(ids),
        isolated: wire.isolated,
        fault,
    }
}
