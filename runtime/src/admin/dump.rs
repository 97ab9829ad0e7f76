//! `/debug/dump` and `/debug/explain`: what the process holds, and why it decides so, for whoever the cluster's own RBAC
//! lets read it.

use super::health::busy;
use crate::api::{API_DEADLINE, ApiError, deadline};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The page, and the nonResourceURL (verb `get`) that a ClusterRole must grant to read it.
pub const DUMP_PATH: &str = "/debug/dump";
/// Why a pod is placed as it is, `?pod=NAMESPACE/NAME`; a nonResourceURL of its own.
pub const EXPLAIN_PATH: &str = "/debug/explain";
/// No token of Kubernetes comes near; anything longer is not sent on to the API server.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Makes the dump. Called on a thread that may block.
pub type DumpFn = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Explains the pod of that namespace and name; `None`: it is not known. Called on a thread that may block.
pub type ExplainFn = Arc<dyn Fn(&str, &str) -> Option<serde_json::Value> + Send + Sync>;

/// The dump and the client that asks the API server about its readers. The process's ServiceAccount must be allowed to
/// create TokenReviews and SubjectAccessReviews.
#[derive(Clone)]
pub struct DebugDump {
    /// Reviews tokens and rights.
    pub client: kube::Client,
    /// Makes the dump.
    pub dump: DumpFn,
    /// Explains pods, where the process places any.
    pub explain: Option<ExplainFn>,
}

enum Verdict {
    Allowed,
    Unauthenticated,
    Forbidden { user: String },
    Unknown(ApiError),
}

/// Where in a query the pod is.
#[derive(serde::Deserialize)]
pub(super) struct Asked {
    pod: String,
}

pub(super) async fn dump(State((debug, heavy)): State<(DebugDump, Arc<Semaphore>)>, headers: HeaderMap) -> Response {
    let make = debug.dump.clone();
    guarded(&debug.client, &heavy, &headers, DUMP_PATH, move || Ok(make())).await
}

pub(super) async fn explain(
    State((debug, heavy)): State<(DebugDump, Arc<Semaphore>)>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let make = move || {
        let wrong = || "ask for ?pod=NAMESPACE/NAME\n".to_owned();
        let Query(Asked { pod }) = asked.map_err(|_| wrong())?;
        let (namespace, name) = pod.split_once('/').ok_or_else(wrong)?;
        let explained = debug.explain.as_ref().and_then(|explain| explain(namespace, name));
        explained.ok_or_else(|| format!("no pod {namespace}/{name} is known here\n"))
    };
    guarded(&debug.client.clone(), &heavy, &headers, EXPLAIN_PATH, make).await
}

/// Answers whoever may get the path; what cannot be made is not found.
async fn guarded(
    client: &kube::Client,
    heavy: &Semaphore,
    headers: &HeaderMap,
    path: &'static str,
    make: impl FnOnce() -> Result<serde_json::Value, String> + Send + 'static,
) -> Response {
    let Some(token) = bearer(headers) else {
        return unauthenticated("a bearer token is needed\n");
    };
    // Taken before the review: a flood of bad tokens must not become a flood of reviews.
    let Ok(_permit) = heavy.try_acquire() else {
        return busy();
    };
    match review(client, token, path).await {
        Verdict::Allowed => {}
        Verdict::Unauthenticated => return unauthenticated("the token is not valid\n"),
        Verdict::Forbidden { user } => {
            let body = format!("user {user:?} may not get the nonResourceURL {path}\n");
            return (StatusCode::FORBIDDEN, body).into_response();
        }
        Verdict::Unknown(error) => {
            tracing::warn!(error = %error.chain(), path, "Failed to review a reader");
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
        }
    }
    match tokio::task::spawn_blocking(move || make().map(|value| value.to_string())).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(why)) => (StatusCode::NOT_FOUND, why).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "The dump failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "the dump failed; see the log\n").into_response()
        }
    }
}

