//! What follows from what is known: claims that have become possible, creations that can be answered, updates to send.
use fairlead_topology::CpuMask;

use super::claim::claim_of;
use super::{Claim, Container, Link, Place, Request, Seen, State};

/// Containers changed in one request: the runtime changes them one after another, and nothing else meanwhile.
const BATCH_MAX: usize = 16;
/// Containers are spread over CPUs that came free at most this often, ms.
const SPREAD_PAUSE_MS: u64 = 1_000;
/// The first pause after the runtime refused a change, ms; doubles up to 64 times that.
const RETRY_MS: u64 = 1_000;
const DOUBLINGS_MAX: u8 = 6;

impl State {
    /// Where a container is to run; none: nothing can be said, so it stays where it is.
    pub(super) fn wanted(&self, container: &Container, pool: &CpuMask) -> Option<Place> {
        match &container.claim {
            // Not the second writer.
            None if container.is_foreign() => None,
            Some(claim) if claim.cpus.is_subset(&self.cores.usable) => Some(claim.place()),
            // CPUs of a claim that went offline: the kernel moved it, and nothing better can be told.
            Some(_) => None,
            None if pool.is_empty() => None,
            None => Some(Place { cpus: pool.clone(), memory_nodes: self.cores.memory_nodes.clone(), unlimited: false }),
        }
    }

    /// The promised CPUs of a container.
    pub(super) fn promised(&self, seen: &Seen) -> Option<(&super::Promise, &CpuMask)> {
        let promise = self.promises.get(&seen.pod_uid)?;
        promise.containers.get(&seen.name).map(|cpus| (promise, cpus))
    }

    /// Gives claims to containers that run and have a promise. One that holds other CPUs than promised moves, where the
    /// promised ones are free.
    pub(super) fn promote(&mut self) -> bool {
        let mut changed = false;
        let open: Vec<String> = self.open().map(|(id, _)| id.clone()).collect();
        for id in open {
            let Some(container) = self.containers.get(&id) else { continue };
            let outcome = match self.promised(&container.seen) {
                Some(_) if container.is_foreign() => Err(container.foreign.clone().unwrap_or_default()),
                Some((promise, cpus)) => claim_of(self, &container.seen, promise, cpus).map(Some),
                None => Ok(None),
            };
            let Some(container) = self.containers.get_mut(&id) else { continue };
            container.blocked = match outcome {
                Ok(claim) => {
                    changed |= claim.is_some();
                    container.claim = claim.or(container.claim.take());
                    None
                }
                Err(why) => Some(why),
            };
        }
        changed
    }

    /// Containers that do not claim what their pods were promised, and those for which that was so.
    fn open(&self) -> impl Iterator<Item = (&String, &Container)> {
        self.containers.iter().filter(|(_, container)| match self.promised(&container.seen) {
            Some((promise, cpus)) => !container.claim.as_ref().is_some_and(|claim| agrees(claim, promise, cpus)),
            None => container.blocked.is_some(),
        })
    }

    /// The next update to send, if one is due.
    pub(super) fn update(&mut self, now_ms: u64) -> Option<Request> {
        if !self.may_move() {
            return None;
        }
        let due = self.due_updates(now_ms);
        let first_alone = due.iter().find(|(id, _)| self.alone.contains(id)).cloned();
        let batch: Vec<(String, Place)> = match first_alone {
            Some(one) => vec![one],
            None => due.into_iter().take(BATCH_MAX).collect(),
        };
        if batch.is_empty() {
            return None;
        }
        self.spread_at_ms = now_ms + SPREAD_PAUSE_MS;
        self.flight_at_ms = now_ms;
        self.flight.clone_from(&batch);
        self.have_told(&batch);
        Some(Request::UpdateContainers(batch))
    }

    /// Whether an update may be sent: one at a time, and none beside another writer's.
    fn may_move(&self) -> bool {
        self.link == Link::Synchronized && self.flight.is_empty() && self.rival().is_none()
    }

    pub(super) fn have_told(&mut self, places: &[(String, Place)]) {
        for (id, place) in places {
            if let Some(container) = self.containers.get_mut(id) {
                container.tell_change(place.clone());
            }
        }
    }

