//! What the tests of this crate share: an API server that is a function, and ways to ask a router.

use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

/// As a status code: this request is never answered.
pub const SILENCE: u16 = 0;

/// One request as the fake saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: http::Method,
    pub uri: http::Uri,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

type Answer = dyn FnMut(&Seen) -> (u16, Value) + Send;

/// An API server that answers with a function, and remembers what it was asked.
#[derive(Clone)]
pub struct Fake {
    answer: Arc<Mutex<Option<Box<Answer>>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub fn new(answer: impl FnMut(&Seen) -> (u16, Value) + Send + 'static) -> Self {
        Self { answer: Arc::new(Mutex::new(Some(Box::new(answer)))), seen: Arc::default() }
    }

    /// A server that takes requests and never answers.
    pub fn silent() -> Self {
        Self { answer: Arc::default(), seen: Arc::default() }
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| fake.clone().serve(request));
        kube::Client::new(service, "default")
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<axum::body::Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let seen =
            Seen { method: parts.method, uri: parts.uri, body: body.collect().await.unwrap().to_bytes().to_vec() };
        self.seen.lock().unwrap().push(seen.clone());
        let answer = {
            let mut answer = self.answer.lock().unwrap();
            answer.as_mut().map(|answer| answer(&seen))
        };
        let Some((code, value)) = answer else {
            return std::future::pending().await;
        };
        let body = match value {
            _ if code == SILENCE => return std::future::pending().await,
            // A watch: one event a line, then nothing more on an open connection.
            Value::Array(lines) => {
                let frames = lines.into_iter().map(|line| Ok::<_, Infallible>(format!("{line}\n")));
                let open = futures::stream::iter(frames).chain(futures::stream::pending());
                axum::body::Body::from_stream(open)
            }
            other => axum::body::Body::from(other.to_string()),
        };
        Ok(Response::builder().status(code).body(body).unwrap())
    }
}

/// GET `path` with that Authorization header.
pub async fn ask(router: &axum::Router, path: &str, authorization: Option<&str>) -> Response<axum::body::Body> {
    let mut request = Request::builder().uri(path);
    if let Some(value) = authorization {
        request = request.header(http::header::AUTHORIZATION, value);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// Status and text of an answer.
pub async fn body(answer: Response<axum::body::Body>) -> (StatusCode, String) {
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
