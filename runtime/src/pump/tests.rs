//! The pump against an API server that is a function, on a paused clock.

use super::{
    DeserializeGuard, PumpConfig, PumpMetrics, SourceLabel, StageLabel, WatchEvent, WatchStage, spawn, spawn_dated,
    watch,
};
use crate::lease::LeaseState;
use crate::readiness::Readiness;
use crate::testing::{Fake, SILENCE, Seen};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SOURCE: SourceLabel = SourceLabel { source: "maps" };

fn object(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()}, "data": {"k": "v"}})
}

fn malformed(name: &str, version: u32) -> Value {
    let mut object = object(name, version);
    object["data"] = json!("not a map");
    object
}

fn list(items: &[Value], version: &str, next: &str) -> (u16, Value) {
    let metadata = json!({"resourceVersion": version, "continue": next});
    (200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

fn changed(kind: &str, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!("v1");
    object["kind"] = json!("ConfigMap");
    json!({"type": kind, "object": object})
}

fn refusal(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "R", "message": "m"})
}

fn is_watch(request: &Seen) -> bool {
    request.query().contains("watch=true")
}

fn api(fake: &Fake) -> Api<DeserializeGuard<ConfigMap>> {
    Api::all(fake.client())
}

fn config() -> PumpConfig {
    PumpConfig::new("maps", 7)
}

/// An event in short: "reset a,b", "apply a", "delete a".
fn short(event: &WatchEvent<ConfigMap>) -> String {
    match event {
        WatchEvent::Reset(all) => {
            let names: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
            format!("reset {}", names.join(","))
        }
        WatchEvent::Apply(object) => format!("apply {}", object.name_any()),
        WatchEvent::Delete(object) => format!("delete {}", object.name_any()),
    }
}

async fn take(fake: &Fake, config: PumpConfig, count: usize) -> Vec<String> {
    let events = watch::<ConfigMap>(api(fake), config).take(count);
    events.map(|event| short(&event)).collect().await
}

