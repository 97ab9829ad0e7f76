//! Containers that the runtime has: taken over, confirmed, corrected, and told from those that somebody else places.
use fairlead_topology::CpuMask;

use super::claim::{apart, claim_in_force, claim_of_annotation};
use super::{Claim, Container, Link, Place, Request, Seen, State};

/// A change by somebody else is done, or has failed, within this time, ms. Until then an update of ours could be undone
/// by it.
const CHANGE_MS: u64 = 2_000;
/// A change by somebody else that was corrected is held against the node for this long, ms. A kubelet that sets CPUs does
/// so every 10 s (`--cpu-manager-reconcile-period`), and stays known as another writer.
const SIGN_MS: u64 = 60_000;

impl State {
    /// Takes over what runs. What is known to run on its claim keeps it before anything new is claimed.
    pub(super) fn adopt(&mut self, list: Vec<Seen>) -> bool {
        let mut before = std::mem::take(&mut self.containers);
        let mut claims = std::mem::take(&mut self.remembered);
        let mut told = std::mem::take(&mut self.remembered_told);
        let mut doubtful = std::mem::take(&mut self.remembered_doubtful);
        self.link = Link::Synchronized;
        let list: Vec<Seen> = list.into_iter().filter(|seen| !self.is_own(seen)).collect();
        let mut open = Vec::new();
        for seen in list {
            let id = seen.id.clone();
            let earlier = before.remove(&id);
            let known = earlier.as_ref().and_then(|container| container.claim.clone()).or_else(|| claims.remove(&id));
            let claim = known.filter(|claim| apart(self, &seen, claim).is_ok());
            let told = earlier.as_ref().map(|container| container.told.clone()).or_else(|| told.remove(&id));
            let runs = seen.runs.as_ref().map(|set| self.whole(set));
            let doubted = doubtful.remove(&id) || earlier.as_ref().is_some_and(Container::is_doubtful);
            // What it was told may not be in force: it started while nobody listened, or nobody remembers when it was told.
            let in_doubt = seen.started && (doubted || (told.is_none() && runs.is_some()));
            let (foreign, lapses_at_ms) = earlier.map(|one| (one.foreign, one.lapses_at_ms)).unwrap_or_default();
            let container = Container {
                told: told.unwrap_or_default(),
                runs,
                foreign,
                lapses_at_ms,
                doubt_ms: in_doubt.then_some(0),
                // What is not started yet may be in the middle of it.
                changed_early: !seen.started,
                ..Container::new(seen, claim, true)
            };
            if container.claim.is_none() {
                open.push(id.clone());
            }
            self.containers.insert(id, container);
        }
        for running_as_promised in [true, false] {
            for id in &open {
                self.adopt_unclaimed(id, running_as_promised);
            }
        }
        for id in &open {
            self.suspect(id);
        }
        true
    }

    fn adopt_unclaimed(&mut self, id: &str, running_as_promised: bool) {
        let Some(container) = self.containers.get(id).filter(|container| container.claim.is_none()) else { return };
        let seen = &container.seen;
        let claim: Option<Claim> = match self.promised(seen) {
            Some((promise, cpus)) if running_as_promised => claim_in_force(self, seen, promise, cpus),
            None if !running_as_promised => claim_of_annotation(self, container),
            _ => None,
        };
        if let (Some(claim), Some(container)) = (claim, self.containers.get_mut(id)) {
            container.claim = Some(claim);
        }
    }

    /// A container without a claim that has CPUs or memory nodes which are neither its own places nor those that it would
    /// get now: somebody else set them.
    fn suspect(&mut self, id: &str) {
        let pool = self.pool_place();
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(runs) = container.runs.as_ref().filter(|_| container.claim.is_none()) else { return };
        if container.told.iter().any(|place| place.is_at(runs)) {
            return;
        }
        if runs.is_at(&pool) {
            container.tell(pool);
        } else if container.seen.marked {
            // Placed by this agent, and the checkpoint is older than its place: so it is placed once more.
            container.doubt_ms = container.doubt_ms.or_else(|| container.started.then_some(0));
        } else {
            let sign = sign(&container.seen, runs);
            container.foreign.get_or_insert(sign);
        }
    }

    /// What was suspected before the promises were known may be what they call for.
    pub(super) fn acquit(&mut self) {
        let pool = self.pool_place();
        for container in self.containers.values_mut() {
            if container.is_foreign() && container.created && container.runs.as_ref().is_some_and(|at| at.is_at(&pool))
            {
                (container.foreign, container.lapses_at_ms) = (None, None);
                container.tell(pool.clone());
            }
        }
    }

    fn pool_place(&self) -> Place {
        Place { cpus: self.pool(), memory_nodes: self.cores.memory_nodes.clone(), unlimited: false }
    }

    /// A place as the runtime shows it: what it was not told is all there is.
    fn whole(&self, shown: &Place) -> Place {
        let mut place = shown.clone();
        if place.cpus.is_empty() {
            place.cpus.clone_from(&self.cores.usable);
        }
        if place.memory_nodes.is_empty() {
            place.memory_nodes.clone_from(&self.cores.memory_nodes);
        }
        place
    }

