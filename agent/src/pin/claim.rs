//! Whether a container may have what its pod was promised.
use fairlead_topology::CpuMask;

use super::{Claim, Container, Promise, Seen, State};

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
    apart(state, seen, &claim)?;
    spares_the_pool(state, &claim)?;
    Ok(claim)
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
    (runs && apart(state, seen, &claim).is_ok()).then_some(claim)
}

/// Whether the claim agrees with those of other pods.
pub(super) fn apart(state: &State, seen: &Seen, claim: &Claim) -> Result<(), String> {
    for other in state.containers.values().filter(|other| other.seen.pod_uid != seen.pod_uid) {
        let Some(theirs) = &other.claim else { continue };
        let both = claim.conflict(theirs);
        if !both.is_empty() {
            return Err(format!("promised CPUs {both} are still held by {}", other.seen.title()));
        }
    }
    Ok(())
}

/// Whether a new claim leaves something to the shared pool. One in force is not asked: what it leaves is for others to
/// share.
fn spares_the_pool(state: &State, claim: &Claim) -> Result<(), String> {
    let left = state.cores.shared.subtract(&state.held()).subtract(&claim.held);
    if left.is_empty() && !claim.held.intersect(&state.cores.shared).is_empty() {
        return Err(format!("promised CPUs {} would leave no CPU to the shared pool", claim.cpus));
    }
    Ok(())
}

/// What an annotation that agrees with where the container runs tells of a promise that is gone. It is believed only
/// where nothing speaks against it, for where admission policies are off anybody may write it: not of a container that
/// was put into the shared pool, nor of CPUs on which others share.
pub(super) fn claim_of_annotation(state: &State, container: &Container) -> Option<Claim> {
    let seen = &container.seen;
    let (annotated, runs) = (seen.annotated.as_ref()?, container.runs.as_ref()?);
    let same_nodes = annotated.memory_nodes.is_empty() || annotated.memory_nodes == runs.memory_nodes;
    let shared = container.told.iter().any(|told| !told.unlimited);
    if annotated.cpus != runs.cpus || !same_nodes || !runs.unlimited || shared || is_shared(state, seen, &runs.cpus) {
        return None;
    }
    let claim = Claim {
        cpus: runs.cpus.clone(),
        memory_nodes: runs.memory_nodes.clone(),
        held: runs.cpus.clone(),
        isolated: false,
    };
    apart(state, seen, &claim).ok()?;
    spares_the_pool(state, &claim).ok()?;
    Some(claim)
}

/// Whether another pod's container without a claim was put on these CPUs or within them. One that overlaps otherwise may
/// just not have left them yet.
fn is_shared(state: &State, seen: &Seen, cpus: &CpuMask) -> bool {
    let others = state.containers.values().filter(|other| other.seen.pod_uid != seen.pod_uid && other.claim.is_none());
    others.filter_map(|other| other.runs.as_ref()).any(|runs| runs.cpus.is_subset(cpus))
}
