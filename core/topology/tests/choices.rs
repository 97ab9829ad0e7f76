//! Choices on machines of real size: who gets which cores, how scores compare, and the search beyond 16 NUMA nodes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use fairlead_topology::{
    CacheDescription, Choice, ContainerCpus, CoreDescription, CpuMask, CpuRequest, FreeSummary, Machine,
    MachineDescription, NodeFree, NumaDescription, PackageDescription, Surroundings, Verdict, choose, evaluate,
};
use proptest::prelude::*;

/// Siblings are `cpu` and `cpu + cores`.
fn description(numa: u32, l3_per_numa: u32, cores_per_l3: u32, smt: u32) -> MachineDescription {
    let per_numa = l3_per_numa * cores_per_l3;
    let cores = numa * per_numa;
    let cpus = |first: u32, count: u32| -> CpuMask {
        (0..smt).flat_map(|thread| first + thread * cores..first + count + thread * cores).collect()
    };
    MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: cpus(0, cores) }],
        numa_nodes: (0..numa)
            .map(|id| NumaDescription {
                id,
                cpus: cpus(id * per_numa, per_numa),
                memory_bytes: 100,
                distances: vec![],
                ..NumaDescription::default()
            })
            .collect(),
        l3_caches: (0..numa * l3_per_numa)
            .map(|id| CacheDescription { id, cpus: cpus(id * cores_per_l3, cores_per_l3), size_bytes: 1 })
            .collect(),
        cores: (0..cores).map(|id| CoreDescription { id, cpus: cpus(id, 1) }).collect(),
        ..MachineDescription::default()
    }
}

fn machine(numa: u32, l3_per_numa: u32, cores_per_l3: u32, smt: u32) -> Machine {
    Machine::new(&description(numa, l3_per_numa, cores_per_l3, smt)).unwrap()
}

fn request(containers: &[u32], memory_bytes: u64) -> CpuRequest {
    let container =
        |(i, &cpus): (usize, &u32)| ContainerCpus { name: format!("c{i}"), cpus, ..ContainerCpus::default() };
    CpuRequest {
        containers: containers.iter().enumerate().map(container).collect(),
        memory_bytes,
        ..CpuRequest::default()
    }
}

fn fit(machine: &Machine, taken: &str, containers: &[u32], memory_bytes: u64) -> Choice {
    let free = machine.cpus().subtract(&CpuMask::parse_list(taken).unwrap());
    let memory = vec![100; machine.numa_ids().len()];
    let free = NodeFree { cpus: &free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 0 };
    match choose(machine, &free, &request(containers, memory_bytes), &Surroundings::default()) {
        Verdict::Fits(choice) => choice,
        Verdict::DoesNotFit(no) => panic!("{no}"),
    }
}

fn lists(choice: &Choice) -> Vec<String> {
    choice.containers.iter().map(|(_, cpus)| cpus.to_string()).collect()
}

#[test]
fn the_tightest_hole_is_filled_first() {
    // EPYC-like: 4 NUMA nodes, 2 L3 each, 4 cores each, 2 threads: 32 cores.
    let epyc = machine(4, 2, 4, 2);
    // Of L3 3 (cores 12-15) three cores are taken: a single core goes there.
    assert_eq!(fit(&epyc, "12-14", &[2], 0).cpus.to_string(), "15,47");
    // An odd request holds the sibling back.
    let odd = fit(&epyc, "", &[3], 0);
    assert_eq!((lists(&odd), odd.cpus.to_string()), (vec!["0-1,32".to_owned()], "0-1,32-33".to_owned()));
    // Five cores need two L3 of one node.
    assert_eq!(fit(&epyc, "0-3", &[10], 0).cpus.to_string(), "8-12,40-44");
    // Twelve cores need two nodes.
    assert_eq!(fit(&epyc, "", &[24], 0).memory, [(0, 0), (1, 0)]);
}

#[test]
fn containers_stay_together_where_the_cores_allow() {
    let epyc = machine(4, 2, 4, 1);
    // 3 + 4 + 1 cores fill two L3: the four stay in one, the others share the other.
    assert_eq!(lists(&fit(&epyc, "", &[3, 4, 1], 0)), ["4-6", "0-3", "7"]);
    // 7 + 8 cores fill two NUMA nodes, each container within one.
    assert_eq!(lists(&fit(&epyc, "", &[7, 8], 0)), ["8-14", "0-7"]);
    // The tightest two nodes have six and eight cores free; the container too large for one starts in the larger.
    assert_eq!(lists(&fit(&epyc, "0-1", &[10, 2], 0)), ["4-5,8-15", "6-7"]);
}

