//! A node for the pinning: a stand-in runtime, a kubelet's files, a checkpoint folder, an API server that is a function.
#![allow(missing_docs, clippy::unwrap_used, reason = "test support")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairlead_agent::Seen;
use fairlead_agent::agent;
use fairlead_agent::machine::MachineReader;
use fairlead_agent::metrics::{self, AgentMetrics, PinMetrics};
use fairlead_agent::objects::{Objects, owner};
use fairlead_agent::pin::{Cores, Observed, promises_of};
use fairlead_agent::pinner::{Checkpoint, Inputs, KubeletFiles, Pinner, PinnerError, Report, SILENCE_MAX, Setup};
use fairlead_crds::NodePlacement;
use fairlead_crds::node_placement::{
    NodePlacementSpec, NodePlacementStatus, PinState, Reservation, ReservedContainer, ReservedMemory,
};
use fairlead_crds::node_topology::Pinning;
use fairlead_runtime::{Heartbeat, Metrics, Readiness, WatchEvent};
use fairlead_topology::CpuMask;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Pod, Runtime};

/// What the API server holds.
#[derive(Default)]
pub struct Server {
    pub promises: Vec<Reservation>,
    pub generation: i64,
    /// Every status of the NodePlacement that was written, oldest first.
    pub statuses: Vec<NodePlacementStatus>,
    /// It does not answer.
    pub away: bool,
}

/// An agent's pinning at work.
pub struct Agent {
    inputs: watch::Sender<Inputs>,
    report: watch::Receiver<Report>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), PinnerError>>,
    metrics: PinMetrics,
    page: Arc<Metrics>,
    counters: AgentMetrics,
    /// The loop that writes the status, and its watch.
    writing: Option<(JoinHandle<()>, mpsc::Sender<Seen>)>,
}

impl Agent {
    pub fn reason(&self) -> Option<String> {
        self.report.borrow().pinning.as_ref().map(|pinning| pinning.reason.clone())
    }

    /// It leaves the node to another agent, and its other loop is told so.
    pub fn stands_back(&self) -> bool {
        self.report.borrow().second_agent.is_some()
    }

    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap().unwrap();
        if let Some((task, _)) = self.writing.take() {
            task.await.unwrap();
        }
    }
}

pub struct Node {
    pub dir: TempDir,
    pub runtime: Runtime,
    pub api: Arc<Mutex<Server>>,
    pub permit_sched_fifo: bool,
    pub metrics: PinMetrics,
    cores: Cores,
    listed: bool,
    agent: Option<Agent>,
}

