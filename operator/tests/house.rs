//! The house from watch events to writes: limits hold, intents come first, and who waits is told why.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod fake;

use fairlead_cluster::Model;
use fairlead_operator::house::{House, Inputs, SILENCE, no_placements};
use fairlead_operator::metrics::OperatorMetrics;
use fairlead_operator::news::News;
use fairlead_operator::view::View;
use fairlead_runtime::{Heartbeat, LeaseState, Metrics, WatchEvent};
use fake::{courier, pod, server};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Ledger and pods as the server has them, and the order of writes.
#[derive(Default)]
struct World {
    version: u64,
    ledger: Option<Value>,
    pods: BTreeMap<String, Value>,
    writes: Vec<String>,
}

impl World {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn answer(&mut self, seen: &fake::Seen) -> (u16, Value) {
        let ledger = "/apis/fairlead.dev/v1alpha1/tenantledgers";
        match (&seen.method, seen.path.as_str()) {
            (&Method::GET, path) if path.starts_with(ledger) => {
                self.ledger.clone().map_or_else(|| fake::refusal(404), |ledger| (200, ledger))
            }
            (&Method::POST, path) if path == ledger => self.write_ledger(seen.body.clone(), 201),
            (&Method::PATCH, path) if path.starts_with(ledger) => {
                let mut body = self.ledger.clone().unwrap();
                if body["metadata"]["resourceVersion"] != seen.body["metadata"]["resourceVersion"] {
                    return fake::refusal(409);
                }
                body["spec"] = seen.body["spec"].clone();
                self.write_ledger(body, 200)
            }
            (&Method::GET, "/api/v1/namespaces/a/pods") => {
                let items: Vec<Value> = self.pods.values().cloned().collect();
                let meta = json!({"resourceVersion": self.version.to_string()});
                (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items}))
            }
            (&Method::PATCH, path) => self.patch_pod(path, &seen.body),
            (method, path) => panic!("unexpected {method} {path}"),
        }
    }

    fn write_ledger(&mut self, mut body: Value, code: u16) -> (u16, Value) {
        let intents = body["spec"]["intents"].as_array().unwrap();
        let names: Vec<&str> = intents.iter().map(|intent| intent["name"].as_str().unwrap()).collect();
        self.writes.push(format!("ledger {}", names.join(" ")));
        body["metadata"]["resourceVersion"] = self.next().into();
        self.ledger = Some(body.clone());
        (code, body)
    }

    fn patch_pod(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let name = path.trim_start_matches("/api/v1/namespaces/a/pods/").trim_end_matches("/status").to_owned();
        let version = self.next();
        let pod = self.pods.get_mut(&name).unwrap();
        if path.ends_with("/status") {
            let condition = &body["status"]["conditions"][0];
            self.writes.push(format!("told {name} {}", condition["reason"].as_str().unwrap()));
            pod["status"]["conditions"] = json!([condition]);
        } else {
            if pod["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                return fake::refusal(409);
            }
            self.writes.push(format!("ungate {name}"));
            pod["spec"]["schedulingGates"] = json!([]);
        }
        pod["metadata"]["resourceVersion"] = version.into();
        (200, pod.clone())
    }
}

fn quota(hard: u32) -> Value {
    json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": {"name": "acme", "uid": "q", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaces": ["a"], "weight": 1, "concurrency": {"hard": hard}}})
}

struct Bed {
    world: Arc<Mutex<World>>,
    view: watch::Receiver<Arc<View>>,
    news: mpsc::Sender<News>,
    lease: watch::Sender<LeaseState>,
    _dumps: mpsc::Sender<tokio::sync::oneshot::Sender<Value>>,
    stop: CancellationToken,
    house: tokio::task::JoinHandle<()>,
}

