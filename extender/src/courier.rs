//! Carries the requests of the placement steps to the API server and brings the answers back as events.
//!
//! Nothing is decided here but what an HTTP answer means. Every call has a limit; a write without an answer is *lost*,
//! which the step resolves by reading.
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fairlead_cluster::{Snapshot, annotation_of, to_wire};
use fairlead_crds::NodePlacement;
use fairlead_crds::keys::{self, manager};
use fairlead_placement::{
    BindOutcome, Event, PatchOutcome, PlacementRead, PodRead, PodRef, Reason, Request, Reservation, TouchOutcome,
};
use fairlead_runtime::{ApiError, deadline};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::ExtenderMetrics;
use crate::model::Message;

/// The way to the API server for binds and for the reaper.
#[derive(Clone)]
pub struct Courier {
    client: Client,
    placements: Api<NodePlacement>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    model: mpsc::Sender<Message>,
    metrics: ExtenderMetrics,
}

impl Courier {
    /// Reads what the watch shows from `snapshot`; tells `model` what was written.
    #[must_use]
    pub fn new(
        client: Client,
        snapshot: Arc<ArcSwap<Snapshot>>,
        model: mpsc::Sender<Message>,
        metrics: ExtenderMetrics,
    ) -> Self {
        let placements = Api::all(client.clone());
        Self { client, placements, snapshot, model, metrics }
    }

    /// The snapshot in use.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The client of all calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Tells the model.
    pub async fn tell(&self, message: Message) {
        // The model's task ends only with the process.
        drop(self.model.send(message).await);
    }

    /// Carries out one request; `None` for those that end a step. No call takes longer than `limit`.
    pub async fn carry(&self, request: &Request, limit: Duration) -> Option<Event> {
        Some(match request {
            Request::ReadPod { pod } => Event::Pod(self.read_pod(pod, limit).await),
            Request::ReadPlacement { node, live, bound } => {
                let carried = if *bound { Some(self.list_bound(node, limit).await) } else { None };
                Event::Placement(match carried.transpose() {
                    Ok(carried) => self.read_placement(node, *live, carried.as_deref(), limit).await,
                    Err(error) => PlacementRead::Failed(error.chain()),
                })
            }
            Request::Reserve { node, uid, generation, replaces, reservation, restores, .. } => {
                let path = match replaces {
                    Some(index) => format!("/spec/reservations/{index}"),
                    None => "/spec/reservations/-".to_owned(),
                };
                let op = if replaces.is_some() { "replace" } else { "add" };
                let mut writes = vec![json!({ "op": op, "path": path, "value": to_wire(reservation) })];
                let lost = restores.iter().map(to_wire);
                writes.extend(lost.map(|held| json!({ "op": "add", "path": "/spec/reservations/-", "value": held })));
                Event::Patched(self.patch("write reservation", node, uid, *generation, writes, limit).await)
            }
            Request::Release { node, uid, generation, entries } => {
                let writes = removals(entries);
                Event::Patched(self.patch("free reservations", node, uid, *generation, writes, limit).await)
            }
            Request::Touch { pod, resource_version } => Event::Touched(self.touch(pod, resource_version, limit).await),
            Request::Bind { pod, node, resource_version, placement, .. } => {
                Event::Bound(self.bind(pod, node, resource_version, placement.as_ref(), limit).await)
            }
            Request::Pause { pause_ms } => {
                tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
                Event::Paused
            }
            Request::Answer(_) | Request::Finished(_) => return None,
        })
    }

    fn pods(&self, pod: &PodRef) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    async fn read_pod(&self, pod: &PodRef, limit: Duration) -> PodRead {
        let pods = self.pods(pod);
        match deadline("read Pod", limit, async { pods.get_opt(&pod.name).await }).await {
            Ok(None) => PodRead::Missing,
            Ok(Some(live)) => {
                let facts = self.snapshot.load().facts_of(&live);
                facts.map_or_else(|| PodRead::Failed("it has no UID".into()), PodRead::Found)
            }
            Err(error) => PodRead::Failed(error.chain()),
        }
    }

