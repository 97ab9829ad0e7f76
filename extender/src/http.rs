//! The four verbs over HTTP/1: what is refused before a request is looked at, and how a reply is sent.
//!
//! Replies are one buffer with a Content-Length, never chunked: kube-scheduler drops a connection whose chunked body it
//! did not read to the end. Whatever is wrong is said as `{"Error": …}`.
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use fairlead_cluster::Snapshot;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::answer::{self, Reply};
use crate::bind::Binder;
use crate::metrics::{ExtenderMetrics, Verb};
use crate::preempt;
use crate::wire::BindingArgs;

/// A peer that has begun a body has this long to send the rest.
const BODY_DEADLINE: Duration = Duration::from_secs(5);
/// Memory set aside for a body on the word of its Content-Length alone.
const BODY_PREALLOCATED_BYTES_MAX: usize = 1 << 20;

/// What a peer may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Longest body, bytes.
    pub body_bytes: usize,
    /// Requests at once: so many filter, prioritize and preempt together, and so many bind.
    pub in_flight: usize,
}

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// The snapshot in use.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Carries binds out.
    pub binder: Arc<Binder>,
    /// The counters.
    pub metrics: ExtenderMetrics,
    /// What a peer may take.
    pub limits: HttpLimits,
}

struct Desk {
    app: App,
    scheduling: Semaphore,
    binding: Arc<Semaphore>,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("Content-Type must be application/json")]
    ContentType,
    #[error("request body is longer than {max_bytes} bytes (--max-body-bytes)")]
    TooLong { max_bytes: usize },
    #[error("request body broke off: {0}")]
    Broken(#[source] axum::Error),
    #[error("request body did not come within {} s", BODY_DEADLINE.as_secs())]
    Slow,
}

impl BodyError {
    fn status(&self) -> u16 {
        match self {
            Self::ContentType => 415,
            Self::TooLong { .. } => 413,
            Self::Broken(_) => 400,
            Self::Slow => 408,
        }
    }
}

/// The routes, to be served or to be tried without a socket.
pub fn router(app: App) -> Router {
    let in_flight = app.limits.in_flight;
    let (scheduling, binding) = (Semaphore::new(in_flight), Arc::new(Semaphore::new(in_flight)));
    let desk = Desk { app, scheduling, binding };
    Router::new()
        .route("/filter", post(filter))
        .route("/prioritize", post(prioritize))
        .route("/preempt", post(preempt))
        .route("/bind", post(bind))
        .method_not_allowed_fallback(|| async { say(405, &"use POST") })
        .fallback(|| async { say(404, &"no such path; the verbs are /filter, /prioritize, /preempt and /bind") })
        .with_state(Arc::new(desk))
}

async fn filter(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    schedule(&desk, Verb::Filter, request, answer::filter).await
}

async fn prioritize(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    schedule(&desk, Verb::Prioritize, request, answer::prioritize).await
}

async fn preempt(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    schedule(&desk, Verb::Preempt, request, preempt::preempt).await
}

async fn schedule(desk: &Desk, verb: Verb, request: Request, answer: fn(&Snapshot, &[u8]) -> Reply) -> Response {
    let Ok(_permit) = desk.scheduling.try_acquire() else {
        return desk.shed();
    };
    let body = match read(request, desk.app.limits.body_bytes).await {
        Ok(body) => body,
        Err(error) => return say(error.status(), &error),
    };
    let begun = Instant::now();
    let reply = answer(&desk.app.snapshot.load(), &body);
    desk.app.metrics.answered(verb, reply.status, begun.elapsed());
    if verb == Verb::Filter {
        desk.app.metrics.judged(&reply.tally);
    }
    desk.send(reply)
}

async fn bind(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let Ok(permit) = desk.binding.clone().try_acquire_owned() else {
        return desk.shed();
    };
    let body = match read(request, desk.app.limits.body_bytes).await {
        Ok(body) => body,
        Err(error) => return say(error.status(), &error),
    };
    let begun = Instant::now();
    let reply = match answer::object::<BindingArgs>(&body) {
        Err(error) => answer::refuse(error.status(), &error),
        Ok(args) => match desk.app.binder.clone().bind(args, permit).await {
            Ok(()) => answer::refuse(200, &""),
            Err(refusal) => answer::refuse(200, &refusal),
        },
    };
    desk.app.metrics.answered(Verb::Bind, reply.status, begun.elapsed());
    desk.send(reply)
}

impl Desk {
    /// A replica that does not bind ends the connection with its answer: those that kube-scheduler keeps open end up at the
    /// one that does.
    fn send(&self, reply: Reply) -> Response {
        let mut response = send(reply);
        if !self.app.binder.is_on_duty() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn shed(&self) -> Response {
        self.app.metrics.shed();
        say(503, &"too many requests in flight (--max-in-flight); try again")
    }
}

async fn read(request: Request, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    if !is_json(request.headers()) {
        return Err(BodyError::ContentType);
    }
    let announced = announced_bytes(request.headers());
    if announced > max_bytes {
        return Err(BodyError::TooLong { max_bytes });
    }
    let mut bytes = Vec::with_capacity(announced.min(BODY_PREALLOCATED_BYTES_MAX));
    let mut body = request.into_body();
    let whole = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > max_bytes {
                return Err(BodyError::TooLong { max_bytes });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    tokio::time::timeout(BODY_DEADLINE, whole).await.map_err(|_| BodyError::Slow)??;
    Ok(bytes)
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn announced_bytes(headers: &HeaderMap) -> usize {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

fn say(status: u16, error: &dyn std::fmt::Display) -> Response {
    send(answer::refuse(status, error))
}

fn send(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
