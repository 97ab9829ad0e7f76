//! Time of the extender's questions with real topology logic, for clusters of 500 and 5,000 nodes.
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report to")]
use criterion::{Criterion, criterion_group, criterion_main};
use fairlead_cluster::{Change, Event, Model, PodWish};
use fairlead_crds::{NodePlacement, NodeTopology};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::hint::black_box;

fn range(first: usize, count: usize) -> String {
    format!("{first}-{}", first + count - 1)
}

/// Three shapes in turn: two sockets of 16 cores; four NUMA nodes with two L3s of 4 cores each; one NUMA node of 16
/// cores. All have two threads a core.
fn topology(name: &str, shape: usize) -> NodeTopology {
    let (packages, numa, l3, cores) = [(2, 2, 2, 32), (1, 4, 8, 32), (1, 1, 1, 16)][shape];
    let cpus = cores * 2;
    let parts = |count: usize| -> Vec<Value> {
        (0..count).map(|id| json!({"id": id, "cpus": range(id * cpus / count, cpus / count)})).collect()
    };
    let mut numa_nodes = parts(numa);
    numa_nodes.iter_mut().for_each(|node| node["memoryBytes"] = json!(64_i64 << 30));
    let mut caches = parts(l3);
    caches.iter_mut().for_each(|cache| cache["sizeBytes"] = json!(32 << 20));
    let spec = json!({"source": "Synthetic", "pinning": {"mode": "Own", "reason": "Bench"}, "packages": parts(packages), "numaNodes": numa_nodes,
                      "l3Caches": caches, "cores": parts(cores)});
    serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owner(name)}, "spec": spec})).unwrap()
}

fn owner(name: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}])
}

fn node(name: &str, shape: usize) -> Node {
    let cpu = [64, 64, 32][shape];
    let list = json!({"cpu": cpu.to_string(), "memory": "256Gi", "pods": "110"});
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name},
        "status": {"capacity": list, "allocatable": list, "conditions": [{"type": "Ready", "status": "True"}]}}))
    .unwrap()
}

/// Up to seven pods of four CPUs each.
fn placement(name: &str, pods: usize) -> NodePlacement {
    let entry = |pod: usize| {
        json!({"podUID": format!("{name}-{pod}"), "namespace": "shop", "name": format!("{name}-{pod}"),
               "reservedAt": "2026-01-01T00:00:00Z", "cpus": range(pod * 4, 4),
               "containers": [{"name": "main", "cpus": range(pod * 4, 4)}],
               "memory": [{"numaNode": 0, "bytes": 1_i64 << 30}]})
    };
    let reservations: Vec<Value> = (0..pods).map(entry).collect();
    serde_json::from_value(
        json!({"metadata": {"name": name, "uid": name, "generation": 1, "ownerReferences": owner(name)},
                                  "spec": {"reservations": reservations}}),
    )
    .unwrap()
}

fn pod(uid: &str, cpu: u32, node: Option<&str>) -> Pod {
    let resources = json!({"cpu": cpu.to_string(), "memory": "1Gi"});
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "shop", "uid": uid},
        "spec": {"nodeName": node, "containers": [{"name": "main", "resources": {"requests": resources, "limits": resources}}]}}))
    .unwrap()
}

fn model(nodes: usize) -> Model {
    let names: Vec<String> = (0..nodes).map(|number| format!("node-{number:05}.region.example")).collect();
    let mut model = Model::new("fairlead-system");
    let each = || names.iter().zip(0usize..);
    model.apply(Event::Nodes(Change::Reset(each().map(|(name, i)| node(name, i % 3)).collect())));
    model.apply(Event::Topologies(Change::Reset(each().map(|(name, i)| topology(name, i % 3)).collect())));
    model.apply(Event::Placements(Change::Reset(each().map(|(name, i)| placement(name, i * 5 % 8)).collect())));
    let held = each().flat_map(|(name, i)| (0..i * 5 % 8).map(move |p| pod(&format!("{name}-{p}"), 4, Some(name))));
    model.apply(Event::Pods(Change::Reset(held.collect())));
    model.apply(Event::Quotas(Change::Reset(Vec::new())));
    model.apply(Event::Namespaces(Change::Reset(Vec::new())));
    model.apply(Event::Pools(Change::Reset(Vec::new())));
    model
}

fn judge(criterion: &mut Criterion) {
    for nodes in [500usize, 5_000] {
        let mut model = model(nodes);
        let snapshot = model.snapshot();
        let names: Vec<String> = snapshot.nodes.iter().map(|view| view.name.clone()).collect();
        for cpus in [4, 24] {
            let wish = PodWish::of(&pod("new", cpus, None));
            criterion.bench_function(&format!("judge/{nodes} nodes/{cpus} cpus"), |bencher| {
                bencher.iter(|| {
                    let judged = names.iter().filter_map(|name| snapshot.judge(snapshot.index_of(name)?, &wish).ok());
                    black_box(judged.map(|score| u32::from(score.alignment)).sum::<u32>())
                });
            });
        }
        let wish = PodWish::of(&pod("new", 4, None));
        criterion.bench_function(&format!("choose/one of {nodes} nodes"), |bencher| {
            bencher.iter(|| black_box(snapshot.choose(7, &wish)));
        });
        let mut generation = 1;
        criterion.bench_function(&format!("snapshot/one change in {nodes} nodes"), |bencher| {
            bencher.iter(|| {
                generation += 1;
                let mut changed = placement(&names[7], 1);
                changed.metadata.generation = Some(generation);
                model.apply(Event::Placements(Change::Apply(changed)));
                black_box(model.snapshot())
            });
        });
    }
}

criterion_group!(benches, judge);
criterion_main!(benches);
