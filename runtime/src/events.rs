//! Kubernetes events (events.k8s.io/v1), published when a fact is new and never because time passed.
//!
//! `kube::runtime::events::Recorder` counts repetitions up with a write each, and its cache has no bound; here an unchanged
//! fact costs nothing, and a flood costs a bounded queue.
mod line;

use crate::api::{API_DEADLINE, deadline};
use crate::metrics::Metrics;
use crate::seed;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use line::{Line, Waiting};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Facts waiting to be written. Some 20 ms a write: what does not fit would be minutes late, and will be told again.
const QUEUE: usize = 1024;
/// Facts remembered as told, 16 bytes each; above this the oldest is forgotten and may be told again.
const MEMORY: usize = 16_384;
/// The API server forgets events after an hour; a fact that still holds may be told again a little before.
const REMEMBERED: Duration = Duration::from_secs(50 * 60);
/// A fact that the API server refuses for certain (no right, no such namespace) is offered again after this, if it still
/// holds.
const REFUSED: Duration = Duration::from_secs(5 * 60);
/// A fact is tried for this long, which an outage of usual length does not outlast; then it is old, and forgotten, so
/// that whoever still finds it true tells it anew. It also bounds what a silent server holds up: a namespace's whole queue.
const AGE_MAX: Duration = Duration::from_secs(120);
/// At the end, what is queued gets this long.
const DRAIN: Duration = Duration::from_secs(2);

const TOO_MANY_REQUESTS: u16 = 429;

// Limits of the API server's validation, in bytes.
const REASON_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 200;

/// How serious a fact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing to worry about.
    Normal,
    /// Something to look at.
    Warning,
}

/// Something that is so, about an object.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The object; its `uid` tells it from others of the same name. Cluster-scoped objects get their events in `default`.
    pub regarding: ObjectReference,
    /// How serious.
    pub severity: Severity,
    /// CamelCase, from a closed list.
    pub reason: String,
    /// What was done or tried, CamelCase, from a closed list.
    pub action: String,
    /// A sentence for people. No counters or times in it, or every change of them is a new fact.
    pub message: String,
}

/// What became of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It will be written.
    Queued,
    /// It was told before.
    Unchanged,
    /// Too many at once; telling it again later may succeed.
    Dropped,
    /// The API server did not take it.
    Failed,
}

/// Label of the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// What became of it.
    pub outcome: Outcome,
}

/// Counts facts by outcome.
#[derive(Debug, Clone, Default)]
pub struct EventMetrics {
    facts: Family<OutcomeLabel, Counter>,
}

impl EventMetrics {
    /// Adds the counter to the process's page.
    pub fn register(metrics: &mut Metrics) -> Self {
        let help = "Facts offered for publication as events, by what became of them";
        Self { facts: metrics.register("events_facts", help, Family::default()) }
    }

    fn count(&self, outcome: Outcome) {
        self.facts.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

/// Publishes facts as events. Cheap to clone; all clones share one memory and one writer.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Queued>,
    told: Arc<Mutex<Told>>,
    metrics: EventMetrics,
}

impl EventRecorder {
    /// Starts the writer. `controller` is who reports, such as "fairlead.dev/operator"; `instance` is the pod. The task
    /// ends after `shutdown`, when what is queued is written or two seconds have passed.
    #[must_use]
    pub fn start(
        client: kube::Client,
        controller: &str,
        instance: &str,
        metrics: &EventMetrics,
        shutdown: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (queue, facts) = mpsc::channel(QUEUE);
        let recorder = Self { queue, told: Arc::default(), metrics: metrics.clone() };
        let writer = Writer {
            client,
            told: recorder.told.clone(),
            line: Line::default(),
            controller: cut(controller, REASON_BYTES_MAX),
            instance: cut(instance, REASON_BYTES_MAX),
            metrics: metrics.clone(),
        };
        (recorder, tokio::spawn(writer.run(facts, shutdown)))
    }

    /// Tells a fact, unless the same (object, reason, message) was told already. Never waits, never fails: an event is a
    /// courtesy, and no decision depends on one.
    pub fn record(&self, fact: Fact) -> Outcome {
        let outcome = self.offer(fact);
        self.metrics.count(outcome);
        outcome
    }

