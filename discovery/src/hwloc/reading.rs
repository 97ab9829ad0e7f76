//! From hwloc's objects to a description: CPUs, caches, memory.

use std::collections::BTreeSet;

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, HugePages, MAX_CPUS, MachineDescription, NumaDescription, NumaDistance,
    PackageDescription,
};
use hwlocality::Topology;
use hwlocality::bitmap::BitmapIndex;
use hwlocality::cpu::cpuset::CpuSet;
use hwlocality::errors::HybridError;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::{NUMANodeAttributes, ObjectAttributes};
use hwlocality::object::types::ObjectType;

use super::{Kernel, devices};
use crate::{Discovered, DiscoveryError, Gap, shape};

/// Name of hwloc's matrix of NUMA latencies (the SLIT); there may be others over other objects.
const LATENCY_MATRIX: &str = "NUMALatency";

/// Longest name of a kind of memory that is kept; hwloc's have less than a dozen letters.
const KIND_BYTES_MAX: usize = 64;

/// What hwloc calls a group that the kernel told as a cluster of cores.
const CLUSTER: &[u8] = b"Cluster";

pub(super) struct Reading<'a> {
    topology: &'a Topology,
    gaps: BTreeSet<Gap>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(topology: &'a Topology) -> Self {
        Self { topology, gaps: BTreeSet::new() }
    }

    pub(super) fn describe(mut self, kernel: &Kernel) -> Result<Discovered, DiscoveryError> {
        let mut all = CpuMask::new();
        for object in self.topology.objects_with_type(ObjectType::PU) {
            all.insert(os_index(object, "PU")?);
        }
        let mut description = MachineDescription {
            packages: self.packages(&all)?,
            numa_nodes: self.numa_nodes(&kernel.without_cpus)?,
            l3_caches: self.l3_caches()?,
            cores: self.cores(&all)?,
            isolated: kernel.isolated.intersect(&all),
            offline: mask(&self.topology.complete_cpuset(), "Machine")?.subtract(&all),
            pci_devices: devices::pci_devices(self.topology, &all)?,
            ..MachineDescription::default()
        };
        description.dies = shape::dies(&description, self.sets(ObjectType::Die, "Die")?);
        let l2 = self.sets(ObjectType::L2Cache, "L2Cache")?;
        description.clusters = shape::clusters(&description, self.kernel_clusters()?, l2);
        description.cpu_kinds = shape::cpu_kinds(&description, self.cpu_kinds()?);
        let mut found = Discovered { description, gaps: Vec::new() };
        if kernel.own_cpuset {
            self.gaps.insert(Gap::Disallowed);
        } else {
            let allowed = self.topology.allowed_cpuset();
            found.withhold(&all.iter().filter(|&cpu| !allowed.is_set(cpu as usize)).collect());
        }
        found.gaps = self.gaps.into_iter().collect();
        Ok(found)
    }

    fn sets(&self, object_type: ObjectType, name: &'static str) -> Result<Vec<CpuMask>, DiscoveryError> {
        Ok(self.by_lowest_cpu(object_type, name)?.into_iter().map(|(_, cpus)| cpus).collect())
    }

    fn kernel_clusters(&self) -> Result<Vec<CpuMask>, DiscoveryError> {
        let groups = self.by_lowest_cpu(ObjectType::Group, "Group")?.into_iter();
        let told = groups.filter(|(group, _)| group.subtype().is_some_and(|subtype| subtype.to_bytes() == CLUSTER));
        Ok(told.map(|(_, cpus)| cpus).collect())
    }

    /// Efficiency (-1 unknown) and CPUs.
    fn cpu_kinds(&self) -> Result<Vec<(i32, CpuMask)>, DiscoveryError> {
        let Ok(kinds) = self.topology.cpu_kinds() else { return Ok(Vec::new()) };
        let efficiency = |known: Option<usize>| known.and_then(|known| i32::try_from(known).ok()).unwrap_or(-1);
        kinds.map(|kind| Ok((efficiency(kind.efficiency), mask(&kind.cpuset, "CPU kind")?))).collect()
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
        Ok(shape::packages(packages, &ids, all, &mut self.gaps))
    }

    fn cores(&mut self, all: &CpuMask) -> Result<Vec<CoreDescription>, DiscoveryError> {
        Ok(shape::cores(self.sets(ObjectType::Core, "Core")?, all, &mut self.gaps))
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

    fn numa_nodes(&mut self, without_cpus: &BTreeSet<u32>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        let mut nodes = Vec::new();
        for object in self.topology.objects_with_type(ObjectType::NUMANode) {
            let id = os_index(object, "NUMANode")?;
            let (memory_bytes, huge_pages) = match object.attributes() {
                Some(ObjectAttributes::NUMANode(numa)) => self.memory(numa),
                _ => (0, Vec::new()),
            };
            // hwloc cannot tell unknown from none; a node of CPUs without memory is worth the remark either way.
            if memory_bytes == 0 {
                self.gaps.insert(Gap::Memory);
            }
            let kind = object.subtype().and_then(|kind| kind.to_str().ok()).filter(|kind| kind.len() <= KIND_BYTES_MAX);
            let cpus = if without_cpus.contains(&id) { CpuMask::new() } else { cpus(object, "NUMANode")? };
            let kind = kind.map(str::to_owned);
            nodes.push(NumaDescription { id, cpus, memory_bytes, huge_pages, kind, distances: Vec::new() });
        }
        shape::own_cpus(&mut nodes);
        let matrix = self.latencies()?;
        if nodes.len() > 1 && matrix.is_empty() {
            self.gaps.insert(Gap::Distances);
        }
        for node in &mut nodes {
            let own = matrix.iter().filter(|(from, _)| *from == node.id);
            node.distances = own.map(|(_, distance)| *distance).collect();
        }
        Ok(nodes)
    }

    /// Bytes, and huge pages.
    fn memory(&mut self, numa: &NUMANodeAttributes<'_>) -> (u64, Vec<HugePages>) {
        let Some(memory_bytes) = numa.local_memory().map(u64::from) else { return (0, Vec::new()) };
        let sizes: Vec<HugePages> = (numa.page_types().iter())
            .map(|pages| HugePages { page_bytes: pages.size().into(), count: pages.count() })
            .collect();
        if sizes.is_empty() {
            self.gaps.insert(Gap::HugePages);
        }
        (memory_bytes, shape::huge_pages(sizes))
    }

    /// From node, distance; ascending.
    fn latencies(&self) -> Result<Vec<(u32, NumaDistance)>, DiscoveryError> {
        let matrices = self.topology.distances_with_name(LATENCY_MATRIX).map_err(|error| match error {
            HybridError::Hwloc(source) => DiscoveryError::Hwloc { operation: "list distances", source },
            HybridError::Rust(_) => DiscoveryError::Object { object: "distance matrix", what: "name" },
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

fn os_index(object: &TopologyObject, name: &'static str) -> Result<u32, DiscoveryError> {
    object
        .os_index()
        .and_then(|index| u32::try_from(index).ok())
        .filter(|&index| index < MAX_CPUS)
        .ok_or(DiscoveryError::Object { object: name, what: "OS index" })
}

fn cpus(object: &TopologyObject, name: &'static str) -> Result<CpuMask, DiscoveryError> {
    match object.cpuset() {
        Some(set) => mask(&set, name),
        None => Err(DiscoveryError::Object { object: name, what: "CPU set" }),
    }
}

pub(super) fn mask(set: &CpuSet, name: &'static str) -> Result<CpuMask, DiscoveryError> {
    let endless = DiscoveryError::Object { object: name, what: "CPU set" };
    if set.weight().is_none() {
        return Err(endless);
    }
    let number = |index: BitmapIndex| u32::try_from(usize::from(index)).ok().filter(|&cpu| cpu < MAX_CPUS);
    set.iter_set().map(number).collect::<Option<CpuMask>>().ok_or(endless)
}
