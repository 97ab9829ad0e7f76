//! From a checked description to dense indices and precomputed masks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::check::Checked;
use super::parts::Parts;
use super::{CacheGroup, Core, LOCAL_DISTANCE, Machine, MachineDescription, NumaNode, REMOTE_DISTANCE, Siblings};
use crate::CpuMask;
use crate::sparse::SparseMask;

/// Where a core sorts: NUMA node (dense), L3 (by id; none last), irregular after regular, lowest CPU.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Place {
    numa: usize,
    l3: (bool, u32),
    irregular: bool,
    lowest_cpu: u32,
}

pub(super) fn build(description: &MachineDescription, checked: Checked) -> Machine {
    let mut nodes: Vec<_> = description.numa_nodes.iter().collect();
    nodes.sort_by_key(|node| node.id);
    let numa_ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
    let smt_width = regular_width(description);

    let mut placed: Vec<(Place, &CpuMask)> = description
        .cores
        .iter()
        .map(|core| (place(description, &checked, &numa_ids, smt_width, &core.cpus), &core.cpus))
        .collect();
    placed.sort_by_key(|(place, _)| *place);

    let groups = group(&placed, description);
    let numa_nodes = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let own = span(groups.iter().map(|group| group.numa == index));
            let regular_cores = groups[own.clone()].iter().map(|group| group.regular.len() as u32).sum();
            NumaNode { cpus: node.cpus.clone(), groups: own, regular_cores }
        })
        .collect::<Vec<_>>();
    let cores: Vec<Core> =
        placed.iter().map(|&(_, cpus)| Core { cpus: cpus.clone(), threads: SparseMask::of(cpus) }).collect();
    let regular = groups.iter().flat_map(|group| &cores[group.regular.clone()]);
    let siblings = Siblings::of(regular);

    let packages: BTreeMap<u32, &CpuMask> = description.packages.iter().map(|entry| (entry.id, &entry.cpus)).collect();
    let l3_caches: BTreeMap<u32, &CpuMask> =
        description.l3_caches.iter().map(|entry| (entry.id, &entry.cpus)).collect();
    let distances = distances(description, &numa_ids);
    let far = Distances::new(&distances, &numa_nodes);
    Machine {
        parts: Parts::of(description, &nodes),
        distance_classes: far.classes(),
        even_distance: far.even(),
        core_of_cpu: core_of_cpu(&checked.cpus, &cores),
        siblings,
        cpus: checked.cpus,
        smt_width,
        package_ids: packages.keys().copied().collect(),
        package_cpus: packages.into_values().cloned().collect(),
        numa_memory_bytes: nodes.iter().map(|node| node.memory_bytes).collect(),
        numa_nodes,
        distances,
        numa_ids,
        l3_ids: l3_caches.keys().copied().collect(),
        l3_cpus: l3_caches.into_values().cloned().collect(),
        groups,
        cores,
    }
}

fn regular_width(description: &MachineDescription) -> u32 {
    let mut cpus_by_width: BTreeMap<u32, u32> = BTreeMap::new();
    for core in &description.cores {
        *cpus_by_width.entry(core.cpus.len()).or_default() += core.cpus.len();
    }
    cpus_by_width.into_iter().max_by_key(|&(width, cpus)| (cpus, width)).map_or(1, |(width, _)| width)
}

fn place(
    description: &MachineDescription,
    checked: &Checked,
    numa_ids: &[u32],
    smt_width: u32,
    cpus: &CpuMask,
) -> Place {
    // The check has shown that a core has CPUs and that each has a NUMA node, so the defaults are never taken.
    let lowest_cpu = cpus.first().unwrap_or(0);
    let numa = checked
        .numa_nodes
        .of(lowest_cpu)
        .and_then(|position| numa_ids.binary_search(&description.numa_nodes[position].id).ok())
        .unwrap_or(0);
    let l3 = match checked.l3_caches.of(lowest_cpu) {
        Some(position) => (false, description.l3_caches[position].id),
        None => (true, 0),
    };
    Place { numa, l3, irregular: cpus.len() != smt_width, lowest_cpu }
}

