//! What a choice costs: exact CPUs on a 512-CPU machine, and the evaluation of 5,000 ordinary nodes.
#![allow(missing_docs, clippy::unwrap_used)]

mod server;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fairlead_topology::{Align, CpuRequest, FreeSummary, NodeFree, Surroundings, Threads, Wish, choose, evaluate};
use server::{fragmented, half_taken, machine, request, server};

fn bench_choose(criterion: &mut Criterion) {
    let machine = server();
    let memory = vec![64u64 << 30; 8];
    let frees = [
        ("idle", machine.cpus().clone()),
        ("fragmented", fragmented(&machine, 3)),
        ("half taken", half_taken(&machine)),
    ];
    for (name, free) in frees {
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
    let machine = machine(2, 16, 2, 8);
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
    for (name, machine) in [("two sockets", machine(2, 2, 1, 16)), ("EPYC-like", machine(1, 4, 2, 4))] {
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
