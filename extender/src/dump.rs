//! The snapshot as JSON, for `/debug/dump`.
use fairlead_cluster::{NodeView, PodView, Snapshot, TenantView, to_wire};
use serde_json::{Value, json};

/// Everything that filter, prioritize and bind decide on.
#[must_use]
pub fn dump(snapshot: &Snapshot) -> Value {
    json!({
        "synced": snapshot.synced,
        "generation": snapshot.generation,
        "nodes": snapshot.nodes.iter().map(|view| node(view)).collect::<Vec<_>>(),
        "tenants": snapshot.tenants.values().map(|view| tenant(view)).collect::<Vec<_>>(),
        "total": snapshot.total(),
        "free": snapshot.free(),
    })
}

fn node(view: &NodeView) -> Value {
    json!({
        "name": view.name,
        "uid": view.uid,
        "ready": view.ready,
        "unschedulable": view.unschedulable,
        "allocatable": view.allocatable,
        "requested": view.requested,
        "cpus": view.machine.as_ref().map(|machine| machine.cpus()),
        "distrust": view.distrust.as_ref().map(|distrust| json!({
            "reason": distrust.reason.name(),
            "detail": distrust.detail,
        })),
        "free": view.free,
        "memoryFreeBytes": view.memory_free_bytes,
        "systemMemoryBytes": view.beside.system_memory_bytes,
        "sharedMemoryBytes": view.shared_memory_bytes,
        "sharedReserve": view.shared_reserve,
        "placement": view.placement.as_ref().map(|placement| json!({
            "uid": placement.uid,
            "generation": placement.generation,
            "reservations": placement.reservations.iter().map(to_wire).collect::<Vec<_>>(),
        })),
    })
}

fn tenant(view: &TenantView) -> Value {
    let pods = |list: &[std::sync::Arc<PodView>]| list.iter().map(|view| pod(view)).collect::<Vec<_>>();
    json!({
        "name": view.name,
        "uid": view.uid,
        "weight": view.weight,
        "namespaces": view.namespaces,
        "hard": view.hard,
        "used": view.used,
        "released": pods(&view.released),
        "waiting": pods(&view.waiting),
        "error": view.error,
    })
}

fn pod(view: &PodView) -> Value {
    json!({
        "namespace": view.id.namespace,
        "name": view.id.name,
        "uid": view.id.uid,
        "createdMs": view.created_ms,
        "node": view.node,
        "request": view.request,
    })
}
