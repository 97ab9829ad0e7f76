//! Turns: the order in which releases of several tenants are sent, which is the order in which they were decided.
//!
//! Each tenant's releases go through a ledger of its own, and writes that are under way at once end in any order. Pods
//! would come out 8:0 where 6:2 was decided. So a release is sent only when no earlier decision for *another* tenant is
//! still open; releases of one tenant that follow each other are sent at once. What was decided is kept by tenant, not
//! by pod: which of its chosen pods a tenant's ledger holds first makes no difference to anybody's share.
//!
//! With many tenants that would be one write per round trip. So where three or more stand in the line, one decision of
//! each may go ahead of its turn: the first that the tenant has after the earliest open decision of another. Hence the
//! bound: *no decision is overtaken by more than one pod of any other tenant*. Two tenants keep the strict order: their
//! shares are all that anybody sees, and one pod is the whole error that they are promised.
//!
//! A turn that does not move for three whole ticks is given up (a ledger that cannot be written, an answer that does not
//! come): order is worth waiting for, but not for long.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Whole ticks in which a turn may stand still. A ledger write takes half a second on a loaded API server.
const PATIENCE_TICKS: u32 = 3;
/// Tenants in the line from which on decisions may go ahead of their turn.
const CROWD: usize = 3;

/// Who goes next, and the requests `T` that wait for their tenant's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns<T> {
    /// The decisions in their order, from the first that is open.
    line: VecDeque<Turn>,
    tenants: BTreeMap<String, Tenant<T>>,
    /// Ticks at which the first decision stood there, since anything of its tenant ended.
    still_ticks: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    tenant: String,
    /// Its release has ended, ahead of others that were decided before.
    done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tenant<T> {
    /// Open decisions in the line.
    turns: usize,
    held: VecDeque<T>,
    under_way: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { line: VecDeque::new(), tenants: BTreeMap::new(), still_ticks: 0 }
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
        self.line.push_back(Turn { tenant: tenant.to_owned(), done: false });
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
        if self.tenants.values().all(|tenant| tenant.held.is_empty()) {
            return due;
        }
        let may = self.may_be_under_way();
        for (name, tenant) in &mut self.tenants {
            let beyond = (tenant.held.len() + tenant.under_way).saturating_sub(tenant.turns).min(tenant.held.len());
            due.extend(tenant.held.drain(..beyond));
            tenant.under_way += beyond;
            let most = may.get(name).copied().unwrap_or(0);
            let more = most.saturating_sub(tenant.under_way).min(tenant.held.len());
            due.extend(tenant.held.drain(..more));
            tenant.under_way += more;
        }
        due
    }

    /// How many open decisions of each tenant may be under way: its first ones.
    fn may_be_under_way(&self) -> BTreeMap<String, usize> {
        let mut may: BTreeMap<String, usize> = BTreeMap::new();
        let Some(first) = self.line.front() else { return may };
        let crowd = self.tenants.values().filter(|tenant| tenant.turns > 0).count() >= CROWD;
        let mut in_turn = true;
        // Who had a decision, open or done, after the first open one of another. For the first tenant itself that other
        // one ends its run.
        let mut after: BTreeSet<&str> = BTreeSet::new();
        for turn in &self.line {
            let name = turn.tenant.as_str();
            in_turn &= *name == first.tenant;
            let free = in_turn || (crowd && after.insert(name));
            if free && !turn.done {
                *may.entry(name.to_owned()).or_default() += 1;
            }
        }
        may
    }

    /// A request of this tenant that [`Self::due`] gave was answered, or never will be.
    pub fn ended(&mut self, tenant: &str) {
        let entry = self.tenant(tenant);
        entry.under_way = entry.under_way.saturating_sub(1);
        if self.line.front().is_some_and(|first| first.tenant == tenant) {
            self.still_ticks = 0;
        }
        if let Some(turn) = self.line.iter_mut().find(|turn| !turn.done && turn.tenant == tenant) {
            turn.done = true;
            let entry = self.tenant(tenant);
            entry.turns = entry.turns.saturating_sub(1);
        }
        self.tidy();
    }

    /// At most `open` decisions for this tenant still stand: the pods of the others are gone, or were held back. What is
    /// under way keeps its turn until it has ended, also when a watch showed its effect before.
    pub fn stands(&mut self, tenant: &str, open: usize) {
        while self.tenants.get(tenant).is_some_and(|entry| entry.turns > open + entry.under_way) {
            let Some(index) = self.line.iter().rposition(|turn| !turn.done && turn.tenant == tenant) else { break };
            self.drop_turn(index);
        }
        self.tidy();
    }

    /// Forgets the tenant's decisions and held requests: whoever leads next decides anew.
    pub fn forget(&mut self, tenant: &str) {
        self.line.retain(|turn| turn.tenant != tenant);
        self.tenants.remove(tenant);
        self.tidy();
    }

    /// Time passes: who had the turn at the last ticks and did not use it since loses it, whatever others did.
    pub fn tick(&mut self) {
        let Some(first) = self.line.front().map(|turn| turn.tenant.clone()) else { return };
        self.still_ticks += 1;
        if self.still_ticks <= PATIENCE_TICKS {
            return;
        }
        while self.line.front().is_some_and(|turn| turn.tenant == first) {
            self.drop_turn(0);
        }
        // The next one has ticks of its own.
        self.still_ticks = 0;
        self.tidy();
    }

    /// Decisions that are still open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.line.iter().filter(|turn| !turn.done).count()
    }

    fn tenant(&mut self, name: &str) -> &mut Tenant<T> {
        self.tenants.entry(name.to_owned()).or_default()
    }

    fn drop_turn(&mut self, index: usize) {
        if let Some(turn) = self.line.remove(index).filter(|turn| !turn.done) {
            let entry = self.tenant(&turn.tenant);
            entry.turns = entry.turns.saturating_sub(1);
        }
    }

    /// What is done and has nobody before it is over.
    fn tidy(&mut self) {
        let first = self.line.front().map(|turn| turn.tenant.clone());
        while self.line.front().is_some_and(|turn| turn.done) {
            self.line.pop_front();
        }
        // Another tenant has the turn now, and ticks of its own.
        if self.line.front().map(|turn| &turn.tenant) != first.as_ref() {
            self.still_ticks = 0;
        }
        self.tenants.retain(|_, entry| entry.turns > 0 || entry.under_way > 0 || !entry.held.is_empty());
    }
}
