//! A house in a small world: ledgers and pods as an API server would keep them, the order of writes, and the watches by
//! hand.
#![allow(clippy::panic, reason = "tests fail by panicking")]
use super::{Seen, courier, pod, refusal, server};
use fairlead_cluster::Model;
use fairlead_operator::house::{House, Inputs, SILENCE, unwatched};
use fairlead_operator::metrics::OperatorMetrics;
use fairlead_operator::news::{Dated, News};
use fairlead_operator::view::View;
use fairlead_runtime::{Heartbeat, LeaseState, Metrics, WatchEvent};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Ledgers and pods as the server has them, and the order of writes.
#[derive(Default)]
pub struct World {
    pub version: u64,
    pub ledgers: BTreeMap<String, Value>,
    /// By "namespace/name".
    pub pods: BTreeMap<String, Value>,
    pub writes: Vec<String>,
    /// Writes on pods whose key begins so, and on ledgers of tenants of this name, are answered with this code.
    pub refused: BTreeMap<String, u16>,
}

impl World {
    pub fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub fn add(&mut self, namespace: &str, name: &str, gated: bool) {
        let version = self.next();
        let mut pod = pod(name, &format!("uid-{name}"), &version, gated);
        pod["metadata"]["namespace"] = namespace.into();
        pod["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{:02}Z", self.pods.len() % 60).into();
        self.pods.insert(format!("{namespace}/{name}"), pod);
    }

    /// Changes a pod as somebody else would.
    pub fn change(&mut self, key: &str, change: impl FnOnce(&mut Value)) {
        let version = self.next();
        let pod = self.pods.get_mut(key).unwrap();
        change(pod);
        pod["metadata"]["resourceVersion"] = version.into();
    }

    pub fn gated(&self, key: &str) -> bool {
        self.pods[key]["spec"]["schedulingGates"] != json!([])
    }

    pub fn answer(&mut self, seen: &Seen) -> (u16, Value) {
        let path: Vec<&str> = seen.path.trim_start_matches('/').split('/').collect();
        match (&seen.method, path.as_slice()) {
            (&Method::GET, ["apis", _, _, "tenantledgers", name]) => {
                self.ledgers.get(*name).map_or_else(|| refusal(404), |ledger| (200, ledger.clone()))
            }
            (&Method::POST, ["apis", _, _, "tenantledgers"]) => {
                let name = seen.body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.ledgers.contains_key(&name) {
                    return refusal(409);
                }
                self.write_ledger(&name, seen.body.clone(), 201)
            }
            (&Method::PATCH, ["apis", _, _, "tenantledgers", name]) => {
                let Some(mut body) = self.ledgers.get(*name).cloned() else { return refusal(404) };
                if body["metadata"]["resourceVersion"] != seen.body["metadata"]["resourceVersion"] {
                    return refusal(409);
                }
                body["spec"] = seen.body["spec"].clone();
                self.write_ledger(name, body, 200)
            }
            (&Method::GET, ["api", "v1", "namespaces", namespace, "pods"]) => {
                let of = |key: &str| key.split('/').next() == Some(*namespace);
                let items: Vec<Value> =
                    self.pods.iter().filter(|(key, _)| of(key)).map(|(_, pod)| pod.clone()).collect();
                let meta = json!({"resourceVersion": self.version.to_string()});
                (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items}))
            }
            (&Method::GET, ["api", "v1", "namespaces", namespace, "pods", name]) => {
                self.pods.get(&format!("{namespace}/{name}")).map_or_else(|| refusal(404), |pod| (200, pod.clone()))
            }
            (&Method::PATCH, ["api", "v1", "namespaces", namespace, "pods", name, rest @ ..]) => {
                self.patch_pod(&format!("{namespace}/{name}"), name, !rest.is_empty(), &seen.body)
            }
            (method, path) => panic!("unexpected {method} {path:?}"),
        }
    }

    fn refusal_of(&self, key: &str) -> Option<u16> {
        self.refused.iter().find(|(prefix, _)| key.starts_with(prefix.as_str())).map(|(_, code)| *code)
    }

    fn write_ledger(&mut self, tenant: &str, mut body: Value, code: u16) -> (u16, Value) {
        if let Some(code) = self.refused.get(tenant) {
            return refusal(*code);
        }
        let intents = body["spec"]["intents"].as_array().unwrap();
        let names: Vec<&str> = intents.iter().map(|intent| intent["name"].as_str().unwrap()).collect();
        self.writes.push(format!("ledger {}", names.join(" ")));
        body["metadata"]["resourceVersion"] = self.next().into();
        self.ledgers.insert(tenant.to_owned(), body.clone());
        (code, body)
    }

    fn patch_pod(&mut self, key: &str, name: &str, status: bool, body: &Value) -> (u16, Value) {
        let Some(mut pod) = self.pods.get(key).cloned() else { return refusal(404) };
        let wanted = &body["metadata"]["resourceVersion"];
        if pod["metadata"]["uid"] != body["metadata"]["uid"]
            || (!wanted.is_null() && pod["metadata"]["resourceVersion"] != *wanted)
        {
            return refusal(409);
        }
        let what = if status {
            let condition = &body["status"]["conditions"][0];
            pod["status"]["conditions"] = json!([condition]);
            format!("told {name} {}", condition["reason"].as_str().unwrap())
        } else if body.get("spec").is_some() {
            pod["spec"]["schedulingGates"] = json!([]);
            format!("ungate {name}")
        } else if wanted.is_null() {
            format!("touch {name}")
        } else {
            pod["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
            format!("stamp {name}")
        };
        if let Some(code) = self.refusal_of(key).filter(|_| !status) {
            self.writes.push(format!("{code} {what}"));
            return refusal(code);
        }
        self.writes.push(what);
        pod["metadata"]["resourceVersion"] = self.next().into();
        self.pods.insert(key.to_owned(), pod.clone());
        (200, pod)
    }
}

