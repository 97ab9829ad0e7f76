//! What one leader knows of a tenant: ledger, intents with their stage, pods.
use super::{Failure, PodView, Request, Standing, Uid, Version};
use std::collections::{BTreeMap, BTreeSet};

/// The protocol's state for one tenant. Starts as not leading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) phase: Phase,
    /// Raised with every takeover, so that answers to what was asked before it are recognised.
    pub(super) round: u64,
    pub(super) epoch: u64,
    /// Version of the ledger as last read or written; `None`: there is none.
    pub(super) ledger: Option<Version>,
    /// What the ledger holds.
    pub(super) intents: BTreeMap<Uid, Sending>,
    /// The ledger request under way while ready.
    pub(super) pending_ledger: PendingLedger,
    /// To be released, not in the ledger yet.
    pub(super) wants: BTreeSet<Uid>,
    /// Pods that have not ended.
    pub(super) pods: BTreeMap<Uid, PodView>,
    /// Ended or deleted since the takeover began: an older list must not bring them back.
    pub(super) gone: BTreeSet<Uid>,
    /// Version of the last list: what is not newer and not known was not there.
    pub(super) listed: Version,
    pub(super) trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    #[default]
    Idle,
    Reading,
    Bumping,
    Listing,
    Ready,
    /// A ledger or list request failed: the takeover starts again at the next tick.
    Fenced,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum PendingLedger {
    #[default]
    None,
    /// A write of these intents.
    Writing(BTreeMap<Uid, Version>),
    /// The read that guards a resend.
    Guarding,
}

/// An intent that the ledger holds, and how far its removal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    pub(super) version: Version,
    pub(super) stage: Stage,
    /// How often the removal was sent by this leader.
    pub(super) sends: u8,
    /// How often a touch failed.
    pub(super) touches: u8,
    /// Ticks until the next touch.
    pub(super) rest: u8,
}

impl Sending {
    pub(super) fn due(version: Version) -> Self {
        Self { version, stage: Stage::Due, sends: 0, touches: 0, rest: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// To be sent after a guarding read.
    Due,
    /// Sent, no answer yet.
    Sent,
    /// To be touched at the next tick, unless an observation settles it before.
    Cancel,
    /// Touch sent, no answer yet.
    Touching,
}

/// What the tenant's protocol asked for when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading the ledger.
    ReadLedger,
    /// Writing the ledger.
    WriteLedger,
    /// Listing the pods.
    ListPods,
}

/// Why the state is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// What failed.
    pub operation: Operation,
    /// How.
    pub failure: Failure,
}

impl State {
    /// Leads, holds the ledger, and knows the pods: releases may be planned.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// A state that does not lead, whose rounds begin after those of another: late answers to that one are not taken for
    /// answers to this.
    #[must_use]
    pub fn after(round: u64) -> Self {
        Self { round, ..Self::default() }
    }

