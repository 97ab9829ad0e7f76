//! `choose` against brute force: every set of NUMA nodes and every set of free cores, on small machines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

mod shape;

use std::collections::BTreeSet;

use fairlead_topology::{
    Choice, ContainerCpus, CpuMask, CpuRequest, Machine, NoFit, NodeFree, Score, Surroundings, Verdict, choose,
    evaluate,
};
use proptest::prelude::*;
use shape::{Shape, irregular, wide};

/// The documented order, measure by measure.
type Key = (usize, u64, usize, usize, usize, Vec<usize>, Vec<(usize, usize)>, Vec<usize>);

/// All ways to serve the request, and the least of them.
fn brute_force(shape: &Shape, free: &[bool], cores: usize, memory_bytes: u64) -> Option<(Key, CpuMask)> {
    let order = shape.order();
    let candidates: Vec<usize> = (0..order.len()).filter(|&position| free[order[position]]).collect();
    let mut best: Option<Key> = None;
    for bits in 1u32..1 << shape.distances.len() {
        let nodes: Vec<usize> = (0..shape.distances.len()).filter(|node| bits >> node & 1 == 1).collect();
        if nodes.iter().map(|&node| shape.memory_free_bytes[node]).sum::<u64>() < memory_bytes {
            continue;
        }
        let inside: Vec<usize> =
            candidates.iter().copied().filter(|&position| nodes.contains(&shape.numa[order[position]])).collect();
        let distance = nodes
            .iter()
            .flat_map(|&a| nodes.iter().map(move |&b| (a, b)))
            .filter(|(a, b)| a != b)
            .map(|(a, b)| u64::from(shape.distances[a][b]))
            .sum();
        for pick in (0u32..1 << inside.len()).filter(|pick| pick.count_ones() as usize == cores) {
            let chosen: Vec<usize> = (0..inside.len()).filter(|i| pick >> i & 1 == 1).map(|i| inside[i]).collect();
            let group = |position: usize| (shape.numa[order[position]], shape.l3[order[position]]);
            let groups: BTreeSet<(usize, usize)> = chosen.iter().map(|&position| group(position)).collect();
            let in_groups = candidates.iter().filter(|&&position| groups.contains(&group(position))).count();
            let key = (
                nodes.len(),
                distance,
                groups.len(),
                inside.len() - cores,
                in_groups - cores,
                nodes.clone(),
                groups.into_iter().collect::<Vec<_>>(),
                chosen,
            );
            if best.as_ref().is_none_or(|held| key < *held) {
                best = Some(key);
            }
        }
    }
    let key = best?;
    let cpus = key.7.iter().flat_map(|&position| shape.cpus(order[position]).iter().collect::<Vec<_>>()).collect();
    Some((key, cpus))
}

/// What every choice must be, whatever was asked.
fn lawful(shape: &Shape, machine: &Machine, free: &NodeFree<'_>, request: &CpuRequest, choice: &Choice) {
    assert!(choice.cpus.is_subset(free.cpus));
    assert_eq!(machine.whole_cores(&choice.cpus), choice.cpus, "whole cores");
    assert!(free.cpus.subtract(&choice.cpus).len() >= free.shared_reserve);
    let mut seen = CpuMask::new();
    for ((name, cpus), container) in choice.containers.iter().zip(&request.containers) {
        assert_eq!((name, cpus.len()), (&container.name, container.cpus));
        assert!(cpus.is_subset(&choice.cpus));
        let whole = machine.whole_cores(cpus);
        assert_eq!(whole.len(), container.cpus.div_ceil(shape.smt) * shape.smt, "no core more than needed");
        assert!(!whole.intersects(&seen), "no core is shared by containers");
        seen.union_with(&whole);
    }
    assert_eq!(seen, choice.cpus);
    assert_eq!(choice.memory.iter().map(|(_, bytes)| bytes).sum::<u64>(), request.memory_bytes);
    for &(id, bytes) in &choice.memory {
        assert!(bytes <= free.memory_free_bytes[machine.numa_index(id).unwrap()]);
    }
}

fn check(shape: &Shape, machine: &Machine, free: &[bool], containers: &[u32], memory_bytes: u64, shared_reserve: u32) {
    let cpus = shape.cpus_of(|core| free[core]);
    let node = NodeFree { cpus: &cpus, memory_free_bytes: &shape.memory_free_bytes, huge_pages: &[], shared_reserve };
    let request = CpuRequest {
        containers: (0..)
            .zip(containers)
            .map(|(i, &cpus)| ContainerCpus { name: format!("c{i}"), cpus, ..ContainerCpus::default() })
            .collect(),
        memory_bytes,
        ..CpuRequest::default()
    };
    let verdict = choose(machine, &node, &request, &Surroundings::default());
    let score = evaluate(machine, &node, &request, &Surroundings::default());
    let cores = containers.iter().map(|cpus| cpus.div_ceil(shape.smt) as usize).sum::<usize>();
    let spared = cores as u32 * shape.smt + shared_reserve <= cpus.len();
    match (brute_force(shape, free, cores, memory_bytes).filter(|_| spared && cores > 0), &verdict) {
        (None, Verdict::DoesNotFit(no)) => assert_eq!(score, Err(*no)),
        (Some((key, expected)), Verdict::Fits(choice)) => {
            assert_eq!(
                choice.cpus, expected,
                "{shape:?} free {free:?} wants {containers:?}, {memory_bytes} bytes: {key:?}"
            );
            assert_eq!(score, Ok(choice.score));
            let nodes: BTreeSet<u32> = key.5.iter().map(|&node| Shape::numa_id(node)).collect();
            assert!(choice.memory.iter().all(|(id, _)| nodes.contains(id)));
            lawful(shape, machine, &node, &request, choice);
        }
        (expected, _) => panic!("{shape:?} free {free:?} wants {containers:?}: {expected:?} but {verdict:?}"),
    }
}

