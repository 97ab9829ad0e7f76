//! No node costs an allocation: what is allocated for 400 names is the same number of blocks as for 200, but for the
//! few by which lists grow.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "support/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fairlead_cluster::Snapshot;
use fairlead_extender::answer::{Reply, filter, prioritize};
use serde_json::json;
use world::{World, args, node_name, pod};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator; the counter is a plain cell of the thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(answer: fn(&Snapshot, &[u8]) -> Reply, snapshot: &Snapshot, body: &[u8]) -> u64 {
    let before = CALLS.with(Cell::get);
    let reply = answer(snapshot, body);
    let after = CALLS.with(Cell::get);
    assert_eq!(reply.status, 200);
    after - before
}

#[test]
fn no_node_costs_an_allocation() {
    let snapshot = World::fragmented(400).model().snapshot();
    let names: Vec<String> = (0..400).map(node_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (cpu, mode) in [("4", "Score"), ("4", "Decide"), ("60", "Score"), ("500m", "Score")] {
        let mut asked = pod("asked", cpu);
        asked["metadata"]["annotations"] = json!({ "topology.fairlead.dev/mode": mode });
        for answer in [filter, prioritize] {
            let [few, many] = [200, 400].map(|count| allocations(answer, &snapshot, &args(&asked, &names[..count])));
            assert!(many <= few + 4, "{cpu} {mode}: {few} for 200 names, {many} for 400");
        }
    }
}
