//! Server time of filter and prioritize, from the bytes of a request to the bytes of its reply, with real topology logic:
//! partly used machines of three shapes, a pod of four exclusive CPUs. Also prints what is allocated per node.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/support/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use fairlead_cluster::Snapshot;
use fairlead_extender::answer::{Reply, filter, prioritize};
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

fn verbs(criterion: &mut Criterion) {
    let snapshot = World::of_nodes(5000).model().snapshot();
    for count in [500, 5000] {
        let names: Vec<String> = (0..count).map(|index| node_name(index * (5000 / count))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (kind, cpu) in [("exclusive", "4"), ("shared", "500m")] {
            let body = args(&pod("asked", cpu), &names);
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

criterion_group!(benches, verbs);
criterion_main!(benches);