    fn offer(&self, fact: Fact) -> Outcome {
        let key = key(&fact);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.knows(key) {
            return Outcome::Unchanged;
        }
        match self.queue.try_send(Queued { fact, key, at: Instant::now() }) {
            Ok(()) => {
                told.remember(key, REMEMBERED);
                Outcome::Queued
            }
            Err(_) => Outcome::Dropped,
        }
    }
}

fn key(fact: &Fact) -> u64 {
    // 64 bits for at most 16,384 facts: a collision, which hides one event, has a chance below 10⁻¹¹.
    let mut hasher = DefaultHasher::new();
    let ObjectReference { uid, kind, namespace, name, .. } = &fact.regarding;
    (uid, kind, namespace, name).hash(&mut hasher);
    (&fact.reason, &fact.message).hash(&mut hasher);
    hasher.finish()
}

/// A fact on its way.
#[derive(Debug)]
struct Queued {
    fact: Fact,
    key: u64,
    at: Instant,
}

/// What was told, oldest first.
#[derive(Debug, Default)]
struct Told {
    /// When, and for how long it is remembered.
    at: HashMap<u64, (Instant, Duration)>,
    order: VecDeque<(Instant, u64)>,
}

impl Told {
    fn knows(&self, key: u64) -> bool {
        self.at.get(&key).is_some_and(|(at, long)| at.elapsed() < *long)
    }

    fn forget(&mut self, key: u64) {
        self.at.remove(&key);
    }

    fn remember(&mut self, key: u64, long: Duration) {
        let now = Instant::now();
        self.at.insert(key, (now, long));
        self.order.push_back((now, key));
        while self.order.len() > MEMORY
            && let Some((at, oldest)) = self.order.pop_front()
        {
            // A key told again since stands further back, too.
            if self.at.get(&oldest).is_some_and(|(told, _)| *told == at) {
                self.at.remove(&oldest);
            }
        }
    }
}

struct Writer {
    client: kube::Client,
    controller: String,
    instance: String,
    metrics: EventMetrics,
    told: Arc<Mutex<Told>>,
    line: Line,
}

impl Writer {
    async fn run(mut self, mut facts: mpsc::Receiver<Queued>, shutdown: CancellationToken) {
        loop {
            while !self.line.is_full()
                && let Ok(fact) = facts.try_recv()
            {
                self.take_in(fact);
            }
            let old = self.line.expire();
            self.give_up(old);
            if shutdown.is_cancelled() {
                break;
            }
            if let Some(waiting) = self.line.pop() {
                self.write(waiting).await;
                continue;
            }
            let rested = self.line.rests_until();
            let now = Instant::now();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                fact = facts.recv(), if !self.line.is_full() => match fact {
                    Some(fact) => self.take_in(fact),
                    None => break,
                },
                () = tokio::time::sleep_until(rested.unwrap_or(now)), if rested.is_some() => {}
            }
        }
        facts.close();
        while let Ok(fact) = facts.try_recv() {
            self.take_in(fact);
        }
        let rest = async {
            for waiting in self.line.drain() {
                self.write(waiting).await;
            }
        };
        if tokio::time::timeout(DRAIN, rest).await.is_err() {
            tracing::info!("Some events were not written before the end");
        }
        let failed = self.line.drain();
        self.give_up(failed);
    }

    fn take_in(&mut self, Queued { fact, key, at }: Queued) {
        let namespace = fact.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let event = self.event(fact, &namespace);
        let refused = self.line.push(Waiting { event, namespace, key, at, tried: false });
        self.give_up(refused);
    }

    /// Tries once to write an event; what may succeed later goes back into the line. A try whose answer was lost may have
    /// been done: then there are two events, which costs less than none.
    async fn write(&mut self, waiting: Waiting) {
        let Waiting { event, namespace, key, .. } = &waiting;
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams::default();
        let call = async { events.create(&params, event).await };
        let Err(error) = deadline("create Event", API_DEADLINE, call).await else {
            self.line.answered(namespace);
            return;
        };
        tracing::warn!(
            error = %error.chain(),
            reason = event.reason.as_deref().unwrap_or_default(),
            "Failed to publish an event"
        );
        if error.outcome_unknown() || error.code() == Some(TOO_MANY_REQUESTS) {
            let dropped = self.line.failed(waiting, seed::fresh());
            self.give_up(dropped);
        } else {
            self.metrics.count(Outcome::Failed);
            self.line.answered(namespace);
            self.told().remember(*key, REFUSED);
        }
    }

