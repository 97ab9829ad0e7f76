//! A node for the agent's loop: an API server that holds its objects and tells the loop what it writes, as a watch would.
#![allow(missing_docs, clippy::unwrap_used, reason = "test support")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_agent::Seen;
use fairlead_agent::agent::{Agent, SILENCE_MAX, Setup};
use fairlead_agent::machine::MachineReader;
use fairlead_agent::metrics::{self, AgentMetrics};
use fairlead_agent::objects::{Objects, owner};
use fairlead_agent::pinner::{Inputs, Report};
use fairlead_runtime::{Heartbeat, Metrics, Readiness, WatchEvent};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "n1";
pub const REFRESH: Duration = Duration::from_secs(60);
const TOPOLOGY: &str = "/apis/fairlead.dev/v1alpha1/nodetopologies/n1";
const PLACEMENT: &str = "/apis/fairlead.dev/v1alpha1/nodeplacements/n1";

/// What the API server holds.
#[derive(Default)]
pub struct Server {
    pub node_uid: Option<String>,
    pub topology: Option<Value>,
    pub placement: Option<Value>,
    /// Requests whose method and path contain the text are answered with the code.
    pub refuse: Option<(&'static str, u16)>,
    /// Method and path of every request.
    pub seen: Vec<String>,
    version: u64,
}

fn typed<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn topology_event(object: &Value) -> Seen {
    Seen::Topology(WatchEvent::Apply(typed(object)))
}

pub fn placement_event(object: &Value) -> Seen {
    Seen::Placement(WatchEvent::Apply(typed(object)))
}

/// A NodePlacement of the Node with that UID.
pub fn placement(uid: &str, node_uid: &str) -> Value {
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement",
        "metadata": { "name": NAME, "uid": uid, "generation": 1, "ownerReferences": [owner(NAME, node_uid)] },
        "spec": { "reservations": [] },
    })
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Result<(Value, Option<Seen>), u16> {
        let line = format!("{method} {path}");
        self.seen.push(line.clone());
        if let Some((_, code)) = self.refuse.filter(|(text, _)| line.contains(text)) {
            return Err(code);
        }
        self.version += 1;
        let version = self.version.to_string();
        match (method, path) {
            (&Method::GET, "/api/v1/nodes/n1") => {
                let uid = self.node_uid.clone().ok_or(404u16)?;
                let meta = json!({ "name": NAME, "uid": uid });
                let kind = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta });
                Ok((kind, None))
            }
            (&Method::PATCH, TOPOLOGY) => {
                let mut object = body;
                object["metadata"]["resourceVersion"] = json!(version);
                self.topology = Some(object.clone());
                let event = topology_event(&object);
                Ok((object, Some(event)))
            }
            (&Method::POST, "/apis/fairlead.dev/v1alpha1/nodeplacements") => {
                if self.placement.is_some() {
                    return Err(409);
                }
                let mut object = body;
                object["metadata"]["uid"] = json!(format!("placement-{version}"));
                object["metadata"]["generation"] = json!(1);
                self.placement = Some(object.clone());
                let event = placement_event(&object);
                Ok((object, Some(event)))
            }
            (&Method::PATCH, path) if path == format!("{PLACEMENT}/status") => {
                let object = self.placement.as_mut().ok_or(404u16)?;
                if object["metadata"]["uid"] != body["metadata"]["uid"] {
                    return Err(409);
                }
                object["status"] = body["status"].clone();
                Ok((object.clone(), Some(placement_event(object))))
            }
            _ => Err(405),
        }
    }
}

