//! From NodeTopology to a checked machine.
use fairlead_crds::node_topology::{CpuGroup, NodeTopologySpec};
use fairlead_topology::{
    CacheDescription, CoreDescription, CpuListError, CpuMask, Machine, MachineDescription, MachineError,
    NumaDescription, NumaDistance, PackageDescription,
};

/// Why a NodeTopology is no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A number is outside its range.
    #[error("spec.{field}: {value} is out of range (0 to {max})")]
    Number {
        /// Which field.
        field: String,
        /// What it says.
        value: i64,
        /// Largest value.
        max: i64,
    },
    /// A CPU list cannot be read.
    #[error("spec.{field}: {source}")]
    Cpus {
        /// Which field.
        field: String,
        /// What is wrong with it.
        #[source]
        source: CpuListError,
    },
    /// The parts contradict each other.
    #[error("spec.{source}")]
    Machine {
        /// How.
        #[source]
        source: MachineError,
    },
    /// hwloc and sysfs told different things.
    #[error(
        "spec.disagreements: {count} fact(s) on which hwloc and sysfs differ, first {field}: hwloc {hwloc:?}, sysfs {sysfs:?}"
    )]
    Disagreement {
        /// How many.
        count: usize,
        /// The first one's field.
        field: String,
        /// What hwloc says.
        hwloc: String,
        /// What sysfs says.
        sysfs: String,
    },
}

fn number(value: i64, field: impl Fn() -> String) -> Result<u32, TopologyError> {
    u32::try_from(value).map_err(|_| TopologyError::Number { field: field(), value, max: i64::from(u32::MAX) })
}

fn bytes(value: i64, field: impl Fn() -> String) -> Result<u64, TopologyError> {
    u64::try_from(value).map_err(|_| TopologyError::Number { field: field(), value, max: i64::MAX })
}

fn cpus(text: &str, field: impl Fn() -> String) -> Result<CpuMask, TopologyError> {
    CpuMask::parse_list(text).map_err(|source| TopologyError::Cpus { field: field(), source })
}

fn group(list: &str, group: &CpuGroup) -> Result<(u32, CpuMask), TopologyError> {
    let id = group.id;
    Ok((number(id, || format!("{list}[id={id}].id"))?, cpus(&group.cpus, || format!("{list}[id={id}].cpus"))?))
}

/// The description that a NodeTopology gives, numbers and lists read but nothing else checked.
///
/// # Errors
/// The first number or CPU list that cannot be read.
pub fn description_of(spec: &NodeTopologySpec) -> Result<MachineDescription, TopologyError> {
    let mut description = MachineDescription::default();
    for package in &spec.packages {
        let (id, cpus) = group("packages", package)?;
        description.packages.push(PackageDescription { id, cpus });
    }
    for numa in &spec.numa_nodes {
        let at = |field: &str| format!("numaNodes[id={}].{field}", numa.id);
        let mut distances = Vec::with_capacity(numa.distances.len());
        for distance in &numa.distances {
            distances.push(NumaDistance {
                to: number(distance.to, || at("distances.to"))?,
                value: number(distance.value, || at("distances.value"))?,
            });
        }
        description.numa_nodes.push(NumaDescription {
            id: number(numa.id, || at("id"))?,
            cpus: cpus(&numa.cpus, || at("cpus"))?,
            memory_bytes: bytes(numa.memory_bytes, || at("memoryBytes"))?,
            distances,
            ..NumaDescription::default()
        });
    }
    for cache in &spec.l3_caches {
        let at = |field: &str| format!("l3Caches[id={}].{field}", cache.id);
        description.l3_caches.push(CacheDescription {
            id: number(cache.id, || at("id"))?,
            cpus: cpus(&cache.cpus, || at("cpus"))?,
            size_bytes: bytes(cache.size_bytes, || at("sizeBytes"))?,
        });
    }
    for core in &spec.cores {
        let (id, cpus) = group("cores", core)?;
        description.cores.push(CoreDescription { id, cpus });
    }
    Ok(description)
}

/// The machine that a NodeTopology describes.
///
/// # Errors
/// What cannot be read, is contradictory, or was told differently by hwloc and sysfs: with none of those is a node
/// trusted with exclusive CPUs.
pub fn machine_of(spec: &NodeTopologySpec) -> Result<Machine, TopologyError> {
    let machine = Machine::new(&description_of(spec)?).map_err(|source| TopologyError::Machine { source })?;
    match spec.disagreements.first() {
        None => Ok(machine),
        Some(first) => Err(TopologyError::Disagreement {
            count: spec.disagreements.len(),
            field: first.field.clone(),
            hwloc: first.hwloc.clone(),
            sysfs: first.sysfs.clone(),
        }),
    }
}