    /// What is not written is forgotten, so that it may be told again.
    fn give_up(&self, events: impl IntoIterator<Item = Waiting>) {
        for Waiting { key, .. } in events {
            self.metrics.count(Outcome::Failed);
            self.told().forget(key);
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, fact: Fact, namespace: &str) -> Event {
        let name = fact.regarding.name.as_deref().unwrap_or("unknown");
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                // A dash, not the customary dot: the server refuses a prefix that ends in a dot.
                generate_name: Some(format!("{}-", cut(name, NAME_BYTES_MAX))),
                ..ObjectMeta::default()
            },
            action: Some(cut(&fact.action, REASON_BYTES_MAX)),
            event_time: Some(MicroTime(k8s_openapi::jiff::Timestamp::now())),
            note: Some(cut(&fact.message, NOTE_BYTES_MAX)),
            reason: Some(cut(&fact.reason, REASON_BYTES_MAX)),
            regarding: Some(fact.regarding),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(
                match fact.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            ..Event::default()
        }
    }
}

/// At most `bytes` of a text, cut between characters.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, SILENCE, Seen};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn fact(uid: &str, message: &str) -> Fact {
        Fact {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("picker".into()),
                namespace: Some("acme".into()),
                uid: Some(uid.into()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "WaitingForTenantQuota".into(),
            action: "Release".into(),
            message: message.into(),
        }
    }

    fn start(fake: &Fake, token: &CancellationToken) -> (EventRecorder, JoinHandle<()>) {
        let metrics = EventMetrics::default();
        EventRecorder::start(fake.client(), "fairlead.dev/test", "pod-1", &metrics, token.clone())
    }

    fn accepting() -> Fake {
        Fake::new(|request| (201, request.json()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_fact_is_written_once_and_again_before_the_server_forgets_it() {
        let fake = accepting();
        let token = CancellationToken::new();
        let (recorder, task) = start(&fake, &token);
        assert_eq!(recorder.record(fact("1", "m")), Outcome::Queued);
        assert_eq!(recorder.clone().record(fact("1", "m")), Outcome::Unchanged);
        assert_eq!(recorder.record(fact("1", "other")), Outcome::Queued);
        assert_eq!(recorder.record(fact("2", "m")), Outcome::Queued);
        tokio::time::sleep(REMEMBERED).await;
        assert_eq!(recorder.record(fact("1", "m")), Outcome::Queued);
        token.cancel();
        task.await.unwrap();
        assert_eq!(fake.requests().len(), 4, "what was queued is written before the end");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_says_who_what_and_about_whom() {
        let fake = accepting();
        let token = CancellationToken::new();
        let (recorder, task) = start(&fake, &token);
        recorder.record(fact("1", &"ü".repeat(600)));
        token.cancel();
        task.await.unwrap();
        let request = &fake.requests()[0];
        assert_eq!(request.method, http::Method::POST);
        assert_eq!(request.path(), "/apis/events.k8s.io/v1/namespaces/acme/events");
        let event = request.json();
        assert_eq!(event["metadata"]["generateName"], "picker-");
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["reason"], "WaitingForTenantQuota");
        assert_eq!(event["action"], "Release");
        assert_eq!(event["reportingController"], "fairlead.dev/test");
        assert_eq!(event["reportingInstance"], "pod-1");
        assert_eq!(event["regarding"]["uid"], "1");
        assert_eq!(event["note"].as_str().map(str::len), Some(1024), "cut to what the server takes");
        assert!(event["eventTime"].is_string());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_swallows_no_event() {
        let since = Instant::now();
        let fake = Fake::new(move |request| match since.elapsed().as_secs() {
            0..30 => (503, json!({"kind": "Status", "code": 503, "message": "away"})),
            _ => (201, request.json()),
        });
        let token = CancellationToken::new();
        let (recorder, task) = start(&fake, &token);
        recorder.record(fact("1", "m"));
        recorder.record(fact("2", "m"));
        tokio::time::sleep(Duration::from_secs(33)).await;
        let written: Vec<_> =
            fake.requests().iter().rev().take(2).map(|seen| seen.json()["regarding"]["uid"].clone()).collect();
        assert_eq!(BTreeSet::from_iter(written.iter().filter_map(Value::as_str)), BTreeSet::from(["1", "2"]));
        assert!(fake.requests().len() < 40, "{} tries", fake.requests().len());
        let failed = OutcomeLabel { outcome: Outcome::Failed };
        assert_eq!(recorder.metrics.facts.get_or_create(&failed).get(), 0);
        token.cancel();
        task.await.unwrap();
    }

    fn elsewhere(uid: &str) -> Fact {
        let mut fact = fact(uid, "m");
        fact.regarding.namespace = Some("globex".into());
        fact
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_takes_no_events_holds_up_nobody_elses() {
        let hangs = |request: &Seen| request.path().contains("/acme/");
        let fake = Fake::new(move |seen| if hangs(seen) { (SILENCE, Value::Null) } else { (201, seen.json()) });
        let token = CancellationToken::new();
        let (recorder, _task) = start(&fake, &token);
        for uid in 0..100 {
            recorder.record(fact(&uid.to_string(), "m"));
        }
        for uid in 0..20 {
            recorder.record(elsewhere(&uid.to_string()));
        }
        tokio::time::sleep(API_DEADLINE + Duration::from_secs(1)).await;
        let taken = fake.requests().iter().filter(|seen| seen.path().contains("/globex/")).count();
        assert_eq!(taken, 20, "one hanging try, and no more, comes before them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fact_that_waited_long_is_tried_all_the_same() {
        let fake = Fake::silent();
        let token = CancellationToken::new();
        let (recorder, _task) = start(&fake, &token);
        // Each of these hangs for its deadline: the last is older than a fact may be when its turn comes.
        for uid in 0..40 {
            let mut fact = fact(&uid.to_string(), "m");
            fact.regarding.namespace = Some(format!("silent{uid:02}"));
            recorder.record(fact);
        }
        tokio::time::sleep(AGE_MAX * 3).await;
        let asked: BTreeSet<_> = fake.requests().iter().map(|seen| seen.path().to_owned()).collect();
        assert_eq!(asked.len(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_silent_server_never_took_is_forgotten_with_all_that_stood_behind_it() {
        let token = CancellationToken::new();
        let (recorder, _task) = start(&Fake::silent(), &token);
        for uid in ["1", "2", "3"] {
            assert_eq!(recorder.record(fact(uid, "m")), Outcome::Queued);
        }
        tokio::time::sleep(AGE_MAX + API_DEADLINE).await;
        for uid in ["1", "2", "3"] {
            assert_eq!(recorder.record(fact(uid, "m")), Outcome::Queued, "it may be told again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_event_is_counted_and_offered_again_later() {
        let fake = Fake::new(|_| (403, json!({"kind": "Status", "code": 403, "message": "no"})));
        let token = CancellationToken::new();
        let (recorder, task) = start(&fake, &token);
        recorder.record(fact("1", "m"));
        recorder.record(fact("2", "m"));
        tokio::time::sleep(REFUSED / 2).await;
        assert_eq!(recorder.record(fact("1", "m")), Outcome::Unchanged);
        assert_eq!(fake.requests().len(), 2, "a refusal is not repeated at once");
        tokio::time::sleep(REFUSED).await;
        assert_eq!(recorder.record(fact("1", "m")), Outcome::Queued);
        token.cancel();
        task.await.unwrap();
        let failed = OutcomeLabel { outcome: Outcome::Failed };
        assert_eq!(recorder.metrics.facts.get_or_create(&failed).get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_fills_the_queue_and_what_was_dropped_may_be_told_again() {
        let token = CancellationToken::new();
        let (recorder, task) = start(&Fake::silent(), &token);
        let told = (0..QUEUE).filter(|i| recorder.record(fact(&i.to_string(), "m")) == Outcome::Queued).count();
        assert_eq!(told, QUEUE);
        assert_eq!(recorder.record(fact("late", "m")), Outcome::Dropped);
        tokio::time::sleep(API_DEADLINE * 2).await;
        assert_eq!(recorder.record(fact("late", "m")), Outcome::Queued);
        token.cancel();
        let since = Instant::now();
        task.await.unwrap();
        assert!(since.elapsed() <= API_DEADLINE + DRAIN, "a silent server does not hold up the end");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_forgets_the_oldest() {
        let mut told = Told::default();
        for key in 0..(MEMORY as u64 + 10) {
            told.remember(key, REMEMBERED);
        }
        assert_eq!((told.at.len(), told.order.len()), (MEMORY, MEMORY));
        assert!(!told.knows(9) && told.knows(10));
    }
}
