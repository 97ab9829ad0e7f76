//! Pools from the view to the writes of replicas: who writes when, and who lets it be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod fake;

use fairlead_cluster::Model;
use fairlead_crds::WorkerPool;
use fairlead_operator::clock::{self, Clock};
use fairlead_operator::metrics::OperatorMetrics;
use fairlead_operator::scaling::allow::AllowList;
use fairlead_operator::scaling::hold::HOLD_MS;
use fairlead_operator::scaling::orders::Orders;
use fairlead_operator::scaling::pool::Shared;
use fairlead_operator::scaling::queue::sampler::Sampling;
use fairlead_operator::scaling::queue::secret::Account;
use fairlead_operator::scaling::report::PoolReports;
use fairlead_operator::scaling::supervisor;
use fairlead_operator::scaling::target::Targets;
use fairlead_operator::view::View;
use fairlead_runtime::events::EventMetrics;
use fairlead_runtime::{EventRecorder, Heartbeat, LeaseState, Metrics, WatchEvent};
use fake::{redis::redis, refusal, server};
use http::Method;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/a/deployments/";
const STATUS: &str = "/apis/fairlead.dev/v1alpha1/namespaces/a/workerpools/p/status";
const PERIOD: Duration = Duration::from_millis(20);

/// How far the wall clock was set back, in all tests of this process.
static SET_BACK_MS: AtomicU64 = AtomicU64::new(0);

fn wall_ms() -> u64 {
    clock::now_ms() - SET_BACK_MS.load(Ordering::SeqCst)
}

/// The Deployment `w` as the server has it, and what was written.
#[derive(Default)]
struct World {
    uid: String,
    replicas: u64,
    /// Replicas of the Deployment `w2`.
    others: u64,
    /// "from to" of each patch of the scale, refused ones too.
    patches: Vec<String>,
    /// Answer to the patches instead of doing them.
    denied: Option<(u16, &'static str)>,
    status: Value,
}

impl World {
    fn answer(&mut self, seen: &fake::Seen) -> (u16, Value) {
        match (&seen.method, seen.path.as_str()) {
            (&Method::GET, "/apis/apps/v1") => {
                let resource = json!({"name": "deployments", "singularName": "deployment", "namespaced": true,
                    "kind": "Deployment", "verbs": ["get", "patch"]});
                (200, json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [resource]}))
            }
            (&Method::PATCH, STATUS) => {
                self.status = seen.body["status"].clone();
                let mut pool = serde_json::to_value(pool(&json!({}))).unwrap();
                pool["status"] = self.status.clone();
                (200, pool)
            }
            (&Method::POST, _) => (201, seen.body.clone()),
            (method, path) => match path.strip_prefix(DEPLOYMENTS) {
                Some("w" | "w/scale") if self.uid.is_empty() => refusal(404),
                Some("w" | "w2") => (200, self.deployment()),
                Some("w/scale") if *method == Method::GET => (200, self.scale(self.replicas)),
                Some("w/scale") => self.patch(&seen.body),
                Some("w2/scale") => {
                    self.others = seen.body[1]["value"].as_u64().unwrap_or(self.others);
                    (200, self.scale(self.others))
                }
                _ => panic!("unexpected {method} {path}"),
            },
        }
    }

    fn deployment(&self) -> Value {
        let requests = json!({"requests": {"cpu": "1"}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "namespace": "a"},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "resources": requests}]}}}})
    }

    fn scale(&self, replicas: u64) -> Value {
        let metadata = json!({"name": "w", "namespace": "a", "uid": self.uid});
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "selector": "app=w"}})
    }

    fn patch(&mut self, body: &Value) -> (u16, Value) {
        let (seen, to) = (body[0]["value"].as_u64().unwrap_or(0), body[1]["value"].as_u64().unwrap());
        self.patches.push(format!("{seen} {to}"));
        match self.denied {
            Some((code, message)) => {
                let (code, mut status) = refusal(code);
                status["message"] = message.into();
                (code, status)
            }
            None if seen != self.replicas => refusal(422),
            None => {
                self.replicas = to;
                (200, self.scale(to))
            }
        }
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let all = self.status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }
}

