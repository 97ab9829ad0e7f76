//! The choice of exact CPUs and memory on one machine.

use std::borrow::Cow;
use std::cmp::Reverse;

use crate::caches::tightest;
use crate::free::{CpuRequest, Demand, FreeSummary, NoFit};
use crate::search::{Found, search};
use crate::{CpuMask, Machine, Score, Surroundings, Terms};

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
    /// For each container of the request, in its order: exactly as many CPUs as it asked for.
    pub containers: Vec<(String, CpuMask)>,
    /// Everything taken: whole cores, so also the siblings of a core that is used in part.
    pub cpus: CpuMask,
    /// Bytes per NUMA node (its id), ascending; for a request without memory the nodes of the CPUs with 0 bytes.
    pub memory: Vec<(u32, u64)>,
    /// Huge pages by NUMA node (its id) and size, ascending.
    pub huge_pages: Vec<NumaHugePages>,
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
/// surroundings, keep a [`FreeSummary`].
///
/// # Errors
/// [`NoFit`] if, and only if, [`choose`] says so too.
pub fn evaluate(
    machine: &Machine,
    free: &NodeFree<'_>,
    request: &CpuRequest,
    around: &Surroundings,
) -> Result<Score, NoFit> {
    let cpus = usable(machine, free, around);
    FreeSummary::new(machine, &NodeFree { cpus: &cpus, ..*free }).evaluate(machine, request)
}

/// Chooses exact CPUs in the order the crate's documentation states.
///
/// The cores are then dealt to the containers, largest first: each gets the tightest of the chosen L3 parts that
/// holds it whole, else the tightest NUMA node, else it starts in the NUMA node with most cores left.
/// Memory follows the cores in proportion as far as it is free there; the rest is taken from the lowest NUMA ids.
#[must_use]
pub fn choose(machine: &Machine, free: &NodeFree<'_>, request: &CpuRequest, around: &Surroundings) -> Verdict {
    let cpus = usable(machine, free, around);
    let free = &NodeFree { cpus: &cpus, ..*free };
    let (summary, free_in_groups) = FreeSummary::counted(machine, free);
    let demand = match summary.demand(request) {
        Ok(demand) => demand,
        Err(no) => return Verdict::DoesNotFit(no),
    };
    let place = Place { machine, free, summary: &summary, demand };
    let mut looks_left = MAX_TIE_LOOKS;
    let found = search(machine, &summary, &demand, &mut |nodes, rank| {
        if rank.l3_caches < 2 {
            return 0;
        }
        let (groups, counts) = place.groups_of(nodes, &free_in_groups);
        let Some(left) = looks_left.checked_sub(groups.len() * groups.len()) else {
            return u32::MAX;
        };
        looks_left = left;
        tightest(&counts, rank.l3_caches as usize, demand.cores)
            .map_or(u32::MAX, |chosen| chosen.iter().map(|&index| counts[index]).sum::<u32>() - demand.cores)
    });
    let Some(found) = found else {
        return Verdict::DoesNotFit(summary.not_enough_cpus(&demand));
    };
    let parts = place.take(&found, &free_in_groups);
    let memory = place.memory(&found, &parts);
    let mut cpus = CpuMask::new();
    for &core in parts.iter().flat_map(|part| &part.cores) {
        machine.cores()[core].add_to(&mut cpus);
    }
    let containers = deal(machine, request, parts);
    let score = summary.score(&found.rank, demand.cores);
    let terms = Terms::of(machine, free.cpus, &cpus, &memory, around);
    Verdict::Fits(Choice { containers, cpus, memory, huge_pages: Vec::new(), score, terms })
}

/// What is free but for cores with a disliked pod on them.
fn usable<'a>(machine: &Machine, free: &NodeFree<'a>, around: &Surroundings) -> Cow<'a, CpuMask> {
    if around.disliked.is_empty() {
        return Cow::Borrowed(free.cpus);
    }
    Cow::Owned(free.cpus.subtract(&machine.whole_cores(&around.disliked)))
}

/// How many cache groups, each against each other, all tie-breakers of one choice may weigh; then the first set stays.
const MAX_TIE_LOOKS: usize = 1 << 22;

/// One choice being worked out.
struct Place<'a> {
    machine: &'a Machine,
    free: &'a NodeFree<'a>,
    summary: &'a FreeSummary,
    demand: Demand,
}

/// Cores taken from one cache group.
struct Part {
    /// Dense index of the NUMA node.
    numa: usize,
    /// Dense indices, ascending.
    cores: Vec<usize>,
}