/// The loop at work on one node, with the clock of the test.
pub struct House {
    pub api: Arc<Mutex<Server>>,
    pub sender: mpsc::Sender<Seen>,
    /// What the pinning tells.
    pub report: watch::Sender<Report>,
    pub readiness: Readiness,
    pub metrics: AgentMetrics,
    page: Arc<Metrics>,
    machine: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl House {
    /// A Node of that UID, and an agent that has not listed yet.
    pub fn new(node_uid: Option<&str>) -> Self {
        let machine = tempfile::tempdir().unwrap();
        std::fs::write(machine.path().join(NAME), "pack:1 [numa(memory=64GB)] l3:1 core:4 pu:2").unwrap();
        let api = Arc::new(Mutex::new(Server { node_uid: node_uid.map(Into::into), ..Server::default() }));
        let (sender, inbox) = mpsc::channel(64);
        let (page, metrics) = metrics::page();
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        let report = watch::channel(Report::default()).0;
        let setup = Setup {
            reader: MachineReader {
                node_name: NAME.into(),
                machine_dir: Some(machine.path().to_owned()),
                sysfs_root: "/sys".into(),
            },
            refresh: REFRESH,
            objects: Objects::new(&client(api.clone(), sender.clone()), NAME),
            metrics: metrics.clone(),
            ready: readiness.register("publish the machine"),
            pulse: Heartbeat::new().register("agent", SILENCE_MAX),
            seed: 7,
            shown: Arc::default(),
            inputs: watch::channel(Inputs::default()).0,
            report: report.subscribe(),
        };
        let task = tokio::spawn(Agent::new(setup).run(inbox, shutdown.clone()));
        Self { api, sender, report, readiness, metrics, page, machine, shutdown, task }
    }

    /// Lists what the API server holds, as the watches do first.
    pub async fn list(&self) {
        let (topology, placement) = {
            let api = self.api.lock().unwrap();
            (api.topology.iter().map(typed).collect(), api.placement.iter().map(typed).collect())
        };
        self.tell(Seen::Topology(WatchEvent::Reset(topology))).await;
        self.tell(Seen::Placement(WatchEvent::Reset(placement))).await;
    }

    /// An agent that has listed, published and come to rest.
    pub async fn settled() -> Self {
        let house = Self::new(Some("node-1"));
        house.list().await;
        house.pass(10).await;
        house
    }

    pub async fn tell(&self, seen: Seen) {
        self.sender.send(seen).await.unwrap();
    }

    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub fn with<R>(&self, change: impl FnOnce(&mut Server) -> R) -> R {
        change(&mut self.api.lock().unwrap())
    }

    /// Somebody deletes both objects, as the garbage collector does when the Node goes; the watches tell.
    pub async fn collect_garbage(&self) {
        let (topology, placement) = self.with(|api| (api.topology.take().unwrap(), api.placement.take().unwrap()));
        self.tell(Seen::Topology(WatchEvent::Delete(typed(&topology)))).await;
        self.tell(Seen::Placement(WatchEvent::Delete(typed(&placement)))).await;
    }

    /// How many requests contain the text.
    pub fn seen(&self, text: &str) -> usize {
        self.with(|api| api.seen.iter().filter(|line| line.contains(text)).count())
    }

    pub fn writes(&self) -> usize {
        self.with(|api| api.seen.iter().filter(|line| !line.starts_with("GET")).count())
    }

    /// UIDs of the Nodes that own the objects.
    pub fn owners(&self) -> [Option<String>; 2] {
        self.with(|api| {
            [&api.topology, &api.placement].map(|object| {
                let uid = object.as_ref()?["metadata"]["ownerReferences"][0]["uid"].as_str()?;
                Some(uid.to_owned())
            })
        })
    }

    /// Status, reason and message of the condition Consistent.
    pub fn consistent(&self) -> Option<[String; 3]> {
        let status = self.with(|api| api.placement.as_ref().map(|object| object["status"].clone()))?;
        let condition = status["conditions"].as_array()?.iter().find(|entry| entry["type"] == "Consistent")?.clone();
        Some(["status", "reason", "message"].map(|field| condition[field].as_str().unwrap().to_owned()))
    }

    /// How often that failed.
    pub fn errors(&self, operation: &str) -> u64 {
        let start = format!("fairlead_agent_errors_total{{operation=\"{operation}\"}} ");
        let page = self.page.encode().unwrap();
        page.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().unwrap())
    }

    pub fn becomes(&self, description: &str) {
        std::fs::write(self.machine.path().join(NAME), description).unwrap();
    }

    /// Ends the loop; it must have lived so long.
    pub async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn client(api: Arc<Mutex<Server>>, watch: mpsc::Sender<Seen>) -> Client {
    let serve = move |request: Request<Body>| {
        let (api, watch) = (api.clone(), watch.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let answer = api.lock().unwrap().answer(&parts.method, parts.uri.path(), body);
            let (code, value) = match answer {
                Ok((value, event)) => {
                    if let Some(event) = event {
                        watch.try_send(event).unwrap();
                    }
                    (200, value)
                }
                Err(code) => (code, refusal(code)),
            };
            Ok::<_, Infallible>(
                Response::builder().status(code).body(Body::from(value.to_string().into_bytes())).unwrap(),
            )
        }
    };
    Client::new(tower::service_fn(serve), "default")
}

fn refusal(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused", "reason": reason, "code": code })
}
