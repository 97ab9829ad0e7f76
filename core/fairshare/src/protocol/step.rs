//! The step function: one event in, the requests that follow from it out.
use super::state::{Operation, PendingLedger, Phase, Sending, Stage};
use super::{Event, Failure, Intent, Ledger, MAX_INTENTS, MAX_SENDS, PodView, Request, Standing, State, Uid, Version};
use std::collections::BTreeMap;

/// At most 2⁵ − 1 ticks between two touches of a pod.
const MAX_REST_SHIFT: u8 = 5;

/// The five rules as switches, so that a search can show what each of them is for. Production has no way to set them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub(super) intent_first: bool,
    pub(super) bump_then_list: bool,
    pub(super) precondition: bool,
    pub(super) guarded_resend: bool,
    pub(super) touch_to_cancel: bool,
}

impl Rules {
    const ALL: Self = Self {
        intent_first: true,
        bump_then_list: true,
        precondition: true,
        guarded_resend: true,
        touch_to_cancel: true,
    };

    /// All rules but the one with this number, 1 to 5; any other number leaves none out.
    #[doc(hidden)]
    #[must_use]
    pub fn without(rule: u8) -> Self {
        Self {
            intent_first: rule != 1,
            bump_then_list: rule != 2,
            precondition: rule != 3,
            guarded_resend: rule != 4,
            touch_to_cancel: rule != 5,
        }
    }
}

/// The next state, and what to do.
#[must_use]
pub fn step(state: &State, event: &Event) -> (State, Vec<Request>) {
    step_with(&Rules::ALL, state, event)
}

/// [`step`] under chosen rules; for searches only.
#[doc(hidden)]
#[must_use]
pub fn step_with(rules: &Rules, state: &State, event: &Event) -> (State, Vec<Request>) {
    let mut next = state.clone();
    let requests = next.apply_with(rules, event);
    (next, requests)
}

impl State {
    /// [`step`] in place.
    #[must_use = "every request has to be carried out"]
    pub fn apply(&mut self, event: &Event) -> Vec<Request> {
        self.apply_with(&Rules::ALL, event)
    }

    fn apply_with(&mut self, rules: &Rules, event: &Event) -> Vec<Request> {
        let mut requests = Vec::new();
        let out = &mut requests;
        match event {
            Event::Lead => self.lead(rules, out),
            Event::StepDown => self.step_down(),
            _ if self.phase == Phase::Idle => {}
            Event::Tick => self.tick(rules, out),
            Event::LedgerRead { round, result } if *round == self.round => self.ledger_read(result.clone(), out),
            Event::LedgerWritten { round, result } if *round == self.round => self.ledger_written(*result, rules, out),
            Event::Listed { round, result } if *round == self.round => match result {
                Ok(list) => self.listed(list, rules, out),
                Err(failure) => self.fence(Operation::ListPods, *failure),
            },
            // An answer to what was asked before the last takeover.
            Event::LedgerRead { .. } | Event::LedgerWritten { .. } | Event::Listed { .. } => {}
            Event::Ungated { uid, result } => self.ungated(uid, *result),
            Event::Touched { uid, result } => self.touched(uid, *result),
            Event::Observed { uid, view } => self.observe(uid, *view),
            Event::Gone { uid } => self.forget(uid),
            Event::Want { uids } => self.want(uids, rules, out),
            Event::Cancel { uids } => self.cancel(uids, rules, out),
        }
        self.write_wants(out);
        if !rules.precondition {
            for request in out {
                if let Request::Ungate { version, .. } = request {
                    *version = 0;
                }
            }
        }
        requests
    }

    fn tick(&mut self, rules: &Rules, requests: &mut Vec<Request>) {
        match self.phase {
            Phase::Fenced => self.take_over(rules, requests),
            Phase::Ready => {
                self.touch_cancelled(requests);
                self.intents.values_mut().for_each(|sending| sending.rest = sending.rest.saturating_sub(1));
                self.retire(requests);
                self.guard(requests);
            }
            Phase::Idle | Phase::Reading | Phase::Bumping | Phase::Listing => {}
        }
    }

