//! The extender's own time, with real topology logic on fragmented machines of ten shapes with pods of all kinds on them:
//! filter and prioritize from the bytes of a request to the bytes of its reply, in process and over loopback HTTP; what they
//! allocate; the time from one event to the snapshot with it; and resident memory.
//!
//! `cargo bench -p fairlead-extender --bench extender -- --calls 1000000` asks so many times and shows that memory stays;
//! `-- --only TEXT` measures only what has the text in its name.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "extender/snapshots.rs"]
mod snapshots;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "extender/verbs.rs"]
mod verbs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed on to the system's allocator; the counters are plain numbers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED_BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes and number of the allocations of one call.
fn allocated(call: impl FnOnce()) -> (u64, u64) {
    let before = (BYTES.load(Ordering::Relaxed), CALLS.load(Ordering::Relaxed));
    call();
    (BYTES.load(Ordering::Relaxed) - before.0, CALLS.load(Ordering::Relaxed) - before.1)
}

/// What the command line asks for.
struct Wanted {
    only: String,
    /// For [`verbs::memory`].
    calls: u64,
}

impl Wanted {
    fn of_command_line() -> Self {
        let words: Vec<String> = std::env::args().collect();
        let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1).cloned().unwrap_or_default();
        Self { only: after("--only"), calls: after("--calls").parse().unwrap_or(0) }
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

/// One row of the table that `cargo xtask bench` shows.
fn row(name: &str, value: f64, unit: &str) {
    println!("bench: {}", serde_json::json!({ "name": name, "value": (value * 10.0).round() / 10.0, "unit": unit }));
}

/// p50 and p99 of so many calls, in µs. `prepare` makes the input of each, which is not measured. On a machine with other
/// work the median of the best of five parts, and the least of all, are nearer to the truth, so they are there too.
fn measure<T>(name: &str, calls: usize, mut prepare: impl FnMut(usize) -> T, mut call: impl FnMut(T)) {
    let mut took: Vec<Duration> = (0..calls)
        .map(|number| {
            let input = prepare(number);
            let begun = Instant::now();
            call(input);
            begun.elapsed()
        })
        .collect();
    let quiet = took.chunks_mut(calls.div_ceil(5)).map(|part| {
        part.sort_unstable();
        part[part.len() / 2]
    });
    let quiet = quiet.min().unwrap_or_default();
    took.sort_unstable();
    let at = |percent: usize| took[calls * percent / 100];
    for (label, time) in [("p50", at(50)), ("p99", at(99)), ("p50 of the quietest fifth", quiet), ("least", at(0))] {
        row(&format!("{name}, {label}"), time.as_secs_f64() * 1e6, "µs");
    }
}

/// What is allocated and not freed, in MiB.
fn live_mib() -> f64 {
    (BYTES.load(Ordering::Relaxed) - FREED_BYTES.load(Ordering::Relaxed)) as f64 / f64::from(1 << 20)
}

/// Resident memory in KiB. The objects that the model was fed from were in this process too, and the allocator keeps what
/// they took, so it says something over time only.
fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
}

/// Which machine the figures are of, and what else runs on it.
fn show_machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let mut models = cpus.lines().filter_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    println!(
        "machine: {} × {}; load average {}",
        models.clone().count(),
        models.next().unwrap_or("unknown CPU"),
        read("/proc/loadavg").trim()
    );
}

fn main() {
    let wanted = Wanted::of_command_line();
    show_machine();
    if wanted.calls > 0 {
        return verbs::memory(wanted.calls);
    }
    verbs::in_process(&wanted);
    verbs::over_http(&wanted);
    snapshots::after_one_event(&wanted);
}
