//! The order of release at 50,000 pending pods of 1,000 tenants.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fairlead_fairshare::{PODS, PendingPod, ReleaseInput, ResourceVector, TenantInput, line, plan};
use std::hint::black_box;

const TENANTS: u64 = 1_000;
const PODS_EACH: u64 = 50;

fn vector(cpu_milli: u64, memory_bytes: u64, pods: u64) -> ResourceVector {
    [("cpu", cpu_milli), ("memory", memory_bytes), (PODS, pods)].map(|(name, amount)| (name.to_owned(), amount)).into()
}

/// Tenants of several weights, pods of several sizes, limits that some of them reach.
fn cluster(free_percent: u64, max_releases: usize) -> ReleaseInput {
    let total = vector(TENANTS * 100_000, TENANTS << 38, TENANTS * 50);
    let tenants = (0..TENANTS).map(|t| TenantInput {
        name: format!("tenant-{t:04}"),
        weight: 1 + t % 7,
        hard: vector(150_000, 1 << 40, 60),
        used: vector(t % 5 * 10_000, 1 << 34, t % 5 * 5),
        pending: (0..PODS_EACH)
            .map(|p| PendingPod {
                uid: format!("{:08x}-0000-4000-8000-{:012x}", t.wrapping_mul(2_654_435_761) & 0xffff_ffff, p),
                request: vector(1_000 * (1 + (t + p) % 8), (1 + p % 4) << 30, 1),
                priority: i32::try_from(p % 3).unwrap_or(0),
                created_ms: p.wrapping_mul(7_919) % 100_000,
            })
            .collect(),
    });
    let free = total.iter().map(|(name, amount)| (name.clone(), amount * free_percent / 100)).collect();
    ReleaseInput {
        tenants: tenants.collect(),
        free,
        unbound: ResourceVector::new(),
        total,
        window_percent: 20,
        max_releases,
    }
}

fn release(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("release-50000-pending-of-1000-tenants");
    group.sample_size(20);
    for (name, free_percent, max_releases) in
        [("one", 80, 1), ("batch-1000", 80, 1_000), ("all-that-fits", 80, usize::MAX)]
    {
        let input = cluster(free_percent, max_releases);
        let released = plan(&input).release.len();
        group.throughput(Throughput::Elements(released as u64));
        group.bench_function(name, |bencher| bencher.iter(|| plan(black_box(&input))));
    }
    let input = cluster(0, usize::MAX);
    group.throughput(Throughput::Elements(TENANTS * PODS_EACH));
    group.bench_function("line", |bencher| bencher.iter(|| line(black_box(&input))));
    group.finish();
}

criterion_group!(benches, release);
criterion_main!(benches);
