//! Frees reservations whose pod is gone: looks for candidates in the snapshot and drives [`fairlead_placement::reap`] for
//! those of each node together, while this process holds the Lease of the extender in use.
//!
//! Safety does not rest on the Lease: every freeing reads the live pod first and names the generation it rests on. The
//! Lease keeps the replicas from doing the same work and from spoiling each other's writes; behind a Service its holder also
//! is the one that binds ([`crate::duty`]).
use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_placement::reap::{Candidate, start, step};
use fairlead_placement::{Event, PodRef, Request, Reservation, Withdrawal};
use fairlead_runtime::lease::LeaseState;
use fairlead_runtime::{API_DEADLINE, Pulse};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::courier::Courier;
use crate::metrics::ExtenderMetrics;

/// Name of the Lease.
pub const LEASE_NAME: &str = "fairlead-extender-reaper";
/// Pause between two looks at the snapshot.
const PERIOD: Duration = Duration::from_secs(1);
/// The pods of one write are looked at for this long; then it is written what is known by now, with a call's time.
const WITHDRAWAL_DEADLINE: Duration = Duration::from_secs(15);
/// Nodes visited at once: a shrinking pool gives back hundreds, and the API server has others to serve.
const AT_ONCE: usize = 8;
/// Reservations freed by one write: the more pods are read before it, the likelier somebody else has written meanwhile.
const BATCH: usize = 16;
/// One that stayed is looked at again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A reaper that is silent for this long is stuck.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What the reaper is given.
pub struct Reaper {
    /// The way to the API server.
    pub courier: Courier,
    /// The candidature for [`LEASE_NAME`].
    pub lease: watch::Receiver<LeaseState>,
    /// Reservations of unbound pods that were first seen less than this ago belong to binds that may be under way.
    pub grace: Duration,
    /// The counters.
    pub metrics: ExtenderMetrics,
    /// Beaten by the loop.
    pub pulse: Pulse,
}

impl Reaper {
    /// Runs until `shutdown`, then ends what is under way.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut not_before: BTreeMap<(String, String), Instant> = BTreeMap::new();
        let mut first_seen = FirstSeen::default();
        loop {
            self.pulse.beat();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
            // Also without the Lease: whoever gets it knows how old things are.
            let candidates = self.candidates(&mut first_seen);
            if !self.leads() {
                continue;
            }
            let now = Instant::now();
            not_before.retain(|_, at| *at > now);
            let kept = self.round(candidates, &not_before, &shutdown).await;
            let again = Instant::now() + AGAIN_AFTER;
            not_before.extend(kept.into_iter().map(|key| (key, again)));
        }
    }

    fn leads(&self) -> bool {
        self.lease.borrow().term_now().is_some()
    }

    fn candidates(&self, first_seen: &mut FirstSeen) -> Vec<Candidate> {
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        let mut look = first_seen.look(Instant::now());
        let survey = self.courier.snapshot().survey(grace_ms, |node, held| look.known_ms(node, held));
        *first_seen = look.ended();
        self.metrics.surveyed(&survey);
        survey.candidates
    }

    /// Tries every candidate once; returns those that stayed, by node and pod UID.
    async fn round(
        &self,
        candidates: Vec<Candidate>,
        not_before: &BTreeMap<(String, String), Instant>,
        shutdown: &CancellationToken,
    ) -> Vec<(String, String)> {
        let mut by_node: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        for candidate in candidates {
            if !not_before.contains_key(&key(&candidate)) {
                by_node.entry(candidate.node.clone()).or_default().push(candidate);
            }
        }
        let nodes = by_node.into_values().map(|candidates| self.visit(candidates, shutdown));
        futures::stream::iter(nodes).buffer_unordered(AT_ONCE).concat().await
    }

    /// One node's candidates, some in each write. At once the writes would only spoil each other.
    async fn visit(&self, candidates: Vec<Candidate>, shutdown: &CancellationToken) -> Vec<(String, String)> {
        let mut kept = Vec::new();
        for batch in candidates.chunks(BATCH) {
            if shutdown.is_cancelled() {
                break;
            }
            let freed = self.withdraw(batch).await;
            kept.extend(batch.iter().filter(|candidate| !freed.contains(&candidate.pod)).map(key));
            self.pulse.beat();
        }
        kept
    }

    /// The pods whose reservation is gone.
    async fn withdraw(&self, batch: &[Candidate]) -> Vec<PodRef> {
        let node = batch.first().map(|candidate| candidate.node.clone()).unwrap_or_default();
        let mut end = Instant::now() + WITHDRAWAL_DEADLINE;
        let pods = batch.iter().map(|candidate| (candidate.pod.clone(), candidate.even_unbound));
        let (mut state, mut requests) = start(node.clone(), pods);
        while let Some(next) = requests.pop() {
            if let Request::Finished(told) = next {
                return self.told(&node, told);
            }
            let writes = matches!(next, Request::Touch { .. } | Request::Release { .. });
            if writes && !self.leads() {
                break;
            }
            let event = tokio::select! {
                biased;
                event = self.courier.carry(&next, API_DEADLINE) => event,
                () = tokio::time::sleep_until(end) => Some(Event::DeadlineNear),
            };
            let Some(event) = event else { break };
            if event == Event::DeadlineNear {
                end += API_DEADLINE;
            }
            (state, requests) = step(&state, &event);
        }
        Vec::new()
    }

    fn told(&self, node: &str, told: Vec<(PodRef, Withdrawal)>) -> Vec<PodRef> {
        let mut gone = Vec::with_capacity(told.len());
        for (pod, how) in told {
            let (outcome, why) = match how {
                Withdrawal::Released => ("Released", ""),
                Withdrawal::NothingHeld => ("NothingHeld", ""),
                Withdrawal::Kept(why) => ("Kept", why),
            };
            self.metrics.released(outcome);
            tracing::info!(node, namespace = pod.namespace, pod = pod.name, uid = pod.uid, outcome, why, "Reaped");
            if !matches!(how, Withdrawal::Kept(_)) {
                gone.push(pod);
            }
        }
        gone
    }
}

/// Node, pod UID and the time written in a reservation: one that was renewed is another.
type Entry = (String, String, u64);

/// When this process first saw each reservation of an unbound pod.
#[derive(Default)]
struct FirstSeen(BTreeMap<Entry, Instant>);

/// One look at all of them.
struct Look<'a> {
    before: &'a FirstSeen,
    now: Instant,
    seen: BTreeMap<Entry, Instant>,
}

impl FirstSeen {
    fn look(&self, now: Instant) -> Look<'_> {
        Look { before: self, now, seen: BTreeMap::new() }
    }
}

impl Look<'_> {
    fn known_ms(&mut self, node: &str, held: &Reservation) -> u64 {
        let entry = (node.to_owned(), held.pod.uid.clone(), held.reserved_at_ms);
        let since = self.before.0.get(&entry).copied().unwrap_or(self.now);
        self.seen.insert(entry, since);
        u64::try_from(self.now.duration_since(since).as_millis()).unwrap_or(u64::MAX)
    }

    /// What was not seen this time is forgotten.
    fn ended(self) -> FirstSeen {
        FirstSeen(self.seen)
    }
}

fn key(candidate: &Candidate) -> (String, String) {
    (candidate.node.clone(), candidate.pod.uid.clone())
}