    fn ledger_read(&mut self, result: Result<Option<Ledger>, Failure>, requests: &mut Vec<Request>) {
        match (self.phase, result) {
            (Phase::Reading, Ok(ledger)) => self.bump(ledger, requests),
            (Phase::Reading, Err(failure)) => self.fence(Operation::ReadLedger, failure),
            (Phase::Ready, result) if self.pending_ledger == PendingLedger::Guarding => {
                self.pending_ledger = PendingLedger::None;
                match result {
                    Ok(Some(found)) if Some(found.version) == self.ledger && found.epoch == self.epoch => {
                        self.send_due(requests);
                    }
                    Ok(Some(_)) => self.fence(Operation::ReadLedger, Failure::Conflict),
                    Ok(None) => self.fence(Operation::ReadLedger, Failure::NotFound),
                    // Still due; the next tick asks again.
                    Err(_) => {}
                }
            }
            _ => {}
        }
    }

    fn ledger_written(&mut self, result: Result<Version, Failure>, rules: &Rules, requests: &mut Vec<Request>) {
        match (self.phase, result) {
            (Phase::Bumping | Phase::Ready, Err(failure)) => self.fence(Operation::WriteLedger, failure),
            (Phase::Bumping, Ok(version)) => {
                self.ledger = Some(version);
                self.bumped(rules, requests);
            }
            (Phase::Ready, Ok(version)) => {
                if let PendingLedger::Writing(written) = std::mem::take(&mut self.pending_ledger) {
                    self.ledger = Some(version);
                    self.adopt(&written, requests);
                }
            }
            _ => {}
        }
    }

    /// The ledger holds `written` now: what is new in it is sent. The write was a compare-and-swap on our epoch, so what
    /// is to be sent again may go too.
    fn adopt(&mut self, written: &BTreeMap<Uid, Version>, requests: &mut Vec<Request>) {
        self.intents.retain(|uid, sending| written.get(uid) == Some(&sending.version));
        for (uid, &version) in written {
            self.intents.entry(uid.clone()).or_insert(Sending::due(version));
        }
        self.send_due(requests);
    }

    fn ungated(&mut self, uid: &Uid, result: Result<PodView, Failure>) {
        match result {
            Ok(view) => self.observe_known(uid, view),
            Err(Failure::NotFound) => self.forget(uid),
            Err(failure) => {
                let Some(sending) = self.intents.get_mut(uid).filter(|sending| sending.stage == Stage::Sent) else {
                    return;
                };
                // After a conflict the pod may well be released, by a copy whose answer was lost: only seeing the pod
                // at a later version settles it. After a refusal an earlier copy may still be under way.
                let again = failure == Failure::Lost && sending.sends < MAX_SENDS;
                sending.stage = if again { Stage::Due } else { Stage::Cancel };
            }
        }
    }

    fn touched(&mut self, uid: &Uid, result: Result<PodView, Failure>) {
        if let Some(sending) = self.intents.get_mut(uid).filter(|sending| sending.stage == Stage::Touching) {
            sending.stage = Stage::Cancel;
            if result.is_err() {
                // 0, 1, 3 … ticks are left out: what makes every write on this pod fail may last.
                sending.rest = (1u8 << sending.touches.min(MAX_REST_SHIFT)) - 1;
                sending.touches = sending.touches.saturating_add(1);
            }
        }
        match result {
            Ok(view) => self.observe_known(uid, view),
            Err(Failure::NotFound) => self.forget(uid),
            Err(_) => {}
        }
    }

    fn want(&mut self, uids: &[Uid], rules: &Rules, requests: &mut Vec<Request>) {
        if self.phase != Phase::Ready {
            return;
        }
        for uid in uids {
            let Some(view) = self.pods.get(uid).filter(|view| view.standing == Standing::Gated) else { continue };
            if self.counts(uid) {
                continue;
            }
            if rules.intent_first {
                self.wants.insert(uid.clone());
            } else {
                requests.push(Request::Ungate { uid: uid.clone(), version: view.version, epoch: self.epoch });
            }
        }
    }

