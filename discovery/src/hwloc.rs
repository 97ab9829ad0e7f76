//! A machine as hwloc sees it: this one, or one made up from a synthetic description.

use std::collections::BTreeSet;

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, MAX_CPUS, MachineDescription, NumaDescription, NumaDistance,
    PackageDescription,
};
use hwlocality::Topology;
use hwlocality::bitmap::BitmapIndex;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;
use hwlocality::topology::builder::BuildFlags;

use crate::{Discovered, DiscoveryError, Gap, SysfsSource, TopologySource};

/// Name of hwloc's matrix of NUMA latencies (the SLIT); there may be others over other objects.
const LATENCY_MATRIX: &str = "NUMALatency";

/// hwloc as a source.
#[derive(Debug, Clone)]
pub struct HwlocSource {
    input: Input,
}

#[derive(Debug, Clone)]
enum Input {
    Native,
    Synthetic(String),
}

impl HwlocSource {
    /// The machine this process runs on, whole: CPUs outside the process's own cpuset are included.
    #[must_use]
    pub fn native() -> Self {
        Self { input: Input::Native }
    }

    /// A machine made up from hwloc's synthetic description; whether it is one shows in
    /// [`TopologySource::describe`].
    #[must_use]
    pub fn synthetic(description: &str) -> Self {
        Self { input: Input::Synthetic(description.to_owned()) }
    }

    fn topology(&self) -> Result<Topology, DiscoveryError> {
        let hwloc = |operation| move |source| DiscoveryError::Hwloc { operation, source };
        match &self.input {
            Input::Native => {
                // Without the flag a container would see only the CPUs of its own cpuset.
                let topology = Topology::builder()
                    .with_flags(BuildFlags::INCLUDE_DISALLOWED)
                    .map_err(|parameter| match parameter {
                        hwlocality::errors::HybridError::Hwloc(source) => hwloc("set its flags")(source),
                        hwlocality::errors::HybridError::Rust(_) => {
                            DiscoveryError::Object { object: "builder", what: "flags" }
                        }
                    })?
                    .build()
                    .map_err(hwloc("read this machine"))?;
                if topology.is_this_system() { Ok(topology) } else { Err(DiscoveryError::NotThisMachine) }
            }
            Input::Synthetic(text) => {
                bounded(text)?;
                Topology::builder()
                    .from_synthetic(text)
                    .map_err(|source| DiscoveryError::Synthetic { text: text.clone(), source })?
                    .build()
                    .map_err(hwloc("build the synthetic topology"))
            }
        }
    }
}

impl TopologySource for HwlocSource {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        let topology = self.topology()?;
        // hwloc lends a memory-only node the CPUs of its surroundings; the kernel knows which nodes those are.
        let without_cpus = match self.input {
            Input::Native => SysfsSource::native().numa_nodes_without_cpus()?,
            Input::Synthetic(_) => BTreeSet::new(),
        };
        Reading { topology: &topology, gaps: BTreeSet::new() }.describe(&without_cpus)
    }
}

struct Reading<'a> {
    topology: &'a Topology,
    gaps: BTreeSet<Gap>,
}

