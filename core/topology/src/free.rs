//! What is free on a machine, counted once a snapshot so that evaluating a request costs some tens of nanoseconds.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::demand::Supply;
use crate::machine::Machine;
use crate::pool::{Count, Pool, Units};
use crate::search::search;
use crate::{CpuClass, CpuMask, CpuRequest, NoFit, NodeFree, NumaHugePages, Score, Surroundings, Threads, Wish};

/// Free pages of one size in one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PagesFree {
    page_bytes: u64,
    /// Among the NUMA nodes with CPUs.
    position: u16,
    pages: u64,
}

/// What is free beside CPUs, and what holds for whole cores, threads, regular and isolated CPUs alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) smt_width: u32,
    /// Free CPUs of the shared pool above its reserve.
    pub(crate) spare_cpus: u32,
    /// Of the NUMA nodes with CPUs.
    memory_bytes: u64,
    huge_pages: Vec<PagesFree>,
    /// The distance, both ways added, of every two NUMA nodes with CPUs, if it is everywhere the same.
    pub(crate) even_distance: Option<u32>,
}

impl Rest {
    pub(crate) fn new(machine: &Machine, free: &NodeFree<'_>) -> Self {
        let nodes = machine.nodes().iter().enumerate();
        let with_cpus: SmallVec<[usize; 16]> =
            nodes.filter(|(_, node)| !node.cpus.is_empty()).map(|(index, _)| index).collect();
        let memory = with_cpus.iter().map(|&index| free.memory_free_bytes.get(index).copied().unwrap_or(0));
        let pages_free = |pages: &NumaHugePages| {
            let position = with_cpus.binary_search(&machine.numa_index(pages.numa_node)?).ok()? as u16;
            let page_bytes = pages.page_bytes;
            Some(PagesFree { page_bytes, position, pages: pages.bytes.checked_div(page_bytes)? })
        };
        let mut huge_pages: Vec<PagesFree> = free.huge_pages.iter().filter_map(pages_free).collect();
        huge_pages.sort_unstable();
        Self {
            smt_width: machine.smt_width(),
            spare_cpus: shared_pool(machine, free).saturating_sub(free.shared_reserve),
            memory_bytes: memory.fold(0, u64::saturating_add),
            huge_pages,
            even_distance: machine.even_distance(),
        }
    }

    /// Free pages of that size in the node at `position`.
    pub(crate) fn pages(&self, page_bytes: u64, position: u16) -> u64 {
        let own = self.huge_pages.iter().filter(|free| (free.page_bytes, free.position) == (page_bytes, position));
        own.fold(0, |sum, free| sum.saturating_add(free.pages))
    }

    /// Whether all NUMA nodes with CPUs together have the memory and the huge pages.
    pub(crate) fn refuse_memory(&self, request: &CpuRequest) -> Result<(), NoFit> {
        if request.memory_bytes > self.memory_bytes {
            return Err(NoFit::NotEnoughMemory { needed_bytes: request.memory_bytes, free_bytes: self.memory_bytes });
        }
        for need in &request.huge_pages {
            let own = self.huge_pages.iter().filter(|free| free.page_bytes == need.page_bytes);
            let pages = own.fold(0u64, |sum, free| sum.saturating_add(free.pages));
            if need.pages() > pages {
                return Err(NoFit::NotEnoughHugePages {
                    page_bytes: need.page_bytes,
                    needed_bytes: need.pages().saturating_mul(need.page_bytes),
                    free_bytes: pages.saturating_mul(need.page_bytes),
                });
            }
        }
        Ok(())
    }
}

/// How many CPUs of the machine are free and not isolated.
fn shared_pool(machine: &Machine, free: &NodeFree<'_>) -> u32 {
    let isolated = machine.isolated().words().iter().chain(std::iter::repeat(&0));
    let free = free.cpus.words().iter().zip(machine.cpus().words());
    free.zip(isolated).map(|((free, own), isolated)| (free & own & !isolated).count_ones()).sum()
}

/// CPUs of one class of a machine; none: all of them.
fn class_cpus(machine: &Machine, class: CpuClass) -> Option<CpuMask> {
    match class {
        CpuClass::Regular if machine.isolated().is_empty() => None,
        CpuClass::Regular => Some(machine.cpus().subtract(machine.isolated())),
        CpuClass::Isolated => Some(machine.isolated().clone()),
    }
}

