//! The placement that a Binding carries as annotation: the exact CPUs of each container.
use serde::{Deserialize, Serialize};

/// Value of the annotation [`crate::keys::PLACEMENT_ANNOTATION`], as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// All CPUs that the pod holds, kernel list format: those of its containers, and the siblings that stay idle for it.
    /// Siblings that are not here may be another pod's. Absent in placements of the first releases: then whole cores.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpus: String,
    /// One entry for each container that has CPUs of its own.
    pub containers: Vec<ContainerPlacement>,
    /// The CPUs are isolated ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
}

/// What one container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPlacement {
    /// Container name.
    pub name: String,
    /// Its CPUs, kernel list format (`2-3,8`).
    pub cpus: String,
    /// The NUMA nodes of its memory, kernel list format.
    pub memory_nodes: String,
}
