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
    /// Pods of intents whose namespace is not the tenant's any more: their removals are cancelled by a touch, and nobody
    /// else is let out in their namespace before that.
    pub strays: BTreeMap<Uid, String>,
    state: State,
    /// Where the pods of intents and lists are, for patches and ledger entries; kept while the protocol may ask for them.
    places: BTreeMap<Uid, Place>,
    /// What counts, recomputed when the state changes.
    usage: Option<BTreeSet<Uid>>,
}

impl Desk {
    /// A desk that does not lead; its rounds begin after `round`.
    #[must_use]
    pub fn new(owner: LedgerOwner, namespaces: Vec<String>, round: u64) -> Self {
        let (strays, places) = (BTreeMap::new(), BTreeMap::new());
        Self { owner, namespaces, strays, state: State::after(round), places, usage: None }
    }

    /// Looks for strays among the intents that were found.
    pub fn find_strays(&mut self) {
        let placed = self.state.intents().filter_map(|uid| Some((uid, self.places.get(uid)?)));
        let foreign = placed.filter(|(_, place)| place.is_known() && !self.namespaces.contains(&place.namespace));
        self.strays = foreign.map(|(uid, place)| (uid.clone(), place.namespace.clone())).collect();
    }

    /// Strays by what is to be done: those that may still be let out are to be cancelled, those that cannot are nothing of
    /// this tenant's and leave it.
    pub fn settle_strays(&mut self) -> (Vec<Uid>, Vec<Uid>) {
        if !self.state.is_ready() {
            return (Vec::new(), Vec::new());
        }
        let (state, mut cancel, mut leave) = (&self.state, Vec::new(), Vec::new());
        self.strays.retain(|uid, _| {
            let open = state.open().any(|(open, _)| open == uid);
            if !open {
                leave.push(uid.clone());
            } else if !state.is_stuck(uid) {
                cancel.push(uid.clone());
            }
            open
        });
        (cancel, leave)
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