pub fn quota(name: &str, namespaces: &[&str], hard: u32) -> Value {
    json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
        "metadata": {"name": name, "uid": format!("q-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"namespaces": namespaces, "weight": 1, "concurrency": {"hard": hard}}})
}

pub struct Bed {
    pub world: Arc<Mutex<World>>,
    pub view: watch::Receiver<Arc<View>>,
    pub news: mpsc::Sender<Dated>,
    /// Term in which the lists of now began.
    pub term: u64,
    pub lease: watch::Sender<LeaseState>,
    pub stop: CancellationToken,
    pub house: tokio::task::JoinHandle<()>,
    _dumps: mpsc::Sender<tokio::sync::oneshot::Sender<Value>>,
}

/// A world with one tenant, `acme` of namespace `a`, and these gated pods.
pub async fn bed(hard: u32, pods: &[&str]) -> Bed {
    let mut world = World { version: 100, ..World::default() };
    pods.iter().for_each(|name| world.add("a", name, true));
    Box::pin(house_in(&Arc::new(Mutex::new(world)), &[quota("acme", &["a"], hard)])).await
}

/// A house in a world that may have others.
pub async fn house_in(world: &Arc<Mutex<World>>, quotas: &[Value]) -> Bed {
    let served = world.clone();
    let (client, _) = server(move |seen| served.lock().unwrap().answer(seen));
    let (courier, lease) = courier(client, false);
    let mut model = Model::new("fairlead-system");
    for event in unwatched() {
        model.apply(event);
    }
    let metrics = OperatorMetrics::register(&mut Metrics::new("operator"));
    let (house, view) = House::new(model, courier, metrics, 20);
    let (news, received) = mpsc::channel(1024);
    let (dump_sender, dumps) = mpsc::channel(1);
    let pulse = Heartbeat::new().register("house", SILENCE);
    let stop = CancellationToken::new();
    let inputs = Inputs { news: received, lease: lease.subscribe(), dumps, pulse };
    let house = tokio::spawn(house.run(inputs, stop.clone()));
    let bed = Bed { world: world.clone(), view, news, term: 1, lease, stop, house, _dumps: dump_sender };
    Box::pin(bed.list(quotas)).await;
    bed
}

impl Bed {
    /// What the first lists would bring.
    pub async fn list(&self, quotas: &[Value]) {
        let node = json!({"metadata": {"name": "n", "uid": "n"}, "status": {
            "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1100"}, "capacity": {"cpu": "64"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let quotas = quotas.iter().map(|quota| serde_json::from_value(quota.clone()).unwrap()).collect();
        let lists = [
            News::Node(WatchEvent::Reset(vec![serde_json::from_value(node).unwrap()])),
            News::Topology(WatchEvent::Reset(Vec::new())),
            News::Namespace(WatchEvent::Reset(Vec::new())),
            News::Quota(WatchEvent::Reset(quotas)),
        ];
        for event in lists {
            self.send(event).await;
        }
        self.list_pods().await;
    }

    pub async fn list_pods(&self) {
        let listed: Vec<Pod> = {
            let world = self.world.lock().unwrap();
            world.pods.values().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect()
        };
        self.send(News::Pod(WatchEvent::Reset(listed))).await;
    }

    pub async fn send(&self, news: News) {
        self.news.send(Dated { term: self.term, news }).await.unwrap();
    }

    /// The lease is lost, and won again in the next term.
    pub fn lead_again(&mut self) {
        self.term += 1;
        let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
        self.lease.send_replace(LeaseState { leading: true, term: self.term, until });
    }

    pub fn lead(&self) {
        let until = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
        self.lease.send_replace(LeaseState { leading: true, term: 1, until });
    }

    /// Waits for what must come, however busy the machine is.
    pub async fn until(&self, what: &str, seen: impl Fn(&[String]) -> bool) {
        for _ in 0..400 {
            if seen(&self.writes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what} did not come: {:?}", self.writes());
    }

    pub async fn until_written(&self, write: &str) {
        self.until(write, |writes| writes.iter().any(|seen| seen == write)).await;
    }

    pub fn writes(&self) -> Vec<String> {
        self.world.lock().unwrap().writes.clone()
    }

    pub fn count(&self, write: &str) -> usize {
        self.writes().iter().filter(|seen| seen.starts_with(write)).count()
    }

    /// What the watch would bring.
    pub async fn show(&self, key: &str) {
        let pod = self.world.lock().unwrap().pods[key].clone();
        self.send(News::Pod(WatchEvent::Apply(serde_json::from_value(pod).unwrap()))).await;
    }
}