    /// The live pods bound to a node: consistent, so that none is missing that the watch has not shown yet.
    async fn list_bound(&self, node: &str, limit: Duration) -> Result<Vec<Pod>, ApiError> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        deadline("list Pods of the node", limit, async { pods.list(&params).await }).await.map(|list| list.items)
    }

    async fn read_placement(&self, node: &str, live: bool, bound: Option<&[Pod]>, limit: Duration) -> PlacementRead {
        if !live {
            return self.snapshot.load().placement(node);
        }
        match deadline("read NodePlacement", limit, async { self.placements.get_opt(node).await }).await {
            Ok(None) => PlacementRead::Refused(Reason::NoPlacementObject),
            Ok(Some(placement)) => match bound {
                Some(bound) => self.snapshot.load().placement_with_bound(node, &placement, bound),
                None => self.snapshot.load().placement_live(node, &placement),
            },
            Err(error) => PlacementRead::Failed(error.chain()),
        }
    }

    async fn patch(
        &self,
        operation: &'static str,
        node: &str,
        uid: &str,
        generation: i64,
        writes: Vec<Value>,
        limit: Duration,
    ) -> PatchOutcome {
        let mut operations = vec![
            json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
            json!({ "op": "test", "path": "/metadata/generation", "value": generation }),
        ];
        operations.extend(writes);
        let patch = match serde_json::from_value(Value::Array(operations)) {
            Ok(operations) => Patch::Json::<()>(operations),
            Err(error) => return PatchOutcome::Refused(error.to_string()),
        };
        let params = managed(manager::RESERVATION);
        match deadline(operation, limit, async { self.placements.patch(node, &params, &patch).await }).await {
            Ok(written) => {
                let generation = written.metadata.generation.unwrap_or(generation);
                self.publish(written, limit).await;
                PatchOutcome::Done { generation }
            }
            Err(error) if error.is_conflict() || is_failed_test(&error) => PatchOutcome::Conflict,
            Err(error) if error.is_not_found() => PatchOutcome::Gone,
            Err(error) => match self.trouble(&error) {
                Trouble::Throttled { after_ms } => PatchOutcome::Throttled { after_ms },
                Trouble::Lost => PatchOutcome::Lost,
                Trouble::Refused => PatchOutcome::Refused(error.chain()),
            },
        }
    }

    /// Waits until the next reader of the snapshot sees what was written, or its write would be a conflict for nothing.
    async fn publish(&self, placement: NodePlacement, limit: Duration) {
        let (published, seen) = oneshot::channel();
        self.tell(Message::Written { placement: Box::new(placement), published }).await;
        drop(tokio::time::timeout(limit, seen).await);
    }

    async fn touch(&self, pod: &PodRef, resource_version: &str, limit: Duration) -> TouchOutcome {
        let body = json!({ "metadata": {
            "uid": pod.uid,
            "resourceVersion": resource_version,
            "annotations": { keys::TOUCHED_ANNOTATION: resource_version },
        }});
        let (pods, params, patch) = (self.pods(pod), managed(manager::RESERVATION), Patch::Merge(&body));
        // Through the status, which kube-scheduler's own role lets it write: no right to patch pods is needed.
        match deadline("touch Pod", limit, async { pods.patch_status(&pod.name, &params, &patch).await }).await {
            Ok(_) => TouchOutcome::Done,
            Err(error) if error.is_conflict() => TouchOutcome::Conflict,
            Err(error) if error.is_not_found() => TouchOutcome::Gone,
            Err(error) => match self.trouble(&error) {
                Trouble::Throttled { after_ms } => TouchOutcome::Throttled { after_ms },
                Trouble::Lost => TouchOutcome::Lost,
                Trouble::Refused => TouchOutcome::Refused(error.chain()),
            },
        }
    }

    async fn bind(
        &self,
        pod: &PodRef,
        node: &str,
        resource_version: &str,
        placement: Option<&Reservation>,
        limit: Duration,
    ) -> BindOutcome {
        let binding = match binding(pod, node, resource_version, placement) {
            Ok(binding) => binding,
            Err(error) => return BindOutcome::Refused(error.to_string()),
        };
        let pods = self.pods(pod);
        let params = PostParams::default();
        let call = async { pods.create_subresource::<_, Value>("binding", &pod.name, &params, &binding).await };
        match deadline("bind Pod", limit, call).await {
            Ok(_) => BindOutcome::Done,
            Err(error) if error.is_conflict() => BindOutcome::Conflict(error.chain()),
            Err(error) if error.is_not_found() => BindOutcome::NotFound,
            Err(error) => match self.trouble(&error) {
                Trouble::Throttled { after_ms } => BindOutcome::Throttled { after_ms },
                Trouble::Lost => BindOutcome::Lost,
                Trouble::Refused => BindOutcome::Refused(error.chain()),
            },
        }
    }

    /// What a failed write means that is neither a conflict nor about an absent object.
    fn trouble(&self, error: &ApiError) -> Trouble {
        if let Some(after_ms) = error.throttled_ms() {
            return Trouble::Throttled { after_ms };
        }
        if error.outcome_unknown() {
            self.metrics.lost.inc();
            tracing::warn!(error = %error.chain(), "A write has no answer; reading what became of it");
            return Trouble::Lost;
        }
        Trouble::Refused
    }
}

enum Trouble {
    Throttled { after_ms: u64 },
    Lost,
    Refused,
}

/// Removes entries of a list in one patch. First every entry is tested, then they go from the end, so that each index is
/// the one it had.
fn removals(entries: &[(usize, String)]) -> Vec<Value> {
    let path = |index: usize| format!("/spec/reservations/{index}");
    let test = |(index, uid): &(usize, String)| json!({ "op": "test", "path": format!("{}/podUID", path(*index)), "value": uid });
    let mut indices: Vec<usize> = entries.iter().map(|(index, _)| *index).collect();
    indices.sort_unstable_by(|a, b| b.cmp(a));
    let removal = |index| json!({ "op": "remove", "path": path(index) });
    entries.iter().map(test).chain(indices.into_iter().map(removal)).collect()
}

fn managed(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

/// A failed `test` of a JSON patch is a 422 without causes; an object that breaks its schema has a cause for each field.
fn is_failed_test(error: &ApiError) -> bool {
    let bare = |status: &kube::core::Status| status.details.as_ref().is_none_or(|details| details.causes.is_empty());
    error.is_invalid() && error.status().is_some_and(bare)
}

fn binding(
    pod: &PodRef,
    node: &str,
    resource_version: &str,
    placement: Option<&Reservation>,
) -> Result<Binding, serde_json::Error> {
    let annotation = |held: &Reservation| serde_json::to_string(&annotation_of(held));
    let annotations = match placement {
        Some(held) => Some([(keys::PLACEMENT_ANNOTATION.to_owned(), annotation(held)?)].into()),
        None => None,
    };
    Ok(Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            resource_version: Some(resource_version.to_owned()),
            annotations,
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some(Node::kind(&()).into_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    })
}
