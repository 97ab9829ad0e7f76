//! The same facts read from sysfs by hand: the second opinion beside hwloc.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, MachineDescription, NumaDescription, NumaDistance, PackageDescription,
};

use crate::{Discovered, DiscoveryError, Gap, TopologySource};
use files::Files;

/// Level of the caches described.
const L3: u64 = 3;

/// sysfs as a source.
#[derive(Debug, Clone)]
pub struct SysfsSource {
    root: PathBuf,
    meminfo: Option<PathBuf>,
}

impl SysfsSource {
    /// This machine: `/sys`, and `/proc/meminfo` for kernels without NUMA.
    #[must_use]
    pub fn native() -> Self {
        Self::new("/sys").with_meminfo("/proc/meminfo")
    }

    /// Another mount of sysfs, or a folder that looks like one.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), meminfo: None }
    }

    /// Where to read the memory of a machine that has no NUMA files.
    #[must_use]
    pub fn with_meminfo(mut self, path: impl Into<PathBuf>) -> Self {
        self.meminfo = Some(path.into());
        self
    }

    /// Online NUMA nodes whose CPU list is empty; empty without NUMA files.
    pub(crate) fn numa_nodes_without_cpus(&self) -> Result<BTreeSet<u32>, DiscoveryError> {
        let files = Files::new(&self.root);
        let Some(online) = files.list("node/online")? else {
            return Ok(BTreeSet::new());
        };
        let mut without = BTreeSet::new();
        for id in online.iter() {
            if files.list(&format!("node/node{id}/cpulist"))?.is_some_and(|cpus| cpus.is_empty()) {
                without.insert(id);
            }
        }
        Ok(without)
    }
}

impl TopologySource for SysfsSource {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        let files = Files::new(&self.root);
        let online = match files.list("cpu/online")? {
            Some(online) => online,
            None => files.numbered("cpu", "cpu")?,
        };
        if online.is_empty() {
            return Err(DiscoveryError::NoCpus { path: self.root.clone() });
        }
        let reading = Reading { files, online, gaps: BTreeSet::new() };
        reading.describe(self.meminfo.as_deref())
    }
}

struct Reading {
    files: Files,
    online: CpuMask,
    gaps: BTreeSet<Gap>,
}

impl Reading {
    fn describe(mut self, meminfo: Option<&Path>) -> Result<Discovered, DiscoveryError> {
        let description = MachineDescription {
            packages: self.packages()?,
            numa_nodes: self.numa_nodes(meminfo)?,
            l3_caches: self.l3_caches()?,
            cores: self.cores()?,
            ..MachineDescription::default()
        };
        Ok(Discovered { description, gaps: self.gaps.into_iter().collect() })
    }

    fn packages(&mut self) -> Result<Vec<PackageDescription>, DiscoveryError> {
        // -1 is what kernels say where the firmware gives no package.
        let mut by_id: BTreeMap<Option<u32>, CpuMask> = BTreeMap::new();
        for cpu in self.online.iter() {
            let id = self.files.integer(&format!("cpu/cpu{cpu}/topology/physical_package_id"))?;
            by_id.entry(id.and_then(|id| u32::try_from(id).ok())).or_default().insert(cpu);
        }
        if by_id.keys().all(Option::is_none) {
            by_id.clear();
        }
        let mut packages: Vec<(CpuMask, Option<u32>)> = by_id.into_iter().map(|(id, cpus)| (cpus, id)).collect();
        packages.sort_by_key(|(cpus, _)| cpus.first());
        let (packages, ids): (Vec<_>, Vec<_>) = packages.into_iter().unzip();
        Ok(name_packages(packages, &ids, &self.online, &mut self.gaps))
    }

    fn cores(&mut self) -> Result<Vec<CoreDescription>, DiscoveryError> {
        let mut cores = BTreeMap::new();
        for cpu in self.online.iter() {
            let topology = format!("cpu/cpu{cpu}/topology");
            let siblings = match self.files.list(&format!("{topology}/core_cpus_list"))? {
                Some(siblings) => Some(siblings),
                // The name before Linux 5.3.
                None => self.files.list(&format!("{topology}/thread_siblings_list"))?,
            };
            let own = match siblings.map(|siblings| siblings.intersect(&self.online)) {
                Some(siblings) if siblings.contains(cpu) => siblings,
                _ => {
                    self.gaps.insert(Gap::Cores);
                    CpuMask::from_ids([cpu])
                }
            };
            cores.insert((own.first(), own.clone()), own);
        }
        Ok((0..).zip(cores.into_values()).map(|(id, cpus)| CoreDescription { id, cpus }).collect())
    }

