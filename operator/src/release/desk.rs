//! One desk a tenant: the state of its release protocol, and what belongs to it outside the protocol.
use super::errand::Place;
use super::patch::LedgerOwner;
use fairlead_fairshare::protocol::{Event, Request, State, Uid};
use std::collections::{BTreeMap, BTreeSet};

/// The protocol of one tenant.
#[derive(Debug)]
pub struct Desk {
    /// The TenantQuota.
    pub owner: LedgerOwner,
    /// Namespaces that the protocol's list covers.
    pub namespaces: Vec<String>,
    state: State,
    /// Where the pods of intents and lists are, for patches and ledger entries; kept while the protocol may ask for them.
    places: BTreeMap<Uid, Place>,
    /// What counts, recomputed when the state changes.
    usage: Option<BTreeSet<Uid>>,
}

impl Desk {
    /// A desk that does not lead.
    #[must_use]
    pub fn new(owner: LedgerOwner, namespaces: Vec<String>) -> Self {
        Self { owner, namespaces, state: State::default(), places: BTreeMap::new(), usage: None }
    }

    /// Tells the protocol what happened; gives what it wants done.
    #[must_use = "every request has to be carried out"]
    pub fn tell(&mut self, event: &Event) -> Vec<Request> {
        self.usage = None;
        self.state.apply(event)
    }

    /// The protocol's state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What counts against the hard limits.
    pub fn usage(&mut self) -> &BTreeSet<Uid> {
        let state = &self.state;
        self.usage.get_or_insert_with(|| state.usage())
    }

    /// Remembers where a pod is.
    pub fn place(&mut self, uid: Uid, place: Place) {
        self.places.insert(uid, place);
    }

    /// Where a pod is that the protocol asks about.
    #[must_use]
    pub fn placed(&self, uid: &str) -> Option<&Place> {
        self.places.get(uid)
    }

    /// Forgets places that are neither counted nor waiting.
    pub fn tidy(&mut self) {
        let mut kept: BTreeSet<Uid> = self.usage().clone();
        kept.extend(self.state.pending().cloned());
        kept.extend(self.state.stuck().cloned());
        if self.state.is_ready() {
            self.places.retain(|uid, _| kept.contains(uid));
        }
    }
}