#[tokio::test(start_paused = true)]
async fn pages_become_one_reset_and_changes_follow() {
    let fake = Fake::new(|request| match (is_watch(request), request.query().contains("continue=more")) {
        (false, false) => list(&[object("a", 1), malformed("bad", 2)], "", "more"),
        (false, true) => list(&[object("b", 3)], "10", ""),
        (true, _) => {
            let events = [
                changed("ADDED", &object("c", 11)),
                changed("MODIFIED", &malformed("a", 12)),
                changed("MODIFIED", &object("b", 13)),
                changed("DELETED", &object("b", 14)),
            ];
            (200, json!(events))
        }
    });
    let metrics = PumpMetrics::default();
    let events = take(&fake, config().metrics(&metrics), 4).await;
    assert_eq!(events, ["reset a,b", "apply c", "apply b", "delete b"]);
    assert_eq!(metrics.malformed.get_or_create(&SOURCE).get(), 2);
    assert_eq!(metrics.relists.get_or_create(&SOURCE).get(), 1);
    assert_eq!(metrics.events.get_or_create(&SOURCE).get(), 3);
    let queries: Vec<_> = fake.requests().iter().map(|request| request.query().to_owned()).collect();
    assert!(queries[0].contains("limit=500"), "{queries:?}");
    assert!(queries[2].contains("timeoutSeconds=20") && queries[2].contains("allowWatchBookmarks=true"), "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_resumed_from_the_last_bookmark_without_a_list() {
    let mut watches = 0;
    let fake = Fake::new(move |request| {
        if !is_watch(request) {
            return list(&[], "10", "");
        }
        watches += 1;
        let bookmark = json!({"type": "BOOKMARK", "object": {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "25"}}});
        match watches {
            1 => (200, json!([bookmark])),
            _ => (200, json!([changed("ADDED", &object("late", 26))])),
        }
    });
    let since = Instant::now();
    assert_eq!(take(&fake, config(), 2).await, ["reset ", "apply late"]);
    assert_eq!(since.elapsed().as_secs(), 25, "a dead watch is noticed after its life and five seconds");
    let queries: Vec<_> = fake.requests().iter().map(|request| request.query().to_owned()).collect();
    assert_eq!(queries.len(), 3);
    assert!(queries[2].contains("resourceVersion=25"), "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_leads_to_a_new_list_wherever_the_server_says_so() {
    for in_stream in [true, false] {
        let mut watches = 0;
        let fake = Fake::new(move |request| match is_watch(request) {
            false => list(&[object(&format!("after{watches}"), 1)], "10", ""),
            true => {
                watches += 1;
                match (watches, in_stream) {
                    (1, true) => (200, json!([{"type": "ERROR", "object": refusal(410)}])),
                    (1, false) => (410, refusal(410)),
                    _ => (200, json!([])),
                }
            }
        });
        let metrics = PumpMetrics::default();
        let events = take(&fake, config().metrics(&metrics), 2).await;
        assert_eq!(events, ["reset after0", "reset after1"], "{in_stream}");
        let stage = if in_stream { WatchStage::Stream } else { WatchStage::Open };
        assert_eq!(metrics.errors.get_or_create(&StageLabel { source: "maps", stage }).get(), 1);
    }
}

/// A server whose etcd was restored does not know the version and says 504 until it gets there, which may be never.
#[tokio::test(start_paused = true)]
async fn a_version_from_the_future_leads_to_a_new_list_after_some_refusals() {
    let fake = Fake::new(|request| match is_watch(request) {
        false => list(&[], "10", ""),
        true => (504, refusal(504)),
    });
    assert_eq!(take(&fake, config(), 2).await, ["reset ", "reset "]);
    let watches = fake.requests().iter().filter(|request| is_watch(request)).count();
    assert_eq!(watches, 4);
}

/// Asks a server that is away, and returns when it was asked.
async fn asked_at(seed: u64) -> Vec<u128> {
    let since = Instant::now();
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = times.clone();
    let fake = Fake::new(move |_| {
        log.lock().unwrap().push(since.elapsed().as_millis());
        (503, refusal(503))
    });
    let pump = watch::<ConfigMap>(api(&fake), PumpConfig::new("maps", seed));
    let never = tokio::time::timeout(Duration::from_secs(60), pump.collect::<Vec<_>>());
    assert!(never.await.is_err());
    times.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_ever_more_rarely_and_the_seed_decides_when() {
    let times = asked_at(1).await;
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= 200 && (1_500..=2_000).contains(gaps.iter().max().unwrap()), "{gaps:?}");
    assert!(gaps.len() < 60, "{gaps:?}");
    assert_eq!(asked_at(1).await, times);
    assert_ne!(asked_at(2).await, times);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stalls_is_given_up() {
    let mut lists = 0;
    let fake = Fake::new(move |_| {
        lists += 1;
        match lists {
            1 => (SILENCE, Value::Null),
            _ => list(&[object("a", 1)], "10", ""),
        }
    });
    let since = Instant::now();
    assert_eq!(take(&fake, config(), 1).await, ["reset a"]);
    assert_eq!(since.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn the_task_is_ready_after_its_first_list_and_ends_when_told() {
    let mut lists = 0;
    let fake = Fake::new(move |request| {
        if is_watch(request) {
            return (200, json!([]));
        }
        lists += 1;
        if lists == 1 { (403, refusal(403)) } else { list(&[object("a", 1)], "10", "") }
    });
    let readiness = Readiness::new(CancellationToken::new());
    let ready = readiness.register("watch maps");
    let token = CancellationToken::new();
    let (sender, mut events) = mpsc::channel(4);
    let wrap = |event: WatchEvent<ConfigMap>| short(&event);
    let task = spawn(api(&fake), config().labels("a=b"), ready, sender, wrap, token.clone());
    assert!(!readiness.is_ready());
    assert_eq!(events.recv().await.as_deref(), Some("reset a"));
    readiness.wait().await;
    assert!(fake.requests()[0].query().contains("labelSelector=a%3Db"));
    token.cancel();
    task.await.unwrap();
    assert_eq!(events.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_and_says_gone_is_listed_soon_but_not_in_a_loop() {
    let since = Instant::now();
    let lists = Arc::new(Mutex::new(Vec::new()));
    let log = lists.clone();
    let fake = Fake::new(move |request| {
        let now_ms = since.elapsed().as_millis();
        match is_watch(request) {
            false => {
                log.lock().unwrap().push(now_ms);
                list(&[], "10", "")
            }
            true if now_ms < 20_000 => (503, refusal(500)),
            true => (200, json!([{"type": "ERROR", "object": refusal(410)}])),
        }
    });
    let pump = watch::<ConfigMap>(api(&fake), config());
    assert!(tokio::time::timeout(Duration::from_secs(120), pump.collect::<Vec<_>>()).await.is_err());
    let lists = lists.lock().unwrap().clone();
    let after: Vec<_> = lists.into_iter().filter(|at_ms| *at_ms > 20_000).collect();
    let gaps: Vec<_> = after.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] <= 400, "{gaps:?}");
    assert!(gaps.len() < 100 && gaps[gaps.len() - 1] >= 1_000, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn each_term_begins_with_a_list_that_began_in_it() {
    let fake = Fake::new(|request| match is_watch(request) {
        false => list(&[object("a", 1)], "10", ""),
        true => (200, json!([])),
    });
    let state = |leading, term| LeaseState { leading, term, until: None };
    let (lease, follow) = tokio::sync::watch::channel(state(false, 0));
    let ready = Readiness::new(CancellationToken::new()).register("watch maps");
    let (sender, mut events) = mpsc::channel(4);
    let wrap = |event: WatchEvent<ConfigMap>, term: u64| format!("{} in {term}", short(&event));
    let token = CancellationToken::new();
    let task = spawn_dated(api(&fake), config().lease(follow), ready, sender, wrap, token.clone());
    assert_eq!(events.recv().await.as_deref(), Some("reset a in 0"));
    for term in [1, 2] {
        lease.send_replace(state(true, term));
        assert_eq!(events.recv().await, Some(format!("reset a in {term}")));
        lease.send_replace(state(false, term));
    }
    // Somebody else's term, and a lease that nobody watches over any more, change nothing.
    drop(lease);
    assert!(tokio::time::timeout(Duration::from_secs(10), events.recv()).await.is_err());
    token.cancel();
    task.await.unwrap();
}
