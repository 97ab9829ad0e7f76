//! An API server that is a function, for the tests of this crate.
use crate::access::Access;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

/// `METHOD /path` of each request so far.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// The way to a server that answers each `METHOD /path` with `answer`, and what it was asked. The context's namespace
/// is `acme`.
pub(crate) fn access(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> (Access, Asked) {
    let asked = Asked::default();
    let kept = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let question = format!("{} {}", request.method(), request.uri().path());
        let (code, value) = answer(&question);
        kept.lock().unwrap().push(question);
        let body = Body::from(value.to_string().into_bytes());
        ready(Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()))
    });
    let namespace = "acme".to_owned();
    (Access { client: kube::Client::new(service, namespace.clone()), namespace }, asked)
}

pub(crate) fn list(items: &[Value]) -> (u16, Value) {
    (200, json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items }))
}

pub(crate) fn refusal(code: u16, message: &str) -> (u16, Value) {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message });
    (code, status)
}