impl Node {
    /// A node of 16 CPUs and 4 memory nodes, and no agent.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("checkpoint")).unwrap();
        let runtime = Runtime::listen(&dir.path().join("nri.sock")).unwrap();
        let all = CpuMask::parse_list("0-15").unwrap();
        let cores = Cores { usable: all.clone(), shared: all, memory_nodes: CpuMask::from_ids(0..4) };
        let metrics = metrics::page().1.pinning;
        let api = Arc::default();
        let node = Self { dir, runtime, api, permit_sched_fifo: false, metrics, cores, listed: false, agent: None };
        node.kubelet("");
        node
    }

    /// A node with an agent that is registered.
    pub async fn start() -> Self {
        let mut node = Self::new();
        node.start_agent();
        assert!(node.runtime.serve_until(|runtime| runtime.plugins() == 1).await);
        node
    }

    pub fn kubelet(&self, policies: &str) {
        let text = format!("kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n{policies}");
        std::fs::write(self.dir.path().join("config.yaml"), text).unwrap();
    }

    pub fn forget_checkpoint(&self) {
        std::fs::remove_file(self.dir.path().join("checkpoint/pinning.json")).unwrap();
    }

    pub fn start_agent(&mut self) {
        let agent = self.second();
        self.metrics = agent.metrics.clone();
        self.agent = Some(agent);
    }

    /// The agent whole: besides the pinning the loop that writes what it tells to the API server.
    pub async fn start_whole_agent(&mut self) {
        self.start_agent();
        std::fs::write(self.dir.path().join("n1"), "pack:4 [numa(memory=16GB)] core:4 pu:1").unwrap();
        let placement = self.placement();
        let agent = self.agent.as_mut().unwrap();
        let setup = agent::Setup {
            reader: MachineReader {
                node_name: "n1".into(),
                machine_dir: Some(self.dir.path().to_owned()),
                sysfs_root: "/sys".into(),
            },
            refresh: Duration::from_secs(60),
            objects: Objects::new(&client(self.api.clone()), "n1"),
            metrics: agent.counters.clone(),
            ready: Readiness::new(agent.shutdown.clone()).register("publish the machine"),
            pulse: Heartbeat::new().register("agent", agent::SILENCE_MAX),
            seed: 7,
            shown: Arc::default(),
            inputs: agent.inputs.clone(),
            report: agent.report.clone(),
        };
        let (sender, inbox) = mpsc::channel(8);
        sender.send(Seen::Topology(WatchEvent::Reset(vec![]))).await.unwrap();
        sender.send(Seen::Placement(WatchEvent::Reset(vec![placement]))).await.unwrap();
        let task = tokio::spawn(agent::Agent::new(setup).run(inbox, agent.shutdown.clone()));
        agent.writing = Some((task, sender));
    }

    /// One more agent on this node.
    pub fn second(&self) -> Agent {
        let promises = self.listed.then(|| promises_of(Some(&self.placement())));
        let (inputs, seen) = watch::channel(Inputs { cores: Some(self.cores.clone()), promises, ..Inputs::default() });
        let (report, told) = watch::channel(Report::default());
        let (page, counters) = metrics::page();
        let metrics = counters.pinning.clone();
        let file = |name: &str| self.dir.path().join(name);
        let setup = Setup {
            socket: file("nri.sock"),
            checkpoint: Checkpoint::new(&file("checkpoint"), "n1"),
            kubelet: KubeletFiles {
                config: Some(file("config.yaml")),
                cpu_state: file("cpu_manager_state"),
                memory_state: file("memory_manager_state"),
            },
            permit_sched_fifo: self.permit_sched_fifo,
            own_pod: Some("agent".into()),
            objects: Objects::new(&client(self.api.clone()), "n1"),
            metrics: metrics.clone(),
            pulse: Heartbeat::new().register("pinning", SILENCE_MAX),
            seed: 7,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Pinner::new(setup, seen, report).run(shutdown.clone()));
        Agent { inputs, report: told, shutdown, task, metrics, page, counters, writing: None }
    }

    pub async fn stop_agent(&mut self) {
        // What it was about to write it writes.
        self.runtime.serve_for(Duration::from_millis(100)).await;
        self.agent.take().unwrap().stop().await;
        self.listed = false;
    }

    fn placement(&self) -> NodePlacement {
        let api = self.api.lock().unwrap();
        placement(&api)
    }

    /// The watch tells the agent of these reservations, if there is one.
    pub fn promise(&mut self, reservations: Vec<Reservation>) {
        {
            let mut api = self.api.lock().unwrap();
            api.promises = reservations;
            api.generation += 1;
        }
        self.listed = true;
        let promises = Some(promises_of(Some(&self.placement())));
        if let Some(agent) = &self.agent {
            agent.inputs.send_modify(|inputs| inputs.promises = promises);
        }
    }

    /// The machine has these CPUs now.
    pub fn cpus(&mut self, list: &str) {
        let all = CpuMask::parse_list(list).unwrap();
        self.cores = Cores { usable: all.clone(), shared: all, memory_nodes: self.cores.memory_nodes.clone() };
        let cores = self.cores.clone();
        self.agent.as_ref().unwrap().inputs.send_modify(|inputs| inputs.cores = Some(cores));
    }

    pub fn pinning(&self) -> Option<Pinning> {
        self.agent.as_ref()?.report.borrow().pinning.clone()
    }

    pub fn observed(&self) -> Option<Observed> {
        self.agent.as_ref()?.report.borrow().observed.clone()
    }

    pub fn state_of(&self, pod_uid: &str, container: &str) -> Option<PinState> {
        let observed = self.observed()?;
        observed.containers.iter().find(|one| one.pod_uid == pod_uid && one.name == container).map(|one| one.state)
    }

    /// The states of a container in the statuses that were written, one for each run of equal ones.
    pub fn written(&self, pod_uid: &str, container: &str) -> Vec<PinState> {
        let api = self.api.lock().unwrap();
        let lines = api.statuses.iter().flat_map(|status| &status.containers);
        let of = lines.filter(|line| line.pod_uid == pod_uid && line.name == container);
        let mut states: Vec<PinState> = of.map(|line| line.state).collect();
        states.dedup();
        states
    }

    /// How many containers the metrics count in that state.
    pub fn counted(&self, state: &str) -> Option<u64> {
        let start = format!("fairlead_agent_containers{{state=\"{state}\"}} ");
        let page = self.agent.as_ref()?.page.encode().unwrap();
        page.lines().find_map(|line| line.strip_prefix(&start))?.parse().ok()
    }

    /// Serves the agent until that holds.
    #[track_caller]
    pub fn until(&mut self, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let since = Instant::now();
            while !holds(self) {
                assert!(
                    since.elapsed() < Duration::from_secs(90),
                    "{place}: {:?} {:?}",
                    self.pinning(),
                    self.observed()
                );
                self.runtime.serve_within(Duration::from_millis(10)).await;
            }
        }
    }
}

