//! What was weighed for a choice, number by number: for people who ask why.

use serde::Serialize;
use smallvec::SmallVec;

use crate::machine::Words;
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
        let gives = |index: &usize| {
            let own = &machine.nodes()[*index];
            let of_memory = |(id, _): &(u32, u64)| machine.numa_index(*id) == Some(*index);
            memory.iter().any(of_memory) || own.cpus.intersects(taken)
        };
        let nodes: SmallVec<[usize; 16]> = (0..machine.nodes().len()).filter(gives).collect();
        let pairs = nodes.iter().enumerate().flat_map(|(i, &a)| nodes[..i].iter().map(move |&b| (a, b)));
        let left: Words = left(free.words(), taken.words());
        let mut terms = Self {
            numa_nodes: nodes.len() as u32,
            distance: pairs.map(|(a, b)| machine.both_ways(a, b)).sum(),
            ..Self::default()
        };
        for &node in &nodes {
            let node = &machine.nodes()[node];
            terms.numa_left_cpus += node.cpus.len_in(&left);
            for group in &machine.groups()[node.groups.clone()] {
                let own = group.cpus.len_in(taken.words());
                if own == 0 {
                    continue;
                }
                let own_if = |shared: bool| if shared { own } else { 0 };
                terms.l3_touched += 1;
                terms.near_cpus += own_if(group.cpus.intersects(around.near.words()));
                terms.disliked_cpus += own_if(group.l3_cpus.intersects(around.disliked.words()));
                terms.liked_cpus += own_if(group.l3_cpus.intersects(around.liked.words()));
                terms.l3_left_cpus += group.cpus.len_in(&left);
            }
        }
        terms
    }
}

/// What stays of `free`, in words.
fn left(free: &[u64], taken: &[u64]) -> Words {
    let taken = taken.iter().chain(std::iter::repeat(&0));
    free.iter().zip(taken).map(|(free, taken)| free & !taken).collect()
}
