//! What is free on a machine, counted once a snapshot so that evaluating a request costs some tens of nanoseconds.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::machine::{CacheGroup, Machine};
use crate::search::search;
use crate::{NodeFree, Score, Wish};

/// When a container runs, and so what of its CPUs others may use again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs with the other app containers, after all init containers have ended.
    #[default]
    App,
    /// An init container that is never ended (`restartPolicy: Always`): runs with everything after it, gives nothing back.
    Sidecar,
    /// Runs alone beside the sidecars before it, and ends: uses the CPUs that the app containers get.
    Init,
}

/// Exclusive whole CPUs for one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerCpus {
    /// The container's name, unique in its pod.
    pub name: String,
    /// How many CPUs; each container starts on a core of its own. 0 is allowed and gets none.
    pub cpus: u32,
    /// When it runs.
    pub role: Role,
}

/// Huge pages of one size that a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HugePageNeed {
    /// Size of one page, bytes.
    pub page_bytes: u64,
    /// Bytes in such pages.
    pub bytes: u64,
}

/// What a pod asks of one node: exclusive CPUs per container, in whole physical cores, and memory beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuRequest {
    /// The containers that get exclusive CPUs, in the order of the pod: init containers and sidecars as they start, then
    /// the others.
    pub containers: Vec<ContainerCpus>,
    /// Memory of the whole pod, bytes, without huge pages; must fit into the NUMA nodes chosen.
    pub memory_bytes: u64,
    /// Huge pages of the whole pod by size, ascending; must fit into the NUMA nodes chosen.
    pub huge_pages: Vec<HugePageNeed>,
    /// What it wishes beyond the numbers.
    pub wish: Wish,
}

impl CpuRequest {
    /// Whole cores needed on a machine with this many threads per core.
    #[must_use]
    pub fn cores(&self, smt_width: u32) -> u64 {
        self.containers.iter().map(|container| u64::from(container.cpus.div_ceil(smt_width.max(1)))).sum()
    }
}

/// Why a request does not fit. CPU numbers count whole cores: siblings of a half-used core included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoFit {
    /// No container asks for a CPU.
    #[error("no container asks for exclusive CPUs")]
    NothingRequested,
    /// It would not fit the machine if everything were free.
    #[error("needs {needed_cpus} CPUs in whole cores, the machine has {machine_cpus}")]
    LargerThanMachine {
        /// CPUs needed, in whole cores.
        needed_cpus: u64,
        /// CPUs in regular cores.
        machine_cpus: u32,
    },
    /// Too few whole cores are free.
    #[error("needs {needed_cpus} CPUs in whole cores, {free_cpus} are free")]
    NotEnoughFreeCpus {
        /// CPUs needed, in whole cores.
        needed_cpus: u64,
        /// CPUs of wholly free regular cores.
        free_cpus: u32,
    },
    /// The shared pool would become smaller than its reserve.
    #[error("needs {needed_cpus} CPUs in whole cores, the shared pool can spare {spare_cpus}")]
    SharedReserve {
        /// CPUs needed, in whole cores.
        needed_cpus: u64,
        /// Free CPUs above the reserve.
        spare_cpus: u32,
    },
    /// The NUMA nodes with CPUs have too little free memory together.
    #[error("needs {needed_bytes} bytes of memory, the NUMA nodes with CPUs have {free_bytes} free")]
    NotEnoughMemory {
        /// Bytes asked for.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
}

/// Cores and memory that a request comes down to on one machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// At least 1.
    pub(crate) cores: u32,
    pub(crate) memory_bytes: u64,
}

/// One NUMA node that has CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumaFree {
    pub(crate) memory_bytes: u64,
    /// Regular cores.
    pub(crate) cores: u16,
    /// Those of them that are wholly free.
    pub(crate) free_cores: u16,
    /// Dense index in the machine.
    pub(crate) index: u16,
    /// Where its cache groups end in `FreeSummary::groups`; they start where the previous node's end.
    groups_end: u16,
}

/// Free whole cores per NUMA node and cache group, and free memory, of one node at one moment.
///
/// Whoever holds a snapshot builds one per node when that node's reservations or topology change and keeps it beside
/// the [`Machine`]; [`FreeSummary::evaluate`] then reads only this. Up to 8 NUMA nodes and 32 L3 caches it is one
/// flat value without heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeSummary {
    smt_width: u32,
    largest_l3: u32,
    largest_numa: u32,
    machine_cores: u32,
    free_cores: u32,
    spare_cpus: u32,
    memory_bytes: u64,
    numa_nodes: SmallVec<[NumaFree; 8]>,
    /// Free cores of the cache groups, NUMA node by NUMA node, largest first within each.
    groups: SmallVec<[u16; 32]>,
    even_distance: Option<u32>,
}

impl FreeSummary {
    /// Counts what is free.
    #[must_use]
    pub fn new(machine: &Machine, free: &NodeFree<'_>) -> Self {
        Self::counted(machine, free).0
    }

