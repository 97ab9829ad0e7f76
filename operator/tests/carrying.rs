//! What the courier, the targets and the queue's Secret make of the API server's answers, with a server that is a function.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
use fairlead_crds::worker_pool::{ScaleTargetRef, SecretKeyRef};
mod fake;

use fairlead_fairshare::protocol::{Event, Failure, PodView, Standing};
use fairlead_operator::release::errand::{Errand, Place};
use fairlead_operator::release::patch::LedgerOwner;
use fairlead_operator::scaling::queue::SourceError;
use fairlead_operator::scaling::queue::secret::{Account, password};
use fairlead_operator::scaling::target::{TargetError, Targets};
use fake::{courier, pod, refusal, server};
use http::Method;
use serde_json::{Value, json};

fn place() -> Option<Place> {
    Some(Place { namespace: "a".into(), name: "p".into() })
}

fn ungate() -> Errand {
    Errand::Ungate { tenant: "acme".into(), uid: "u".into(), place: place(), version: 7, epoch: 3 }
}

#[tokio::test]
async fn the_gate_is_removed_by_one_patch_with_its_precondition() {
    let (client, log) = server(|_| (200, pod("p", "u", "8", false)));
    let (courier, _lease) = courier(client, true);
    let report = courier.carry(ungate()).await;
    let view = PodView { version: 8, standing: Standing::Released };
    assert_eq!(report.event, Event::Ungated { uid: "u".into(), result: Ok(view) });
    let log = log.lock().unwrap();
    assert_eq!((log.len(), &log[0].method, log[0].path.as_str()), (1, &Method::PATCH, "/api/v1/namespaces/a/pods/p"));
    assert_eq!(log[0].body["metadata"]["resourceVersion"], "7");
    assert!(log[0].query.contains("fieldManager=fairlead-operator%2Frelease"), "{}", log[0].query);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_waited_for() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let (client, log) = server(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 | 1 => refusal(429),
        _ => (200, pod("p", "u", "8", false)),
    });
    let (courier, _lease) = courier(client, true);
    let since = tokio::time::Instant::now();
    let report = courier.carry(ungate()).await;
    let view = PodView { version: 8, standing: Standing::Released };
    assert_eq!(report.event, Event::Ungated { uid: "u".into(), result: Ok(view) });
    assert_eq!((log.lock().unwrap().len(), since.elapsed().as_secs()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_busy_is_nothing_against_the_pod_or_its_tenant() {
    let (client, log) = server(|_| refusal(429));
    let (courier, _lease) = courier(client, true);
    for _ in 0..4 {
        let since = tokio::time::Instant::now();
        let report = courier.carry(ungate()).await;
        assert_eq!(report.event, Event::Ungated { uid: "u".into(), result: Err(Failure::Forbidden) });
        assert!(report.refusal.is_none());
        assert_eq!(since.elapsed().as_secs(), 5);
    }
    assert!(!courier.lanes().falters("acme"));
    assert_eq!(log.lock().unwrap().len(), 24);
}

/// 503 with a time to wait: it may have been done all the same, so only the protocol may send it again.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_for_a_while_is_not_asked_again_before_the_ledger_was_read() {
    let (client, log) = server(|_| {
        let (code, mut status) = refusal(503);
        status["details"] = json!({"retryAfterSeconds": 2});
        (code, status)
    });
    let (courier, _lease) = courier(client, true);
    let since = tokio::time::Instant::now();
    let report = courier.carry(ungate()).await;
    assert_eq!(report.event, Event::Ungated { uid: "u".into(), result: Err(Failure::Lost) });
    assert_eq!((report.refusal, log.lock().unwrap().len(), since.elapsed().as_secs()), (None, 1, 2));
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let (client, log) = server(|_| (200, pod("p", "u", "8", false)));
    let (courier, _lease) = courier(client, false);
    let report = courier.carry(ungate()).await;
    assert_eq!(report.event, Event::Ungated { uid: "u".into(), result: Err(Failure::Forbidden) });
    let owner = LedgerOwner { name: "acme".into(), uid: "q".into() };
    let write = Errand::WriteLedger { round: 1, owner, expect: None, epoch: 1, intents: Vec::new() };
    let report = courier.carry(write).await;
    assert_eq!(report.event, Event::LedgerWritten { round: 1, result: Err(Failure::Forbidden) });
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_touch_that_is_refused_looks_who_is_there() {
    for (uid, meaning) in [("u", Failure::Conflict), ("another", Failure::NotFound)] {
        let (client, _) = server(move |seen| match seen.method {
            Method::PATCH => refusal(422),
            _ => (200, pod("p", uid, "9", true)),
        });
        let (courier, _lease) = courier(client, true);
        let touch = Errand::Touch { tenant: "acme".into(), uid: "u".into(), place: place(), epoch: 3 };
        assert_eq!(courier.carry(touch).await.event, Event::Touched { uid: "u".into(), result: Err(meaning) });
    }
}

#[tokio::test]
async fn a_list_of_several_namespaces_is_as_old_as_the_oldest_and_reads_every_page() {
    let (client, log) = server(|seen| {
        let page = |version: &str, next: &str, items: Vec<Value>| {
            let meta = json!({"resourceVersion": version, "continue": next});
            (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": items}))
        };
        match (seen.path.as_str(), seen.query.contains("continue=more")) {
            ("/api/v1/namespaces/a/pods", false) => page("20", "more", vec![pod("p", "u1", "11", true)]),
            ("/api/v1/namespaces/a/pods", true) => page("20", "", vec![pod("q", "u2", "12", false)]),
            _ => page("25", "", vec![pod("r", "u3", "13", true), pod("s", "u4", "14", true)]),
        }
    });
    let (courier, _lease) = courier(client, true);
    let list = Errand::ListPods {
        round: 4,
        tenant: "acme".into(),
        namespaces: vec!["a".into()],
        strays: [("u3".into(), "b".to_owned())].into(),
    };
    let report = courier.carry(list).await;
    let Event::Listed { round: 4, result: Ok(list) } = report.event else { panic!("{:?}", report.event) };
    assert_eq!((list.version, list.pods.len(), report.places.len()), (20, 3, 3));
    assert!(list.pods.iter().any(|(uid, _)| &**uid == "u3"), "the stray, and nobody else of its namespace");
    // Consistent: no resourceVersion in any request.
    assert!(log.lock().unwrap().iter().all(|seen| !seen.query.contains("resourceVersion")));
}

#[tokio::test]
async fn a_ledger_is_read_with_its_intents_and_created_with_its_owner() {
    let ledger = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantLedger",
        "metadata": {"name": "acme", "resourceVersion": "30"},
        "spec": {"epoch": 5, "holder": "x", "intents": [
            {"podUID": "u", "namespace": "a", "name": "p", "resourceVersion": "7"}]}});
    let (client, log) = server(move |seen| match seen.method {
        Method::GET => (200, ledger.clone()),
        Method::POST => (201, ledger.clone()),
        _ => refusal(409),
    });
    let (courier, _lease) = courier(client, true);
    let report = courier.carry(Errand::ReadLedger { round: 1, tenant: "acme".into() }).await;
    let Event::LedgerRead { result: Ok(Some(read)), .. } = report.event else { panic!("{:?}", report.event) };
    assert_eq!((read.version, read.epoch, read.intents[0].version), (30, 5, 7));
    assert_eq!(report.places[0].1, place().unwrap());
    let owner = LedgerOwner { name: "acme".into(), uid: "q".into() };
    let write = |expect| Errand::WriteLedger { round: 2, owner: owner.clone(), expect, epoch: 6, intents: Vec::new() };
    assert_eq!(courier.carry(write(None)).await.event, Event::LedgerWritten { round: 2, result: Ok(30) });
    let lost = courier.carry(write(Some(30))).await.event;
    assert_eq!(lost, Event::LedgerWritten { round: 2, result: Err(Failure::Conflict) });
    let log = log.lock().unwrap();
    assert_eq!(log[1].body["metadata"]["ownerReferences"][0]["uid"], "q");
    assert_eq!(log[2].body["metadata"]["resourceVersion"], "30");
}

fn target() -> ScaleTargetRef {
    ScaleTargetRef { api_version: "apps/v1".into(), kind: "Deployment".into(), name: "w".into() }
}

fn apps() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": [
        {"name": "deployments", "singularName": "deployment", "namespaced": true, "kind": "Deployment", "verbs": ["get"]}]})
}

