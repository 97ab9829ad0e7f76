//! What a choice costs: exact CPUs on a 512-CPU machine, and the evaluation of 5,000 ordinary nodes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fairlead_topology::{
    Align, CacheDescription, ContainerCpus, CoreDescription, CpuMask, CpuRequest, FreeSummary, Machine,
    MachineDescription, NodeFree, NumaDescription, PackageDescription, Surroundings, Threads, Wish, choose, evaluate,
};

/// Siblings are `cpu` and `cpu + cores`, as Linux numbers them on x86 servers.
fn machine(numa: u32, l3_per_numa: u32, cores_per_l3: u32) -> Machine {
    let per_numa = l3_per_numa * cores_per_l3;
    let cores = numa * per_numa;
    let cpus = |first: u32, count: u32| (first..first + count).chain(cores + first..cores + first + count).collect();
    let description = MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: cpus(0, cores) }],
        numa_nodes: (0..numa)
            .map(|id| NumaDescription {
                id,
                cpus: cpus(id * per_numa, per_numa),
                memory_bytes: 64 << 30,
                distances: vec![],
                ..NumaDescription::default()
            })
            .collect(),
        l3_caches: (0..numa * l3_per_numa)
            .map(|id| CacheDescription { id, cpus: cpus(id * cores_per_l3, cores_per_l3), size_bytes: 32 << 20 })
            .collect(),
        cores: (0..cores).map(|id| CoreDescription { id, cpus: cpus(id, 1) }).collect(),
        ..MachineDescription::default()
    };
    Machine::new(&description).unwrap()
}

/// Every `step`-th core is taken.
fn fragmented(machine: &Machine, step: usize) -> CpuMask {
    let mut free = machine.cpus().clone();
    for core in (0..machine.core_count()).step_by(step) {
        free.subtract_with(machine.core_cpus(core).unwrap());
    }
    free
}

fn request(cpus: u32) -> CpuRequest {
    CpuRequest {
        containers: vec![ContainerCpus { name: "work".into(), cpus, ..ContainerCpus::default() }],
        memory_bytes: 8 << 30,
        ..CpuRequest::default()
    }
}

fn bench_choose(criterion: &mut Criterion) {
    let machine = machine(8, 4, 8);
    let memory = vec![64u64 << 30; 8];
    for (name, free) in [("idle", machine.cpus().clone()), ("fragmented", fragmented(&machine, 3))] {
        let free = NodeFree { cpus: &free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 4 };
        for cpus in [4, 30, 200] {
            criterion.bench_function(&format!("choose {cpus} of 512 CPUs, {name}"), |bencher| {
                bencher.iter(|| {
                    choose(black_box(&machine), black_box(&free), black_box(&request(cpus)), &Surroundings::default())
                });
            });
        }
        criterion.bench_function(&format!("evaluate 4 of 512 CPUs without summary, {name}"), |bencher| {
            bencher.iter(|| {
                evaluate(black_box(&machine), black_box(&free), black_box(&request(4)), &Surroundings::default())
            });
        });
    }
}

/// A pod spread over sixteen NUMA nodes, and what the same nodes cost when it wants one L3 or single threads.
fn bench_wishes(criterion: &mut Criterion) {
    let machine = machine(16, 2, 8);
    let memory = vec![64u64 << 30; 16];
    let spread = Wish { align: Align::Spread, ..Wish::default() };
    let any = Wish { threads: Threads::Any, ..Wish::default() };
    for (name, free) in [("idle", machine.cpus().clone()), ("fragmented", fragmented(&machine, 3))] {
        let free = NodeFree { cpus: &free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 4 };
        for (wish_name, wish, cpus) in [("spread", spread, 256), ("spread", spread, 16), ("any thread", any, 255)] {
            let request = CpuRequest { wish, ..request(cpus) };
            criterion.bench_function(
                &format!("choose {cpus} of 512 CPUs on 16 NUMA nodes, {wish_name}, {name}"),
                |bencher| {
                    bencher.iter(|| {
                        choose(black_box(&machine), black_box(&free), black_box(&request), &Surroundings::default())
                    });
                },
            );
        }
    }
}

fn bench_evaluate(criterion: &mut Criterion) {
    for (name, machine) in [("two sockets", machine(2, 1, 16)), ("EPYC-like", machine(4, 2, 4))] {
        let memory = vec![64u64 << 30; machine.numa_ids().len()];
        let summaries: Vec<FreeSummary> = (0..5_000)
            .map(|node| {
                let free = fragmented(&machine, 2 + node % 5);
                FreeSummary::new(
                    &machine,
                    &NodeFree { cpus: &free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 2 },
                )
            })
            .collect();
        for cpus in [4, 12, 40] {
            let request = request(cpus);
            criterion.bench_function(&format!("evaluate {cpus} CPUs on 5,000 nodes, {name}"), |bencher| {
                bencher.iter(|| {
                    let score = |summary: &FreeSummary| summary.evaluate(black_box(&machine), black_box(&request));
                    summaries
                        .iter()
                        .filter_map(|summary| score(summary).ok())
                        .map(|score| u64::from(score.alignment))
                        .sum::<u64>()
                });
            });
        }
    }
}

criterion_group!(benches, bench_choose, bench_wishes, bench_evaluate);
criterion_main!(benches);
