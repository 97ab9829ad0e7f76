//! Turns: the order in which releases of several tenants are sent, which is the order in which they were decided.
//!
//! Each tenant's releases go through a ledger of its own, and writes that are under way at once end in any order. Pods
//! would come out 8:0 where 6:2 was decided. So a release is sent only when no earlier decision for *another* tenant is
//! still open; releases of one tenant that follow each other are sent at once. What was decided is kept by tenant, not
//! by pod: which of its chosen pods a tenant's ledger holds first makes no difference to anybody's share.
//!
//! A turn that does not move for a whole tick is given up (a ledger that cannot be written, an answer that does not
//! come): order is worth waiting for, but not for long.
use std::collections::{BTreeMap, VecDeque};

/// Who goes next, and the requests `T` that wait for their tenant's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns<T> {
    /// Tenants in the order of the decisions that are still open.
    line: VecDeque<String>,
    tenants: BTreeMap<String, Tenant<T>>,
    /// Something ended since the last tick.
    moved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tenant<T> {
    /// Entries in the line.
    turns: usize,
    held: VecDeque<T>,
    under_way: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { line: VecDeque::new(), tenants: BTreeMap::new(), moved: false }
    }
}

impl<T> Default for Tenant<T> {
    fn default() -> Self {
        Self { turns: 0, held: VecDeque::new(), under_way: 0 }
    }
}

impl<T> Turns<T> {
    /// A release of this tenant was decided, after all that were decided before.
    pub fn decided(&mut self, tenant: &str) {
        self.line.push_back(tenant.to_owned());
        self.tenant(tenant).turns += 1;
    }

    /// The request of a release is ready to be sent; [`Self::due`] gives it back when its tenant's turn has come.
    pub fn hold(&mut self, tenant: &str, request: T) {
        self.tenant(tenant).held.push_back(request);
    }

    /// Takes out what is to be sent now. A request without an open decision (it is sent again) waits for nobody.
    #[must_use = "what is taken out has to be sent"]
    pub fn due(&mut self) -> Vec<T> {
        let mut due = Vec::new();
        for tenant in self.tenants.values_mut() {
            let beyond = (tenant.held.len() + tenant.under_way).saturating_sub(tenant.turns).min(tenant.held.len());
            due.extend(tenant.held.drain(..beyond));
            tenant.under_way += beyond;
        }
        if let Some(first) = self.line.front()
            && let Some(tenant) = self.tenants.get_mut(first)
        {
            let in_turn = self.line.iter().take_while(|next| *next == first).count();
            let more = in_turn.saturating_sub(tenant.under_way).min(tenant.held.len());
            due.extend(tenant.held.drain(..more));
            tenant.under_way += more;
        }
        due
    }

    /// A request of this tenant that [`Self::due`] gave was answered, or never will be.
    pub fn ended(&mut self, tenant: &str) {
        self.moved = true;
        let entry = self.tenant(tenant);
        entry.under_way = entry.under_way.saturating_sub(1);
        if let Some(index) = self.line.iter().position(|next| next == tenant) {
            self.drop_turn(index);
        }
        self.tidy(tenant);
    }

    /// At most `open` decisions for this tenant still stand: the pods of the others are gone, or were held back. What is
    /// under way keeps its turn until it has ended, also when a watch showed its effect before.
    pub fn stands(&mut self, tenant: &str, open: usize) {
        while self.tenants.get(tenant).is_some_and(|entry| entry.turns > open + entry.under_way) {
            let Some(index) = self.line.iter().rposition(|next| next == tenant) else { break };
            self.drop_turn(index);
        }
        self.tidy(tenant);
    }

    /// Forgets the tenant's decisions and held requests: whoever leads next decides anew.
    pub fn forget(&mut self, tenant: &str) {
        self.line.retain(|next| next != tenant);
        self.tenants.remove(tenant);
    }

    /// Time passes: who has the turn and did not use it since the last tick loses it.
    pub fn tick(&mut self) {
        if std::mem::take(&mut self.moved) {
            return;
        }
        let Some(first) = self.line.front().cloned() else { return };
        while self.line.front() == Some(&first) {
            self.drop_turn(0);
        }
        self.tidy(&first);
    }

    /// Decisions that are still open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.line.len()
    }

    fn tenant(&mut self, name: &str) -> &mut Tenant<T> {
        self.tenants.entry(name.to_owned()).or_default()
    }

    fn drop_turn(&mut self, index: usize) {
        if let Some(name) = self.line.remove(index) {
            let entry = self.tenant(&name);
            entry.turns = entry.turns.saturating_sub(1);
        }
    }

    fn tidy(&mut self, name: &str) {
        let idle = |entry: &Tenant<T>| entry.turns == 0 && entry.under_way == 0 && entry.held.is_empty();
        if self.tenants.get(name).is_some_and(idle) {
            self.tenants.remove(name);
        }
    }
}
