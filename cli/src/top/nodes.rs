//! Each node: its machine, whose cores are held, what is free.
use crate::amount::bytes;
use crate::table::Table;
use fairlead_cluster::{NodeView, Snapshot};
use fairlead_topology::Machine;

pub(super) fn text(snapshot: &Snapshot) -> String {
    let mut table = Table::new(&[
        "NODE",
        "MACHINE",
        "CPUS",
        "RESERVED",
        "FREE",
        "KEPT SHARED",
        "LARGEST HOLE",
        "MEMORY FREE",
        "PODS",
        "STATE",
    ]);
    for node in snapshot.nodes.iter() {
        let total = node.machine.as_ref().map_or(0, |machine| machine.cpus().len());
        let held: Vec<_> = node.placement.iter().flat_map(|placement| &placement.reservations).collect();
        let reserved: u32 = held.iter().map(|held| held.cpus.len()).sum();
        table.row([
            node.name.clone(),
            node.machine.as_ref().map_or("-".to_owned(), |machine| shape(machine)),
            total.to_string(),
            reserved.to_string(),
            node.free.len().to_string(),
            node.shared_reserve.to_string(),
            node.machine.as_ref().map_or("-".to_owned(), |machine| hole(node, machine)),
            bytes(node.memory_free_bytes.iter().sum()),
            held.len().to_string(),
            state(node),
        ]);
    }
    if table.is_empty() { "No nodes.\n".to_owned() } else { table.render(0) }
}

/// `2 sockets, 4 NUMA, 16 L3`.
fn shape(machine: &Machine) -> String {
    let (sockets, numa, l3) = (machine.package_ids().len(), machine.numa_ids().len(), machine.l3_ids().len());
    format!("{sockets} socket{}, {numa} NUMA, {l3} L3", if sockets == 1 { "" } else { "s" })
}

/// The most CPUs in wholly free cores of one NUMA node: what one more pod may get in one piece.
fn hole(node: &NodeView, machine: &Machine) -> String {
    let cores: Vec<_> = (0..machine.core_count())
        .filter_map(|index| machine.core_cpus(index))
        .filter(|core| core.is_subset(&node.free))
        .collect();
    let numa_nodes = (0..machine.numa_ids().len()).filter_map(|index| machine.numa_cpus(index));
    let free =
        numa_nodes.map(|cpus| cores.iter().filter(|core| core.is_subset(cpus)).map(|core| core.len()).sum::<u32>());
    free.max().unwrap_or(0).to_string()
}

fn state(node: &NodeView) -> String {
    let mut words = Vec::new();
    if !node.ready {
        words.push("NotReady");
    }
    if node.unschedulable {
        words.push("cordoned");
    }
    if let Some(distrust) = &node.distrust {
        words.push(distrust.reason.name());
    }
    if words.is_empty() { "ok".to_owned() } else { words.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::snapshot;
    use fairlead_cluster::{Change, Event};
    use serde_json::{from_value, json};

    #[test]
    fn a_half_used_core_is_no_hole() {
        let cores: Vec<_> =
            (0..4).map(|core| json!({ "id": core, "cpus": format!("{}-{}", core * 2, core * 2 + 1) })).collect();
        let owners = json!([{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u" }]);
        let topology = json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology",
            "metadata": { "name": "n", "ownerReferences": owners },
            "spec": { "source": "Synthetic", "pinning": { "mode": "Own", "reason": "Test" }, "packages": [ { "id": 0, "cpus": "0-7" } ], "cores": cores, "l3Caches": [],
                "numaNodes": [ { "id": 0, "cpus": "0-7", "memoryBytes": 1 << 30, "distances": [] } ] } });
        let placement = json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement",
            "metadata": { "name": "n", "uid": "p", "ownerReferences": owners }, "spec": { "reservations": [ { "podUID": "u", "namespace": "a",
                "name": "b", "reservedAt": "2026-01-01T00:00:00Z", "cpus": "0-2", "containers": [], "memory": [] } ] } });
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n", "uid": "u" }, "status": {
            "capacity": { "cpu": "8", "memory": "1Gi" }, "allocatable": { "cpu": "8", "memory": "1Gi" },
            "conditions": [ { "type": "Ready", "status": "True" } ] }, "spec": { "unschedulable": true } });
        let snapshot = snapshot([
            Event::Nodes(Change::Reset(vec![from_value(node).unwrap()])),
            Event::Topologies(Change::Reset(vec![from_value(topology).unwrap()])),
            Event::Placements(Change::Reset(vec![from_value(placement).unwrap()])),
        ]);
        let text = text(&snapshot);
        let cells: Vec<&str> =
            text.lines().nth(1).unwrap().split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, ["n", "1 socket, 1 NUMA, 0 L3", "8", "3", "5", "0", "4", "1Gi", "1", "cordoned"]);
    }
}
