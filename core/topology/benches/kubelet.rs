//! Our choice beside the kubelet's own packing, in rounds that take turns: the same machine, free CPUs and requests, and
//! whose choice is the better one. `cargo xtask bench choose` builds the rival and starts this with its path.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a bench")]

mod rival;
mod server;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use fairlead_topology::{CpuMask, Machine, NodeFree, Surroundings, Verdict, choose};
use rival::Rival;
use serde_json::json;
use server::{fragmented, half_taken, request, server};

const ROUNDS: usize = 7;

/// Choices of ours that are timed together, and how often in a round: one is too short for a clock.
const BATCH: u32 = 50;
const BATCHES: usize = 20;

/// The same for the rival, whose choices take milliseconds.
const REPEAT: usize = 2;

const REQUESTS: [u32; 8] = [2, 4, 8, 16, 30, 64, 100, 200];

/// Ways to ask the rival, and what they are called here.
const WAYS: [(&str, &str); 3] =
    [("packed", "packing"), ("packedByCaches", "packing by caches"), ("admitted", "hints and packing")];

/// One question, and what was measured.
struct Case {
    name: String,
    free: CpuMask,
    cpus: u32,
    ours: Vec<f64>,
    theirs: [Vec<f64>; 3],
    /// What the rival gave.
    given: [CpuMask; 3],
}

fn main() -> ExitCode {
    // Cargo adds options of its own.
    let Some(program) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        eprintln!("the rival is missing: run `cargo xtask bench choose`");
        return ExitCode::FAILURE;
    };
    let machine = server();
    let mut rival = Rival::start(&program, &machine);
    let mut cases = cases(&machine);
    for _ in 0..ROUNDS {
        for case in &mut cases {
            case.round(&machine, &mut rival);
        }
    }
    for case in &cases {
        let beside: Vec<_> = WAYS
            .iter()
            .zip(&case.theirs)
            .map(|((_, name), theirs)| json!({ "name": name, "value": least(theirs) }))
            .collect();
        let row = json!({ "name": case.name, "value": median(&case.ours), "unit": "ns", "beside": beside });
        println!("bench: {row}");
    }
    if compare(&machine, &cases) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cases(machine: &Machine) -> Vec<Case> {
    let frees = [
        ("empty", machine.cpus().clone()),
        ("every third core taken", fragmented(machine, 3)),
        ("half of the cores taken", half_taken(machine)),
    ];
    let case = |name: &str, free: &CpuMask, cpus: u32| Case {
        name: format!("{cpus} of 512 CPUs, {name}"),
        free: free.clone(),
        cpus,
        ours: Vec::new(),
        theirs: Default::default(),
        given: Default::default(),
    };
    frees.iter().flat_map(|(name, free)| REQUESTS.map(|cpus| case(name, free, cpus))).collect()
}

impl Case {
    fn round(&mut self, machine: &Machine, rival: &mut Rival) {
        let request = request(self.cpus);
        let memory = vec![64u64 << 30; machine.numa_ids().len()];
        let free = NodeFree { cpus: &self.free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 0 };
        let none = Surroundings::default();
        for _ in 0..BATCHES {
            let began = Instant::now();
            for _ in 0..BATCH {
                drop(black_box(choose(black_box(machine), black_box(&free), black_box(&request), &none)));
            }
            self.ours.push(began.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
        for (index, (way, _)) in WAYS.iter().enumerate() {
            let (given, times) = rival.ask(way, &self.free, self.cpus, REPEAT);
            self.given[index] = given;
            self.theirs[index].extend(times);
        }
    }

    fn chosen(&self, machine: &Machine) -> CpuMask {
        let memory = vec![64u64 << 30; machine.numa_ids().len()];
        let free = NodeFree { cpus: &self.free, memory_free_bytes: &memory, huge_pages: &[], shared_reserve: 0 };
        match choose(machine, &free, &request(self.cpus), &Surroundings::default()) {
            Verdict::Fits(choice) => choice.cpus,
            Verdict::DoesNotFit(no) => unreachable!("{}: {no}", self.name),
        }
    }

    /// Less is better: NUMA nodes, L3 caches, what is left free in those NUMA nodes, and in those caches. All distances of
    /// this machine are alike.
    fn measures(&self, machine: &Machine, cpus: &CpuMask) -> [u32; 4] {
        let left = self.free.subtract(cpus);
        let nodes: Vec<&CpuMask> = machine.numa_nodes_of(cpus).filter_map(|index| machine.numa_cpus(index)).collect();
        let caches: Vec<&CpuMask> = machine.l3_cpus().iter().filter(|l3| l3.intersects(cpus)).collect();
        let left_in = |parts: &[&CpuMask]| parts.iter().map(|part| part.intersect(&left).len()).sum();
        [nodes.len() as u32, caches.len() as u32, left_in(&nodes), left_in(&caches)]
    }
}

/// Counts what the rival's choices lack by our order; false if one of them is better than ours.
fn compare(machine: &Machine, cases: &[Case]) -> bool {
    const LACKS: [&str; 4] =
        ["more NUMA nodes", "more L3 caches", "a larger NUMA hole broken", "larger L3 holes broken"];
    let mut honest = true;
    for (index, (_, way)) in WAYS.iter().enumerate() {
        let mut lacks = [0u32; 4];
        for case in cases {
            let (ours, theirs) =
                (case.measures(machine, &case.chosen(machine)), case.measures(machine, &case.given[index]));
            if theirs < ours {
                eprintln!("{}, {way}: {theirs:?} is better than ours, {ours:?}", case.name);
                honest = false;
            }
            if let Some(first) = (0..LACKS.len()).find(|&lack| theirs[lack] > ours[lack]).filter(|_| theirs > ours) {
                lacks[first] += 1;
            }
        }
        let worse: u32 = lacks.iter().sum();
        let unit = format!("of {} choices", cases.len());
        let row = |name: String, count: u32| json!({ "name": name, "value": count, "unit": unit });
        println!("bench: {}", row(format!("kubelet's {way}: as good as ours"), cases.len() as u32 - worse));
        for (lack, count) in LACKS.iter().zip(lacks).filter(|(_, count)| *count > 0) {
            println!("bench: {}", row(format!("kubelet's {way}: {lack}"), count));
        }
    }
    honest
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// On a busy machine what takes milliseconds is interrupted more than what takes microseconds: the rival is given its best.
fn least(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}
