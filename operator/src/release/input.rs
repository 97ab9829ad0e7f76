//! The input of the plan: what the protocols say that counts, what waits, and what capacity is left.
use super::desk::Desk;
use super::lanes::Lanes;
use super::orphans::Orphans;
use super::refusals::Refusals;
use crate::book::{PodBook, PodNote, add};
use crate::view::TenantFacts;
use fairlead_cluster::{Snapshot, TenantView};
use fairlead_fairshare::protocol::{Standing, Uid};
use fairlead_fairshare::{PendingPod, ReleaseInput, ReleasePlan, ResourceVector, TenantInput, WaitReason, Waiting};
use std::collections::{BTreeMap, BTreeSet};

/// Releases that are decided and not settled, for each write that may be under way: more would only stand in line behind
/// the API server, in an order that later arrivals could no longer change.
const IN_FLIGHT_PER_WRITE: usize = 4;
/// Releases under way of a tenant whose writes keep failing: enough to see when they succeed again.
const PROBES: usize = 2;

/// How many more releases may be decided.
#[derive(Debug)]
struct Room {
    most: usize,
    /// Over all tenants, of what is left.
    left: usize,
    /// Tenants that release or want to, and do not falter.
    busy: usize,
    tenants: Vec<Moving>,
}

/// What a tenant has under way.
#[derive(Debug)]
struct Moving {
    tenant: String,
    /// Without those that are stuck.
    releases: usize,
    falters: bool,
}

impl Room {
    fn new(lanes: &Lanes) -> Self {
        let most = IN_FLIGHT_PER_WRITE * lanes.concurrency();
        Self { most, left: most, busy: 0, tenants: Vec::new() }
    }

    /// A tenant that falters waits for its pods to take writes again: it takes nothing from the others.
    fn take(&mut self, moving: Moving, waits: bool) {
        if !moving.falters {
            self.left = self.left.saturating_sub(moving.releases);
            self.busy += usize::from(waits || moving.releases > 0);
        }
        self.tenants.push(moving);
    }

    fn is_crowded(&self) -> bool {
        self.busy > 1
    }

    /// Most releases by tenant: half where there are others, so that one whose writes hang leaves them theirs.
    fn each(self) -> BTreeMap<String, usize> {
        let each = if self.is_crowded() { self.most.div_ceil(2) } else { self.most };
        let most = |moving: Moving| {
            let most = if moving.falters { PROBES } else { each };
            (moving.tenant, most.saturating_sub(moving.releases))
        };
        self.tenants.into_iter().map(most).collect()
    }
}

/// What a pass decides on.
#[derive(Debug)]
pub struct Table {
    /// The plan's input.
    pub input: ReleaseInput,
    /// Most releases by tenant.
    pub most: BTreeMap<String, usize>,
    /// The tenants as far as they are known before the plan.
    pub facts: BTreeMap<String, TenantFacts>,
}

/// What is known beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Pods.
    pub book: &'a PodBook,
    /// Pods that could not be let out.
    pub refusals: &'a Refusals,
    /// Removals of tenants that are gone.
    pub orphans: &'a Orphans,
    /// Tenants that falter.
    pub lanes: &'a Lanes,
    /// Now.
    pub now_ms: u64,
}

/// What counts of one tenant.
#[derive(Debug, Default)]
struct Counted {
    used: ResourceVector,
    unbound: ResourceVector,
    pods: usize,
    releasing: BTreeSet<Uid>,
    /// All that counts has a known size.
    known: bool,
}

impl Counted {
    fn take(&mut self, note: &PodNote) {
        self.pods += 1;
        if note.view.standing == Standing::Gated {
            self.releasing.insert(note.uid.clone());
        }
        add(&mut self.used, &note.request);
        if note.node.is_none() {
            add(&mut self.unbound, &note.request);
        }
    }
}