fn pool(more: &Value) -> WorkerPool {
    let mut pool = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
        "metadata": {"namespace": "a", "name": "p", "uid": "u", "generation": 1},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
            "minReplicas": 4, "maxReplicas": 40, "queueSources": [{"type": "RedisStream",
                "redisStream": {"address": "127.0.0.1:1", "stream": "s", "group": "g"}}]}});
    for (name, value) in more.as_object().unwrap() {
        pool["spec"][name] = value.clone();
    }
    serde_json::from_value(pool).unwrap()
}

/// The pools' supervisor over a server that is a function.
struct Bed {
    world: Arc<Mutex<World>>,
    view: watch::Sender<Arc<View>>,
    lease: watch::Sender<LeaseState>,
    shutdown: CancellationToken,
}

impl Bed {
    /// A target with `replicas`; nobody leads yet, and nothing is listed.
    fn new(replicas: u64) -> Self {
        let world = Arc::new(Mutex::new(World { uid: "first".into(), replicas, others: 1, ..World::default() }));
        let served = world.clone();
        let (client, _) = server(move |seen| served.lock().unwrap().answer(seen));
        let mut metrics = Metrics::new("operator");
        let counters = OperatorMetrics::register(&mut metrics);
        let shutdown = CancellationToken::new();
        let (events, _) =
            EventRecorder::start(client.clone(), "c", "i", &EventMetrics::register(&mut metrics), shutdown.clone());
        let (lease, leads) = watch::channel(LeaseState { leading: false, term: 0, until: None });
        let clock = Clock::with_wall(wall_ms);
        let sampling = Sampling {
            client: client.clone(),
            allow: Arc::new(AllowList::new(vec!["127.0.0.1".parse().unwrap()])),
            account: Account { namespace: "fairlead-system".into(), name: "fairlead-operator".into() },
            period: PERIOD,
            seed: 1,
            metrics: counters.clone(),
            clock,
        };
        let shared = Shared {
            targets: Targets::new(client.clone()),
            client,
            orders: Orders::default(),
            reports: PoolReports::default(),
            sampling,
            events,
            lease: leads,
            metrics: counters,
            clock,
        };
        let (view, seen) = watch::channel(Arc::new(View::empty(Model::new("fairlead-system").snapshot())));
        let pulse = Heartbeat::new().register("pools", supervisor::SILENCE);
        tokio::spawn(supervisor::run(Arc::new(shared), seen, pulse, shutdown.clone()));
        Self { world, view, lease, shutdown }
    }

    /// The same with everything listed, and leading in term 1.
    fn leading(replicas: u64, pool: WorkerPool) -> Self {
        let bed = Self::new(replicas);
        bed.show(|view| {
            view.objects.autoscaler(WatchEvent::Reset(Vec::new()));
            view.objects.pool(WatchEvent::Reset(vec![pool]));
        });
        bed.lead(Some(1));
        bed
    }