fn placement(api: &Server) -> NodePlacement {
    NodePlacement {
        metadata: ObjectMeta {
            name: Some("n1".into()),
            uid: Some("p1".into()),
            generation: Some(api.generation),
            owner_references: Some(vec![owner("n1", "node-1")]),
            ..ObjectMeta::default()
        },
        spec: NodePlacementSpec { reservations: api.promises.clone() },
        status: api.statuses.last().cloned(),
    }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Value {
        match (method.as_str(), path) {
            ("GET", "/api/v1/nodes/n1") => {
                let meta = json!({ "name": "n1", "uid": "node-1" });
                json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta })
            }
            ("PATCH", path) if path.ends_with("/nodeplacements/n1/status") => {
                self.statuses.push(serde_json::from_value(body["status"].clone()).unwrap());
                serde_json::to_value(placement(self)).unwrap()
            }
            // As it is applied, so it is.
            ("PATCH", path) if path.ends_with("/nodetopologies/n1") => body,
            _ => {
                let items = [placement(self)];
                json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacementList", "metadata": {}, "items": items })
            }
        }
    }
}

fn client(api: Arc<Mutex<Server>>) -> Client {
    let serve = move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            if api.lock().unwrap().away {
                std::future::pending::<()>().await;
            }
            let answer = api.lock().unwrap().answer(&parts.method, parts.uri.path(), body);
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    };
    Client::new(tower::service_fn(serve), "default")
}

/// A reservation of a pod: CPUs by container, and the memory nodes.
pub fn reservation(uid: &str, containers: &[(&str, &str)], memory_nodes: &[i64]) -> Reservation {
    let mut cpus = CpuMask::new();
    for (_, list) in containers {
        cpus.union_with(&CpuMask::parse_list(list).unwrap());
    }
    let container = |(name, cpus): &(&str, &str)| ReservedContainer { name: (*name).into(), cpus: (*cpus).into() };
    Reservation {
        pod_uid: uid.into(),
        namespace: "ns".into(),
        name: uid.into(),
        reserved_at: Time(Timestamp::UNIX_EPOCH),
        cpus: cpus.to_string(),
        containers: containers.iter().map(container).collect(),
        isolated: false,
        memory: memory_nodes
            .iter()
            .map(|&numa_node| ReservedMemory { numa_node, bytes: 1 << 30, huge_pages: vec![] })
            .collect(),
    }
}

/// A pod without a promise.
pub fn shared(uid: &str) -> Pod {
    Pod { uid: uid.into(), namespace: "ns".into(), name: uid.into(), ..Pod::default() }
}

/// A pod that was bound with CPUs 4-5 of memory node 1 for its container `c`, by its annotation.
pub fn exclusive(uid: &str) -> Pod {
    let placement = json!({ "containers": [{ "name": "c", "cpus": "4-5", "memoryNodes": "1" }] });
    let annotations = [("fairlead.dev/placement".to_owned(), placement.to_string())].into();
    Pod { annotations, ..shared(uid) }
}