fn count(desk: Option<&mut Desk>, tenant: &TenantView, book: &PodBook) -> Counted {
    let mut counted = Counted::default();
    match desk {
        Some(desk) if desk.state().is_ready() => {
            counted.known = true;
            for uid in desk.usage() {
                match book.get(uid) {
                    Some(note) => counted.take(note),
                    None => counted.known = false,
                }
            }
        }
        // Until the protocol is ready: what the watch shows. Nothing is planned with it, but it holds capacity.
        _ => {
            let live = book.of(&tenant.namespaces).filter(|note| note.view.standing == Standing::Released);
            live.for_each(|note| counted.take(note));
        }
    }
    counted
}

fn pending(desk: &Desk, known: Known<'_>) -> Vec<PendingPod> {
    let willing = desk.state().pending().filter(|uid| !known.refusals.rests(uid, known.now_ms));
    let notes = willing.filter_map(|uid| known.book.get(uid));
    let waiting = notes.filter(|note| note.view.standing == Standing::Gated && !note.deleting);
    waiting
        .map(|note| PendingPod {
            uid: note.uid.to_string(),
            request: note.request.clone(),
            priority: note.priority,
            created_ms: note.created_ms,
        })
        .collect()
}

/// Namespaces in which a removal of a former tenant may still succeed; `None` while some ledger was not read yet, so that
/// it could be any. What it lets out would come on top of what the present tenant was admitted.
fn held_namespaces(desks: &BTreeMap<String, Desk>) -> Option<BTreeSet<String>> {
    let read = desks.values().all(|desk| desk.state().knows_ledger());
    read.then(|| desks.values().flat_map(|desk| desk.strays.values().cloned()).collect())
}

/// The plan's input, and the facts of the tenants as far as they are known before it. Tells the lanes whether they are
/// crowded.
#[must_use]
pub fn of(snapshot: &Snapshot, desks: &mut BTreeMap<String, Desk>, at: Known<'_>, window_percent: u32) -> Table {
    let total = snapshot.total();
    let mut unbound = ResourceVector::new();
    let (mut tenants, mut facts) = (Vec::new(), BTreeMap::new());
    let mut room = Room::new(at.lanes);
    let held = held_namespaces(desks);
    for tenant in snapshot.tenants.iter() {
        let name = &tenant.name;
        let counted = count(desks.get_mut(name), tenant, at.book);
        add(&mut unbound, &counted.unbound);
        let desk = desks.get(name);
        let mine =
            |namespace: &String| at.orphans.are_in(namespace) || held.as_ref().is_none_or(|h| h.contains(namespace));
        let plannable = counted.known && tenant.error.is_none() && !tenant.namespaces.iter().any(mine);
        let pending = desk.filter(|_| plannable).map(|desk| pending(desk, at)).unwrap_or_default();
        let known = TenantFacts {
            ready: counted.known,
            trouble: desk.and_then(|desk| desk.state().trouble()),
            epoch: desk.map_or(0, |desk| desk.state().epoch()),
            used: counted.used.clone(),
            released_pods: counted.pods,
            hard: tenant.hard.clone(),
            in_flight: desk.map_or(0, |desk| desk.state().in_flight()),
            releasing: counted.releasing,
            ..waiting_of(tenant, at.book, desk)
        };
        if let Some(desk) = desk {
            let releases = desk.state().moving();
            room.take(Moving { tenant: name.clone(), releases, falters: at.lanes.falters(name) }, !pending.is_empty());
        }
        facts.insert(name.clone(), known);
        tenants.push(TenantInput {
            name: name.clone(),
            weight: tenant.weight,
            hard: tenant.hard.clone(),
            used: counted.used,
            pending,
        });
    }
    let input =
        ReleaseInput { tenants, free: snapshot.free(), total, unbound, window_percent, max_releases: room.left };
    at.lanes.crowd(room.is_crowded());
    Table { input, most: room.each(), facts }
}

