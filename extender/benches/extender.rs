//! Server time of filter and prioritize, from the bytes of a request to the bytes of its reply, with real topology logic:
//! fragmented machines of ten kinds, a pod of four exclusive CPUs, one in decide mode, one of the shared pool. Prints p50 and
//! p99 of single calls, what is allocated per node, and the time from one pod event to the next snapshot.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/support/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fairlead_cluster::{Change, Event, Snapshot};
use fairlead_extender::answer::{Reply, filter, prioritize};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use world::{World, args, node_name, pod};

struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Answer = fn(&Snapshot, &[u8]) -> Reply;
const VERBS: [(&str, Answer); 2] = [("filter", filter), ("prioritize", prioritize)];

fn allocated(answer: Answer, snapshot: &Snapshot, body: &[u8]) -> (u64, u64) {
    let before = (BYTES.load(Ordering::Relaxed), CALLS.load(Ordering::Relaxed));
    black_box(answer(snapshot, black_box(body)));
    (BYTES.load(Ordering::Relaxed) - before.0, CALLS.load(Ordering::Relaxed) - before.1)
}

/// p50 and p99 of single calls, µs.
fn percentiles(mut call: impl FnMut()) -> String {
    const CALLS: usize = 2_000;
    let mut took: Vec<Duration> = (0..CALLS)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |percent: usize| took[CALLS * percent / 100].as_secs_f64() * 1e6;
    format!("p50 {:.1} µs, p99 {:.1} µs", at(50), at(99))
}

/// Resident memory in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// By hand, `FAIRLEAD_BENCH_CALLS=1000000`: memory after a tenth of so many calls and after all of them.
fn memory(_: &mut Criterion) {
    let calls = std::env::var("FAIRLEAD_BENCH_CALLS").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(calls) = calls else { return };
    let snapshot = World::fragmented(5000).model().snapshot();
    let names: Vec<String> = (0..500).map(|index| node_name(index * 10)).collect();
    let body = args(&pod("asked", "4"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    for call in 1..=calls {
        black_box(filter(&snapshot, black_box(&body)));
        black_box(prioritize(&snapshot, black_box(&body)));
        if call == calls / 10 || call == calls {
            println!("memory/after {call} calls: {} KiB resident", resident_kib());
        }
    }
}

/// From one event of a pod to the snapshot with it: 5,000 nodes, 1,000 tenants that all ask for more than there is.
fn snapshots(_: &mut Criterion) {
    let mut world = World::fragmented(5000);
    for index in 0..1_000 {
        let name = format!("tenant-{index:04}");
        world.quotas.push(json!({ "metadata": { "name": name, "uid": name }, "spec": { "namespaces": [name], "weight": 1 + index % 7 } }));
        for waiting in 0..30 {
            let mut gated = pod(&format!("{name}-{waiting}"), "64");
            gated["metadata"]["namespace"] = json!(name);
            gated["spec"]["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
            world.pods.push(gated);
        }
    }
    let mut model = world.model();
    let mut held = model.snapshot();
    let mut number = 0u32;
    let mut event = |kind: &str, change: &mut dyn FnMut(u32) -> Value| {
        let prepared: Vec<Pod> = (0..2_000)
            .map(|_| {
                number += 1;
                serde_json::from_value(change(number)).unwrap()
            })
            .collect();
        let mut prepared = prepared.into_iter();
        let figures = percentiles(|| {
            model.apply(Event::Pods(Change::Apply(prepared.next().unwrap())));
            held = model.snapshot();
        });
        println!("snapshot/{kind}/5000: {figures}");
    };
    event("pod bound to a node", &mut |number| {
        let mut bound = pod(&format!("new-{number}"), "500m");
        bound["spec"]["nodeName"] = json!(node_name(number % 5000));
        bound
    });
    event("pod of a tenant created", &mut |number| {
        let mut gated = pod(&format!("more-{number}"), "4");
        gated["metadata"]["namespace"] = json!(format!("tenant-{:04}", number % 1_000));
        gated["spec"]["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
        gated
    });
    event("pod status", &mut |number| {
        let mut seen = pod("one", "500m");
        seen["metadata"]["resourceVersion"] = json!(number.to_string());
        seen
    });
}

fn verbs(criterion: &mut Criterion) {
    let snapshot = World::fragmented(5000).model().snapshot();
    for count in [500, 5000] {
        let names: Vec<String> = (0..count).map(|index| node_name(index * (5000 / count))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (kind, cpu) in [("exclusive", "4"), ("decide", "4"), ("shared", "500m")] {
            let mut asked = pod("asked", cpu);
            if kind == "decide" {
                asked["metadata"]["annotations"] = json!({ "topology.fairlead.dev/mode": "Decide" });
            }
            let body = args(&asked, &names);
            let mut both = 0;
            for (verb, answer) in VERBS {
                let tally = answer(&snapshot, &body).tally;
                let (bytes, calls) = allocated(answer, &snapshot, &body);
                both += bytes;
                println!(
                    "{verb}/{kind}/{count}: {} fit; {bytes} bytes in {calls} allocations, {} bytes per node",
                    tally.fits,
                    bytes / u64::from(count)
                );
                println!(
                    "{verb}/{kind}/{count}: {}",
                    percentiles(|| drop(black_box(answer(&snapshot, black_box(&body)))))
                );
                let name = format!("{verb}/{kind}/{count}");
                criterion.bench_function(&name, |bencher| bencher.iter(|| answer(&snapshot, black_box(&body))));
            }
            println!("filter+prioritize/{kind}/{count}: {} bytes per node", both / u64::from(count));
            criterion.bench_function(&format!("filter+prioritize/{kind}/{count}"), |bencher| {
                bencher.iter(|| (filter(&snapshot, black_box(&body)), prioritize(&snapshot, black_box(&body))));
            });
        }
    }
}

criterion_group!(benches, verbs, snapshots, memory);
criterion_main!(benches);