impl Place<'_> {
    /// Dense NUMA index of a position in the summary.
    fn numa(&self, position: u16) -> usize {
        usize::from(self.summary.nodes()[usize::from(position)].index)
    }

    /// The cache groups of these nodes, ascending, and what is free in each.
    fn groups_of(&self, nodes: &[u16], free_in_groups: &[u16]) -> (Vec<usize>, Vec<u32>) {
        let groups: Vec<usize> =
            nodes.iter().flat_map(|&position| self.machine.nodes()[self.numa(position)].groups.clone()).collect();
        let counts = groups.iter().map(|&group| u32::from(free_in_groups[group])).collect();
        (groups, counts)
    }

    /// The lowest free cores of the tightest cache groups. Each group gives at least one: with fewer groups the
    /// demand could not be met, so what is left over is less than the smallest of them.
    fn take(&self, found: &Found, free_in_groups: &[u16]) -> Vec<Part> {
        let words = self.free.cpus.words();
        let (groups, counts) = self.groups_of(&found.nodes, free_in_groups);
        let chosen = tightest(&counts, found.rank.l3_caches as usize, self.demand.cores).unwrap_or_default();
        let mut missing = self.demand.cores as usize;
        let mut parts = Vec::with_capacity(chosen.len());
        for group in chosen.into_iter().map(|index| &self.machine.groups()[groups[index]]) {
            let free = group.regular.clone().filter(|&core| self.machine.cores()[core].is_within(words));
            let cores: Vec<usize> = free.take(missing).collect();
            missing -= cores.len();
            parts.push(Part { numa: group.numa, cores });
        }
        parts
    }

    fn memory(&self, found: &Found, parts: &[Part]) -> Vec<(u32, u64)> {
        let wanted = self.demand.memory_bytes;
        let mut missing = wanted;
        let mut given: Vec<(usize, u64, u64)> = Vec::with_capacity(found.nodes.len());
        for &position in &found.nodes {
            let numa = self.numa(position);
            let free = self.summary.nodes()[usize::from(position)].memory_bytes;
            let own: usize = parts.iter().filter(|part| part.numa == numa).map(|part| part.cores.len()).sum();
            let share = u128::from(wanted) * own as u128 / u128::from(self.demand.cores);
            // At most `wanted`, since the cores of all nodes are the demand.
            let bytes = u64::try_from(share).unwrap_or(wanted).min(free);
            missing -= bytes;
            given.push((numa, bytes, free));
        }
        for (_, bytes, free) in &mut given {
            let more = missing.min(*free - *bytes);
            *bytes += more;
            missing -= more;
        }
        let without_memory = wanted == 0;
        given
            .into_iter()
            .filter(|&(_, bytes, _)| without_memory || bytes > 0)
            .map(|(numa, bytes, _)| (self.machine.numa_ids()[numa], bytes))
            .collect()
    }
}

fn deal(machine: &Machine, request: &CpuRequest, mut parts: Vec<Part>) -> Vec<(String, CpuMask)> {
    let width = machine.smt_width();
    let mut order: Vec<usize> = (0..request.containers.len()).collect();
    order.sort_by_key(|&index| (Reverse(request.containers[index].cpus), index));
    let mut masks = vec![CpuMask::new(); request.containers.len()];
    for index in order {
        let wanted = request.containers[index].cpus;
        let cores = draw(&mut parts, wanted.div_ceil(width) as usize);
        for (&core, used) in cores.iter().zip((0..wanted).step_by(width as usize)) {
            let core = &machine.cores()[core];
            if wanted - used >= width {
                core.add_to(&mut masks[index]);
            } else {
                masks[index].extend(core.cpus.iter().take((wanted - used) as usize));
            }
        }
    }
    request.containers.iter().zip(masks).map(|(container, mask)| (container.name.clone(), mask)).collect()
}

/// Takes `count` cores out of the parts for one container.
fn draw(parts: &mut [Part], count: usize) -> Vec<usize> {
    let whole = (0..parts.len()).filter(|&p| parts[p].cores.len() >= count).min_by_key(|&p| (parts[p].cores.len(), p));
    if let Some(part) = whole {
        return parts[part].cores.drain(..count).collect();
    }
    let left = |numa: usize, parts: &[Part]| -> usize {
        parts.iter().filter(|part| part.numa == numa).map(|part| part.cores.len()).sum()
    };
    let mut nodes: Vec<usize> = parts.iter().map(|part| part.numa).collect();
    nodes.dedup();
    let holding = nodes.iter().copied().filter(|&numa| left(numa, parts) >= count);
    if let Some(tight) = holding.min_by_key(|&numa| (left(numa, parts), numa)) {
        nodes = vec![tight];
    } else {
        nodes.sort_by_key(|&numa| (Reverse(left(numa, parts)), numa));
    }
    let mut drawn = Vec::with_capacity(count);
    for numa in nodes {
        let mut own: Vec<usize> = (0..parts.len()).filter(|&p| parts[p].numa == numa).collect();
        own.sort_by_key(|&p| (Reverse(parts[p].cores.len()), p));
        for part in own {
            let more = (count - drawn.len()).min(parts[part].cores.len());
            drawn.extend(parts[part].cores.drain(..more));
        }
    }
    drawn.sort_unstable();
    drawn
}
