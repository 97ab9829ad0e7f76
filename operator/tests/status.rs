//! The writer of labels and status comes to rest, whatever the API server and others make of its writes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod fake;

use fairlead_cluster::{Change, Event, Model};
use fairlead_operator::house::unwatched;
use fairlead_operator::metrics::OperatorMetrics;
use fairlead_operator::status::writer::{self, Writer};
use fairlead_operator::view::View;
use fairlead_runtime::events::EventMetrics;
use fairlead_runtime::{EventRecorder, Heartbeat, LeaseState, Metrics, WatchEvent};
use fake::{refusal, server};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Labels written in two seconds in which the watch brings nothing and the view is told anew all the time.
async fn label_writes(answer: u16) -> usize {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "uid": "n"}});
    let answered = namespace.clone();
    let (client, log) = server(move |seen| match (answer, &seen.method) {
        (200, &Method::PATCH) => (200, answered.clone()),
        _ => refusal(answer),
    });
    let quota = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": {"name": "acme", "uid": "q", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaces": ["a"]}});
    let namespace: Namespace = serde_json::from_value(namespace).unwrap();
    let mut model = Model::new("fairlead-system");
    for event in unwatched() {
        model.apply(event);
    }
    model.apply(Event::Namespaces(Change::Reset(vec![namespace.clone()])));
    model.apply(Event::Quotas(Change::Reset(vec![serde_json::from_value(quota).unwrap()])));
    let mut view = View::empty(model.snapshot());
    view.objects.namespace(WatchEvent::Reset(vec![namespace]));
    (view.leading, view.synced, view.term) = (true, true, 1);

    let shutdown = CancellationToken::new();
    let mut metrics = Metrics::new("operator");
    let counters = OperatorMetrics::register(&mut metrics);
    let (events, _) =
        EventRecorder::start(client.clone(), "c", "i", &EventMetrics::register(&mut metrics), shutdown.clone());
    let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
    let (_lease, leads) = watch::channel(LeaseState { leading: true, term: 1, until });
    let (sender, views) = watch::channel(Arc::new(view.clone()));
    let pulse = Heartbeat::new().register("writer", writer::SILENCE);
    let task = tokio::spawn(Writer::new(client, views, leads, events, counters, pulse).run(shutdown.clone()));
    for _ in 0..40 {
        sender.send_replace(Arc::new(view.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.cancel();
    task.await.unwrap();
    let path = "/api/v1/namespaces/a";
    log.lock().unwrap().iter().filter(|seen| seen.method == Method::PATCH && seen.path == path).count()
}

#[tokio::test]
async fn a_label_that_does_not_show_yet_or_was_refused_is_not_written_again_at_once() {
    assert_eq!(label_writes(200).await, 1);
    let refused = label_writes(403).await;
    assert!((1..=2).contains(&refused), "{refused} writes");
}