#[tokio::test]
async fn replicas_are_ordered_only_as_they_were_seen() {
    let (client, log) = server(|seen| match (&seen.method, seen.path.as_str()) {
        (_, "/apis/apps/v1") => (200, apps()),
        (&Method::GET, "/apis/apps/v1/namespaces/n/deployments/w/scale") => (
            200,
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "w"}, "spec": {},
                "status": {"replicas": 0, "selector": "app=w"}}),
        ),
        (&Method::PATCH, _) => refusal(422),
        _ => refusal(404),
    });
    let targets = Targets::new(client);
    let scale = targets.scale("n", &target()).await.unwrap();
    assert_eq!((scale.replicas, scale.selector.is_some()), (0, true));
    // The replicas are still those that were tested for: it was not the test that failed.
    let refused = targets.order("n", &target(), 0, 4).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Denied { to: 4, what, .. } if what == "m"), "{refused}");
    let raced = targets.order("n", &target(), 3, 4).await.unwrap_err();
    assert!(matches!(raced, TargetError::Conflict { .. }), "{raced}");
    assert!(matches!(targets.pod_request("n", &target()).await, Err(TargetError::NotFound { .. })));
    let odd = ScaleTargetRef { kind: "Thing".into(), ..target() };
    assert!(matches!(targets.scale("n", &odd).await, Err(TargetError::NoSuchKind { .. })));
    let log = log.lock().unwrap();
    let patch = log.iter().find(|seen| seen.method == Method::PATCH).unwrap();
    assert_eq!(patch.body[0], json!({"op": "test", "path": "/spec/replicas", "value": null}));
    // The kind was discovered once for all calls, and once for the one that is not served.
    assert_eq!(log.iter().filter(|seen| seen.path == "/apis/apps/v1").count(), 2);
}

#[tokio::test]
async fn a_secret_is_asked_for_by_name_and_its_absence_told_apart() {
    let account = Account { namespace: "fairlead-system".into(), name: "fairlead-operator".into() };
    let wanted = SecretKeyRef { name: "redis".into(), key: "password".into() };
    let data = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "redis"},
        "data": {"password": "czNjcmV0", "other": "eA=="}});
    let answers = [(200, data), refusal(403), refusal(404), refusal(500)];
    let mut outcomes = Vec::new();
    for answer in answers {
        let (client, log) = server(move |_| answer.clone());
        outcomes.push(password(&client, "acme", &wanted, &account).await);
        assert_eq!(log.lock().unwrap()[0].path, "/api/v1/namespaces/acme/secrets/redis");
    }
    assert_eq!(outcomes[0].as_deref(), Ok("s3cret"));
    let Err(SourceError::SecretNotGranted { command, .. }) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert!(command.contains("--resource-name=redis") && command.contains("fairlead-system:fairlead-operator"));
    assert!(matches!(outcomes[2], Err(SourceError::SecretMissing { .. })));
    assert!(matches!(outcomes[3], Err(SourceError::SecretUnread { .. })));
}
