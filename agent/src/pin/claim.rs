//! Whether a container may have what its pod was promised.
use fairlead_topology::CpuMask;

use super::{Claim, Promise, Seen, State};

/// The claim that a promise gives a container, unless something on the node forbids it.
///
/// # Errors
/// Why not, in a sentence for the kubelet's event and the NodePlacement's status.
pub(super) fn claim_of(state: &State, seen: &Seen, promise: &Promise, cpus: &CpuMask) -> Result<Claim, String> {
    if let Some(fault) = &promise.fault {
        return Err(format!("the reservation cannot be read: {fault}"));
    }
    if cpus.is_empty() {
        return Err(format!("spec.reservations[podUID={}].containers[name={}].cpus: empty", seen.pod_uid, seen.name));
    }
    let missing = cpus.subtract(&state.cores.usable);
    if !missing.is_empty() {
        return Err(format!("promised CPUs {missing} are offline or not for pods on this node"));
    }
    let missing = promise.memory_nodes.subtract(&state.cores.memory_nodes);
    if !missing.is_empty() {
        return Err(format!("promised memory nodes {missing} have no memory on this node"));
    }
    let claim = made_of(state, promise, cpus);
    admit(state, seen, &claim).map(|()| claim)
}

fn made_of(state: &State, promise: &Promise, cpus: &CpuMask) -> Claim {
    let named = if promise.memory_nodes.is_empty() { &state.cores.memory_nodes } else { &promise.memory_nodes };
    let held = promise.cpus.union(cpus);
    Claim { cpus: cpus.clone(), memory_nodes: named.clone(), held, isolated: promise.isolated }
}

/// The claim of a container that runs on its promised CPUs already. Nothing that happened since, such as a CPU that went
/// offline, takes it away.
pub(super) fn claim_in_force(state: &State, seen: &Seen, promise: &Promise, cpus: &CpuMask) -> Option<Claim> {
    let claim = made_of(state, promise, cpus);
    let runs = seen.runs.as_ref().is_some_and(|runs| runs.cpus == *cpus);
    (runs && admit(state, seen, &claim).is_ok()).then_some(claim)
}

/// Whether the claim agrees with those of other pods, and leaves something to the shared pool.
pub(super) fn admit(state: &State, seen: &Seen, claim: &Claim) -> Result<(), String> {
    for other in state.containers.values().filter(|other| other.seen.pod_uid != seen.pod_uid) {
        let Some(theirs) = &other.claim else { continue };
        let both = claim.conflict(theirs);
        if !both.is_empty() {
            return Err(format!("promised CPUs {both} are still held by {}", other.seen.title()));
        }
    }
    let left = state.cores.shared.subtract(&state.held()).subtract(&claim.held);
    if left.is_empty() && !claim.held.intersect(&state.cores.shared).is_empty() {
        return Err(format!("promised CPUs {} would leave no CPU to the shared pool", claim.cpus));
    }
    Ok(())
}

/// What an annotation that agrees with where the container runs tells of a promise that is gone. Without the agreement
/// it tells nothing: where admission policies are off, anybody may write it.
pub(super) fn claim_of_annotation(state: &State, seen: &Seen) -> Option<Claim> {
    let (annotated, runs) = (seen.annotated.as_ref()?, seen.runs.as_ref()?);
    let same_nodes = annotated.memory_nodes.is_empty() || annotated.memory_nodes == runs.memory_nodes;
    if annotated.cpus != runs.cpus || !same_nodes || !runs.unlimited {
        return None;
    }
    let claim = Claim {
        cpus: runs.cpus.clone(),
        memory_nodes: runs.memory_nodes.clone(),
        held: runs.cpus.clone(),
        isolated: false,
    };
    admit(state, seen, &claim).ok().map(|()| claim)
}
