//! What the agent knows of the node's containers.
use std::collections::{BTreeMap, BTreeSet};

use fairlead_topology::CpuMask;
use serde::{Deserialize, Serialize};

use super::{Cores, Place, Promises, Seen, Version};

/// Places remembered of one container: a word may be overtaken by a later one before it is carried out.
const TOLD_MAX: usize = 8;

/// CPUs and memory nodes that a container holds until it ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// CPUs it runs on.
    pub cpus: CpuMask,
    /// Memory nodes it runs on.
    pub memory_nodes: CpuMask,
    /// CPUs that its pod keeps from everybody else: `cpus`, those of its other containers, idle siblings.
    pub held: CpuMask,
    /// The CPUs are isolated ones.
    pub isolated: bool,
}

impl Claim {
    /// Where its container is to run.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { cpus: self.cpus.clone(), memory_nodes: self.memory_nodes.clone(), unlimited: true }
    }

    /// CPUs that two pods would both run on, or one run on and the other hold.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> CpuMask {
        self.cpus.intersect(&other.held).union(&self.held.intersect(&other.cpus))
    }
}

/// A container of the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// As it was last shown.
    pub seen: Seen,
    /// What it holds; none: it belongs to the shared pool.
    pub claim: Option<Claim>,
    /// The runtime has it. Before, it was only asked how to create it, and it skips changes to it without a word.
    pub created: bool,
    /// Where the runtime was told to run it, whether or not it did, the last word last; empty: this agent told nothing.
    pub told: Vec<Place>,
    /// Where it is known to run; none: everywhere.
    pub runs: Option<Place>,
    /// Who else set its CPUs or memory nodes, in a sentence.
    pub foreign: Option<String>,
    /// It was put back where this agent wants it, and nothing is held against its node from then on, ms.
    pub(super) lapses_at_ms: Option<u64>,
    /// Where it runs is in doubt: something else changes it, and may not. It is told once more from then on, ms.
    pub(super) doubt_ms: Option<u64>,
    /// It was started.
    pub(super) started: bool,
    /// It was changed before that: a change while it was being started had no effect.
    pub(super) changed_early: bool,
    /// Why it cannot have what was promised.
    pub blocked: Option<String>,
    /// Why the runtime did not change it.
    pub refused: Option<String>,
    /// The runtime refused to change it this many times in a row.
    pub refusals: u8,
    /// It is not tried again before, ms.
    pub retry_at_ms: u64,
}

impl Container {
    /// One that the runtime has, or is about to have.
    pub(super) fn new(seen: Seen, claim: Option<Claim>, created: bool) -> Self {
        Self {
            started: seen.started,
            seen,
            claim,
            created,
            told: Vec::new(),
            runs: None,
            foreign: None,
            lapses_at_ms: None,
            doubt_ms: None,
            changed_early: false,
            blocked: None,
            refused: None,
            refusals: 0,
            retry_at_ms: 0,
        }
    }

    /// Where it was last told to run.
    pub(super) fn last_told(&self) -> Option<&Place> {
        self.told.last()
    }

    pub(super) fn tell(&mut self, place: Place) {
        self.told.retain(|earlier| *earlier != place);
        self.told.push(place);
        if self.told.len() > TOLD_MAX {
            // What is in force tells this agent's place from another writer's.
            let in_force = |place: &Place| self.runs.as_ref().is_some_and(|runs| place.is_at(runs));
            self.told.remove(self.told.iter().position(|place| !in_force(place)).unwrap_or_default());
        }
    }

    /// As [`Self::tell`], once the runtime has it.
    pub(super) fn tell_change(&mut self, place: Place) {
        self.changed_early |= !self.started;
        self.tell(place);
    }

    /// Whether it may run elsewhere than the runtime says.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.changed_early || self.doubt_ms.is_some()
    }

    /// Whether somebody else put it where it is.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.is_some() && self.told.is_empty() && self.claim.is_none()
    }
}

/// How far the runtime is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Link {
    /// No connection, or not yet told everything.
    #[default]
    Down,
    /// It told what it has.
    Synchronized,
}

/// A container that waits to be created.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) seen: Seen,
    /// Answered by then, ms.
    pub(super) until_ms: u64,
    /// The read under way began after this came.
    pub(super) asked: bool,
    /// Why the last read told nothing.
    pub(super) read_failed: Option<String>,
}

