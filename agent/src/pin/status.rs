//! What the NodePlacement's status says of the containers.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use fairlead_crds::conditions::Wanted;
use fairlead_crds::keys::{condition, reason};
use fairlead_crds::node_placement::{ObservedContainer, PinState};
use fairlead_topology::CpuMask;

use super::{Container, Finding, Link, Place, State};

/// Reason: containers run elsewhere than promised.
pub const NOT_AS_PROMISED: &str = "NotAsPromised";
/// Reason: containers of the shared pool are on CPUs that are promised to others.
pub const SHARED_NOT_MOVED: &str = "SharedContainersNotMoved";
/// Reason: the runtime does not tell.
pub const RUNTIME_AWAY: &str = "RuntimeAway";
/// Why a container of the shared pool has no place.
pub(super) const NO_CPU_LEFT: &str = "no CPU is left to the shared pool";
/// Bounds of the kind's schema.
const CONTAINERS_MAX: usize = 4096;
const MESSAGE_CHARS_MAX: usize = 512;
/// Containers named in the condition's message.
const NAMED_MAX: usize = 3;

/// What is observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// CPUs of the shared pool, kernel list format.
    pub shared_cpus: String,
    /// How many they are.
    pub shared_cpu_count: u32,
    /// Containers with CPUs of their own, by pod UID and name.
    pub containers: Vec<ObservedContainer>,
    /// Containers in the shared pool.
    pub shared_containers: usize,
    /// The condition Pinned.
    pub pinned: Wanted,
}

impl Observed {
    /// What is to be written while findings with numbers above `told` are not: a container that was put right since
    /// is shown as it was found. One that is amiss now is shown as it is.
    #[must_use]
    pub fn with_untold(mut self, found: &[Finding], told: u64) -> Self {
        for finding in found.iter().filter(|finding| finding.number > told) {
            let key = (&finding.line.pod_uid, &finding.line.name);
            let Ok(at) = self.containers.binary_search_by(|line| (&line.pod_uid, &line.name).cmp(&key)) else {
                continue;
            };
            if let Some(line) = self.containers.get_mut(at).filter(|line| !is_amiss(line.state)) {
                line.clone_from(&finding.line);
            }
        }
        // A runtime that is away tells nothing, whatever was found before.
        if self.pinned.status.is_some()
            && let Some(wrong) = not_as_promised(&self.containers)
        {
            self.pinned = wrong;
        }
        self
    }
}

/// What there is to say of the node's containers.
#[must_use]
pub fn observed(state: &State) -> Observed {
    let mut containers = running(state);
    let created: BTreeSet<(String, String)> =
        containers.iter().map(|container| (container.pod_uid.clone(), container.name.clone())).collect();
    for (uid, promise) in &state.promises {
        for name in promise.containers.keys().filter(|name| !created.contains(&(uid.clone(), (*name).clone()))) {
            containers.push(pending(uid, name));
        }
    }
    containers.sort_by(|a, b| (&a.pod_uid, &a.name).cmp(&(&b.pod_uid, &b.name)));
    containers.truncate(CONTAINERS_MAX);
    let shared_containers =
        state.containers.values().filter(|c| c.claim.is_none() && state.promised(&c.seen).is_none()).count();
    let pinned = pinned(state, &containers);
    let pool = state.pool();
    let (shared_cpus, shared_cpu_count) = (pool.to_string(), pool.len());
    Observed { shared_cpus, shared_cpu_count, containers, shared_containers, pinned }
}

fn running(state: &State) -> Vec<ObservedContainer> {
    let mut lines: BTreeMap<(String, String), ObservedContainer> = BTreeMap::new();
    for container in state.containers.values() {
        let Some((pin, message)) = judged(state, container) else { continue };
        let line = line(state, container, pin, &message);
        // A container that was started again: the runtime may still have the earlier one.
        match lines.entry((line.pod_uid.clone(), line.name.clone())) {
            Entry::Occupied(mut other) if rank(other.get().state) < rank(line.state) => drop(other.insert(line)),
            Entry::Occupied(_) => {}
            Entry::Vacant(none) => {
                none.insert(line);
            }
        }
    }
    lines.into_values().collect()
}

fn rank(state: PinState) -> u8 {
    match state {
        PinState::Pending => 0,
        PinState::Pinned => 1,
        PinState::Unpinned => 2,
        PinState::Drifted => 3,
    }
}

fn is_amiss(state: PinState) -> bool {
    matches!(state, PinState::Unpinned | PinState::Drifted)
}

/// The line of a container that does not run as promised; none: it does, or nothing was promised.
pub(super) fn amiss(state: &State, container: &Container) -> Option<ObservedContainer> {
    let (pin, message) = judged(state, container).filter(|(pin, _)| is_amiss(*pin))?;
    Some(line(state, container, pin, &message))
}

