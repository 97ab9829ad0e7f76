//! A hand-built cluster: machines of three shapes, their NodePlacements, tenants, and the requests about them.
#![allow(dead_code, reason = "shared by tests and benches, each uses its part")]
#![allow(missing_docs, clippy::unwrap_used, reason = "test support")]

use std::collections::BTreeMap;

use fairlead_cluster::{Change, Event, Model};
use fairlead_topology::CpuMask;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A machine: so many of each within the one before, and hardware threads per core.
#[derive(Clone, Copy)]
pub struct Shape {
    pub packages: u32,
    pub numa: u32,
    pub l3: u32,
    pub cores: u32,
    pub threads: u32,
}

pub const TWO_SOCKETS: Shape = Shape { packages: 2, numa: 1, l3: 1, cores: 16, threads: 2 };
pub const EPYC: Shape = Shape { packages: 1, numa: 4, l3: 4, cores: 4, threads: 2 };
pub const SINGLE: Shape = Shape { packages: 1, numa: 1, l3: 1, cores: 16, threads: 2 };
pub const SHAPES: [Shape; 3] = [TWO_SOCKETS, EPYC, SINGLE];

/// Ten kinds of machines, from 16 to 512 CPUs.
pub const FLEET: [Shape; 10] = [
    TWO_SOCKETS,
    EPYC,
    SINGLE,
    Shape { packages: 1, numa: 1, l3: 1, cores: 8, threads: 2 },
    Shape { packages: 2, numa: 1, l3: 1, cores: 24, threads: 2 },
    Shape { packages: 2, numa: 2, l3: 2, cores: 8, threads: 2 },
    Shape { packages: 1, numa: 1, l3: 8, cores: 8, threads: 2 },
    Shape { packages: 2, numa: 4, l3: 2, cores: 8, threads: 2 },
    Shape { packages: 2, numa: 1, l3: 16, cores: 8, threads: 2 },
    Shape { packages: 1, numa: 2, l3: 1, cores: 64, threads: 1 },
];

impl Shape {
    pub fn core_count(self) -> u32 {
        self.packages * self.numa * self.l3 * self.cores
    }

    pub fn cpu_count(self) -> u32 {
        self.core_count() * self.threads
    }

    /// CPUs of the cores `first..first + count`; threads of a core lie `core_count` apart, as on x86.
    fn cpus(self, first: u32, count: u32) -> String {
        let cores = self.core_count();
        let ids = (0..self.threads).flat_map(|thread| (first..first + count).map(move |core| core + thread * cores));
        CpuMask::from_ids(ids).to_string()
    }

    fn groups(self, count: u32) -> Vec<Value> {
        let size = self.core_count() / count;
        (0..count).map(|id| json!({ "id": id, "cpus": self.cpus(id * size, size) })).collect()
    }
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub fn owner(name: &str) -> Value {
    json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-{name}") }])
}

pub fn node(name: &str, shape: Shape) -> Value {
    let amounts = json!({ "cpu": shape.cpu_count().to_string(), "memory": "256Gi", "pods": "250" });
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}") },
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

pub fn topology(name: &str, shape: Shape) -> Value {
    let with = |mut groups: Vec<Value>, field: &str, value: u64| {
        for group in &mut groups {
            group[field] = json!(value);
        }
        groups
    };
    let numa = shape.packages * shape.numa;
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology",
        "metadata": { "name": name, "ownerReferences": owner(name) },
        "spec": {
            "source": "Synthetic",
            "pinning": { "mode": "Own", "reason": "Test" },
            "packages": shape.groups(shape.packages),
            "numaNodes": with(shape.groups(numa), "memoryBytes", (256 << 30) / u64::from(numa)),
            "l3Caches": with(shape.groups(numa * shape.l3), "sizeBytes", 32 << 20),
            "cores": shape.groups(shape.core_count()),
        },
    })
}

/// A reservation of whole cores `first..first + count` for the pod of that UID.
pub fn reservation(shape: Shape, uid: &str, first: u32, count: u32) -> Value {
    let cpus = shape.cpus(first, count);
    json!({
        "podUID": uid, "namespace": "apps", "name": uid, "reservedAt": "2026-01-01T00:00:00Z",
        "cpus": cpus, "containers": [{ "name": "main", "cpus": cpus }], "memory": [],
    })
}

pub fn placement(name: &str, reservations: &[Value]) -> Value {
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement",
        "metadata": {
            "name": name, "uid": format!("placement-{name}"), "generation": 1, "resourceVersion": "1",
            "ownerReferences": owner(name),
        },
        "spec": { "reservations": reservations },
    })
}

/// A Guaranteed pod of one container; `cpu` such as `"4"` gets CPUs of its own, `"500m"` does not.
pub fn pod(name: &str, cpu: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "apps", "uid": format!("uid-{name}"), "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{ "manager": "x", "operation": "Update", "fieldsV1": { "f:spec": {} } }],
        },
        "spec": {
            "schedulerName": "fairlead-scheduler",
            "containers": [{
                "name": "main", "image": "registry/image:1", "resources": { "requests": amounts, "limits": amounts },
                "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets" }],
            }],
            "volumes": [{ "name": "token", "projected": { "sources": [] } }],
        },
        "status": { "phase": "Pending" },
    })
}

/// A WorkerPool of the pods with that label `app`.
pub fn pool(name: &str, topology: &Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "apps", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
            "maxReplicas": 9, "queueSources": [], "topology": topology,
        },
        "status": { "selector": format!("app={name}") },
    })
}

/// The text of a placement annotation.
pub fn carried(cpus: &str) -> String {
    json!({ "cpus": cpus, "containers": [{ "name": "main", "cpus": cpus, "memoryNodes": "0" }] }).to_string()
}

