//! What was weighed for a choice, number by number: for people who ask why.

use serde::Serialize;

use crate::{CpuMask, Machine, Surroundings};

/// The measures of a choice, in the order in which they are compared; all CPU numbers count what is taken, idle siblings
/// included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// NUMA nodes that give CPUs or memory.
    pub numa_nodes: u32,
    /// Sum of the distances between them, both directions, SLIT units.
    pub distance: u64,
    /// CPUs in an L3 (or, without L3, a NUMA node) that is near the devices wished for.
    pub near_cpus: u32,
    /// CPUs in an L3 with a disliked pod in it.
    pub disliked_cpus: u32,
    /// CPUs in an L3 with a liked pod in it.
    pub liked_cpus: u32,
    /// L3 caches touched; the parts of one L3 in two NUMA nodes count as two.
    pub l3_touched: u32,
    /// CPUs of those NUMA nodes that stay free.
    pub numa_left_cpus: u32,
    /// CPUs of those L3 caches that stay free.
    pub l3_left_cpus: u32,
}

impl Terms {
    /// Measures what was taken of `free`.
    pub(crate) fn of(
        machine: &Machine,
        free: &CpuMask,
        taken: &CpuMask,
        memory: &[(u32, u64)],
        around: &Surroundings,
    ) -> Self {
        let nodes: Vec<usize> = (0..machine.numa_ids().len())
            .filter(|&index| {
                let gives_cpus = machine.numa_cpus(index).is_some_and(|cpus| cpus.intersects(taken));
                gives_cpus || memory.iter().any(|(id, _)| machine.numa_index(*id) == Some(index))
            })
            .collect();
        let pairs = nodes.iter().enumerate().flat_map(|(i, &a)| nodes[..i].iter().map(move |&b| (a, b)));
        let left = free.subtract(taken);
        let mut terms = Self {
            numa_nodes: nodes.len() as u32,
            distance: pairs.map(|(a, b)| machine.both_ways(a, b)).sum(),
            ..Self::default()
        };
        for &node in &nodes {
            let cpus = &machine.nodes()[node].cpus;
            terms.numa_left_cpus += cpus.len_in(&left);
        }
        for group in machine.groups() {
            let own = group.cpus.len_in(taken);
            if own == 0 {
                continue;
            }
            let own_if = |shared: bool| if shared { own } else { 0 };
            terms.l3_touched += 1;
            terms.near_cpus += own_if(group.cpus.intersects(&around.near));
            terms.disliked_cpus += own_if(group.l3_cpus.intersects(&around.disliked));
            terms.liked_cpus += own_if(group.l3_cpus.intersects(&around.liked));
            terms.l3_left_cpus += group.cpus.len_in(&left);
        }
        terms
    }
}