    fn l3_caches(&self) -> Result<Vec<CacheDescription>, DiscoveryError> {
        let mut caches = BTreeMap::new();
        for cpu in self.online.iter() {
            let folder = format!("cpu/cpu{cpu}/cache");
            for index in self.files.numbered(&folder, "index")?.iter() {
                let cache = format!("{folder}/index{index}");
                // Index 3 is not everywhere level 3, and instruction caches have levels too.
                if self.files.number(&format!("{cache}/level"))? != Some(L3)
                    || self.files.text(&format!("{cache}/type"))?.as_deref() == Some("Instruction")
                {
                    continue;
                }
                let Some(sharing) = self.files.list(&format!("{cache}/shared_cpu_list"))? else {
                    continue;
                };
                let cpus = sharing.intersect(&self.online);
                let size_bytes = self.files.size_bytes(&format!("{cache}/size"))?.unwrap_or(0);
                caches.insert((cpus.first(), cpus), size_bytes);
            }
        }
        Ok((0..).zip(caches).map(|(id, ((_, cpus), size_bytes))| CacheDescription { id, cpus, size_bytes }).collect())
    }

    fn numa_nodes(&mut self, meminfo: Option<&Path>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        let Some(nodes) = self.files.list("node/online")?.filter(|nodes| !nodes.is_empty()) else {
            return self.one_numa_node(meminfo);
        };
        let ids: Vec<u32> = nodes.iter().collect();
        let mut described = Vec::with_capacity(ids.len());
        for &id in &ids {
            let folder = format!("node/node{id}");
            let cpus = self.files.list(&format!("{folder}/cpulist"))?.unwrap_or_default().intersect(&self.online);
            let memory_bytes = self.files.mem_total_bytes(&format!("{folder}/meminfo"))?;
            let row = self.files.row(&format!("{folder}/distance"))?.unwrap_or_default();
            // The kernel writes one value per online node, in ascending order of the nodes.
            let distances: Vec<_> = if row.len() == ids.len() {
                ids.iter().zip(row).map(|(&to, value)| NumaDistance { to, value }).collect()
            } else {
                Vec::new()
            };
            if memory_bytes.is_none() {
                self.gaps.insert(Gap::Memory);
            }
            if distances.is_empty() && ids.len() > 1 {
                self.gaps.insert(Gap::Distances);
            }
            described.push(NumaDescription {
                id,
                cpus,
                memory_bytes: memory_bytes.unwrap_or(0),
                distances,
                ..NumaDescription::default()
            });
        }
        Ok(described)
    }

    fn one_numa_node(&mut self, meminfo: Option<&Path>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        self.gaps.insert(Gap::NumaNodes);
        let memory_bytes = match meminfo {
            Some(path) => Files::mem_total_bytes_of(path)?,
            None => None,
        };
        if memory_bytes.is_none() {
            self.gaps.insert(Gap::Memory);
        }
        let memory_bytes = memory_bytes.unwrap_or(0);
        Ok(vec![NumaDescription {
            id: 0,
            cpus: self.online.clone(),
            memory_bytes,
            distances: Vec::new(),
            ..NumaDescription::default()
        }])
    }
}

/// Gives packages (in the order of their lowest CPU) the ids found for them, or numbers them if those are no names.
pub(crate) fn name_packages(
    packages: Vec<CpuMask>,
    ids: &[Option<u32>],
    all: &CpuMask,
    gaps: &mut BTreeSet<Gap>,
) -> Vec<PackageDescription> {
    if packages.is_empty() {
        gaps.insert(Gap::Packages);
        return vec![PackageDescription { id: 0, cpus: all.clone() }];
    }
    let distinct: BTreeSet<u32> = ids.iter().copied().flatten().collect();
    let named: Option<Vec<u32>> = ids.iter().copied().collect::<Option<Vec<u32>>>();
    let ids = match named {
        Some(ids) if distinct.len() == packages.len() => ids,
        _ => {
            gaps.insert(Gap::PackageIds);
            (0..).take(packages.len()).collect()
        }
    };
    ids.into_iter().zip(packages).map(|(id, cpus)| PackageDescription { id, cpus }).collect()
}
