//! The same facts read from sysfs by hand: the second opinion beside hwloc.

mod cgroup;
mod devices;
mod files;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, HugePages, MachineDescription, NumaDescription, NumaDistance,
    PackageDescription,
};

use crate::{Discovered, DiscoveryError, Gap, TopologySource, shape};
use files::Files;

/// Level of the caches that may make clusters.
const L2: u64 = 2;

/// Level of the caches described.
const L3: u64 = 3;

/// Level, lowest CPU, CPUs; size in bytes.
type Caches = BTreeMap<(u64, Option<u32>, CpuMask), u64>;

/// sysfs as a source.
#[derive(Debug, Clone)]
pub struct SysfsSource {
    root: PathBuf,
    proc: Option<PathBuf>,
}

impl SysfsSource {
    /// This machine: `/sys` and `/proc`.
    #[must_use]
    pub fn native() -> Self {
        Self::new("/sys").with_proc("/proc")
    }

    /// Another mount of sysfs, or a folder that looks like one.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), proc: None }
    }

    /// The procfs beside it: memory of a machine without NUMA files, and the cgroup of this process, whose
    /// surroundings may keep CPUs away.
    #[must_use]
    pub fn with_proc(mut self, path: impl Into<PathBuf>) -> Self {
        self.proc = Some(path.into());
        self
    }

    /// Online NUMA nodes whose CPU list is empty; empty without NUMA files.
    pub(crate) fn numa_nodes_without_cpus(&self) -> Result<BTreeSet<u32>, DiscoveryError> {
        let files = Files::new(&self.root);
        let mut without = BTreeSet::new();
        for id in numa_ids(&files)?.iter() {
            if files.list(&format!("node/node{id}/cpulist"))?.is_some_and(|cpus| cpus.is_empty()) {
                without.insert(id);
            }
        }
        Ok(without)
    }

    /// CPUs that the kernel was told to isolate (`isolcpus=`, or an isolated cpuset partition).
    pub(crate) fn isolated(&self) -> Result<CpuMask, DiscoveryError> {
        Ok(Files::new(&self.root).list("cpu/isolated")?.unwrap_or_default())
    }

    /// CPUs that the cgroups around this process leave; none if that cannot be told.
    pub(crate) fn allowed(&self) -> Result<Option<CpuMask>, DiscoveryError> {
        self.proc.as_deref().map_or(Ok(None), |proc| cgroup::allowed(&self.root, proc))
    }
}

impl TopologySource for SysfsSource {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        let files = Files::new(&self.root);
        let online = online(&files)?;
        if online.is_empty() {
            return Err(DiscoveryError::NoCpus { path: self.root.clone() });
        }
        let reading = Reading { files, online, gaps: BTreeSet::new() };
        reading.describe(self)
    }
}

fn online(files: &Files) -> Result<CpuMask, DiscoveryError> {
    if let Some(online) = files.list("cpu/online")? {
        return Ok(online);
    }
    // Kernels before 2.6.29 tell it of each CPU alone; CPU 0 often has no such file.
    let mut online = files.numbered("cpu", "cpu")?;
    for cpu in online.clone().iter() {
        if files.text(&format!("cpu/cpu{cpu}/online"))?.as_deref() == Some("0") {
            online.remove(cpu);
        }
    }
    Ok(online)
}

/// Online NUMA nodes; none without NUMA files.
fn numa_ids(files: &Files) -> Result<CpuMask, DiscoveryError> {
    match files.list("node/online")? {
        Some(nodes) if !nodes.is_empty() => Ok(nodes),
        _ => files.numbered("node", "node"),
    }
}

struct Reading {
    files: Files,
    online: CpuMask,
    gaps: BTreeSet<Gap>,
}

