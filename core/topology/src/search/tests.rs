//! The work of a search is bounded whatever machine it is given; counted, not timed.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::greedy::MAX_GREEDY_LOOKS;
use super::{MAX_NUMA_SETS, MAX_SEARCH_STEPS, Search, subsets};
use crate::demand::{Demand, Span};
use crate::{
    CacheDescription, ContainerCpus, CoreDescription, CpuMask, CpuRequest, FreeSummary, Machine, MachineDescription,
    NodeFree, NumaDescription, NumaDistance, PackageDescription, Surroundings, Wish,
};

/// One CPU a core, `l3` caches of `cores` cores in each NUMA node; no two nodes have the same distances if `uneven`.
fn machine(nodes: u32, l3: u32, cores: u32, uneven: bool) -> Machine {
    let cpus = |first: u32, count: u32| CpuMask::from_ids(first..first + count);
    let (own, all) = (l3 * cores, nodes * l3 * cores);
    let distance = |a: u32, b: u32| NumaDistance { to: b, value: 20 + (a * 7919 + b * 104_729) % 97 };
    let distances = |a: u32| (0..nodes).filter(|&b| uneven && b != a).map(|b| distance(a, b)).collect();
    let numa = |id: u32| NumaDescription {
        id,
        cpus: cpus(id * own, own),
        memory_bytes: 1,
        distances: distances(id),
        ..NumaDescription::default()
    };
    Machine::new(&MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: cpus(0, all) }],
        numa_nodes: (0..nodes).map(numa).collect(),
        l3_caches: (0..nodes * l3)
            .map(|id| CacheDescription { id, cpus: cpus(id * cores, cores), size_bytes: 1 })
            .collect(),
        cores: (0..all).map(|id| CoreDescription { id, cpus: cpus(id, 1) }).collect(),
        ..MachineDescription::default()
    })
    .unwrap()
}

/// Steps of a search that finds something, and how many nodes that takes.
fn steps(machine: &Machine, taken: &CpuMask, memory: &[u64], cores: u32, memory_bytes: u64) -> (u64, usize) {
    let free = machine.cpus().subtract(taken);
    let free = NodeFree { cpus: &free, memory_free_bytes: memory, huge_pages: &[], shared_reserve: 0 };
    let summary = FreeSummary::new(machine, &free);
    let supply = summary.supply(&Wish::default()).unwrap();
    let wish = Wish::default();
    let demand = Demand { units: cores, memory_bytes, huge_pages: &[], wish, span: Span::Together };
    let mut tie = |_: &[u16], _: &crate::rank::Rank| 0;
    let mut search = Search::new(machine, &supply, &demand, &mut tie);
    search.several(2);
    let found = search.best.as_ref().unwrap();
    let held = |&position: &u16| memory[usize::from(position)];
    assert!(found.nodes.iter().map(held).sum::<u64>() >= memory_bytes);
    assert!(found.nodes.is_sorted());
    (search.steps, found.nodes.len())
}

/// Largest step count there can be: the exact search runs out, then growth takes all it may.
fn bound(nodes: usize, groups: u64) -> u64 {
    let starts = (MAX_GREEDY_LOOKS / (nodes * nodes)).max(1) as u64;
    MAX_SEARCH_STEPS + groups / super::GROUPS_PER_STEP + starts * ((nodes * nodes) as u64 + groups)
}

#[test]
fn of_256_nodes_nearly_all_are_needed() {
    for uneven in [false, true] {
        let machine = machine(256, 1, 4, uneven);
        let (steps, nodes) = steps(&machine, &CpuMask::new(), &[100; 256], 4, 25_000);
        assert_eq!(nodes, 250);
        assert!(steps <= 256 * 256, "{steps}");
    }
}

#[test]
fn no_shape_passes_the_bound() {
    // Memory where no core is, so that sums promise what no small set can keep.
    let apart = |nodes: u32| (0..nodes).map(|node| u64::from(node % 2) * 100).collect::<Vec<_>>();
    for (nodes, l3, cores) in [(6, 100, 2), (16, 1, 8), (16, 128, 2), (17, 20, 4), (43, 4, 2), (160, 2, 2)] {
        let machine = machine(nodes, l3, cores, true);
        let own = l3 * cores;
        // Even nodes keep their cores, odd ones one each; within a node the caches are of different fill.
        let taken: CpuMask = (0..nodes * own)
            .filter(|cpu| if cpu / own % 2 == 1 { cpu % own > 0 } else { cpu % (own / 2 + 3) == 1 })
            .collect();
        let free = machine.cpus().subtract(&taken).len();
        let memory = apart(nodes);
        let all_memory: u64 = memory.iter().sum();
        for (cores, bytes) in [(free / 3, all_memory / 3), (free / 2, all_memory / 2), (free - 2, 1), (own, all_memory)]
        {
            let (steps, _) = steps(&machine, &taken, &memory, cores, bytes);
            assert!(steps <= bound(nodes as usize, u64::from(nodes * l3)), "{nodes} {l3} {cores}: {steps}");
        }
    }
}

/// What the crate's documentation promises: sixteen nodes that have nothing in common are searched to the end.
#[test]
fn sixteen_nodes_are_always_searched_exactly() {
    let machine = machine(16, 4, 4, true);
    let memory: Vec<u64> = (0..16).map(|node| 90 + node).collect();
    for (cores, bytes) in [(8 * 16, 0), (1, 8 * 97), (7 * 16 + 1, 700), (12 * 16, 1_000)] {
        let (steps, _) = steps(&machine, &CpuMask::new(), &memory, cores, bytes);
        assert!(steps < MAX_SEARCH_STEPS, "{steps}");
    }
    // Half of the nodes have the cores, the others the memory: all sizes up to fourteen are tried in vain.
    let taken: CpuMask = machine.cpus().iter().filter(|cpu| cpu / 16 % 2 == 1 && cpu % 16 > 0).collect();
    let memory: Vec<u64> = (0..16).map(|node| node % 2 * 100 + 1).collect();
    let (steps, _) = steps(&machine, &taken, &memory, 7 * 16 + 7, 7 * 101);
    assert!(steps < MAX_SEARCH_STEPS, "{steps}");
}

#[test]
fn evaluate_and_choose_end_at_the_same_place() {
    // 16 nodes of 128 caches run out of steps: the score must still be the choice's.
    let machine = machine(16, 128, 4, true);
    let taken: CpuMask = machine.cpus().iter().filter(|cpu| cpu % 7 == 0 || cpu % 11 == 3).collect();
    let cpus = machine.cpus().subtract(&taken);
    let free = NodeFree { cpus: &cpus, memory_free_bytes: &[100; 16], huge_pages: &[], shared_reserve: 0 };
    let request = CpuRequest {
        containers: vec![ContainerCpus { name: "c".into(), cpus: cpus.len() / 2 - 9, ..ContainerCpus::default() }],
        memory_bytes: 0,
        ..CpuRequest::default()
    };
    let crate::Verdict::Fits(choice) = crate::choose(&machine, &free, &request, &Surroundings::default()) else {
        unreachable!()
    };
    assert_eq!(crate::evaluate(&machine, &free, &request, &Surroundings::default()), Ok(choice.score));
}

#[test]
fn the_bound_is_the_halves_of_sixteen() {
    assert_eq!(subsets(16, 8), MAX_NUMA_SETS);
    assert_eq!(subsets(4, 2), 6);
    assert_eq!(subsets(5, 5), 1);
    assert!(subsets(200, 100) > MAX_NUMA_SETS);
}
