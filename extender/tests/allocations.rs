//! No node costs an allocation: what is allocated for 200 names is the same number of blocks as for 100, but for the
//! few by which lists grow. The machines are fragmented, of ten shapes, with annotated pods, pools and devices.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "support/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use fairlead_cluster::Snapshot;
use fairlead_extender::answer::{Reply, filter, prioritize};
use serde_json::{Value, json};
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

/// CPU and wishes of a pod that is asked about.
type Asked = (&'static str, &'static [(&'static str, &'static str)]);

const ASKED: [Asked; 7] = [
    ("4", &[]),
    ("4", &[("mode", "Decide")]),
    ("60", &[]),
    ("500m", &[]),
    ("4", &[("threads", "Any"), ("align", "Spread")]),
    ("4", &[("near", "10de:*"), ("likes", "front"), ("dislikes", "batch")]),
    // No node has what it wants to be near and nobody whom it likes: also the first look is a plain one.
    ("4", &[("near", "8086:*"), ("likes", "nobody")]),
];

fn asked(&(cpu, wishes): &Asked) -> Value {
    let mut asked = pod("asked", cpu);
    asked["metadata"]["annotations"] = json!({});
    for (field, value) in wishes {
        asked["metadata"]["annotations"][format!("topology.fairlead.dev/{field}")] = json!(value);
    }
    asked
}

/// Blocks by which a list of 200 grows beyond one of 100.
const GROWTH: u64 = 4;

static WORLD: LazyLock<(Arc<Snapshot>, Vec<String>)> =
    LazyLock::new(|| (World::in_use(200).model().snapshot(), (0..200).map(node_name).collect()));

/// The request about so many of the nodes.
fn request(pod: &Value, count: usize) -> Vec<u8> {
    args(pod, &WORLD.1[..count].iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn no_node_costs_an_allocation() {
    for what in &ASKED {
        let pod = asked(what);
        for answer in [filter, prioritize] {
            // What lies around the pod on a node is worked out once for each view of the node.
            allocations(answer, &WORLD.0, &request(&pod, 200));
            let [few, many] = [100, 200].map(|count| allocations(answer, &WORLD.0, &request(&pod, count)));
            assert!(many <= few + GROWTH, "{what:?}: {few} for 100 names, {many} for 200");
        }
    }
}

#[test]
fn nor_does_the_first_look_at_a_node_where_nothing_lies_around_the_pod() {
    for what in ASKED.iter().filter(|(_, wishes)| !wishes.iter().any(|(field, _)| *field == "dislikes")) {
        let [few, many] = [100, 200].map(|count| {
            // Nobody asked for so much memory before.
            let mut pod = asked(what);
            let amounts = json!({ "cpu": what.0, "memory": (2 << 30) + count });
            pod["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
            allocations(filter, &WORLD.0, &request(&pod, count))
        });
        assert!(many <= few + GROWTH, "{what:?}: {few} for 100 names, {many} for 200");
    }
}

#[test]
fn nor_does_a_node_in_a_request_of_another_form() {
    let body = |count: usize| {
        json!({ "NodeNames": WORLD.1[..count], "Other": 1, "Pod": pod("asked", "4") }).to_string().into_bytes()
    };
    allocations(filter, &WORLD.0, &body(200));
    let [few, many] = [100, 200].map(|count| allocations(filter, &WORLD.0, &body(count)));
    assert!(many <= few + GROWTH, "{few} for 100 names, {many} for 200");
}
