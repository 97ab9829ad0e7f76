//! The line in which facts wait to be written: one queue a namespace, so that a namespace that takes no events (a webhook
//! in it is down) holds up nobody else's.
use super::{AGE_MAX, QUEUE};
use crate::backoff::Backoff;
use k8s_openapi::api::events::v1::Event;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// Facts of a namespace that fails which are kept: it cannot fill the line.
pub(super) const FAILING_MAX: usize = QUEUE / 4;

/// An event that waits to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Event,
    pub(super) namespace: String,
    /// Of its fact.
    pub(super) key: u64,
    /// When the fact was told.
    pub(super) at: Instant,
    pub(super) tried: bool,
}

/// The queue of one namespace.
#[derive(Debug)]
struct Namespace {
    facts: VecDeque<Waiting>,
    /// Since the last success; `None` when the last try succeeded, or there was none.
    failing: Option<Backoff>,
    /// Left alone until then.
    rests_until: Instant,
    served: u64,
}

/// All that waits. Namespaces take turns.
#[derive(Debug, Default)]
pub(super) struct Line {
    namespaces: BTreeMap<String, Namespace>,
    length: usize,
    served: u64,
}

impl Line {
    pub(super) fn is_full(&self) -> bool {
        self.length >= QUEUE
    }

    /// Puts a fact at the back of its namespace's queue; gives it back when that fails and is long enough.
    #[must_use = "what is given back is not written"]
    pub(super) fn push(&mut self, fact: Waiting) -> Option<Waiting> {
        let namespace = self.namespaces.entry(fact.namespace.clone()).or_insert_with(|| Namespace {
            facts: VecDeque::new(),
            failing: None,
            rests_until: Instant::now(),
            served: 0,
        });
        if namespace.failing.is_some() && namespace.facts.len() >= FAILING_MAX {
            return Some(fact);
        }
        namespace.facts.push_back(fact);
        self.length += 1;
        None
    }

    /// The next fact to write: of the namespace that has waited longest for its turn and does not rest.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let now = Instant::now();
        let ready = self.namespaces.values_mut().filter(|queue| queue.rests_until <= now && !queue.facts.is_empty());
        let queue = ready.min_by_key(|queue| queue.served)?;
        self.served += 1;
        queue.served = self.served;
        self.length -= 1;
        queue.facts.pop_front()
    }

    /// When the first namespace has rested; `None` when nothing waits.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.namespaces.values().filter(|queue| !queue.facts.is_empty()).map(|queue| queue.rests_until).min()
    }

    /// A fact was taken, or refused for certain: the namespace answers.
    pub(super) fn answered(&mut self, namespace: &str) {
        if let Some(queue) = self.namespaces.get_mut(namespace) {
            queue.failing = None;
        }
    }

    /// A fact was not taken: its namespace rests, and the fact goes to the back. Gives what is not kept.
    #[must_use = "what is given back is not written"]
    pub(super) fn failed(&mut self, mut fact: Waiting, seed: u64) -> Vec<Waiting> {
        fact.tried = true;
        let mut dropped = Vec::new();
        if let Some(queue) = self.namespaces.get_mut(&fact.namespace) {
            let backoff = queue.failing.get_or_insert_with(|| Backoff::new(seed));
            queue.rests_until = Instant::now() + backoff.next_delay();
            let beyond = queue.facts.split_off(queue.facts.len().min(FAILING_MAX));
            self.length -= beyond.len();
            dropped.extend(beyond);
        }
        dropped.extend(self.push(fact));
        dropped
    }

    /// Takes out the facts that are too old. One that was never tried goes only where others of its namespace were, in
    /// vain: what happens elsewhere costs nobody the one try. Forgets namespaces with nothing to write.
    #[must_use = "what is taken out is not written"]
    pub(super) fn expire(&mut self) -> Vec<Waiting> {
        let mut old = Vec::new();
        for queue in self.namespaces.values_mut() {
            let failing = queue.failing.is_some();
            let is_old = |fact: &Waiting| fact.at.elapsed() >= AGE_MAX && (fact.tried || failing);
            if queue.facts.iter().any(is_old) {
                let (gone, kept): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(&mut queue.facts).into_iter().partition(is_old);
                queue.facts = kept;
                old.extend(gone);
            }
        }
        self.length -= old.len();
        self.namespaces.retain(|_, queue| !queue.facts.is_empty());
        old
    }

    /// All that is left, whether it rests or not.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.length = 0;
        std::mem::take(&mut self.namespaces).into_values().flat_map(|queue| queue.facts).collect()
    }
}