    /// The summary, and the free cores of every cache group of the machine in the machine's order.
    pub(crate) fn counted(machine: &Machine, free: &NodeFree<'_>) -> (Self, SmallVec<[u16; 32]>) {
        let words = free.cpus.words();
        let count = |group: &CacheGroup| {
            machine.cores()[group.regular.clone()].iter().filter(|core| core.is_within(words)).count() as u16
        };
        let in_order: SmallVec<[u16; 32]> = machine.groups().iter().map(count).collect();
        let mut numa_nodes: SmallVec<[NumaFree; 8]> = SmallVec::new();
        // Nodes without CPUs have no groups, so those of the others follow one another.
        let mut groups = in_order.clone();
        for (index, node) in machine.nodes().iter().enumerate().filter(|(_, node)| !node.cpus.is_empty()) {
            let own = &mut groups[node.groups.clone()];
            own.sort_unstable_by_key(|&free_cores| Reverse(free_cores));
            numa_nodes.push(NumaFree {
                memory_bytes: free.memory_free_bytes.get(index).copied().unwrap_or(0),
                cores: node.regular_cores as u16,
                free_cores: own.iter().sum(),
                index: index as u16,
                groups_end: node.groups.end as u16,
            });
        }
        let summary = Self {
            smt_width: machine.smt_width(),
            largest_l3: machine.groups().iter().map(|group| group.regular.len()).max().unwrap_or(0) as u32,
            largest_numa: numa_nodes.iter().map(|node| u32::from(node.cores)).max().unwrap_or(0),
            machine_cores: numa_nodes.iter().map(|node| u32::from(node.cores)).sum(),
            free_cores: numa_nodes.iter().map(|node| u32::from(node.free_cores)).sum(),
            spare_cpus: free.cpus.intersect(machine.cpus()).len().saturating_sub(free.shared_reserve),
            memory_bytes: numa_nodes.iter().fold(0, |sum: u64, node| sum.saturating_add(node.memory_bytes)),
            numa_nodes,
            groups,
            even_distance: machine.even_distance(),
        };
        (summary, in_order)
    }

    /// The score the choice for this request would have; `machine` is the one the summary was made of.
    ///
    /// # Errors
    /// [`NoFit`] if, and only if, [`crate::choose`] says so too.
    pub fn evaluate(&self, machine: &Machine, request: &CpuRequest) -> Result<Score, NoFit> {
        let demand = self.demand(request)?;
        let found = search(machine, self, &demand, &mut |_, _| 0).ok_or_else(|| self.not_enough_cpus(&demand))?;
        Ok(self.score(&found.rank, demand.cores))
    }

    /// The request in cores, if the sums allow it. Sums suffice: all NUMA nodes together are one of the sets searched.
    pub(crate) fn demand(&self, request: &CpuRequest) -> Result<Demand, NoFit> {
        let cores = request.cores(self.smt_width);
        let needed_cpus = cores.saturating_mul(u64::from(self.smt_width));
        if cores == 0 {
            return Err(NoFit::NothingRequested);
        }
        if cores > u64::from(self.machine_cores) {
            return Err(NoFit::LargerThanMachine { needed_cpus, machine_cpus: self.machine_cores * self.smt_width });
        }
        if cores > u64::from(self.free_cores) {
            return Err(NoFit::NotEnoughFreeCpus { needed_cpus, free_cpus: self.free_cores * self.smt_width });
        }
        if needed_cpus > u64::from(self.spare_cpus) {
            return Err(NoFit::SharedReserve { needed_cpus, spare_cpus: self.spare_cpus });
        }
        if request.memory_bytes > self.memory_bytes {
            return Err(NoFit::NotEnoughMemory { needed_bytes: request.memory_bytes, free_bytes: self.memory_bytes });
        }
        Ok(Demand { cores: cores as u32, memory_bytes: request.memory_bytes })
    }

    /// What a search that found nothing comes to; the sums of [`FreeSummary::demand`] leave no such case.
    pub(crate) fn not_enough_cpus(&self, demand: &Demand) -> NoFit {
        NoFit::NotEnoughFreeCpus {
            needed_cpus: u64::from(demand.cores) * u64::from(self.smt_width),
            free_cpus: self.free_cores * self.smt_width,
        }
    }

    pub(crate) fn largest_l3(&self) -> u32 {
        self.largest_l3
    }

    pub(crate) fn largest_numa(&self) -> u32 {
        self.largest_numa
    }

    pub(crate) fn nodes(&self) -> &[NumaFree] {
        &self.numa_nodes
    }

    /// Free cores of the cache groups of the node at `position`, largest first.
    pub(crate) fn groups_of(&self, position: usize) -> &[u16] {
        let start = position.checked_sub(1).map_or(0, |previous| self.numa_nodes[previous].groups_end);
        &self.groups[usize::from(start)..usize::from(self.numa_nodes[position].groups_end)]
    }

    /// The distance, both ways added, of every two NUMA nodes with CPUs, if it is everywhere the same.
    pub(crate) fn even_distance(&self) -> Option<u32> {
        self.even_distance
    }
}
