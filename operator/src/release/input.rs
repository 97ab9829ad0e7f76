//! The input of the plan: what the protocols say that counts, what waits, and what capacity is left.
use super::desk::Desk;
use crate::book::{PodBook, PodNote, add};
use crate::view::TenantFacts;
use fairlead_cluster::{Snapshot, TenantView};
use fairlead_fairshare::protocol::{Standing, Uid};
use fairlead_fairshare::{PendingPod, ReleaseInput, ReleasePlan, ResourceVector, TenantInput};
use std::collections::{BTreeMap, BTreeSet};

/// Releases that are decided and not settled, over all tenants: more would only stand in line behind the API server, in an
/// order that later arrivals could no longer change.
pub const IN_FLIGHT_MAX: usize = 128;

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

fn pending(desk: &Desk, book: &PodBook) -> Vec<PendingPod> {
    let notes = desk.state().pending().filter_map(|uid| book.get(uid));
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

/// The plan's input, and the facts of the tenants as far as they are known before it.
pub fn of(
    snapshot: &Snapshot,
    desks: &mut BTreeMap<String, Desk>,
    book: &PodBook,
    window_percent: u32,
) -> (ReleaseInput, BTreeMap<String, TenantFacts>) {
    let total = snapshot.total();
    let mut unbound = ResourceVector::new();
    let (mut tenants, mut facts) = (Vec::new(), BTreeMap::new());
    let mut in_flight = 0;
    for (name, tenant) in &snapshot.tenants {
        let counted = count(desks.get_mut(name), tenant, book);
        add(&mut unbound, &counted.unbound);
        let desk = desks.get(name);
        let plannable = counted.known && tenant.error.is_none();
        let pending = desk.filter(|_| plannable).map(|desk| pending(desk, book)).unwrap_or_default();
        let known = TenantFacts {
            ready: counted.known,
            trouble: desk.and_then(|desk| desk.state().trouble()),
            epoch: desk.map_or(0, |desk| desk.state().epoch()),
            used: counted.used.clone(),
            released_pods: counted.pods,
            hard: tenant.hard.clone(),
            in_flight: desk.map_or(0, |desk| desk.state().in_flight()),
            releasing: counted.releasing,
            ..waiting_of(tenant, book, desk)
        };
        in_flight += known.in_flight;
        facts.insert(name.clone(), known);
        tenants.push(TenantInput {
            name: name.clone(),
            weight: tenant.weight,
            hard: tenant.hard.clone(),
            used: counted.used,
            pending,
        });
    }
    let input = ReleaseInput {
        tenants,
        free: snapshot.free(),
        total,
        unbound,
        window_percent,
        max_releases: IN_FLIGHT_MAX.saturating_sub(in_flight),
    };
    (input, facts)
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
