//! The driver against an API server that is a function, on a paused clock.

use super::{LeaseConfig, LeaseHandle, run};
use crate::testing::{Fake, SILENCE, Seen};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// One Lease with the semantics that matter: create once, merge-patch only with the right version.
#[derive(Default)]
struct Store {
    lease: Option<Value>,
    version: u64,
}

impl Store {
    fn answer(&mut self, request: &Seen) -> (u16, Value) {
        let lacking = |code: u16, reason: &str| {
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}))
        };
        match request.method.as_str() {
            "GET" => match &self.lease {
                Some(lease) => (200, lease.clone()),
                None => lacking(404, "NotFound"),
            },
            "POST" if self.lease.is_some() => lacking(409, "AlreadyExists"),
            "POST" => self.store(201, request.json()),
            "PATCH" => {
                let Some(mut lease) = self.lease.clone() else {
                    return lacking(404, "NotFound");
                };
                let patch = request.json();
                if patch["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] {
                    return lacking(409, "Conflict");
                }
                for (key, value) in patch["spec"].as_object().unwrap() {
                    lease["spec"][key] = value.clone();
                }
                self.store(200, lease)
            }
            other => panic!("{other} is not how a lease is written"),
        }
    }

    fn store(&mut self, code: u16, mut lease: Value) -> (u16, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (code, lease)
    }
}

struct Server {
    fake: Fake,
    store: Arc<Mutex<Store>>,
    away: Arc<AtomicBool>,
}

fn server() -> Server {
    let store = Arc::new(Mutex::new(Store::default()));
    let away = Arc::new(AtomicBool::new(false));
    let (shared, gone) = (store.clone(), away.clone());
    let fake = Fake::new(move |request| {
        if gone.load(Ordering::SeqCst) {
            return (SILENCE, Value::Null);
        }
        shared.lock().unwrap().answer(request)
    });
    Server { fake, store, away }
}

fn candidate(server: &Server, identity: &str, token: &CancellationToken) -> LeaseHandle {
    let mut config = LeaseConfig::new("fairlead-system", "operator", identity);
    config.seed = 1;
    run(server.fake.client(), config, token.clone()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_follows_when_it_goes() {
    let server = server();
    let (first_token, second_token) = (CancellationToken::new(), CancellationToken::new());
    let first = candidate(&server, "a", &first_token);
    sleep(Duration::from_secs(1)).await;
    let second = candidate(&server, "b", &second_token);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((first.term(), second.term()), (Some(1), None));

    first_token.cancel();
    let mut watch = first.watch();
    first.ended().await;
    assert!(!watch.borrow_and_update().leading);
    let spec = server.store.lock().unwrap().lease.clone().unwrap()["spec"].clone();
    assert_eq!(spec["holderIdentity"], Value::Null);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(second.term(), Some(2));
    second_token.cancel();
    second.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_leadership_at_the_renew_deadline() {
    let server = server();
    let token = CancellationToken::new();
    let lease = candidate(&server, "a", &token);
    let mut watch = lease.watch();
    watch.changed().await.unwrap();
    assert!(watch.borrow_and_update().leading);
    let since = Instant::now();
    server.away.store(true, Ordering::SeqCst);
    watch.changed().await.unwrap();
    assert!(!watch.borrow_and_update().leading);
    let after = since.elapsed();
    assert!(after >= Duration::from_millis(9_990) && after <= Duration::from_millis(10_010), "{after:?}");
    assert_eq!(lease.term(), None);

    server.away.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(8)).await;
    assert_eq!(lease.term(), Some(2), "a new term, because the old one lapsed");
}

#[tokio::test(start_paused = true)]
async fn renewals_do_not_wake_those_who_follow_the_lease() {
    let server = server();
    let token = CancellationToken::new();
    let lease = candidate(&server, "a", &token);
    let mut watch = lease.watch();
    watch.changed().await.unwrap();
    watch.borrow_and_update();
    let until = watch.borrow().until.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert!(!watch.has_changed().unwrap());
    assert!(watch.borrow().until.unwrap() > until);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_server_is_silent_flips_at_once_and_ends_in_time() {
    let server = server();
    let token = CancellationToken::new();
    let lease = candidate(&server, "a", &token);
    sleep(Duration::from_secs(1)).await;
    server.away.store(true, Ordering::SeqCst);
    // Into the middle of a renewal that hangs.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(lease.term(), Some(1));
    let since = Instant::now();
    token.cancel();
    tokio::task::yield_now().await;
    assert_eq!(lease.term(), None);
    lease.ended().await;
    assert!(since.elapsed() < Duration::from_secs(7), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_task_does_not_lead() {
    let server = server();
    let lease = candidate(&server, "a", &CancellationToken::new());
    let mut watch = lease.watch();
    watch.changed().await.unwrap();
    lease.task.abort();
    watch.wait_for(|state| !state.leading).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_write_after_the_first_names_what_it_replaces() {
    let server = server();
    let token = CancellationToken::new();
    let _lease = candidate(&server, "a", &token);
    sleep(Duration::from_secs(20)).await;
    let writes: Vec<_> =
        server.fake.requests().into_iter().filter(|request| request.method != http::Method::GET).collect();
    assert_eq!(writes[0].method, http::Method::POST);
    assert!(writes.len() >= 9);
    for (index, write) in writes.iter().enumerate().skip(1) {
        assert_eq!(write.path(), "/apis/coordination.k8s.io/v1/namespaces/fairlead-system/leases/operator");
        assert!(write.query().contains("fieldManager=fairlead-lease"), "{}", write.query());
        assert_eq!(write.json()["metadata"]["resourceVersion"], json!(index.to_string()));
    }
}
