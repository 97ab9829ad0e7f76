//! `/debug/explain`: the verdicts on one pod. `/debug/dump`: the facts that every answer was made from, as [`fairlead_cluster::Dump`].
//!
//! `kubectl fairlead simulate placement --from-dump` makes the model again out of it
//! ([`fairlead_cluster::Model::from_dump`]) and answers as the extender did, byte for byte. What follows from the facts
//! (what is free, who is distrusted) is in `/debug/explain`. The shape, all lists sorted:
//!
//! ```json
//! { "version": 1, "ownNamespace": "fairlead-system", "synced": true,
//!   "nodes":      [{ "name", "uid", "ready", "unschedulable", "allocatable", "capacityMilli", "systemReserve" }],
//!   "topologies": [ NodeTopology: metadata.name, metadata.ownerReferences, spec ],
//!   "placements": [ NodePlacement: metadata name, uid, generation, ownerReferences, trust annotation; spec; observations ],
//!   "quotas":     [ TenantQuota: metadata name, uid, generation, creationTimestamp; spec ],
//!   "pools":      [{ "namespace", "name", "createdMs", "selector", "topology" }],
//!   "namespaces": [{ "name", "label", "terminating" }],
//!   "pods":       [{ "namespace", "name", "uid", "request", "exclusive", "labels", "wishes", "node", … }],
//!   "promises":   [{ "node", "podUID", "sharedMilli", "reservation" }] }
//! ```
use fairlead_cluster::Snapshot;
use serde_json::{Value, json};

/// Everything that filter, prioritize and bind decide on.
#[must_use]
pub fn dump(snapshot: &Snapshot) -> Value {
    // Plain data: it has a JSON form.
    serde_json::to_value(snapshot.dump()).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// The verdict of every node on the pod of that name, with its numbers; `None`: no such pod is known.
#[must_use]
pub fn explain(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Value> {
    serde_json::to_value(snapshot.explain(snapshot.pod_named(namespace, name)?)).ok()
}
