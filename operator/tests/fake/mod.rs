//! An API server that is a function, for the tests of this crate.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test uses its part")]
pub mod bed;
pub mod redis;

use fairlead_operator::metrics::OperatorMetrics;
use fairlead_operator::release::carry::Courier;
use fairlead_runtime::{LeaseState, Metrics};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// One request.
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

pub type Log = Arc<Mutex<Vec<Seen>>>;

/// A client of a server that answers with `answer`, and what it was asked.
pub fn server(answer: impl Fn(&Seen) -> (u16, Value) + Send + Sync + 'static) -> (kube::Client, Log) {
    let (answer, log) = (Arc::new(answer), Log::default());
    let kept = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, log) = (answer.clone(), log.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let seen = Seen {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            let (code, value) = answer(&seen);
            log.lock().unwrap().push(seen);
            let body = Body::from(value.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (kube::Client::new(service, "default"), kept)
}

pub fn refusal(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "m"});
    (code, status)
}

pub fn pod(name: &str, uid: &str, version: &str, gated: bool) -> Value {
    let gates = if gated { json!([{"name": "fairlead.dev/quota"}]) } else { json!([]) };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "a", "name": name, "uid": uid, "resourceVersion": version},
        "spec": {"containers": [{"name": "c"}], "schedulingGates": gates}, "status": {"phase": "Pending"}})
}

pub fn courier(client: kube::Client, leading: bool) -> (Courier, watch::Sender<LeaseState>) {
    let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
    let (sender, lease) = watch::channel(LeaseState { leading, term: 1, until });
    let metrics = OperatorMetrics::register(&mut Metrics::new("operator"));
    (Courier::new(client, "op-0".into(), lease, 2, metrics), sender)
}