impl Reading {
    fn describe(mut self, source: &SysfsSource) -> Result<Discovered, DiscoveryError> {
        let caches = self.caches()?;
        let of_level = |level| caches.iter().filter(move |((of, ..), _)| *of == level);
        let l3_caches = (0..).zip(of_level(L3)).map(|(id, ((_, _, cpus), &size_bytes))| CacheDescription {
            id,
            cpus: cpus.clone(),
            size_bytes,
        });
        let mut description = MachineDescription {
            packages: self.packages()?,
            numa_nodes: self.numa_nodes(source.proc.as_deref())?,
            l3_caches: l3_caches.collect(),
            cores: self.cores()?,
            isolated: source.isolated()?.intersect(&self.online),
            offline: self.present()?.subtract(&self.online),
            ..MachineDescription::default()
        };
        description.dies = shape::dies(&description, self.sets("die_cpus")?);
        let l2 = of_level(L2).map(|((_, _, cpus), _)| cpus.clone()).collect();
        description.clusters = shape::clusters(&description, self.sets("cluster_cpus")?, l2);
        description.cpu_kinds = shape::cpu_kinds(&description, kinds::cpu_kinds(&source.root, &self.online)?);
        description.pci_devices = devices::pci_devices(&source.root, &self.online)?;
        let mut found = Discovered { description, gaps: Vec::new() };
        match source.allowed()? {
            Some(allowed) => found.withhold(&self.online.subtract(&allowed)),
            None if source.proc.is_some() => drop(self.gaps.insert(Gap::Disallowed)),
            None => {}
        }
        found.gaps = self.gaps.into_iter().collect();
        Ok(found)
    }

    fn present(&self) -> Result<CpuMask, DiscoveryError> {
        match self.files.list("cpu/present")? {
            Some(present) => Ok(present),
            None => self.files.numbered("cpu", "cpu"),
        }
    }

    /// The CPUs that `cpu*/topology/NAME` puts together, by list or by mask.
    fn sets(&self, name: &str) -> Result<Vec<CpuMask>, DiscoveryError> {
        let mut sets = BTreeSet::new();
        for cpu in self.online.iter() {
            let together = self.together(&format!("cpu/cpu{cpu}/topology/{name}"), &self.online)?;
            sets.extend(together.filter(|cpus| cpus.contains(cpu)));
        }
        Ok(sets.into_iter().collect())
    }

    /// What a `NAME_list` file says, or the mask of the same name that older kernels have.
    fn together(&self, name: &str, within: &CpuMask) -> Result<Option<CpuMask>, DiscoveryError> {
        let told = match self.files.list(&format!("{name}_list"))? {
            Some(cpus) => Some(cpus),
            None => self.files.mask(name)?,
        };
        Ok(told.map(|cpus| cpus.intersect(within)))
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
        Ok(shape::packages(packages, &ids, &self.online, &mut self.gaps))
    }

    fn cores(&mut self) -> Result<Vec<CoreDescription>, DiscoveryError> {
        let mut cores = BTreeMap::new();
        for cpu in self.online.iter() {
            let topology = format!("cpu/cpu{cpu}/topology");
            let siblings = match self.together(&format!("{topology}/core_cpus"), &self.online)? {
                Some(siblings) => Some(siblings),
                // The name before Linux 5.3.
                None => self.together(&format!("{topology}/thread_siblings"), &self.online)?,
            };
            let own = match siblings {
                Some(siblings) if siblings.contains(cpu) => self.one_core(cpu, siblings)?,
                _ => {
                    self.gaps.insert(Gap::Cores);
                    CpuMask::from_ids([cpu])
                }
            };
            cores.insert((own.first(), own.clone()), own);
        }
        Ok((0..).zip(cores.into_values()).map(|(id, cpus)| CoreDescription { id, cpus }).collect())
    }

    /// Siblings that the kernel numbers as cores of their own are such: AMD's compute units of two cores each.
    fn one_core(&self, cpu: u32, siblings: CpuMask) -> Result<CpuMask, DiscoveryError> {
        let core_id = |cpu| self.files.integer(&format!("cpu/cpu{cpu}/topology/core_id"));
        let own = core_id(cpu)?;
        for other in siblings.iter() {
            if let (Some(own), Some(other)) = (own, core_id(other)?)
                && own != other
            {
                return Ok(CpuMask::from_ids([cpu]));
            }
        }
        Ok(siblings)
    }