#[test]
fn every_free_set_of_every_regular_machine() {
    for (numa_nodes, l3_per_numa, cores_per_l3) in [
        (1, 0, 5),
        (1, 1, 6),
        (1, 2, 3),
        (2, 0, 3),
        (2, 1, 3),
        (2, 2, 1),
        (2, 2, 2),
        (3, 1, 2),
        (3, 2, 1),
        (4, 1, 2),
        (4, 2, 1),
    ] {
        for smt in [1, 2] {
            let shape = Shape::regular(smt, numa_nodes, l3_per_numa, cores_per_l3);
            let machine = shape.machine();
            let cores = shape.cores();
            // Seven or eight cores have many sets; every third of them is enough beside the random machines below.
            let step = if cores > 6 { 3 } else { 1 };
            for bits in (0u32..1 << cores).step_by(step) {
                let free: Vec<bool> = (0..cores).map(|core| bits >> core & 1 == 1).collect();
                for wanted in 1..=cores as u32 {
                    let memory = [0, 150, 90][(bits + wanted) as usize % 3];
                    check(&shape, &machine, &free, &[wanted * smt - (wanted + bits) % smt], memory, 0);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn wide_machines(shape in wide(), taken in 0usize..30, wanted in 3u32..8, memory in prop_oneof![3 => Just(0u64), 1 => 0u64..500]) {
        let machine = shape.machine();
        let free: Vec<bool> = (0..shape.cores()).map(|core| core != taken).collect();
        check(&shape, &machine, &free, &[wanted], memory, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn random_machines(
        shape in irregular(),
        bits in any::<u8>(),
        containers in prop::collection::vec(0u32..6, 0..4),
        memory in prop_oneof![Just(0u64), 0u64..500],
        reserve in 0u32..4,
    ) {
        let machine = shape.machine();
        let free: Vec<bool> = (0..shape.cores()).map(|core| bits >> core & 1 == 1 || bits.count_ones() > 5).collect();
        check(&shape, &machine, &free, &containers, memory, reserve);
    }
}

/// Two nodes with as much free, each needing two caches: the one whose caches fill exactly wins over the lower id.
#[test]
fn caches_break_a_tie_of_nodes() {
    let mut shape = Shape::regular(1, 2, 2, 2);
    shape.l3 = vec![0, 0, 1, 1, 0, 0, 1, 2];
    let machine = shape.machine();
    check(&shape, &machine, &[true; 8], &[3], 0, 0);
    let node = NodeFree { cpus: machine.cpus(), memory_free_bytes: &[], huge_pages: &[], shared_reserve: 0 };
    let request = CpuRequest {
        containers: vec![ContainerCpus { name: "c".into(), cpus: 3, ..ContainerCpus::default() }],
        memory_bytes: 0,
        ..CpuRequest::default()
    };
    assert!(
        matches!(choose(&machine, &node, &request, &Surroundings::default()), Verdict::Fits(choice) if choice.cpus.to_string() == "4-6")
    );
}

#[test]
fn refusals_say_why() {
    let shape = Shape::regular(2, 2, 1, 2);
    let machine = shape.machine();
    let ask = |cpus: &str, containers: &[u32], memory_bytes, shared_reserve| {
        let cpus = CpuMask::parse_list(cpus).unwrap();
        let request = CpuRequest {
            containers: containers
                .iter()
                .map(|&cpus| ContainerCpus { name: "c".into(), cpus, ..ContainerCpus::default() })
                .collect(),
            memory_bytes,
            ..CpuRequest::default()
        };
        let free = NodeFree { cpus: &cpus, memory_free_bytes: &[100, 50], huge_pages: &[], shared_reserve };
        evaluate(&machine, &free, &request, &Surroundings::default())
    };
    assert_eq!(ask("0-7", &[], 0, 0), Err(NoFit::NothingRequested));
    assert_eq!(ask("0-7", &[0], 0, 0), Err(NoFit::NothingRequested));
    assert_eq!(ask("0-7", &[9], 0, 0), Err(NoFit::LargerThanMachine { needed_cpus: 10, machine_cpus: 8 }));
    assert_eq!(
        ask("0-7", &[u32::MAX, u32::MAX], 0, 0),
        Err(NoFit::LargerThanMachine { needed_cpus: 1 << 33, machine_cpus: 8 })
    );
    assert_eq!(ask("0-5", &[5], 0, 0), Err(NoFit::NotEnoughFreeCpus { needed_cpus: 6, free_cpus: 4 }));
    assert_eq!(ask("0-7", &[5], 0, 3), Err(NoFit::SharedReserve { needed_cpus: 6, spare_cpus: 5 }));
    assert_eq!(ask("0-7", &[5], 151, 2), Err(NoFit::NotEnoughMemory { needed_bytes: 151, free_bytes: 150 }));
    assert!(ask("0-7", &[5], 150, 2).is_ok());
    // CPUs the machine does not have are no reserve either.
    assert_eq!(ask("0-7,100-200", &[8], 0, 1), Err(NoFit::SharedReserve { needed_cpus: 8, spare_cpus: 7 }));
    assert!(matches!(ask("0-7", &[2], 0, 0), Ok(Score { alignment: 64..=100, .. })));
}