/// Pods of tenants that are not ready: no plan looks at them.
#[must_use]
pub fn stalled(snapshot: &Snapshot, facts: &BTreeMap<String, TenantFacts>, book: &PodBook) -> Vec<Waiting> {
    let tenants = snapshot
        .tenants
        .iter()
        .filter(|tenant| tenant.error.is_none() && facts.get(&tenant.name).is_some_and(|facts| !facts.ready));
    let pods = tenants.flat_map(|tenant| {
        let name = &tenant.name;
        let gated = book.of(&tenant.namespaces).filter(|note| note.view.standing == Standing::Gated);
        gated.map(|note| Waiting {
            tenant: name.clone(),
            uid: note.uid.to_string(),
            reason: WaitReason::ReleaseStalled,
        })
    });
    pods.collect()
}

/// Pods whose release was refused and is not tried now.
#[must_use]
pub fn refused(
    desks: &BTreeMap<String, Desk>,
    claims: &BTreeMap<String, String>,
    facts: &BTreeMap<String, TenantFacts>,
    at: Known<'_>,
) -> Vec<Waiting> {
    let refused = at.refusals.iter().filter_map(|(uid, words)| {
        let note = at.book.get(uid).filter(|note| note.view.standing == Standing::Gated && !note.deleting)?;
        let tenant =
            claims.get(&note.namespace).filter(|tenant| facts.get(*tenant).is_some_and(|facts| facts.ready))?;
        let stuck = || desks.get(tenant).is_some_and(|desk| desk.state().is_stuck(uid));
        (at.refusals.rests(uid, at.now_ms) || stuck()).then(|| Waiting {
            tenant: tenant.clone(),
            uid: uid.to_string(),
            reason: WaitReason::ReleaseRefused { fault: words.to_owned() },
        })
    });
    refused.collect()
}

/// Pods behind the gate that are not on their way out.
fn waiting_of(tenant: &TenantView, book: &PodBook, desk: Option<&Desk>) -> TenantFacts {
    let mut facts = TenantFacts::default();
    let counts = |uid: &str| desk.is_some_and(|desk| desk.state().counts(uid));
    for note in book.of(&tenant.namespaces) {
        if note.view.standing == Standing::Gated && !counts(&note.uid) {
            facts.waiting += 1;
            let oldest = facts.oldest_waiting_ms.map_or(note.created_ms, |oldest| oldest.min(note.created_ms));
            facts.oldest_waiting_ms = Some(oldest);
        }
    }
    facts
}

/// Completes the facts with what the plan says.
pub fn complete(facts: &mut BTreeMap<String, TenantFacts>, input: &ReleaseInput, plan: &ReleasePlan) {
    let weights: Vec<(String, u64)> = input.tenants.iter().map(|t| (t.name.clone(), t.weight)).collect();
    for (resource, amount) in &input.total {
        for (name, part) in fairlead_fairshare::base(*amount, &weights) {
            if let Some(facts) = facts.get_mut(&name) {
                facts.base.insert(resource.clone(), part);
            }
        }
    }
    for (name, entitled) in &plan.entitled {
        if let Some(facts) = facts.get_mut(name) {
            facts.entitled.clone_from(entitled);
        }
    }
    for waiting in &plan.waiting {
        if let Some(facts) = facts.get_mut(&waiting.tenant) {
            *facts.reasons.entry(waiting.reason.as_str()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(tenants: [(usize, bool, bool); 2]) -> Room {
        let mut room = Room::new(&Lanes::new(4));
        for (tenant, (releases, falters, waits)) in ["a", "b"].into_iter().zip(tenants) {
            room.take(Moving { tenant: tenant.into(), releases, falters }, waits);
        }
        room
    }

    #[test]
    fn a_tenant_alone_has_all_the_room_and_half_beside_others() {
        let cases = [
            ((0, false, false), false, 15),
            ((0, false, true), true, 15),
            ((2, false, false), true, 13),
            ((2, true, true), false, 15),
        ];
        for (other, crowded, left) in cases {
            let room = room([(1, false, true), other]);
            assert_eq!((room.is_crowded(), room.left), (crowded, left), "{other:?}");
            let most = room.each();
            assert_eq!(most["a"], if crowded { 7 } else { 15 }, "{other:?}");
        }
    }
}
