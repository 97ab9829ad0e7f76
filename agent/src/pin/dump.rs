//! The pinning's part of `/debug/dump`.
use serde_json::{Value, json};

use super::{Container, State};

/// What the decisions rest on, for people.
#[must_use]
pub fn dump_of(state: &State) -> Value {
    json!({
        "runtime": state.link,
        "rival": state.rival(),
        "usableCPUs": state.cores.usable,
        "sharedCPUs": state.pool(),
        "memoryNodes": state.cores.memory_nodes,
        "promises": state.promises,
        "version": state.version,
        "fromAPIServer": state.listed,
        "containers": state.containers.values().map(container).collect::<Vec<_>>(),
        "waiting": state.waiting.values().map(|waiting| waiting.seen.title()).collect::<Vec<_>>(),
        "beingUpdated": state.flight.iter().map(|(id, _)| id).collect::<Vec<_>>(),
    })
}

fn container(container: &Container) -> Value {
    json!({
        "id": container.seen.id,
        "container": container.seen.title(),
        "claim": container.claim,
        "created": container.created,
        "told": container.told,
        "runs": container.runs,
        "foreign": container.foreign,
        "blocked": container.blocked,
        "refused": container.refused,
    })
}