    /// The runtime has the container. From now on it can be changed, and is, where the pool has moved meanwhile.
    pub(super) fn created(&mut self, seen: Seen) {
        if self.is_own(&seen) {
            return;
        }
        let shown = seen.runs.as_ref().map(|set| self.whole(set));
        match self.containers.get_mut(&seen.id) {
            Some(container) if container.created => {}
            Some(container) => {
                container.created = true;
                container.runs = shown.or_else(|| container.last_told().cloned());
            }
            None => self.adopt_one(seen),
        }
    }

    /// One that was not asked about, as when the connection was lost in the middle of its creation.
    fn adopt_one(&mut self, seen: Seen) {
        let (id, runs) = (seen.id.clone(), seen.runs.as_ref().map(|set| self.whole(set)));
        self.containers.insert(id.clone(), Container { runs, ..Container::new(seen, None, true) });
        for running_as_promised in [true, false] {
            self.adopt_unclaimed(&id, running_as_promised);
        }
        self.suspect(&id);
    }

    /// The container runs. While a runtime starts it, a change is noted and not carried out (containerd 2.4,
    /// `updateContainerResources`: the specification alone, unless the state is running).
    pub(super) fn started(&mut self, id: &str, now_ms: u64) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.created {
            (container.created, container.runs) = (true, container.last_told().cloned());
        }
        container.started = true;
        if std::mem::take(&mut container.changed_early) {
            container.doubt_ms = container.doubt_ms.max(Some(now_ms + 1));
        }
    }

    /// Answers a change by somebody else. Whether it is carried out is not known before [`State::done`].
    pub(super) fn correct(
        &mut self,
        call: u32,
        seen: Seen,
        asked: Option<Place>,
        requests: &mut Vec<Request>,
        now_ms: u64,
    ) {
        let id = seen.id.clone();
        if self.is_own(&seen) {
            return requests.push(Request::Correct { call, id, place: None });
        }
        if !self.containers.contains_key(&id) {
            self.adopt_one(seen);
            self.promote();
        }
        let is_sign = self.note_asked(&id, asked);
        // An update under way is carried out after this one: to say something newer now would be undone by it.
        let under_way = self.flight.iter().find(|(flying, _)| *flying == id).map(|(_, place)| place.clone());
        let place = under_way.or_else(|| self.wanted_beside_rival(&id));
        if let Some(container) = self.containers.get_mut(&id) {
            if let Some(place) = &place {
                container.tell_change(place.clone());
                if is_sign {
                    container.lapses_at_ms = Some(now_ms + SIGN_MS);
                }
            }
            container.doubt_ms = Some(now_ms + CHANGE_MS);
        }
        requests.push(Request::Correct { call, id, place });
    }

    /// Where another writer is, what this agent placed is held and nothing else is touched.
    fn wanted_beside_rival(&self, id: &str) -> Option<Place> {
        let container = self.containers.get(id)?;
        if self.rival().is_some() && container.told.is_empty() && container.claim.is_none() {
            return None;
        }
        self.wanted(container, &self.pool())
    }

    /// Whether somebody else asks for CPUs or memory nodes of his own. A runtime may repeat any place of before.
    fn note_asked(&mut self, id: &str, asked: Option<Place>) -> bool {
        let Some(container) = self.containers.get_mut(id) else { return false };
        let Some(asked) = asked else { return false };
        let same = |asked: &CpuMask, own: &CpuMask| asked.is_empty() || asked == own;
        let is_at = |own: &Place| same(&asked.cpus, &own.cpus) && same(&asked.memory_nodes, &own.memory_nodes);
        let untold = container.runs.iter().filter(|_| container.told.is_empty());
        if asked.cpus.is_empty() && asked.memory_nodes.is_empty() || container.told.iter().chain(untold).any(is_at) {
            return false;
        }
        let sign = sign(&container.seen, &asked);
        container.foreign.get_or_insert(sign);
        true
    }

    /// A change by somebody else was carried out, and this came of it. Where the runtime shows nothing, the doubt stays.
    pub(super) fn done(&mut self, seen: &Seen, now_ms: u64) {
        let Some(shown) = seen.runs.as_ref().map(|set| self.whole(set)) else { return };
        if let Some(container) = self.containers.get_mut(&seen.id) {
            // Corrected; or the correction was overruled, and then the sign stays.
            let is_own = container.foreign.is_some() && container.told.iter().any(|place| place.is_at(&shown));
            container.lapses_at_ms = is_own.then(|| container.lapses_at_ms.unwrap_or(now_ms + SIGN_MS));
            (container.doubt_ms, container.runs) = (None, Some(shown));
        }
    }
}

/// What tells of another writer.
pub(super) fn sign(seen: &Seen, set: &Place) -> String {
    let mut parts = Vec::new();
    if !set.cpus.is_empty() {
        parts.push(format!("CPUs {}", set.cpus));
    }
    if !set.memory_nodes.is_empty() {
        parts.push(format!("memory nodes {}", set.memory_nodes));
    }
    format!("{} was given {} by another plugin or by the kubelet", seen.title(), parts.join(" and "))
}
