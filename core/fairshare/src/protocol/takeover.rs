//! Becoming the leader of a tenant: read the ledger, raise its epoch, list the pods, settle what was found.
use super::state::{Operation, PendingLedger, Phase, Sending, Stage, Trouble};
use super::{Failure, Intent, Ledger, PodList, Request, Rules, Standing, State};
use std::collections::BTreeSet;

impl State {
    /// Starts from nothing: what an earlier term knew may be long out of date.
    pub(super) fn lead(&mut self, rules: &Rules, requests: &mut Vec<Request>) {
        if self.phase == Phase::Idle {
            *self = Self { round: self.round, ..Self::default() };
            self.take_over(rules, requests);
        }
    }

    pub(super) fn step_down(&mut self) {
        *self = Self { round: self.round, ..Self::default() };
    }

    pub(super) fn take_over(&mut self, rules: &Rules, requests: &mut Vec<Request>) {
        self.round += 1;
        if rules.bump_then_list {
            self.read(requests);
        } else {
            self.list(requests);
        }
    }

    /// Gives up this round. What the ledger was known to hold is kept: removals of it may be under way.
    pub(super) fn fence(&mut self, operation: Operation, failure: Failure) {
        self.phase = Phase::Fenced;
        self.round += 1;
        self.pending_ledger = PendingLedger::None;
        self.wants.clear();
        self.trouble = Some(Trouble { operation, failure });
    }

    fn read(&mut self, requests: &mut Vec<Request>) {
        self.phase = Phase::Reading;
        requests.push(Request::ReadLedger { round: self.round });
    }

    fn list(&mut self, requests: &mut Vec<Request>) {
        self.phase = Phase::Listing;
        requests.push(Request::ListPods { round: self.round });
    }

    /// Raises the epoch over the ledger that was read. Intents that we sent ourselves in this term join those of the
    /// ledger: should somebody have deleted or restored it, their removals still are under way.
    pub(super) fn bump(&mut self, ledger: Option<Ledger>, requests: &mut Vec<Request>) {
        let (version, epoch, intents) = match ledger {
            Some(ledger) => (Some(ledger.version), ledger.epoch, ledger.intents),
            None => (None, 0, Vec::new()),
        };
        for Intent { uid, version } in intents {
            let known = self.intents.entry(uid).or_insert(Sending::due(version));
            known.version = known.version.max(version);
        }
        self.ledger = version;
        self.epoch = self.epoch.max(epoch) + 1;
        self.phase = Phase::Bumping;
        requests.push(Request::WriteLedger {
            round: self.round,
            expect: version,
            epoch: self.epoch,
            intents: self.intents.iter().map(|(uid, s)| Intent { uid: uid.clone(), version: s.version }).collect(),
        });
    }

    pub(super) fn bumped(&mut self, rules: &Rules, requests: &mut Vec<Request>) {
        if rules.bump_then_list {
            self.list(requests);
        } else {
            self.settle(rules, requests);
        }
    }

    pub(super) fn listed(&mut self, list: &PodList, rules: &Rules, requests: &mut Vec<Request>) {
        let there: BTreeSet<_> = list.pods.iter().map(|(uid, _)| uid.clone()).collect();
        self.pods.retain(|uid, view| view.version > list.version || there.contains(uid));
        self.listed = 0;
        for (uid, view) in &list.pods {
            self.observe(uid, *view);
        }
        self.listed = list.version;
        if rules.bump_then_list {
            self.settle(rules, requests);
        } else {
            self.read(requests);
        }
    }

    /// Ready. Found intents that may still be under way are sent again, once the ledger is seen to be ours still.
    fn settle(&mut self, rules: &Rules, requests: &mut Vec<Request>) {
        self.phase = Phase::Ready;
        self.trouble = None;
        self.gone.clear();
        let gated: Vec<_> = self
            .intents
            .keys()
            .filter(|uid| self.pods.get(*uid).is_some_and(|v| v.standing == Standing::Gated))
            .cloned()
            .collect();
        for uid in gated {
            if rules.guarded_resend {
                if let Some(sending) = self.intents.get_mut(&uid) {
                    sending.stage = Stage::Due;
                }
            } else if let (Some(sending), Some(view)) = (self.intents.get_mut(&uid), self.pods.get(&uid)) {
                sending.version = view.version;
                self.send(&uid, requests);
            }
        }
        self.guard(requests);
    }
}