    /// Containers to change now, those that leave CPUs of others first, then claims, then those that only gain CPUs.
    fn due_updates(&self, now_ms: u64) -> Vec<(String, Place)> {
        let pool = self.pool();
        let mut due = Vec::new();
        for (id, container) in &self.containers {
            let Some((urgency, place)) = self.pending(container, &pool) else { continue };
            if now_ms >= self.due_at_ms(container, urgency) {
                due.push((urgency, id.clone(), place));
            }
        }
        due.sort_by_key(|(urgency, ..)| *urgency);
        due.into_iter().map(|(_, id, place)| (id, place)).collect()
    }

    fn due_at_ms(&self, container: &Container, urgency: Urgency) -> u64 {
        let spread = if urgency == Urgency::Gain { self.spread_at_ms } else { 0 };
        spread.max(container.retry_at_ms).max(container.doubt_ms.unwrap_or_default())
    }

    fn pending(&self, container: &Container, pool: &CpuMask) -> Option<(Urgency, Place)> {
        let place = self.wanted(container, pool).filter(|_| container.created)?;
        let urgency = match &container.runs {
            Some(runs) if runs.satisfies(&place) && container.doubt_ms.is_none() => return None,
            _ if container.claim.is_some() => Urgency::Claim,
            Some(runs) if runs.cpus.is_subset(pool) => Urgency::Gain,
            _ => Urgency::Leave,
        };
        Some((urgency, place))
    }

    /// When an update may be due without an event, ms.
    pub(super) fn next_update_ms(&self) -> Option<u64> {
        if !self.may_move() {
            return None;
        }
        let pool = self.pool();
        let at = |container: &Container| {
            let (urgency, _) = self.pending(container, &pool)?;
            Some(self.due_at_ms(container, urgency))
        };
        self.containers.values().filter_map(at).min()
    }

    /// The runtime answered the update under way.
    pub(super) fn landed(&mut self, refused: Option<&str>, now_ms: u64) {
        let flight = std::mem::take(&mut self.flight);
        let single = flight.len() == 1;
        for (id, place) in flight {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            if refused.is_some() {
                // One of them was refused, and the answer does not tell which.
                container.doubt_ms = container.doubt_ms.max(Some(now_ms));
            }
            match refused {
                None => {
                    (container.runs, container.refusals, container.retry_at_ms) = (Some(place), 0, 0);
                    container.refused = None;
                    // A doubt that arose since is not settled by this.
                    container.doubt_ms = container.doubt_ms.filter(|at_ms| *at_ms > self.flight_at_ms);
                    self.alone.remove(&id);
                }
                Some(_) if !single => drop(self.alone.insert(id)),
                Some(message) => {
                    container.refused = Some(format!("the runtime refuses CPUs {}: {message}", place.cpus));
                    container.retry_at_ms = now_ms + (RETRY_MS << container.refusals.min(DOUBLINGS_MAX));
                    container.refusals = container.refusals.saturating_add(1);
                    self.alone.remove(&id);
                }
            }
        }
    }

    /// Containers of the shared pool that run on CPUs of a claim: they leave before its container is created.
    pub(super) fn in_the_way(&self, claim: &Claim) -> Vec<(String, Place)> {
        let pool = self.pool();
        let shared = self.containers.iter().filter(|(_, container)| container.created && container.claim.is_none());
        let touches = |container: &Container| match &container.runs {
            Some(runs) => runs.cpus.intersects(&claim.held),
            None => true,
        };
        let place = |(id, container): (&String, &Container)| Some((id.clone(), self.wanted(container, &pool)?));
        shared.filter(|(_, container)| touches(container)).filter_map(place).collect()
    }
}

fn agrees(claim: &Claim, promise: &super::Promise, cpus: &CpuMask) -> bool {
    claim.cpus == *cpus && (promise.memory_nodes.is_empty() || claim.memory_nodes == promise.memory_nodes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// It runs on CPUs that are not its own.
    Leave,
    /// It does not run as promised.
    Claim,
    /// It could have more CPUs.
    Gain,
}