    /// The last round.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The ledger was read in this takeover, or could not be: what it holds is in [`Self::intents`] as far as anybody
    /// can know.
    #[must_use]
    pub fn knows_ledger(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Reading) || self.trouble.is_some()
    }

    /// The pods of the ledger's intents.
    pub fn intents(&self) -> impl Iterator<Item = &Uid> {
        self.intents.keys()
    }

    /// Intents whose removal may still succeed, with the version that it carries.
    pub fn open(&self) -> impl Iterator<Item = (&Uid, Version)> {
        self.intents.iter().filter(|(uid, _)| self.is_open(uid)).map(|(uid, sending)| (uid, sending.version))
    }

    /// Leads or tries to.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Waits for the list of the takeover.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        self.phase == Phase::Listing
    }

    /// The pods that are known and have not ended.
    pub fn pods(&self) -> impl Iterator<Item = &Uid> {
        self.pods.keys()
    }

    /// The epoch of this leader; that of the ledger once [`Self::is_ready`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The failure because of which the takeover waits for the next tick.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// What counts against the hard limits: released pods that have not ended, and every pod whose removal is wanted,
    /// written or possibly under way. Of use only while [`Self::is_ready`].
    #[must_use]
    pub fn usage(&self) -> BTreeSet<Uid> {
        let released = self.pods.iter().filter(|(_, view)| view.standing == Standing::Released).map(|(uid, _)| uid);
        let intents = self.intents.keys().filter(|uid| self.is_open(uid));
        released.chain(intents).chain(self.writing().keys()).chain(&self.wants).cloned().collect()
    }

    /// Whether the pod counts; the same as looking it up in [`Self::usage`].
    #[must_use]
    pub fn counts(&self, uid: &str) -> bool {
        let released = self.pods.get(uid).is_some_and(|view| view.standing == Standing::Released);
        released || self.is_open(uid) || self.writing().contains_key(uid) || self.wants.contains(uid)
    }

    /// Pods behind the gate that may be wanted. Of use only while [`Self::is_ready`].
    pub fn pending(&self) -> impl Iterator<Item = &Uid> {
        let gated = self.pods.iter().filter(|(_, view)| view.standing == Standing::Gated).map(|(uid, _)| uid);
        gated.filter(|uid| !self.counts(uid))
    }

    /// Intents that are wanted, written or possibly under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let open = self.intents.keys().filter(|uid| self.is_open(uid)).count();
        let new = self.writing().keys().filter(|uid| !self.is_open(uid)).count();
        open + new + self.wants.len()
    }

    /// Pods whose removal was refused or found the pod changed, and which still count until that is settled.
    pub fn stuck(&self) -> impl Iterator<Item = &Uid> {
        self.intents.keys().filter(|uid| self.is_stuck(uid))
    }

    /// Whether the pod is one of [`Self::stuck`].
    #[must_use]
    pub fn is_stuck(&self, uid: &str) -> bool {
        let cancelled =
            self.intents.get(uid).is_some_and(|sending| matches!(sending.stage, Stage::Cancel | Stage::Touching));
        cancelled && self.is_open(uid)
    }

    /// Those of [`Self::in_flight`] that are not stuck: a stuck one waits for its touch, and says nothing about how busy
    /// the API server is.
    #[must_use]
    pub fn moving(&self) -> usize {
        self.in_flight() - self.stuck().count()
    }

    pub(super) fn writing(&self) -> &BTreeMap<Uid, Version> {
        static NONE: BTreeMap<Uid, Version> = BTreeMap::new();
        match &self.pending_ledger {
            PendingLedger::Writing(intents) => intents,
            PendingLedger::None | PendingLedger::Guarding => &NONE,
        }
    }

    /// An intent of the ledger whose removal may still succeed: the pod is behind the gate, at the version of the intent
    /// as far as we know. A pod that is released counts as such; one that ended cannot be released; one at a later
    /// version cannot be released by this removal (rule 3).
    pub(super) fn is_open(&self, uid: &str) -> bool {
        let Some(sending) = self.intents.get(uid) else { return false };
        let Some(view) = self.pods.get(uid) else { return false };
        view.standing == Standing::Gated && view.version <= sending.version
    }

    /// Takes over what is newer than what is known. A pod that was released stays so until it ends.
    pub(super) fn observe(&mut self, uid: &Uid, view: PodView) {
        if view.standing == Standing::Ended {
            self.forget(uid);
        } else if let Some(known) = self.pods.get_mut(uid) {
            let released = known.standing.max(view.standing);
            if view.version > known.version {
                *known = view;
            }
            known.standing = released;
        } else if view.version > self.listed && !self.gone.contains(uid) {
            self.pods.insert(uid.clone(), view);
        }
    }

    /// Takes over the answer to a patch, which may arrive after the pod was seen to end.
    pub(super) fn observe_known(&mut self, uid: &Uid, view: PodView) {
        if self.pods.contains_key(uid) {
            self.observe(uid, view);
        }
    }

    pub(super) fn forget(&mut self, uid: &Uid) {
        self.pods.remove(uid);
        if self.phase != Phase::Ready {
            self.gone.insert(uid.clone());
        }
    }

    pub(super) fn send(&mut self, uid: &Uid, requests: &mut Vec<Request>) {
        if let Some(sending) = self.intents.get_mut(uid) {
            sending.stage = Stage::Sent;
            sending.sends = sending.sends.saturating_add(1);
            requests.push(Request::Ungate { uid: uid.clone(), version: sending.version, epoch: self.epoch });
        }
    }
}
