//! The simulated nodes: twelve machines of three shapes.

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use serde_json::json;

/// Label of every simulated node; its value is the name of the node's shape. kwok manages the nodes that carry it.
pub const SHAPE_LABEL: &str = "fairlead.dev/simulated";

/// CPUs of each node that are not for pods, as a kubelet's `reservedSystemCPUs` would take them.
pub const RESERVED_CPUS: u32 = 2;
const RESERVED_MEMORY_BYTES: u64 = 2 << 30;
const GIB: u64 = 1 << 30;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Value of [`SHAPE_LABEL`].
    pub name: &'static str,
    /// What hwloc builds it from (its synthetic notation).
    pub synthetic: &'static str,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory of the whole machine.
    pub memory_bytes: u64,
    /// NUMA nodes.
    pub numa_nodes: u32,
}

/// Two sockets, one NUMA node each, four L3s a socket: 64 CPUs.
pub const TWO_SOCKET: Shape = Shape {
    name: "two-socket",
    synthetic: "pack:2 [numa(memory=68719476736)] l3:4 core:4 pu:2",
    cpus: 64,
    memory_bytes: 128 * GIB,
    numa_nodes: 2,
};
/// One package with four NUMA nodes and sixteen small L3s, EPYC-like: 64 CPUs.
pub const MANY_L3: Shape = Shape {
    name: "many-l3",
    synthetic: "pack:1 numa:4(memory=34359738368) l3:4 core:2 pu:2",
    cpus: 64,
    memory_bytes: 128 * GIB,
    numa_nodes: 4,
};
/// One NUMA node, one L3: 32 CPUs.
pub const SINGLE: Shape = Shape {
    name: "single",
    synthetic: "pack:1 [numa(memory=68719476736)] l3:1 core:16 pu:2",
    cpus: 32,
    memory_bytes: 64 * GIB,
    numa_nodes: 1,
};
/// All shapes.
pub const SHAPES: [Shape; 3] = [TWO_SOCKET, MANY_L3, SINGLE];

/// One simulated node.
#[derive(Clone, Debug)]
pub struct SimulatedNode {
    /// Node name.
    pub name: String,
    /// Its machine.
    pub shape: Shape,
}

/// Four nodes of each shape: `two-socket-0` … `single-3`, 640 CPUs together.
#[must_use]
pub fn twelve() -> Vec<SimulatedNode> {
    of_each_shape(4)
}

/// `count` nodes of each shape.
#[must_use]
pub fn of_each_shape(count: u32) -> Vec<SimulatedNode> {
    SHAPES
        .iter()
        .flat_map(|shape| (0..count).map(|i| SimulatedNode { name: format!("{}-{i}", shape.name), shape: *shape }))
        .collect()
}

/// Creates the Node objects as a kubelet registers itself; kwok makes them Ready.
pub async fn create(client: &kube::Client, nodes: &[SimulatedNode]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for (index, node) in nodes.iter().enumerate() {
        api.create(&PostParams::default(), &object(index, node)?).await?;
    }
    Ok(())
}

fn object(index: usize, node: &SimulatedNode) -> Result<Node> {
    let shape = node.shape;
    let resources =
        |cpus: u32, memory: u64| json!({ "cpu": cpus.to_string(), "memory": memory.to_string(), "pods": "110" });
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                SHAPE_LABEL: shape.name,
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {},
        "status": {
            "capacity": resources(shape.cpus, shape.memory_bytes),
            "allocatable": resources(shape.cpus - RESERVED_CPUS, shape.memory_bytes - RESERVED_MEMORY_BYTES),
            "addresses": [
                { "type": "InternalIP", "address": format!("10.1.{}.{}", index / 250, index % 250 + 1) },
                { "type": "Hostname", "address": node.name },
            ],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.36.3", "kubeProxyVersion": "",
                "containerRuntimeVersion": "kwok", "kernelVersion": "", "osImage": "simulated", "bootID": "", "machineID": "", "systemUUID": "",
            },
        },
    }))?)
}
