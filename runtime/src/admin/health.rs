//! `/livez`, `/readyz` and `/metrics`: no secrets, so no question who asks.

use crate::heartbeat::Heartbeat;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use std::sync::Arc;
use tokio::sync::Semaphore;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn livez(State(heartbeat): State<Heartbeat>) -> Response {
    verdict("stuck", &heartbeat.stuck())
}

pub(super) async fn readyz(State(readiness): State<Readiness>) -> Response {
    verdict("missing", &readiness.missing())
}

pub(super) async fn metrics(State((metrics, heavy)): State<(Arc<Metrics>, Arc<Semaphore>)>) -> Response {
    let Ok(_permit) = heavy.try_acquire() else {
        return busy();
    };
    match metrics.encode() {
        Ok(page) => ([(CONTENT_TYPE, OPENMETRICS)], page).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed to encode the metrics\n").into_response(),
    }
}

/// 503 with a hint when to come again.
pub(super) fn busy() -> Response {
    let headers = [(RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, "busy: ask again\n").into_response()
}

fn verdict(what: &str, names: &[String]) -> Response {
    if names.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let body = format!("{what}: {}\n", names.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

#[cfg(test)]
mod tests {
    use crate::testing::{ask, body};
    use crate::{Admin, Heartbeat, Metrics, Readiness};
    use http::StatusCode;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    fn admin(readiness: &Readiness, heartbeat: &Heartbeat) -> axum::Router {
        Admin {
            readiness: readiness.clone(),
            metrics: Arc::new(Metrics::new("test")),
            heartbeat: heartbeat.clone(),
            dump: None,
        }
        .router()
    }

    #[tokio::test(start_paused = true)]
    async fn readyz_lists_what_is_missing_and_fails_again_on_shutdown() {
        let token = CancellationToken::new();
        let readiness = Readiness::new(token.clone());
        let pods = readiness.register("watch pods");
        let _nodes = readiness.register("watch nodes");
        let router = admin(&readiness, &Heartbeat::new());
        let (status, text) = body(ask(&router, "/readyz", None).await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "missing: watch nodes, watch pods\n");
        pods.ready();
        _nodes.ready();
        assert_eq!(ask(&router, "/readyz", None).await.status(), StatusCode::OK);
        token.cancel();
        let (status, text) = body(ask(&router, "/readyz", None).await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "missing: shutdown\n");
        assert_eq!(ask(&router, "/livez", None).await.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn livez_fails_while_a_loop_is_stuck() {
        let heartbeat = Heartbeat::new();
        let pulse = heartbeat.register("release", Duration::from_secs(10));
        let router = admin(&Readiness::new(CancellationToken::new()), &heartbeat);
        assert_eq!(ask(&router, "/livez", None).await.status(), StatusCode::OK);
        tokio::time::advance(Duration::from_secs(11)).await;
        let (status, text) = body(ask(&router, "/livez", None).await).await;
        assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "stuck: release\n"));
        pulse.beat();
        assert_eq!(ask(&router, "/livez", None).await.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_openmetrics_text() {
        let router = admin(&Readiness::new(CancellationToken::new()), &Heartbeat::new());
        let answer = ask(&router, "/metrics", None).await;
        let kind = answer.headers()[http::header::CONTENT_TYPE].to_str().unwrap();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        let (status, text) = body(answer).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("fairlead_build_info"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_dump_there_is_no_such_page() {
        let router = admin(&Readiness::new(CancellationToken::new()), &Heartbeat::new());
        assert_eq!(ask(&router, "/debug/dump", None).await.status(), StatusCode::NOT_FOUND);
    }
}
