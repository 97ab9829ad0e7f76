//! What is known of the machine and of a container, as the decisions need it.
use fairlead_topology::{CpuMask, MachineDescription};
use serde::{Deserialize, Serialize};

/// CPUs and memory nodes of the machine by what they may be used for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Cores {
    /// CPUs that a container may own: online and not kept from this node's pods.
    pub usable: CpuMask,
    /// Those of them that belong to the shared pool while nobody owns them: not the isolated ones.
    pub shared: CpuMask,
    /// NUMA nodes that have memory.
    pub memory_nodes: CpuMask,
}

impl Cores {
    /// Those of a machine as it was read.
    #[must_use]
    pub fn of(machine: &MachineDescription) -> Self {
        let mut usable = CpuMask::new();
        for core in &machine.cores {
            usable.union_with(&core.cpus);
        }
        usable.subtract_with(&machine.offline);
        usable.subtract_with(&machine.disallowed);
        let mut shared = usable.subtract(&machine.isolated);
        if shared.is_empty() {
            // Every CPU isolated: containers without a promise must run somewhere.
            shared = usable.clone();
        }
        let with_memory = machine.numa_nodes.iter().filter(|node| node.memory_bytes > 0);
        Self { usable, shared, memory_nodes: CpuMask::from_ids(with_memory.map(|node| node.id)) }
    }
}

/// Where a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// CPUs.
    pub cpus: CpuMask,
    /// Memory nodes.
    pub memory_nodes: CpuMask,
    /// Without CFS quota. False leaves the quota as it is.
    pub unlimited: bool,
}

impl Place {
    /// Whether a container that runs here also runs as `wanted` says.
    #[must_use]
    pub fn satisfies(&self, wanted: &Self) -> bool {
        self.is_at(wanted) && (self.unlimited || !wanted.unlimited)
    }

    /// Whether CPUs and memory nodes are the same.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.cpus == other.cpus && self.memory_nodes == other.memory_nodes
    }
}

/// A container as the runtime shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The runtime's id.
    pub id: String,
    /// The runtime's id of its pod.
    pub sandbox: String,
    /// UID of its pod.
    pub pod_uid: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod_name: String,
    /// Name within the pod.
    pub name: String,
    /// The pod carries the placement annotation.
    pub placed: bool,
    /// What the annotation says of this container.
    pub annotated: Option<Place>,
    /// Where the runtime was told to run it: a list that is empty was not told, and is all; absent where neither was.
    pub runs: Option<Place>,
    /// This agent, or one before it, placed it when it was created.
    pub marked: bool,
    /// It was started: what it is told from now on takes effect.
    pub started: bool,
}

impl Seen {
    /// `namespace/pod/container`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pod_name, self.name)
    }
}