fn cpus_by_uid(placement: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entries = placement["spec"]["reservations"].as_array().unwrap();
    entries.iter().map(|entry| (text(&entry["podUID"]), text(&entry["cpus"]))).collect()
}

/// The objects of a cluster, each list under its kind.
#[derive(Default)]
pub struct World {
    pub nodes: Vec<Value>,
    pub topologies: Vec<Value>,
    pub placements: Vec<Value>,
    pub pods: Vec<Value>,
    pub quotas: Vec<Value>,
    pub pools: Vec<Value>,
}

impl World {
    pub fn add(&mut self, name: &str, shape: Shape, reservations: &[Value]) {
        self.nodes.push(node(name, shape));
        self.topologies.push(topology(name, shape));
        self.placements.push(placement(name, reservations));
    }

    /// As [`World::fragmented`], and what a cluster in use has besides: each pod with CPUs of its own carries its placement as
    /// its Binding wrote it, every node has ten pods in the shared pool, every tenth has PCI devices, and a few pods are of
    /// WorkerPools that others like and dislike.
    pub fn in_use(count: u32) -> Self {
        let mut world = Self::fragmented(count);
        world.pools = vec![
            pool("front", &json!({})),
            pool("cache", &json!({ "colocation": { "likes": ["front"] } })),
            pool("batch", &json!({ "colocation": { "dislikes": ["front"] } })),
        ];
        let held: BTreeMap<String, String> = world.placements.iter().flat_map(cpus_by_uid).collect();
        for (pod, number) in world.pods.iter_mut().zip(0u32..) {
            let cpus = &held[pod["metadata"]["uid"].as_str().unwrap()];
            pod["metadata"]["annotations"] = json!({ "fairlead.dev/placement": carried(cpus) });
            if number % 97 < 3 {
                let app = ["front", "cache", "batch"][number as usize % 97];
                pod["metadata"]["labels"] = json!({ "app": app });
            }
        }
        for index in 0..count {
            for number in 0..10 {
                let mut shared = pod(&format!("shared-{index}-{number}"), "100m");
                shared["spec"]["nodeName"] = json!(node_name(index));
                world.pods.push(shared);
            }
            if index % 10 == 8 {
                let device = |number: u32| {
                    let numa = &world.topologies[index as usize]["spec"]["numaNodes"][(number / 4) as usize]["cpus"];
                    json!({ "address": format!("0000:{number:02x}:00.0"), "class": "0302", "id": "10de:2330", "cpus": numa })
                };
                let devices: Vec<Value> = (0..8).map(device).collect();
                world.topologies[index as usize]["spec"]["pciDevices"] = json!(devices);
            }
        }
        world
    }

    /// Nodes of all shapes in turn, partly used: node-00000 and so on.
    pub fn of_nodes(count: u32) -> Self {
        let mut world = Self::default();
        for index in 0..count {
            let shape = SHAPES[index as usize % SHAPES.len()];
            let used = index % shape.core_count();
            let uid = format!("other-{index}");
            let held = (used > 0).then(|| reservation(shape, &uid, 0, used));
            world.add(&node_name(index), shape, held.as_slice());
            if held.is_some() {
                let mut other = pod(&uid, &(used * shape.threads).to_string());
                other["metadata"]["uid"] = json!(uid);
                other["spec"]["nodeName"] = json!(node_name(index));
                world.pods.push(other);
            }
        }
        world
    }

    /// Fragmented machines of the ten kinds: pods of one to four cores came and went, so that about half of the cores are
    /// free, in holes of all sizes. The same for the same count.
    pub fn fragmented(count: u32) -> Self {
        let mut world = Self::default();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u32| {
            // Multiplication and shift of a linear congruential generator: nothing but variety is asked of it.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((random >> 33) % u64::from(below)).unwrap()
        };
        for index in 0..count {
            let shape = FLEET[index as usize % FLEET.len()];
            let (mut core, mut held) = (0, Vec::new());
            while core < shape.core_count() {
                let cores = (1 + next(4)).min(shape.core_count() - core);
                if next(2) == 0 {
                    let uid = format!("other-{index}-{core}");
                    let mut other = pod(&uid, &(cores * shape.threads).to_string());
                    other["metadata"]["uid"] = json!(uid);
                    other["spec"]["nodeName"] = json!(node_name(index));
                    world.pods.push(other);
                    held.push(reservation(shape, &uid, core, cores));
                }
                core += cores;
            }
            world.add(&node_name(index), shape, &held);
        }
        world
    }

    pub fn model(self) -> Model {
        fn all<K: DeserializeOwned>(list: Vec<Value>) -> Change<K> {
            Change::Reset(list.into_iter().map(typed).collect())
        }
        let mut model = Model::new("fairlead-system");
        model.apply(Event::Nodes(all(self.nodes)));
        model.apply(Event::Topologies(all(self.topologies)));
        model.apply(Event::Placements(all(self.placements)));
        model.apply(Event::Pods(all(self.pods)));
        model.apply(Event::Quotas(all(self.quotas)));
        model.apply(Event::Namespaces(Change::Reset(Vec::new())));
        model.apply(Event::Pools(all(self.pools)));
        model
    }
}

pub fn node_name(index: u32) -> String {
    format!("node-{index:05}")
}

/// A request with node names, as kube-scheduler writes it.
pub fn args(pod: &Value, names: &[&str]) -> Vec<u8> {
    format!(r#"{{"Pod":{pod},"Nodes":null,"NodeNames":{}}}"#, json!(names)).into_bytes()
}