async fn bed(hard: u32, pods: &[&str]) -> Bed {
    let world = Arc::new(Mutex::new(World { version: 100, ..World::default() }));
    for (index, name) in pods.iter().enumerate() {
        let mut pod = pod(name, &format!("uid-{name}"), &(index + 1).to_string(), true);
        pod["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:0{index}Z").into();
        world.lock().unwrap().pods.insert((*name).to_owned(), pod);
    }
    let served = world.clone();
    let (client, _) = server(move |seen| served.lock().unwrap().answer(seen));
    let (courier, lease) = courier(client, false);
    let mut model = Model::new("fairlead-system");
    model.apply(no_placements());
    let metrics = OperatorMetrics::register(&mut Metrics::new("operator"));
    let (house, view) = House::new(model, courier, metrics, 20);
    let (news, received) = mpsc::channel(64);
    let (dump_sender, dumps) = mpsc::channel(1);
    let pulse = Heartbeat::new().register("house", SILENCE);
    let stop = CancellationToken::new();
    let inputs = Inputs { news: received, lease: lease.subscribe(), dumps, pulse };
    let house = tokio::spawn(house.run(inputs, stop.clone()));
    let node = json!({"metadata": {"name": "n", "uid": "n"}, "status": {
        "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}, "capacity": {"cpu": "64"},
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let listed: Vec<Pod> =
        world.lock().unwrap().pods.values().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
    let lists = [
        News::Node(WatchEvent::Reset(vec![serde_json::from_value(node).unwrap()])),
        News::Topology(WatchEvent::Reset(Vec::new())),
        News::Namespace(WatchEvent::Reset(Vec::new())),
        News::Quota(WatchEvent::Reset(vec![serde_json::from_value(quota(hard)).unwrap()])),
        News::Pod(WatchEvent::Reset(listed)),
    ];
    for event in lists {
        news.send(event).await.unwrap();
    }
    Bed { world, view, news, lease, _dumps: dump_sender, stop, house }
}

impl Bed {
    fn lead(&self) {
        let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
        self.lease.send_replace(LeaseState { leading: true, term: 1, until });
    }

    /// Waits for what must come, however busy the machine is.
    async fn until(&self, what: &str, seen: impl Fn(&[String]) -> bool) {
        for _ in 0..400 {
            if seen(&self.writes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what} did not come: {:?}", self.writes());
    }

    async fn until_written(&self, write: &str) {
        self.until(write, |writes| writes.iter().any(|seen| seen == write)).await;
    }

    fn writes(&self) -> Vec<String> {
        self.world.lock().unwrap().writes.clone()
    }

    /// What the watch would bring.
    async fn show(&self, name: &str) {
        let pod = self.world.lock().unwrap().pods[name].clone();
        self.news.send(News::Pod(WatchEvent::Apply(serde_json::from_value(pod).unwrap()))).await.unwrap();
    }
}

#[tokio::test]
async fn limits_hold_intents_come_first_and_the_rest_is_told_why() {
    let bed = Box::pin(bed(2, &["p1", "p2", "p3"])).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(bed.writes().is_empty(), "nobody leads: {:?}", bed.writes());
    bed.lead();
    bed.until("two releases", |writes| writes.len() >= 4).await;
    let mut writes = bed.writes();
    writes[2..].sort();
    assert_eq!(writes, ["ledger ", "ledger p1 p2", "ungate p1", "ungate p2"]);
    for name in ["p1", "p2"] {
        bed.show(name).await;
    }
    bed.until_written("told p3 WaitingForConcurrencySlot").await;
    bed.until("the ledger at rest", |writes| writes[4..].iter().any(|write| write == "ledger ")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.view.borrow().tenants["acme"].released_pods, 2);
    assert_eq!(bed.writes().len(), 6, "the settled intents left once, the pod was told once: {:?}", bed.writes());
    bed.stop.cancel();
    bed.house.await.unwrap();
}

#[tokio::test]
async fn a_pod_that_ends_makes_room_and_what_was_told_is_taken_back() {
    let bed = Box::pin(bed(1, &["p1", "p2"])).await;
    bed.lead();
    bed.until_written("ungate p1").await;
    bed.show("p1").await;
    bed.until_written("told p2 WaitingForConcurrencySlot").await;
    bed.show("p2").await;
    {
        let mut world = bed.world.lock().unwrap();
        let version = world.next();
        let pod = world.pods.get_mut("p1").unwrap();
        pod["status"]["phase"] = "Succeeded".into();
        pod["metadata"]["resourceVersion"] = version.into();
    }
    bed.show("p1").await;
    bed.until_written("ungate p2").await;
    bed.show("p2").await;
    bed.until_written("told p2 Released").await;
}