impl Reading<'_> {
    fn describe(mut self, without_cpus: &BTreeSet<u32>) -> Result<Discovered, DiscoveryError> {
        let mut all = CpuMask::new();
        for object in self.topology.objects_with_type(ObjectType::PU) {
            all.insert(os_index(object, "PU")?);
        }
        let description = MachineDescription {
            packages: self.packages(&all)?,
            numa_nodes: self.numa_nodes(without_cpus)?,
            l3_caches: self.l3_caches()?,
            cores: self.cores(&all)?,
            ..MachineDescription::default()
        };
        Ok(Discovered { description, gaps: self.gaps.into_iter().collect() })
    }

    /// Objects of a type with their CPUs, by lowest CPU; those without CPUs are left out.
    fn by_lowest_cpu(
        &self,
        object_type: ObjectType,
        name: &'static str,
    ) -> Result<Vec<(&TopologyObject, CpuMask)>, DiscoveryError> {
        let mut objects = Vec::new();
        for object in self.topology.objects_with_type(object_type) {
            let cpus = cpus(object, name)?;
            if !cpus.is_empty() {
                objects.push((object, cpus));
            }
        }
        objects.sort_by_key(|(_, cpus)| cpus.first());
        Ok(objects)
    }

    fn packages(&mut self, all: &CpuMask) -> Result<Vec<PackageDescription>, DiscoveryError> {
        let objects = self.by_lowest_cpu(ObjectType::Package, "Package")?;
        let ids: Vec<Option<u32>> = objects.iter().map(|(object, _)| os_index(object, "Package").ok()).collect();
        let packages = objects.into_iter().map(|(_, cpus)| cpus).collect();
        Ok(crate::sysfs::name_packages(packages, &ids, all, &mut self.gaps))
    }

    fn cores(&mut self, all: &CpuMask) -> Result<Vec<CoreDescription>, DiscoveryError> {
        let cores: Vec<CpuMask> =
            self.by_lowest_cpu(ObjectType::Core, "Core")?.into_iter().map(|(_, cpus)| cpus).collect();
        let cores = if cores.is_empty() {
            self.gaps.insert(Gap::Cores);
            all.iter().map(|cpu| CpuMask::from_ids([cpu])).collect()
        } else {
            cores
        };
        Ok((0..).zip(cores).map(|(id, cpus)| CoreDescription { id, cpus }).collect())
    }

    fn l3_caches(&self) -> Result<Vec<CacheDescription>, DiscoveryError> {
        let size = |object: &TopologyObject| match object.attributes() {
            Some(ObjectAttributes::Cache(cache)) => cache.size().map_or(0, u64::from),
            _ => 0,
        };
        let caches = self.by_lowest_cpu(ObjectType::L3Cache, "L3Cache")?;
        Ok((0..)
            .zip(caches)
            .map(|(id, (object, cpus))| CacheDescription { id, cpus, size_bytes: size(object) })
            .collect())
    }

    /// A CPU belongs to the smallest node around it (the lowest id of equals): larger ones are far or device memory.
    fn numa_nodes(&mut self, without_cpus: &BTreeSet<u32>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        let mut nodes = Vec::new();
        for object in self.topology.objects_with_type(ObjectType::NUMANode) {
            let id = os_index(object, "NUMANode")?;
            let memory = match object.attributes() {
                Some(ObjectAttributes::NUMANode(numa)) => numa.local_memory().map(u64::from),
                _ => None,
            };
            // hwloc cannot tell unknown from none; a node of CPUs without memory is worth the remark either way.
            if memory.is_none() {
                self.gaps.insert(Gap::Memory);
            }
            let cpus = if without_cpus.contains(&id) { CpuMask::new() } else { cpus(object, "NUMANode")? };
            nodes.push((cpus, id, memory.unwrap_or(0)));
        }
        nodes.sort_by_key(|(cpus, id, _)| (cpus.len(), *id));
        let mut taken = CpuMask::new();
        for (cpus, _, _) in &mut nodes {
            cpus.subtract_with(&taken);
            taken.union_with(cpus);
        }
        nodes.sort_by_key(|(_, id, _)| *id);
        let several = nodes.len() > 1;
        let matrix = self.latencies()?;
        if several && matrix.is_empty() {
            self.gaps.insert(Gap::Distances);
        }
        Ok(nodes
            .into_iter()
            .map(|(cpus, id, memory_bytes)| {
                let own = matrix.iter().filter(|(from, _)| *from == id);
                NumaDescription {
                    id,
                    cpus,
                    memory_bytes,
                    distances: own.map(|(_, distance)| *distance).collect(),
                    ..NumaDescription::default()
                }
            })
            .collect())
    }

    /// From node, distance; ascending.
    fn latencies(&self) -> Result<Vec<(u32, NumaDistance)>, DiscoveryError> {
        let matrices = self.topology.distances_with_name(LATENCY_MATRIX).map_err(|error| match error {
            hwlocality::errors::HybridError::Hwloc(source) => {
                DiscoveryError::Hwloc { operation: "list distances", source }
            }
            hwlocality::errors::HybridError::Rust(_) => {
                DiscoveryError::Object { object: "distance matrix", what: "name" }
            }
        })?;
        let mut latencies = Vec::new();
        for matrix in matrices.iter().take(1) {
            for ((from, to), value) in matrix.object_distances() {
                let (Some(from), Some(to)) = (from, to) else {
                    continue;
                };
                if from.object_type() != ObjectType::NUMANode || to.object_type() != ObjectType::NUMANode {
                    continue;
                }
                let value = u32::try_from(value)
                    .map_err(|_| DiscoveryError::Object { object: "distance matrix", what: "value" })?;
                latencies.push((os_index(from, "NUMANode")?, NumaDistance { to: os_index(to, "NUMANode")?, value }));
            }
        }
        latencies.sort_by_key(|(from, distance)| (*from, distance.to));
        Ok(latencies)
    }
}

/// Refuses a description whose levels multiply to more than [`MAX_CPUS`], before hwloc starts to build it.
fn bounded(text: &str) -> Result<(), DiscoveryError> {
    let mut depth = 0u32;
    // What stands in brackets (attributes, memory beside a level) multiplies nothing.
    let levels: String = text
        .chars()
        .filter(|&character| {
            let before = depth;
            match character {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            before == 0 && depth == 0
        })
        .collect();
    let mut objects = 1u64;
    for item in levels.split_whitespace() {
        let count = item.rsplit(':').next().unwrap_or(item);
        let all_digits = count.bytes().all(|byte| byte.is_ascii_digit());
        let Some(count) = all_digits.then(|| count.parse::<u64>().unwrap_or(u64::MAX)).filter(|_| !count.is_empty())
        else {
            return Err(DiscoveryError::SyntheticLevel { text: text.to_owned(), item: item.to_owned() });
        };
        objects = objects.saturating_mul(count);
        if objects > u64::from(MAX_CPUS) {
            return Err(DiscoveryError::SyntheticTooLarge { text: text.to_owned(), max: MAX_CPUS });
        }
    }
    Ok(())
}

fn os_index(object: &TopologyObject, name: &'static str) -> Result<u32, DiscoveryError> {
    object
        .os_index()
        .and_then(|index| u32::try_from(index).ok())
        .filter(|&index| index < MAX_CPUS)
        .ok_or(DiscoveryError::Object { object: name, what: "OS index" })
}

fn cpus(object: &TopologyObject, name: &'static str) -> Result<CpuMask, DiscoveryError> {
    let endless = DiscoveryError::Object { object: name, what: "CPU set" };
    let Some(set) = object.cpuset() else {
        return Err(endless);
    };
    if set.weight().is_none() {
        return Err(endless);
    }
    let number = |index: BitmapIndex| u32::try_from(usize::from(index)).ok().filter(|&cpu| cpu < MAX_CPUS);
    set.iter_set().map(number).collect::<Option<CpuMask>>().ok_or(endless)
}