/// How a container runs, and why; none: nothing was promised to it.
fn judged(state: &State, container: &Container) -> Option<(PinState, String)> {
    let promised = state.promised(&container.seen).is_some();
    if !promised && container.claim.is_none() {
        return None;
    }
    if !container.created {
        return Some((PinState::Pending, String::new()));
    }
    let wanted = container.claim.as_ref().map(super::Claim::place);
    let as_wanted =
        wanted.as_ref().is_some_and(|wanted| container.runs.as_ref().is_some_and(|runs| runs.satisfies(wanted)));
    let offline = wanted.as_ref().map(|wanted| wanted.cpus.subtract(&state.cores.usable)).unwrap_or_default();
    Some(if !offline.is_empty() {
        (PinState::Drifted, format!("CPUs {offline} are offline or not for pods any more"))
    } else if let Some(why) = container.blocked.as_ref().or(container.refused.as_ref()) {
        (PinState::Drifted, why.clone())
    } else if !as_wanted {
        (PinState::Unpinned, "it ran before the agent could pin it".to_owned())
    } else if promised {
        (PinState::Pinned, String::new())
    } else {
        (PinState::Pinned, "its reservation is gone; it keeps its CPUs until it ends".to_owned())
    })
}

fn line(state: &State, container: &Container, pin: PinState, message: &str) -> ObservedContainer {
    if pin == PinState::Pending {
        return pending(&container.seen.pod_uid, &container.seen.name);
    }
    let everywhere =
        Place { cpus: state.cores.usable.clone(), memory_nodes: state.cores.memory_nodes.clone(), unlimited: false };
    let runs = container.runs.as_ref().unwrap_or(&everywhere);
    ObservedContainer {
        pod_uid: container.seen.pod_uid.clone(),
        name: container.seen.name.clone(),
        state: pin,
        cpus: runs.cpus.to_string(),
        memory_nodes: runs.memory_nodes.to_string(),
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

fn pending(uid: &str, name: &str) -> ObservedContainer {
    ObservedContainer {
        pod_uid: uid.to_owned(),
        name: name.to_owned(),
        state: PinState::Pending,
        cpus: String::new(),
        memory_nodes: String::new(),
        message: String::new(),
    }
}

fn wanted(status: Option<bool>, reason: &str, message: &str) -> Wanted {
    Wanted {
        type_: condition::PINNED,
        status,
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

fn not_as_promised(containers: &[ObservedContainer]) -> Option<Wanted> {
    let wrong: Vec<&ObservedContainer> = containers.iter().filter(|c| is_amiss(c.state)).collect();
    if wrong.is_empty() {
        return None;
    }
    let name = |c: &&ObservedContainer| format!("{} of pod {}: {}", c.name, c.pod_uid, c.message);
    let named: Vec<String> = wrong.iter().take(NAMED_MAX).map(name).collect();
    let message = format!("{} container(s) not as promised: {}", wrong.len(), named.join("; "));
    Some(wanted(Some(false), NOT_AS_PROMISED, &message))
}

/// Why a container of nobody's runs where others have their own CPUs, unless it is about to leave them.
fn stuck(state: &State, container: &Container, held: &CpuMask, is_pool_empty: bool) -> Option<String> {
    let on = container.runs.as_ref().map_or(&state.cores.usable, |runs| &runs.cpus).intersect(held);
    let beside =
        state.rival().filter(|_| !on.is_empty()).map(|rival| format!("it runs on CPUs {on} of others: {rival}"));
    // Its own CPUs are offline, and the kernel lets it run on all that its parent has.
    let homeless = (is_pool_empty && !container.is_foreign()).then(|| NO_CPU_LEFT.to_owned());
    container.refused.clone().or(beside).or(homeless)
}

fn pinned(state: &State, containers: &[ObservedContainer]) -> Wanted {
    if state.link == Link::Down {
        return wanted(None, RUNTIME_AWAY, "the container runtime does not tell what runs");
    }
    if let Some(wrong) = not_as_promised(containers) {
        return wrong;
    }
    let (held, is_pool_empty) = (state.held(), state.pool().is_empty());
    let stuck: Vec<String> = state
        .containers
        .values()
        .filter(|container| container.created && container.claim.is_none())
        .filter_map(|container| {
            let why = stuck(state, container, &held, is_pool_empty)?;
            Some(format!("{}: {why}", container.seen.title()))
        })
        .collect();
    if !stuck.is_empty() {
        let named = stuck.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
        return wanted(Some(false), SHARED_NOT_MOVED, &format!("{} container(s): {named}", stuck.len()));
    }
    let message = "every container that was created runs as promised";
    wanted(Some(true), reason::AS_EXPECTED, message)
}