    /// Sizes in bytes of the data caches of levels 2 and 3, by level, lowest CPU and CPUs.
    fn caches(&mut self) -> Result<Caches, DiscoveryError> {
        let mut caches = Caches::new();
        let mut told = false;
        for cpu in self.online.iter() {
            let folder = format!("cpu/cpu{cpu}/cache");
            for index in self.files.numbered(&folder, "index")?.iter() {
                let cache = format!("{folder}/index{index}");
                told = true;
                // Index 3 is not everywhere level 3, and instruction caches have levels too.
                let level = self.files.number(&format!("{cache}/level"))?.filter(|level| matches!(*level, L2 | L3));
                let Some(level) = level else { continue };
                if self.files.text(&format!("{cache}/type"))?.as_deref() == Some("Instruction") {
                    continue;
                }
                let sharing = match self.files.list(&format!("{cache}/shared_cpu_list"))? {
                    Some(sharing) => Some(sharing),
                    None => self.files.mask(&format!("{cache}/shared_cpu_map"))?,
                };
                let cpus = sharing.unwrap_or_default().intersect(&self.online);
                if cpus.is_empty() {
                    self.gaps.insert(Gap::Caches);
                    continue;
                }
                let size_bytes = self.files.size_bytes(&format!("{cache}/size"))?.unwrap_or(0);
                caches.insert((level, cpus.first(), cpus), size_bytes);
            }
        }
        if !told {
            self.gaps.insert(Gap::Caches);
        }
        Ok(caches)
    }

    fn numa_nodes(&mut self, proc: Option<&Path>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        let ids: Vec<u32> = numa_ids(&self.files)?.iter().collect();
        if ids.is_empty() {
            return self.one_numa_node(proc);
        }
        let mut described = Vec::with_capacity(ids.len());
        for &id in &ids {
            let folder = format!("node/node{id}");
            let told = match self.files.list(&format!("{folder}/cpulist"))? {
                Some(cpus) => Some(cpus),
                None => self.files.mask(&format!("{folder}/cpumap"))?,
            };
            let cpus = told.unwrap_or_default().intersect(&self.online);
            let memory_bytes = self.files.mem_total_bytes(&format!("{folder}/meminfo"))?;
            let row = self.files.row(&format!("{folder}/distance"))?.unwrap_or_default();
            // The kernel writes one value per online node, in ascending order of the nodes; 0 where firmware told none.
            let distances: Vec<_> = if row.len() == ids.len() && !row.contains(&0) {
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
            let huge_pages = if memory_bytes.is_some() { self.huge_pages(&folder)? } else { Vec::new() };
            let memory_bytes = memory_bytes.unwrap_or(0);
            described.push(NumaDescription { id, cpus, memory_bytes, huge_pages, kind: None, distances });
        }
        Ok(described)
    }

    /// Those that are there; a size of which there are none is left out.
    fn huge_pages(&mut self, node: &str) -> Result<Vec<HugePages>, DiscoveryError> {
        let folder = format!("{node}/hugepages");
        let sizes = self.files.entries(&folder)?;
        if sizes.is_empty() {
            self.gaps.insert(Gap::HugePages);
        }
        let mut pages = Vec::new();
        for entry in sizes {
            let size = entry.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB"));
            let Some(kib) = size.and_then(|size| size.parse::<u64>().ok()) else { continue };
            let count = self.files.number(&format!("{folder}/{entry}/nr_hugepages"))?.unwrap_or(0);
            if count > 0 {
                pages.push(HugePages { page_bytes: kib.saturating_mul(1024), count });
            }
        }
        pages.sort_unstable();
        Ok(pages)
    }

    fn one_numa_node(&mut self, proc: Option<&Path>) -> Result<Vec<NumaDescription>, DiscoveryError> {
        self.gaps.insert(Gap::NumaNodes);
        let memory_bytes = match proc {
            Some(proc) => Files::below(proc.to_owned()).mem_total_bytes("meminfo")?,
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