/// Neighbours in `placed` with the same NUMA node and L3 form a group; groups of irregular cores alone are kept empty.
fn group(placed: &[(Place, &CpuMask)], description: &MachineDescription) -> Vec<CacheGroup> {
    let mut groups = Vec::new();
    let mut start = 0;
    for same in placed.chunk_by(|(a, _), (b, _)| (a.numa, a.l3) == (b.numa, b.l3)) {
        let regular = same.iter().take_while(|(place, _)| !place.irregular).count();
        let cpus_of = |same: &[(Place, &CpuMask)]| same.iter().flat_map(|(_, cpus)| cpus.iter()).collect::<CpuMask>();
        let cpus = cpus_of(same);
        let l3 = description.l3_caches.iter().find(|l3| l3.cpus.intersects(&cpus));
        groups.push(CacheGroup {
            numa: same[0].0.numa,
            regular: start..start + regular,
            leads: SparseMask::of(&same[..regular].iter().map(|(place, _)| place.lowest_cpu).collect()),
            threads: SparseMask::of(&cpus_of(&same[..regular])),
            l3_cpus: SparseMask::of(l3.map_or(&cpus, |l3| &l3.cpus)),
            cpus: SparseMask::of(&cpus),
        });
        start += same.len();
    }
    groups
}

/// The one run of `true`; empty if there is none.
fn span(flags: impl Iterator<Item = bool>) -> Range<usize> {
    let mut range = 0..0;
    for (index, _) in flags.enumerate().filter(|(_, flag)| *flag) {
        if range.is_empty() {
            range.start = index;
        }
        range.end = index + 1;
    }
    range
}

fn core_of_cpu(cpus: &CpuMask, cores: &[Core]) -> Vec<u32> {
    let mut owners = vec![u32::MAX; cpus.last().map_or(0, |last| last as usize + 1)];
    for (index, core) in (0u32..).zip(cores) {
        for cpu in core.cpus.iter() {
            owners[cpu as usize] = index;
        }
    }
    owners
}

fn distances(description: &MachineDescription, numa_ids: &[u32]) -> Vec<u32> {
    let count = numa_ids.len();
    let mut matrix = vec![REMOTE_DISTANCE; count * count];
    for index in 0..count {
        matrix[index * count + index] = LOCAL_DISTANCE;
    }
    for node in &description.numa_nodes {
        for distance in &node.distances {
            if let (Ok(from), Ok(to)) = (numa_ids.binary_search(&node.id), numa_ids.binary_search(&distance.to)) {
                matrix[from * count + to] = distance.value;
            }
        }
    }
    matrix
}

/// The distances of the NUMA nodes with CPUs, both ways added.
struct Distances<'a> {
    matrix: &'a [u32],
    count: usize,
    with_cpus: Vec<usize>,
}

impl<'a> Distances<'a> {
    fn new(matrix: &'a [u32], nodes: &[NumaNode]) -> Self {
        let with_cpus = (0..nodes.len()).filter(|&index| !nodes[index].cpus.is_empty()).collect();
        Self { matrix, count: nodes.len(), with_cpus }
    }

    fn between(&self, a: usize, b: usize) -> u64 {
        u64::from(self.matrix[a * self.count + b]) + u64::from(self.matrix[b * self.count + a])
    }

    /// By dense index; nodes without CPUs are all of class 0, nobody asks. Being alike is transitive (the distance
    /// between two of one class is that to any third of it), so the first of a class speaks for it.
    fn classes(&self) -> Vec<u16> {
        let mut classes = vec![0; self.count];
        let mut firsts: Vec<usize> = Vec::new();
        for &own in &self.with_cpus {
            let alike = |first: usize| {
                let mut others = self.with_cpus.iter().filter(|&&other| other != own && other != first);
                others.all(|&other| self.between(own, other) == self.between(first, other))
            };
            let class = firsts.iter().position(|&first| alike(first)).unwrap_or(firsts.len());
            if class == firsts.len() {
                firsts.push(own);
            }
            classes[own] = class as u16;
        }
        classes
    }

    /// None also for a single node.
    fn even(&self) -> Option<u32> {
        let pairs =
            || self.with_cpus.iter().enumerate().flat_map(|(i, &a)| self.with_cpus[..i].iter().map(move |&b| (a, b)));
        let (a, b) = pairs().next()?;
        let distance = self.between(a, b);
        pairs().all(|(a, b)| self.between(a, b) == distance).then(|| u32::try_from(distance).ok())?
    }
}