    fn cancel(&mut self, uids: &[Uid], rules: &Rules, requests: &mut Vec<Request>) {
        for uid in uids {
            self.wants.remove(uid);
            if !self.is_open(uid) || self.phase != Phase::Ready {
                continue;
            }
            if !rules.touch_to_cancel {
                self.intents.remove(uid);
            } else if let Some(sending) = self.intents.get_mut(uid) {
                sending.stage = Stage::Cancel;
            }
        }
        self.touch_cancelled(requests);
        if !rules.touch_to_cancel {
            self.write(requests);
        }
    }

    fn touch_cancelled(&mut self, requests: &mut Vec<Request>) {
        let open: Vec<Uid> = self.stuck().cloned().collect();
        for uid in open {
            if let Some(sending) =
                self.intents.get_mut(&uid).filter(|sending| sending.stage == Stage::Cancel && sending.rest == 0)
            {
                sending.stage = Stage::Touching;
                requests.push(Request::Touch { uid });
            }
        }
    }

    /// Asks whether the ledger is still ours, if something is to be sent again (rule 4).
    pub(super) fn guard(&mut self, requests: &mut Vec<Request>) {
        let due = self.intents.iter().any(|(uid, sending)| sending.stage == Stage::Due && self.is_open(uid));
        if due && self.phase == Phase::Ready && self.pending_ledger == PendingLedger::None {
            self.pending_ledger = PendingLedger::Guarding;
            requests.push(Request::ReadLedger { round: self.round });
        }
    }

    fn send_due(&mut self, requests: &mut Vec<Request>) {
        let due: Vec<Uid> = self
            .intents
            .iter()
            .filter(|(uid, s)| s.stage == Stage::Due && self.is_open(uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            self.send(&uid, requests);
        }
    }

    /// Takes settled intents out of the ledger when no want does so on its way.
    fn retire(&mut self, requests: &mut Vec<Request>) {
        if self.wants.is_empty() && self.intents.keys().any(|uid| !self.is_open(uid)) {
            self.write(requests);
        }
    }

    /// One ledger write for all that is wanted, as soon as none is under way. When the ledger is nearly full it waits for
    /// room worth a write.
    fn write_wants(&mut self, requests: &mut Vec<Request>) {
        let pods = &self.pods;
        self.wants.retain(|uid| pods.get(uid).is_some_and(|view| view.standing == Standing::Gated));
        if self.wants.is_empty() || self.phase != Phase::Ready {
            return;
        }
        let open = self.intents.keys().filter(|uid| self.is_open(uid)).count();
        if MAX_INTENTS.saturating_sub(open) >= self.wants.len().min(MAX_INTENTS / 2) {
            self.write(requests);
        }
    }

    fn write(&mut self, requests: &mut Vec<Request>) {
        if self.pending_ledger != PendingLedger::None || self.phase != Phase::Ready {
            return;
        }
        let open = self.intents.iter().filter(|(uid, _)| self.is_open(uid));
        let mut intents: BTreeMap<Uid, Version> = open.map(|(uid, sending)| (uid.clone(), sending.version)).collect();
        while intents.len() < MAX_INTENTS {
            let Some(uid) = self.wants.pop_first() else { break };
            // The version known now goes into the intent, and later into the removal (rule 3).
            if let Some(view) = self.pods.get(&uid) {
                intents.insert(uid, view.version);
            }
        }
        requests.push(Request::WriteLedger {
            round: self.round,
            expect: self.ledger,
            epoch: self.epoch,
            intents: intents.iter().map(|(uid, &version)| Intent { uid: uid.clone(), version }).collect(),
        });
        self.pending_ledger = PendingLedger::Writing(intents);
    }
}
