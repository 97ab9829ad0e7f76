//! The choice of exact CPUs and memory on one machine.

use crate::caches::Positions;
use crate::deal::{Dealer, Part, Parts};
use crate::demand::{Demand, Span, Supply};
use crate::fill::evenly;
use crate::free::{Rest, Usable};
use crate::machine::{CacheGroup, SparseMask};
use crate::pick::{Pick, pick, pick_one, touched};
use crate::pool::{GroupFree, Pool, Units};
use crate::rank::Rank;
use crate::search::search;
use crate::{CpuClass, CpuMask, CpuRequest, Machine, NoFit, Score, Surroundings, Terms};
use smallvec::SmallVec;

/// What is not reserved on a machine.
#[derive(Debug, Clone, Copy)]
pub struct NodeFree<'a> {
    /// CPUs without exclusive reservation; CPUs the machine does not have are ignored.
    pub cpus: &'a CpuMask,
    /// Memory not reserved, bytes, by dense NUMA index; missing entries count as 0.
    pub memory_free_bytes: &'a [u64],
    /// Huge pages not reserved; NUMA nodes and sizes that are missing have none.
    pub huge_pages: &'a [NumaHugePages],
    /// So many CPUs must stay outside exclusive reservations after the choice.
    pub shared_reserve: u32,
}

/// Huge pages of one size on one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumaHugePages {
    /// Id of the NUMA node.
    pub numa_node: u32,
    /// Size of one page, bytes.
    pub page_bytes: u64,
    /// Bytes in such pages.
    pub bytes: u64,
}

/// Exact CPUs and memory for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// For each container of the request, in its order: exactly as many CPUs as it asked for. Those of an init container
    /// are others' too; those of all others are nobody else's.
    pub containers: Vec<(String, CpuMask)>,
    /// Everything taken: whole cores, so also the siblings of a core that is used in part; or exactly the threads that the
    /// containers run on, where single ones were wished for.
    pub cpus: CpuMask,
    /// Bytes per NUMA node (its id), ascending; for a request without memory the nodes of the CPUs with 0 bytes.
    pub memory: Vec<(u32, u64)>,
    /// Huge pages by NUMA node (its id) and size, ascending.
    pub huge_pages: Vec<NumaHugePages>,
    /// Whether the CPUs are isolated ones.
    pub isolated: bool,
    /// How good it is.
    pub score: Score,
    /// What was weighed.
    pub terms: Terms,
}

/// Answer to a request on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It fits so.
    Fits(Choice),
    /// It does not.
    DoesNotFit(NoFit),
}

/// The score of what [`choose`] would choose, without choosing. Callers that ask often, and for pods without
/// surroundings, keep a [`FreeSummary`](crate::FreeSummary).
///
/// # Errors
/// [`NoFit`] if, and only if, [`choose`] says so too.
pub fn evaluate(
    machine: &Machine,
    free: &NodeFree<'_>,
    request: &CpuRequest,
    around: &Surroundings,
) -> Result<Score, NoFit> {
    let usable = Usable::new(machine, free, request.wish.class, around);
    let (pool, _) = Pool::count(&usable.count(machine, free, request.wish.threads, around));
    Supply { rest: &Rest::new(machine, free), pool: &pool }.evaluate(machine, request)
}

/// Chooses exact CPUs in the order the crate's documentation states.
///
/// The units (whole cores, or threads) are then dealt to the containers, largest first: each gets the tightest of the
/// chosen L3 parts that holds it whole, else the tightest NUMA node, else it starts in the NUMA node with most left. An init
/// container gets its own of all that the sidecars before it do not hold.
/// Memory and huge pages follow the units in proportion as far as they are free there; the rest is taken from the lowest
/// NUMA ids.
#[must_use]
pub fn choose(machine: &Machine, free: &NodeFree<'_>, request: &CpuRequest, around: &Surroundings) -> Verdict {
    let usable = Usable::new(machine, free, request.wish.class, around);
    let count = usable.count(machine, free, request.wish.threads, around);
    let (pool, groups) = Pool::count(&count);
    let rest = Rest::new(machine, free);
    let supply = Supply { rest: &rest, pool: &pool };
    let demand = match supply.demand(request) {
        Ok(demand) => demand,
        Err(no) => return Verdict::DoesNotFit(no),
    };
    let dealer = Dealer { machine, single: count.single_threads };
    let place = Place { machine, usable: &usable.cpus, units: &count.usable, supply, demand, groups: &groups, dealer };
    let mut looks_left = MAX_TIE_LOOKS;
    let found = search(machine, &supply, &demand, &mut |nodes, rank| place.tie(nodes, rank, &mut looks_left));
    let Some(found) = found else {
        return Verdict::DoesNotFit(supply.nothing_found(&demand));
    };
    let parts = place.take(&found.nodes);
    let (memory, huge_pages) = place.memory(&found.nodes, &parts);
    let cpus = dealer.taken(&parts);
    let containers = dealer.deal(request, &parts);
    let isolated = request.wish.class == CpuClass::Isolated;
    let score = supply.score(&found.rank, &demand);
    let terms = Terms::of(machine, free.cpus, &cpus, &memory, around);
    Verdict::Fits(Choice { containers, cpus, memory, huge_pages, isolated, score, terms })
}

