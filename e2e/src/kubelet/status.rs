//! What the harness kubelet reports about a pod: a board that its containers write to, and one writer of `status`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::processes::Exit;

const CALL_LIMIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(300);

/// A run of a container that is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

/// Where a container stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Terminated(Ended),
}

/// One container as its status shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerView {
    pub(crate) state: State,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

impl Default for ContainerView {
    fn default() -> Self {
        let state = State::Waiting { reason: "ContainerCreating", message: String::new() };
        Self { state, last: None, restarts: 0, started: false, ready: false }
    }
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: String,
}

/// Everything that status is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodView {
    pub(crate) containers: BTreeMap<String, ContainerView>,
    pub(crate) initialized: bool,
    pub(crate) outcome: Option<Outcome>,
}

/// The board of one pod.
pub(crate) struct Board(watch::Sender<PodView>);

impl Board {
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Self {
        let containers = names.map(|name| (name, ContainerView::default())).collect();
        Self(watch::channel(PodView { containers, ..PodView::default() }).0)
    }

    pub(crate) fn container(&self, name: &str, change: impl FnOnce(&mut ContainerView)) {
        self.0.send_modify(|view| change(view.containers.entry(name.to_owned()).or_default()));
    }

    pub(crate) fn initialized(&self) {
        self.0.send_modify(|view| view.initialized = true);
    }

    pub(crate) fn finish(&self, outcome: Outcome) {
        self.0.send_modify(|view| view.outcome = Some(outcome));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<PodView> {
        self.0.subscribe()
    }
}

/// Addresses that the status shows.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) pod_ip: String,
    pub(crate) host_ip: String,
}

/// Writes the status whenever it changes; ends after the outcome was written or when the pod is gone.
pub(crate) async fn write(client: kube::Client, pod: &Pod, mut board: watch::Receiver<PodView>, addresses: Addresses) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let mut writer = Writer { addresses, started: Timestamp::now(), conditions: BTreeMap::new() };
    let mut written = Value::Null;
    loop {
        let view = board.borrow_and_update().clone();
        let status = writer.status(pod, &view);
        if status != written {
            let body = json!({ "metadata": { "uid": pod.uid() }, "status": status });
            let (name, params, patch) = (pod.name_any(), PatchParams::default(), Patch::Strategic(body));
            let failed = match tokio::time::timeout(CALL_LIMIT, api.patch_status(&name, &params, &patch)).await {
                Ok(Ok(_)) => None,
                // Another pod of this name, or none: nobody to report on.
                Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => return,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(error) = failed {
                tracing::debug!(pod = %name, error, "status not written, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            written = status;
        }
        if view.outcome.is_some() || board.changed().await.is_err() {
            return;
        }
    }
}

struct Writer {
    addresses: Addresses,
    started: Timestamp,
    /// Condition → status and time of its last change.
    conditions: BTreeMap<&'static str, (bool, Timestamp)>,
}

impl Writer {
    fn status(&mut self, pod: &Pod, view: &PodView) -> Value {
        let (mut mains, mut inits) = (Vec::new(), Vec::new());
        let spec = pod.spec.clone().unwrap_or_default();
        let mut all_ready = true;
        let mut all_begun = true;
        for container in &spec.containers {
            let seen = view.containers.get(&container.name).cloned().unwrap_or_default();
            all_ready &= seen.ready;
            all_begun &= seen.restarts > 0 || !matches!(seen.state, State::Waiting { .. });
            mains.push(container_status(&container.name, container.image.as_deref(), &seen));
        }
        for container in spec.init_containers.iter().flatten() {
            let seen = view.containers.get(&container.name).cloned().unwrap_or_default();
            all_ready &= container.restart_policy.is_none() || seen.ready;
            inits.push(container_status(&container.name, container.image.as_deref(), &seen));
        }
        let ready = all_ready && view.outcome.is_none();
        let conditions = vec![
            self.condition("PodReadyToStartContainers", true),
            self.condition("Initialized", view.initialized),
            self.condition("ContainersReady", ready),
            self.condition("Ready", ready),
        ];
        let phase = match &view.outcome {
            Some(outcome) if outcome.succeeded => "Succeeded",
            Some(_) => "Failed",
            None if view.initialized && all_begun => "Running",
            None => "Pending",
        };
        let mut status = json!({
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": mains,
            "hostIP": self.addresses.host_ip,
            "podIP": self.addresses.pod_ip,
            "podIPs": [{ "ip": self.addresses.pod_ip }],
            "startTime": seconds(self.started),
        });
        if !inits.is_empty() {
            status["initContainerStatuses"] = Value::Array(inits);
        }
        if let Some(outcome) = view.outcome.as_ref().filter(|outcome| outcome.reason.is_some()) {
            status["reason"] = json!(outcome.reason);
            status["message"] = json!(outcome.message);
        }
        status
    }

    fn condition(&mut self, kind: &'static str, holds: bool) -> Value {
        let entry = self.conditions.entry(kind).or_insert_with(|| (holds, Timestamp::now()));
        if entry.0 != holds {
            *entry = (holds, Timestamp::now());
        }
        let status = if holds { "True" } else { "False" };
        json!({ "type": kind, "status": status, "lastTransitionTime": seconds(entry.1) })
    }
}

fn container_status(name: &str, image: Option<&str>, view: &ContainerView) -> Value {
    let ended = |ended: &Ended| {
        let reason = if ended.exit.success() { "Completed" } else { "Error" };
        json!({ "terminated": { "exitCode": ended.exit.container_code(), "reason": reason, "startedAt": seconds(ended.started),
            "finishedAt": seconds(ended.finished) } })
    };
    let state = match &view.state {
        State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        State::Running { since } => json!({ "running": { "startedAt": seconds(*since) } }),
        State::Terminated(run) => ended(run),
    };
    json!({
        "name": name,
        "image": image.unwrap_or_default(),
        "imageID": "",
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restarts,
        "state": state,
        "lastState": view.last.as_ref().map_or_else(|| json!({}), ended),
    })
}

/// metav1.Time has whole seconds.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "a", "image": "i" }] } }),
        )
        .unwrap()
    }

    fn writer() -> Writer {
        let addresses = Addresses { pod_ip: "10.244.0.1".to_owned(), host_ip: "10.1.0.1".to_owned() };
        Writer { addresses, started: Timestamp::UNIX_EPOCH, conditions: BTreeMap::new() }
    }

    #[test]
    fn a_pod_is_pending_until_its_containers_began_and_ready_by_its_probe() {
        let board = Board::new(["a".to_owned()].into_iter());
        let mut writer = writer();
        let now = |board: &Board, writer: &mut Writer| writer.status(&pod(), &board.watch().borrow().clone());
        assert_eq!(now(&board, &mut writer)["phase"], "Pending");
        board.initialized();
        board.container("a", |view| view.state = State::Running { since: Timestamp::UNIX_EPOCH });
        let status = now(&board, &mut writer);
        assert_eq!((&status["phase"], &status["conditions"][3]["status"]), (&json!("Running"), &json!("False")));
        board.container("a", |view| view.ready = true);
        assert_eq!(now(&board, &mut writer)["conditions"][3]["status"], "True");
        board.finish(Outcome { succeeded: false, reason: None, message: String::new() });
        let status = now(&board, &mut writer);
        assert_eq!((&status["phase"], &status["conditions"][3]["status"]), (&json!("Failed"), &json!("False")));
    }
}
