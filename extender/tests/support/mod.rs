//! What the tests share: a cluster, an API server, and the extender's router over both.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(missing_docs, clippy::unwrap_used, reason = "test support")]

pub mod api;
pub mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use fairlead_cluster::{Model, Snapshot};
use fairlead_extender::bind::Binder;
use fairlead_extender::courier::Courier;
use fairlead_extender::duty::Duty;
use fairlead_extender::http::{App, HttpLimits, router};
use fairlead_extender::metrics::{self, ExtenderMetrics};
use fairlead_extender::model;
use fairlead_runtime::Heartbeat;
use fairlead_runtime::server::{Limits, serve};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use api::Api;

pub const LIMITS: HttpLimits = HttpLimits { body_bytes: 64 * 1024, in_flight: 32 };
pub const BIND_DEADLINE: Duration = Duration::from_secs(3);

/// An extender without sockets.
pub struct House {
    pub router: Router,
    pub courier: Courier,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub metrics: ExtenderMetrics,
    pub page: Arc<fairlead_runtime::Metrics>,
}

impl House {
    pub fn new(model: Model, api: &Api) -> Self {
        Self::with(model, api, Duty::Alone, LIMITS)
    }

    pub fn on_duty(model: Model, api: &Api, duty: Duty) -> Self {
        Self::with(model, api, duty, LIMITS)
    }

    pub fn with_limits(model: Model, api: &Api, limits: HttpLimits) -> Self {
        Self::with(model, api, Duty::Alone, limits)
    }

    fn with(mut model: Model, api: &Api, duty: Duty, limits: HttpLimits) -> Self {
        let snapshot = Arc::new(ArcSwap::new(model.snapshot()));
        let (page, metrics) = metrics::page();
        let (queue, inbox) = model::queue();
        let pulse = Heartbeat::new().register("model", Duration::from_secs(60));
        let closed = CancellationToken::new();
        tokio::spawn(model::run(model, inbox, snapshot.clone(), metrics.clone(), pulse, closed));
        let courier = Courier::new(api.client(), snapshot.clone(), queue, metrics.clone());
        let binder = Arc::new(Binder::new(courier.clone(), BIND_DEADLINE, metrics.clone(), duty));
        let app = App { snapshot: snapshot.clone(), binder, metrics: metrics.clone(), limits };
        Self { router: router(app), courier, snapshot, metrics, page }
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, String) {
        let request = Request::post(path).header("Content-Type", "application/json").body(body.into()).unwrap();
        text(self.send(request).await).await
    }

    /// The `Error` of a bind.
    pub async fn bind(&self, pod: &str, node: &str) -> String {
        let args = serde_json::json!({
            "PodName": pod, "PodNamespace": "apps", "PodUID": format!("uid-{pod}"), "Node": node,
        });
        let (status, reply) = self.post("/bind", args.to_string()).await;
        assert_eq!(status, 200, "{reply}");
        let reply: Value = serde_json::from_str(&reply).unwrap();
        reply["Error"].as_str().unwrap().to_owned()
    }
}

/// The shipped server over a model, on a loopback port; it runs as long as the runtime.
pub async fn serve_on_loopback(model: Model) -> SocketAddr {
    let house = House::with_limits(model, &Api::default(), HttpLimits { body_bytes: 1 << 20, in_flight: 32 });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { connections: 8, header_read_timeout: None, drain: Duration::ZERO };
    tokio::spawn(serve(listener, house.router, limits, None, CancellationToken::new()));
    address
}

pub async fn text(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    assert!(axum::body::HttpBody::size_hint(response.body()).exact().is_some(), "chunked");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