fn unauthenticated(body: &'static str) -> Response {
    let headers = [(WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, headers, body).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let usable = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    usable.then_some(token)
}

async fn review(client: &kube::Client, token: &str, path: &str) -> Verdict {
    let user = match who(client, token).await {
        Ok(Some(user)) => user,
        Ok(None) => return Verdict::Unauthenticated,
        Err(error) => return Verdict::Unknown(error),
    };
    let name = user.username.clone().unwrap_or_default();
    match may_read(client, user, path).await {
        Ok(true) => Verdict::Allowed,
        Ok(false) => Verdict::Forbidden { user: name },
        Err(error) => Verdict::Unknown(error),
    }
}

async fn who(client: &kube::Client, token: &str) -> Result<Option<UserInfo>, ApiError> {
    let question = TokenReview {
        spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let call = async { reviews.create(&PostParams::default(), &question).await };
    let status = deadline("create TokenReview", API_DEADLINE, call).await?.status;
    Ok(status.filter(|status| status.authenticated == Some(true)).and_then(|status| status.user))
}

async fn may_read(client: &kube::Client, user: UserInfo, path: &str) -> Result<bool, ApiError> {
    let question = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some("get".to_owned()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let call = async { reviews.create(&PostParams::default(), &question).await };
    let status = deadline("create SubjectAccessReview", API_DEADLINE, call).await?.status;
    Ok(status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, ask, body};
    use crate::{Admin, Heartbeat, Metrics, Readiness};
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    /// An API server that knows the tokens "root" and "guest", and lets only root read.
    fn server() -> Fake {
        Fake::new(|request| {
            let spec = request.json()["spec"].clone();
            match request.path() {
                "/apis/authentication.k8s.io/v1/tokenreviews" => {
                    let name = spec["token"].as_str().unwrap().to_owned();
                    let known = name == "root" || name == "guest";
                    let user = json!({"username": name, "groups": ["g"], "uid": "7", "extra": {"k": ["v"]}});
                    (201, json!({"spec": spec, "status": {"authenticated": known, "user": user}}))
                }
                "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                    let asked = &spec["nonResourceAttributes"];
                    let paths = [DUMP_PATH, EXPLAIN_PATH].map(|path| json!({"path": path, "verb": "get"}));
                    assert!(paths.contains(asked), "{asked}");
                    assert_eq!(spec["groups"], json!(["g"]));
                    assert_eq!(spec["extra"], json!({"k": ["v"]}));
                    let allowed = spec["user"] == "root";
                    (201, json!({"spec": spec, "status": {"allowed": allowed}}))
                }
                other => panic!("unexpected {other}"),
            }
        })
    }

    fn router(client: kube::Client) -> axum::Router {
        Admin {
            readiness: Readiness::new(CancellationToken::new()),
            metrics: Arc::new(Metrics::new("test")),
            heartbeat: Heartbeat::new(),
            dump: Some(DebugDump {
                client,
                dump: Arc::new(|| json!({"nodes": 12})),
                explain: Some(Arc::new(|namespace, name| (name == "p").then(|| json!({"in": namespace})))),
            }),
        }
        .router()
    }

    #[tokio::test]
    async fn a_pod_is_explained_to_who_may_ask() {
        let fake = server();
        let router = router(fake.client());
        let cases = [
            ("?pod=ns/p", "Bearer root", StatusCode::OK, "{\"in\":\"ns\"}"),
            ("?pod=ns/q", "Bearer root", StatusCode::NOT_FOUND, "no pod ns/q is known here\n"),
            ("?pod=p", "Bearer root", StatusCode::NOT_FOUND, "ask for ?pod=NAMESPACE/NAME\n"),
            ("", "Bearer root", StatusCode::NOT_FOUND, "ask for ?pod=NAMESPACE/NAME\n"),
            (
                "?pod=ns/p",
                "Bearer guest",
                StatusCode::FORBIDDEN,
                "user \"guest\" may not get the nonResourceURL /debug/explain\n",
            ),
        ];
        for (query, token, status, text) in cases {
            let answer = ask(&router, &format!("{EXPLAIN_PATH}{query}"), Some(token)).await;
            let (answered, told) = body(answer).await;
            assert_eq!((answered, told.as_str()), (status, text), "{query}");
        }
    }

    #[tokio::test]
    async fn only_who_may_ask_gets_an_answer() {
        let fake = server();
        let router = router(fake.client());
        let cases = [
            (None, StatusCode::UNAUTHORIZED, "a bearer token is needed\n"),
            (Some("Basic cm9vdA=="), StatusCode::UNAUTHORIZED, "a bearer token is needed\n"),
            (Some("Bearer "), StatusCode::UNAUTHORIZED, "a bearer token is needed\n"),
            (Some("Bearer stranger"), StatusCode::UNAUTHORIZED, "the token is not valid\n"),
            (
                Some("Bearer guest"),
                StatusCode::FORBIDDEN,
                "user \"guest\" may not get the nonResourceURL /debug/dump\n",
            ),
            (Some("bearer root"), StatusCode::OK, "{\"nodes\":12}"),
        ];
        for (header, status, text) in cases {
            let answer = ask(&router, "/debug/dump", header).await;
            if status == StatusCode::UNAUTHORIZED {
                assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
            }
            assert_eq!(body(answer).await, (status, text.to_owned()), "{header:?}");
        }
        assert_eq!(fake.requests().len(), 5, "no review without a token, no rights review without a user");
    }

    #[tokio::test]
    async fn a_token_that_is_absurdly_long_is_not_sent_on() {
        let fake = server();
        let header = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        let answer = ask(&router(fake.client()), "/debug/dump", Some(&header)).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(fake.requests().is_empty());
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_know_is_not_a_yes() {
        let fake = Fake::new(|_| (500, json!({"kind": "Status", "code": 500, "message": "etcd is away"})));
        let (status, text) = body(ask(&router(fake.client()), "/debug/dump", Some("Bearer root")).await).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "failed to create TokenReview\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_is_given_up_on_and_the_next_readers_are_told_to_come_again() {
        let router = router(Fake::silent().client());
        let asked = (0..5).map(|_| ask(&router, "/debug/dump", Some("Bearer root")));
        let answers = futures::future::join_all(asked).await;
        let texts: Vec<_> = futures::future::join_all(answers.into_iter().map(body)).await;
        assert!(texts.iter().all(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE));
        let late = texts.iter().filter(|(_, text)| text.contains("within 5000 ms")).count();
        let shed = texts.iter().filter(|(_, text)| text.starts_with("busy")).count();
        assert_eq!((late, shed), (4, 1));
    }
}