/// The CPUs that a request of such a wish may use, and the class they are of: never on a core with a disliked pod.
pub(crate) struct Usable<'a> {
    pub(crate) cpus: Cow<'a, CpuMask>,
    class: Option<CpuMask>,
}

impl<'a> Usable<'a> {
    pub(crate) fn new(machine: &Machine, free: &NodeFree<'a>, class: CpuClass, around: &Surroundings) -> Self {
        let class = class_cpus(machine, class);
        let mut cpus = Cow::Borrowed(free.cpus);
        if let Some(class) = &class {
            cpus.to_mut().intersect_with(class);
        }
        if !around.disliked.is_empty() {
            cpus.to_mut().subtract_with(&machine.whole_cores(&around.disliked));
        }
        Self { cpus, class }
    }

    pub(crate) fn count<'b>(
        &self,
        machine: &'b Machine,
        free: &NodeFree<'b>,
        threads: Threads,
        around: &'b Surroundings,
    ) -> Count<'b> {
        // On a machine without siblings a thread is a core.
        let single_threads = threads == Threads::Any && machine.smt_width() > 1;
        Count {
            machine,
            usable: Units::of(machine, &self.cpus, single_threads),
            class: self.class.as_ref().map(|class| Units::of(machine, class, single_threads)),
            memory_free_bytes: free.memory_free_bytes,
            single_threads,
            around,
        }
    }
}

/// Whole cores and threads of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    cores: Pool,
    /// None where they are the same.
    threads: Option<Pool>,
}

impl Class {
    fn new(machine: &Machine, free: &NodeFree<'_>, class: CpuClass) -> Self {
        let around = Surroundings::default();
        let usable = Usable::new(machine, free, class, &around);
        let pool = |threads| Pool::count(&usable.count(machine, free, threads, &around)).0;
        Self { cores: pool(Threads::WholeCores), threads: (machine.smt_width() > 1).then(|| pool(Threads::Any)) }
    }

    fn pool(&self, threads: Threads) -> &Pool {
        self.threads.as_ref().filter(|_| threads == Threads::Any).unwrap_or(&self.cores)
    }
}

/// Free CPUs per NUMA node and cache group, and free memory, of one node at one moment, for pods without surroundings.
///
/// Whoever holds a snapshot builds one per node when that node's reservations or topology change and keeps it beside
/// the [`Machine`]; [`FreeSummary::evaluate`] then reads only this, and allocates nothing up to 16 NUMA nodes and 32 L3
/// caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeSummary {
    rest: Rest,
    regular: Class,
    /// Only on machines that have isolated CPUs.
    isolated: Option<Box<Class>>,
}

impl FreeSummary {
    /// Counts what is free.
    #[must_use]
    pub fn new(machine: &Machine, free: &NodeFree<'_>) -> Self {
        let isolated = || Box::new(Class::new(machine, free, CpuClass::Isolated));
        Self {
            rest: Rest::new(machine, free),
            regular: Class::new(machine, free, CpuClass::Regular),
            isolated: (!machine.isolated().is_empty()).then(isolated),
        }
    }

    /// The score the choice for this request would have; `machine` is the one the summary was made of.
    ///
    /// # Errors
    /// [`NoFit`] if, and only if, [`crate::choose`] says so too.
    pub fn evaluate(&self, machine: &Machine, request: &CpuRequest) -> Result<Score, NoFit> {
        let units = request.units(self.rest.smt_width);
        let Some(supply) = self.supply(&request.wish) else {
            let needed_cpus = units.saturating_mul(u64::from(request.unit_cpus(self.rest.smt_width)));
            let none = NoFit::TooFewIsolatedCpus { needed_cpus, isolated_cpus: 0 };
            return Err(if units == 0 { NoFit::NothingRequested } else { none });
        };
        supply.evaluate(machine, request)
    }

    pub(crate) fn supply(&self, wish: &Wish) -> Option<Supply<'_>> {
        let class = match wish.class {
            CpuClass::Regular => &self.regular,
            CpuClass::Isolated => self.isolated.as_deref()?,
        };
        Some(Supply { rest: &self.rest, pool: class.pool(wish.threads) })
    }
}

impl Supply<'_> {
    pub(crate) fn evaluate(&self, machine: &Machine, request: &CpuRequest) -> Result<Score, NoFit> {
        let demand = self.demand(request)?;
        let found = search(machine, self, &demand, &mut |_, _| 0).ok_or_else(|| self.nothing_found(&demand))?;
        Ok(self.score(&found.rank, &demand))
    }
}