    fn show(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.borrow());
        change(&mut view);
        self.view.send_replace(Arc::new(view));
    }

    /// Leads in that term, or no longer.
    fn lead(&self, term: Option<u64>) {
        let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
        let kept = self.lease.borrow().term;
        self.lease.send_replace(LeaseState { leading: term.is_some(), term: term.unwrap_or(kept), until });
        self.show(|view| {
            (view.leading, view.term) = (term.is_some(), term.unwrap_or(kept));
            (view.synced, view.rivals_synced) = (true, true);
        });
    }

    fn patches(&self) -> Vec<String> {
        self.world.lock().unwrap().patches.clone()
    }

    /// Waits for what must come, however busy the machine is.
    async fn until(&self, what: &str, seen: impl Fn(&World) -> bool) {
        for _ in 0..800 {
            if seen(&self.world.lock().unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let world = self.world.lock().unwrap();
        panic!("{what} did not come: {:?} {}", world.patches, world.status);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_pools_and_autoscalers_are_listed() {
    let bed = Bed::new(2);
    bed.lead(Some(1));
    bed.show(|view| {
        view.rivals_synced = false;
        view.objects.pool(WatchEvent::Reset(vec![pool(&json!({}))]));
    });
    tokio::time::sleep(PERIOD * 10).await;
    assert!(bed.patches().is_empty(), "the autoscalers are not known: {:?}", bed.patches());
    let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}}}))
    .unwrap();
    bed.show(|view| {
        view.rivals_synced = true;
        view.objects.autoscaler(WatchEvent::Reset(vec![hpa.clone()]));
    });
    bed.until("the conflict", |world| world.condition("ScalingActive").1 == "ScaleConflict").await;
    assert!(bed.patches().is_empty());
    bed.show(|view| view.objects.autoscaler(WatchEvent::Delete(hpa)));
    bed.until("the minimum", |world| world.patches == ["2 4"]).await;
}

/// A task that was parked waits until what it judges by was listed in the new term.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_in_a_new_term_by_what_was_listed_in_an_old_one() {
    let bed = Bed::leading(2, pool(&json!({})));
    bed.until("the minimum", |world| world.replicas == 4).await;
    bed.lead(None);
    bed.show(|view| view.objects.pool(WatchEvent::Apply(pool(&json!({"minReplicas": 6})))));
    for unlisted in [|view: &mut View| view.synced = false, |view: &mut View| view.rivals_synced = false] {
        bed.lead(Some(2));
        bed.show(unlisted);
        tokio::time::sleep(PERIOD * 10).await;
        assert_eq!(bed.patches(), ["2 4"]);
    }
    bed.lead(Some(2));
    bed.until("the new minimum", |world| world.replicas == 6).await;
}