/// Everything the decisions rest on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Whether runtimes may permit real-time scheduling to containers on isolated CPUs.
    pub permit_sched_fifo: bool,
    /// UID of the agent's own pod: it is left alone, for what a cgroup keeps from the agent the agent cannot see.
    pub own_pod: Option<String>,
    /// The machine.
    pub cores: Cores,
    /// What was promised.
    pub promises: Promises,
    /// Where the promises come from.
    pub version: Version,
    /// They come from the API server, not from the checkpoint.
    pub listed: bool,
    /// Containers by the runtime's id.
    pub containers: BTreeMap<String, Container>,
    /// The runtime.
    pub link: Link,
    pub(super) remembered: BTreeMap<String, Claim>,
    pub(super) remembered_told: BTreeMap<String, Vec<Place>>,
    pub(super) remembered_doubtful: BTreeSet<String>,
    pub(super) waiting: BTreeMap<u32, Waiting>,
    pub(super) reading: bool,
    /// The watch told something since the read under way was asked for.
    pub(super) overtaken: bool,
    /// The promises are of an object that a read showed and the watch has not yet.
    pub(super) ahead: bool,
    /// What the watch told of another object then: true, or long past. A read decides.
    pub(super) unconfirmed: Option<(Version, Promises)>,
    /// The container that is named as another writer's, as long as it is one.
    pub(super) rival_id: Option<String>,
    /// The update under way.
    pub(super) flight: Vec<(String, Place)>,
    /// When it was sent, ms.
    pub(super) flight_at_ms: u64,
    /// Containers of an update that failed: each is tried by itself.
    pub(super) alone: BTreeSet<String>,
    /// Containers are spread over CPUs that came free no earlier than this, ms.
    pub(super) spread_at_ms: u64,
}

/// What outlives a restart of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// What was promised.
    pub promises: Promises,
    /// Where that was read.
    pub version: Version,
    /// Claims by container id.
    pub claims: BTreeMap<String, Claim>,
    /// Where containers were told to run, by container id: any other cpuset is somebody else's.
    #[serde(default)]
    pub told: BTreeMap<String, Vec<Place>>,
    /// Ids of containers that may run elsewhere than the runtime says.
    #[serde(default)]
    pub doubtful: BTreeSet<String>,
}

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(permit_sched_fifo: bool, own_pod: Option<String>) -> Self {
        Self { permit_sched_fifo, own_pod, ..Self::default() }
    }

    /// What is to be written to the checkpoint.
    #[must_use]
    pub fn to_remember(&self) -> Remembered {
        let claim = |(id, container): (&String, &Container)| Some((id.clone(), container.claim.clone()?));
        let mut claims = self.remembered.clone();
        claims.extend(self.containers.iter().filter_map(claim));
        let mut told = self.remembered_told.clone();
        let own = self.containers.iter().filter(|(_, container)| !container.told.is_empty());
        told.extend(own.map(|(id, container)| (id.clone(), container.told.clone())));
        let mut doubtful = self.remembered_doubtful.clone();
        doubtful
            .extend(self.containers.iter().filter(|(_, container)| container.is_doubtful()).map(|(id, _)| id.clone()));
        Remembered { promises: self.promises.clone(), version: self.version.clone(), claims, told, doubtful }
    }

    /// Who else sets cpusets here, in a sentence. The agent is not the second writer: it moves nothing then, and holds
    /// what it pinned.
    #[must_use]
    pub fn rival(&self) -> Option<&str> {
        let named = self.rival_id.as_ref().and_then(|id| self.containers.get(id)?.foreign.as_deref());
        named.or_else(|| self.containers.values().find_map(|container| container.foreign.as_deref()))
    }

    /// Names one, and keeps to it: what is said of the node is published, and changes no oftener than it must.
    pub(super) fn name_rival(&mut self) {
        let is_foreign = |id: &String| self.containers.get(id).is_some_and(|container| container.foreign.is_some());
        if !self.rival_id.as_ref().is_some_and(is_foreign) {
            self.rival_id = self.containers.iter().find(|(_, one)| one.foreign.is_some()).map(|(id, _)| id.clone());
        }
    }

    /// Signs of another writer that were corrected long enough ago are forgotten.
    pub(super) fn lapse(&mut self, now_ms: u64) {
        for container in self.containers.values_mut() {
            if container.lapses_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
                (container.foreign, container.lapses_at_ms) = (None, None);
            }
        }
    }

    /// CPUs that claims keep from the shared pool.
    #[must_use]
    pub fn held(&self) -> CpuMask {
        let mut held = CpuMask::new();
        for claim in self.containers.values().filter_map(|container| container.claim.as_ref()) {
            held.union_with(&claim.held);
        }
        held
    }

    /// CPUs of the shared pool. Promised CPUs are kept free for their pods as long as anything else is left; empty only
    /// when claims hold everything, which happens when CPUs go offline.
    #[must_use]
    pub fn pool(&self) -> CpuMask {
        let unclaimed = self.cores.shared.subtract(&self.held());
        let mut pool = unclaimed.clone();
        for promise in self.promises.values() {
            pool.subtract_with(&promise.cpus);
        }
        if pool.is_empty() { unclaimed } else { pool }
    }

    /// When something is due without an event, ms.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        let waiting = self.waiting.values().map(|waiting| waiting.until_ms);
        let lapses = self.containers.values().filter_map(|container| container.lapses_at_ms);
        waiting.chain(lapses).chain(self.next_update_ms()).min()
    }
}