/// How many cache groups, each against each other, all tie-breakers of one choice may weigh; then the first set stays.
const MAX_TIE_LOOKS: usize = 1 << 22;

/// One choice being worked out.
struct Place<'a> {
    machine: &'a Machine,
    usable: &'a CpuMask,
    units: &'a Units,
    supply: Supply<'a>,
    demand: Demand<'a>,
    /// By dense index of the cache group.
    groups: &'a [GroupFree],
    dealer: Dealer<'a>,
}

/// Cache groups: their dense indices, and what is free in them.
type Groups = (SmallVec<[usize; 32]>, SmallVec<[GroupFree; 32]>);

impl Place<'_> {
    /// Dense NUMA index of a position in the pool.
    fn numa(&self, position: u16) -> usize {
        usize::from(self.supply.pool.nodes()[usize::from(position)].index)
    }

    /// The cache groups of these nodes, ascending.
    fn groups_of(&self, nodes: &[u16]) -> Groups {
        let of_node = |&position: &u16| self.machine.nodes()[self.numa(position)].groups.clone();
        let indices: SmallVec<[usize; 32]> = nodes.iter().flat_map(of_node).collect();
        let groups = indices.iter().map(|&group| self.groups[group]).collect();
        (indices, groups)
    }

    /// What is free in the L3 caches that such a share of a node touches; less is better.
    fn touched(&self, position: u16, units: u32) -> i64 {
        let own = self.machine.nodes()[self.numa(position)].groups.clone();
        let touched = i64::from(touched(&self.groups[own], units, self.demand.tight()));
        if self.demand.tight() { touched } else { -touched }
    }

    /// What each of these nodes gives of a pod that is spread.
    fn shares(&self, nodes: &[u16]) -> SmallVec<[u32; 16]> {
        let (units, tight) = (self.demand.units, self.demand.tight());
        let mut touched = |position, units| self.touched(position, units);
        evenly(&self.supply, nodes, units, tight, &mut touched).0
    }

    /// Tells sets of equal rank apart that touch several L3 caches: by what these have free, less what is taken.
    fn tie(&self, nodes: &[u16], rank: &Rank, looks_left: &mut usize) -> u32 {
        if rank.l3_caches < 2 {
            return 0;
        }
        let groups: usize = nodes.iter().map(|&position| self.machine.nodes()[self.numa(position)].groups.len()).sum();
        let Some(left) = looks_left.checked_sub(groups * groups) else {
            return u32::MAX;
        };
        *looks_left = left;
        let touched: u32 = match self.demand.span {
            Span::Nodes(_) => {
                let shares = self.shares(nodes);
                nodes
                    .iter()
                    .zip(shares)
                    .map(|(&position, share)| self.touched(position, share).unsigned_abs() as u32)
                    .sum()
            }
            Span::Together | Span::OneL3 => touched(&self.groups_of(nodes).1, self.demand.units, self.demand.tight()),
        };
        let left = touched.saturating_sub(self.demand.units);
        // MAX_CPUS is far below the half.
        if self.demand.tight() { left } else { u32::MAX / 2 - left }
    }

    /// The lowest free units of the cache groups picked.
    fn take(&self, nodes: &[u16]) -> Parts {
        if let Span::Nodes(_) = self.demand.span {
            let shares = self.shares(nodes);
            return nodes.iter().zip(shares).flat_map(|(&position, share)| self.take_of(&[position], share)).collect();
        }
        self.take_of(nodes, self.demand.units)
    }

    fn take_of(&self, nodes: &[u16], units: u32) -> Parts {
        let (indices, groups) = self.groups_of(nodes);
        let tight = self.demand.tight();
        let picked = match self.demand.span {
            Span::OneL3 => pick_one(&groups, units, tight),
            Span::Together | Span::Nodes(_) => pick(&groups, units, tight),
        };
        let Pick { whole, part, units } = picked.unwrap_or_default();
        let indices_of = |positions: Positions| positions.into_iter().map(|position| indices[usize::from(position)]);
        let mut taken: Parts =
            indices_of(whole).map(|group| self.part(group, self.units.of_group(self.group(group)))).collect();
        taken.extend(self.partly(indices_of(part), units));
        taken.sort_unstable_by_key(|part| part.group);
        taken
    }

    fn group(&self, group: usize) -> &CacheGroup {
        &self.machine.groups()[group]
    }

    fn part(&self, group: usize, units: SparseMask) -> Part {
        Part { numa: self.group(group).numa, group, units }
    }

    /// So many units of these cache groups, the lowest first; of threads first those of partly used cores, so that whole
    /// cores stay whole.
    fn partly(&self, groups: impl Iterator<Item = usize> + Clone, count: u32) -> Parts {
        let mut missing = count;
        let mut lowest = |group: usize, units: &SparseMask| {
            let units = self.dealer.lowest(group, units, missing);
            missing -= units.len();
            units
        };
        if !self.dealer.single {
            let own = groups.map(|group| self.part(group, lowest(group, &self.units.of_group(self.group(group)))));
            return own.filter(|part| !part.units.is_empty()).collect();
        }
        let siblings = self.machine.siblings();
        let of_whole_cores = siblings.cores(&CpuMask::from_words(&siblings.whole(self.usable.words())));
        let single = self.usable.subtract(&of_whole_cores);
        let mut parts: Parts = SmallVec::new();
        for group in groups.clone() {
            let units = self.group(group).threads.within(single.words());
            parts.push(self.part(group, lowest(group, &units)));
        }
        for (own, group) in parts.iter_mut().zip(groups) {
            let units = self.group(group).threads.within(of_whole_cores.words());
            own.units = own.units.or(&lowest(group, &units));
        }
        parts.retain(|part| !part.units.is_empty());
        parts
    }

    /// Bytes, and huge pages, of each node that gives some.
    fn memory(&self, nodes: &[u16], parts: &Parts) -> (Vec<(u32, u64)>, Vec<NumaHugePages>) {
        let units_of = |position: u16| -> u32 {
            let own = parts.iter().filter(|part| part.numa == self.numa(position));
            own.map(|part| part.units.len()).sum()
        };
        let units: SmallVec<[u32; 16]> = nodes.iter().map(|&position| units_of(position)).collect();
        let id = |position: u16| self.machine.numa_ids()[self.numa(position)];
        let free = |&position: &u16| self.supply.pool.nodes()[usize::from(position)].memory_bytes;
        let bytes = in_proportion(self.demand.memory_bytes, self.demand.units, &units, nodes.iter().map(free));
        let mut huge_pages = Vec::new();
        for need in self.demand.huge_pages {
            let free = |&position: &u16| self.supply.rest.pages(need.page_bytes, position);
            let pages = in_proportion(need.pages(), self.demand.units, &units, nodes.iter().map(free));
            let given = nodes.iter().zip(pages).filter(|&(_, pages)| pages > 0);
            huge_pages.extend(given.map(|(&position, pages)| NumaHugePages {
                numa_node: id(position),
                page_bytes: need.page_bytes,
                bytes: pages.saturating_mul(need.page_bytes),
            }));
        }
        huge_pages.sort_unstable();
        let without_memory = self.demand.memory_bytes == 0;
        let given = nodes.iter().map(|&position| id(position)).zip(bytes);
        let gives = |(id, bytes): &(u32, u64)| {
            without_memory || *bytes > 0 || huge_pages.iter().any(|pages| pages.numa_node == *id)
        };
        (given.filter(gives).collect(), huge_pages)
    }
}

/// An amount split over nodes as these give `units` of `all`, as far as it is free there; the rest from the lowest.
fn in_proportion(amount: u64, all: u32, units: &[u32], free: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut missing = amount;
    let mut given: Vec<(u64, u64)> = Vec::with_capacity(units.len());
    for (&own, free) in units.iter().zip(free) {
        let share = u128::from(amount) * u128::from(own) / u128::from(all);
        // At most the amount, since the units of all nodes are the demand.
        let part = u64::try_from(share).unwrap_or(amount).min(free);
        missing -= part;
        given.push((part, free));
    }
    for (part, free) in &mut given {
        let more = missing.min(*free - *part);
        *part += more;
        missing -= more;
    }
    given.into_iter().map(|(part, _)| part).collect()
}