#[test]
fn memory_follows_the_cores() {
    let two = machine(2, 1, 4, 1);
    assert_eq!(fit(&two, "", &[2], 80).memory, [(0, 80)]);
    assert_eq!(fit(&two, "", &[6], 90).memory, [(0, 60), (1, 30)]);
    // More than one node has: two nodes, the cores stay with one L3.
    let wide = fit(&two, "", &[2], 150);
    assert_eq!((wide.cpus.to_string(), wide.memory), ("0-1".to_owned(), vec![(0, 100), (1, 50)]));
}

#[test]
fn cores_of_another_width_stay_shared() {
    let mut hybrid = description(1, 1, 4, 2);
    hybrid.cores[2].cpus = CpuMask::from_ids([2]);
    hybrid.cores.push(CoreDescription { id: 9, cpus: CpuMask::from_ids([6]) });
    let hybrid = Machine::new(&hybrid).unwrap();
    assert_eq!((hybrid.smt_width(), hybrid.regular_core_count(), hybrid.core_count()), (2, 3, 5));
    assert_eq!(fit(&hybrid, "", &[6], 0).cpus.to_string(), "0-1,3-5,7");
}

#[test]
fn better_places_score_higher() {
    let epyc = machine(4, 2, 4, 2);
    let score = |taken: &str, cpus: u32| fit(&epyc, taken, &[cpus], 0).score.alignment;
    let whole_l3_left = score("", 2);
    let fills_a_hole = score("0-2,8-14", 2);
    assert!(fills_a_hole > whole_l3_left, "{fills_a_hole:?} {whole_l3_left:?}");
    // One L3, two L3, two nodes, four nodes.
    let wider = [8, 16, 32, 64].map(|cpus| score("", cpus));
    assert!(wider.is_sorted_by(|a, b| a > b), "{wider:?}");
    assert_eq!((score("", 8) >= 85, score("", 32)), (true, score("", 32).clamp(40, 63)));
}

#[test]
fn many_numa_nodes_are_searched_within_bounds() {
    let large = machine(40, 1, 2, 1);
    // Two and three nodes are still searched exactly, twelve greedily.
    for (cpus, nodes) in [(4, 2), (6, 3), (24, 12)] {
        assert_eq!(fit(&large, "", &[cpus], 0).memory.len(), nodes);
    }
    // Every node half taken, and memory that only many nodes together have.
    let odd: Vec<String> = (0..40).map(|node| (node * 2).to_string()).collect();
    assert_eq!(fit(&large, &odd.join(","), &[20], 0).memory.len(), 20);
    assert_eq!(fit(&large, "", &[2], 3_950).memory.len(), 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Real shapes, random holes: the score is the choice's, and evaluating neither fits more nor less.
    #[test]
    fn evaluate_is_choose(
        (numa, l3, cores, smt) in prop::sample::select(vec![(2u32, 1u32, 16u32, 2u32), (4, 2, 4, 2), (1, 1, 16, 1), (8, 2, 4, 2), (20, 1, 2, 1)]),
        taken in prop::collection::vec(any::<u32>(), 0..60),
        memory in prop::collection::vec(0u64..100, 20),
        containers in prop::collection::vec(1u32..40, 1..4),
        wanted in 0u64..300,
        reserve in 0u32..8,
    ) {
        let machine = machine(numa, l3, cores, smt);
        let taken: CpuMask = taken.into_iter().map(|cpu| cpu % (numa * l3 * cores * smt)).collect();
        let cpus = machine.cpus().subtract(&taken);
        let free = NodeFree { cpus: &cpus, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: reserve };
        let request = request(&containers, wanted);
        let around = Surroundings::default();
        let summary = FreeSummary::new(&machine, &free);
        prop_assert_eq!(summary.evaluate(&machine, &request), evaluate(&machine, &free, &request, &around));
        match (choose(&machine, &free, &request, &around), summary.evaluate(&machine, &request)) {
            (Verdict::Fits(choice), Ok(score)) => {
                prop_assert_eq!(choice.score, score);
                prop_assert!(score.alignment <= 100);
                prop_assert!(choice.cpus.is_subset(&cpus));
                // Giving it away and asking again never gives the same CPU twice.
                let rest = cpus.subtract(&choice.cpus);
                let again = NodeFree { cpus: &rest, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: reserve };
                if let Verdict::Fits(second) = choose(&machine, &again, &request, &around) {
                    prop_assert!(!second.cpus.intersects(&choice.cpus));
                }
            }
            (Verdict::DoesNotFit(a), Err(b)) => prop_assert_eq!(a, b),
            (a, b) => prop_assert!(false, "{a:?} but {b:?}"),
        }
    }
}