#[tokio::test]
async fn replicas_follow_the_queue() {
    let (address, lag) = redis(1_000).await;
    let stream = json!([{"type": "RedisStream", "redisStream": {"address": address, "stream": "s", "group": "g"}}]);
    let bed = Bed::leading(4, pool(&json!({"queueSources": stream, "scaling": {"scaleDown": {"windowSeconds": 0}}})));
    bed.until("growth", |world| world.replicas > 4).await;
    lag.store(0, Ordering::SeqCst);
    bed.until("the minimum", |world| world.replicas == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_write_is_told_and_not_repeated_at_once() {
    let policy = "deployments.apps \"w\" is forbidden: ValidatingAdmissionPolicy 'few' denied request: at most 3";
    let right =
        "deployments.apps \"w\" is forbidden: User \"o\" cannot patch resource \"deployments/scale\" in API group";
    for (code, message, reason) in
        [(422, policy, "ScaleDenied"), (403, policy, "ScaleDenied"), (403, right, "ScaleForbidden")]
    {
        let bed = Bed::leading(2, pool(&json!({})));
        bed.world.lock().unwrap().denied = Some((code, message));
        bed.until("the refusal", |world| world.condition("ScalingActive").0 == "False").await;
        tokio::time::sleep(PERIOD * 15).await;
        let (status, told, text) = bed.world.lock().unwrap().condition("ScalingActive");
        assert_eq!((status.as_str(), told.as_str()), ("False", reason), "{text}");
        assert_eq!(text.contains("at most 3"), reason == "ScaleDenied", "{text}");
        assert_eq!(bed.patches(), ["2 4"], "one try, then a pause");
        bed.world.lock().unwrap().denied = None;
        bed.until("the next try", |world| world.replicas == 4).await;
    }
}

/// Replicas below the minimum are raised at once, unless they are taken for a human's wish.
#[tokio::test(start_paused = true)]
async fn a_target_that_is_created_anew_is_no_humans_change() {
    let bed = Bed::leading(2, pool(&json!({})));
    bed.until("the minimum", |world| world.replicas == 4).await;
    {
        let mut world = bed.world.lock().unwrap();
        (world.uid, world.replicas) = ("second".into(), 1);
    }
    bed.until("the minimum of the second", |world| world.replicas == 4).await;
    bed.world.lock().unwrap().uid = String::new();
    bed.until("the fault", |world| world.condition("ScalingActive").1 == "TargetNotFound").await;
    {
        let mut world = bed.world.lock().unwrap();
        (world.uid, world.replicas) = ("third".into(), 3);
    }
    bed.until("the minimum of the third", |world| world.replicas == 4).await;
    assert_eq!(bed.patches(), ["2 4", "1 4", "3 4"]);
}

#[tokio::test(start_paused = true)]
async fn another_target_is_no_humans_change_and_a_human_is_held() {
    let bed = Bed::leading(2, pool(&json!({})));
    bed.until("the minimum", |world| world.replicas == 4).await;
    bed.world.lock().unwrap().replicas = 2;
    let mut other = pool(&json!({"minReplicas": 5, "scaleTargetRef":
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w2"}}));
    other.metadata.generation = Some(2);
    bed.show(|view| view.objects.pool(WatchEvent::Apply(other)));
    bed.until("the other's minimum", |world| world.others == 5).await;
    bed.show(|view| view.objects.pool(WatchEvent::Apply(pool(&json!({})))));
    bed.until("the minimum again", |world| world.replicas == 4).await;
    bed.world.lock().unwrap().replicas = 2;
    bed.until("the hold", |world| world.condition("ScalingActive").1 == "ManualChangeHeld").await;
    assert_eq!(bed.world.lock().unwrap().replicas, 2);
}

#[tokio::test]
async fn a_lost_lease_loses_no_memory() {
    let (address, lag) = redis(1_000).await;
    let stream = json!([{"type": "RedisStream", "redisStream": {"address": address, "stream": "s", "group": "g"}}]);
    let scaling = json!({"scaleDown": {"windowSeconds": 2, "idleSeconds": 0}});
    let bed = Bed::leading(4, pool(&json!({"queueSources": stream, "scaling": scaling})));
    bed.until("growth", |world| world.replicas > 4).await;
    bed.lead(None);
    lag.store(0, Ordering::SeqCst);
    let written = bed.patches().len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bed.patches().len(), written, "who does not lead does not write");
    bed.lead(Some(2));
    let led_at = std::time::Instant::now();
    bed.until("the minimum", |world| world.replicas == 4).await;
    assert!(led_at.elapsed() < Duration::from_millis(1_500), "the window was seen meanwhile: {:?}", led_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_others_did_between_two_terms_is_looked_at_first() {
    let bed = Bed::leading(2, pool(&json!({})));
    bed.until("the minimum", |world| world.replicas == 4).await;
    bed.lead(None);
    bed.world.lock().unwrap().replicas = 3;
    bed.lead(Some(2));
    bed.until("the hold", |world| world.condition("ScalingActive").1 == "ManualChangeHeld").await;
    assert_eq!(bed.patches(), ["2 4"], "a human's change is held, whoever led meanwhile");
    bed.lead(None);
    tokio::time::sleep(PERIOD * 5).await;
    bed.lead(Some(3));
    tokio::time::sleep(PERIOD * 10).await;
    assert_eq!(bed.patches(), ["2 4"], "and stays held in the next term");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_freezes_nothing() {
    let bed = Bed::leading(2, pool(&json!({})));
    bed.until("the minimum", |world| world.replicas == 4).await;
    SET_BACK_MS.store(600_000, Ordering::SeqCst);
    bed.world.lock().unwrap().replicas = 2;
    bed.until("a look at the scale", |world| world.condition("ScalingActive").1 == "ManualChangeHeld").await;
    tokio::time::sleep(Duration::from_millis(HOLD_MS)).await;
    bed.until("the end of the hold", |world| world.replicas == 4).await;
    SET_BACK_MS.store(0, Ordering::SeqCst);
}
