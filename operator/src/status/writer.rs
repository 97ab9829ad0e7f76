//! The one writer of namespace labels and of the status of TenantQuotas and NodeTopologies: looks at each new view, at most
//! once a second, and writes what differs.
use super::{apply_body, quota, topology};
use crate::clock::now_ms;
use crate::namespaces;
use crate::view::View;
use fairlead_crds::keys::{condition, manager};
use fairlead_crds::{NodeTopology, NodeTopologyStatus, TenantQuota, TenantQuotaStatus};
use fairlead_runtime::{API_DEADLINE, ApiError, EventRecorder, Fact, LeaseState, Pulse, Severity, deadline};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Least time between two rounds: numbers move faster than anybody reads them.
const PERIOD: Duration = Duration::from_secs(1);
/// Labels are what admission waits for: they are looked at more often.
const LABEL_PERIOD: Duration = Duration::from_millis(100);
/// The loop beats at least this often, or it is stuck.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Time between two beats while there is no new view.
const BEAT: Duration = Duration::from_secs(5);
/// A status that was written and does not show yet is not written again before.
const PATIENCE_MS: u64 = 5_000;

/// What was written of one object: its UID, the status, and when.
type Written<S> = BTreeMap<String, (Option<String>, S, u64)>;

/// The writer.
pub struct Writer {
    client: Client,
    view: watch::Receiver<Arc<View>>,
    lease: watch::Receiver<LeaseState>,
    events: EventRecorder,
    pulse: Pulse,
    quotas: Written<TenantQuotaStatus>,
    topologies: Written<NodeTopologyStatus>,
}

impl Writer {
    /// Writes what the views say while this process leads.
    #[must_use]
    pub fn new(
        client: Client,
        view: watch::Receiver<Arc<View>>,
        lease: watch::Receiver<LeaseState>,
        events: EventRecorder,
        pulse: Pulse,
    ) -> Self {
        Self { client, view, lease, events, pulse, quotas: BTreeMap::new(), topologies: BTreeMap::new() }
    }

    /// Runs until `shutdown`; a write that is under way is finished.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut next_status = tokio::time::Instant::now();
        loop {
            self.pulse.beat();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = self.view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BEAT) => continue,
            }
            let view = self.view.borrow_and_update().clone();
            if view.synced && self.leads(&view) {
                self.labels(&view).await;
                if tokio::time::Instant::now() >= next_status {
                    next_status = tokio::time::Instant::now() + PERIOD;
                    self.quotas(&view).await;
                    self.topologies(&view).await;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LABEL_PERIOD) => {}
            }
        }
    }

    fn leads(&self, view: &View) -> bool {
        self.lease.borrow().term_now() == Some(view.term)
    }

    async fn labels(&self, view: &View) {
        for change in namespaces::changes(view) {
            self.pulse.beat();
            match namespaces::write(&self.client, &change).await {
                Ok(()) => tracing::info!(namespace = change.namespace, tenant = change.tenant, "Labelled a namespace"),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => tracing::warn!(namespace = change.namespace, error = %error.chain(), "Not labelled"),
            }
        }
    }

    async fn quotas(&mut self, view: &View) {
        self.quotas.retain(|name, _| view.objects.quotas.contains_key(name));
        for (name, object) in view.objects.quotas.iter() {
            self.pulse.beat();
            let now_ms = now_ms();
            let Some(wanted) = quota::wanted(view, object, now_ms) else { continue };
            if object.status.as_ref() == Some(&wanted) || patient(&self.quotas, name, object.as_ref(), &wanted, now_ms)
            {
                continue;
            }
            self.tell_claims(object, &wanted);
            let params = params(manager::QUOTA_STATUS);
            let uid = object.metadata.uid.clone();
            let body = apply_body("TenantQuota", None, name, uid.as_deref(), &wanted);
            if written(apply::<TenantQuota>(&self.client, name, &params, &body).await, "TenantQuota", name) {
                self.quotas.insert(name.clone(), (uid, wanted, now_ms));
            }
        }
    }

    async fn topologies(&mut self, view: &View) {
        self.topologies.retain(|name, _| view.objects.topologies.contains_key(name));
        for (name, object) in view.objects.topologies.iter() {
            self.pulse.beat();
            // Judged once for each generation.
            if object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation) {
                continue;
            }
            let now_ms = now_ms();
            let wanted = topology::wanted(object, now_ms);
            if patient(&self.topologies, name, object.as_ref(), &wanted, now_ms) {
                continue;
            }
            let params = params(manager::TOPOLOGY_STATUS);
            let uid = object.metadata.uid.clone();
            let body = apply_body("NodeTopology", None, name, uid.as_deref(), &wanted);
            if written(apply::<NodeTopology>(&self.client, name, &params, &body).await, "NodeTopology", name) {
                self.topologies.insert(name.clone(), (uid, wanted, now_ms));
            }
        }
    }

    /// A claim that was refused, or a field that cannot be read, is an event when it begins.
    fn tell_claims(&self, object: &TenantQuota, wanted: &TenantQuotaStatus) {
        let ready =
            |status: &TenantQuotaStatus| status.conditions.iter().find(|c| c.type_ == condition::READY).cloned();
        let (Some(now), before) = (ready(wanted), object.status.as_ref().and_then(ready)) else { return };
        let same =
            before.is_some_and(|before| (before.status, before.reason) == (now.status.clone(), now.reason.clone()));
        if now.status != "False" || same {
            return;
        }
        self.events.record(Fact {
            regarding: reference(object, "TenantQuota"),
            severity: Severity::Warning,
            reason: now.reason,
            action: "JudgeQuota".to_owned(),
            message: now.message,
        });
    }
}

/// The object an event is about.
pub fn reference<K: Resource>(object: &K, kind: &str) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(format!("{}/{}", fairlead_crds::keys::GROUP, fairlead_crds::keys::VERSION)),
        kind: Some(kind.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Parameters of an apply on a status that is ours alone.
#[must_use]
pub fn params(manager: &str) -> PatchParams {
    PatchParams { force: true, field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

/// The same was written a moment ago, and the watch has not brought it yet.
fn patient<S: PartialEq, K: Resource>(written: &Written<S>, name: &str, object: &K, wanted: &S, now_ms: u64) -> bool {
    written.get(name).is_some_and(|(uid, status, at_ms)| {
        *uid == object.meta().uid && status == wanted && now_ms.saturating_sub(*at_ms) < PATIENCE_MS
    })
}

async fn apply<K>(client: &Client, name: &str, params: &PatchParams, body: &impl Serialize) -> Result<(), ApiError>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let body = serde_json::to_value(body).unwrap_or_default();
    deadline("write status", API_DEADLINE, api.patch_status(name, params, &Patch::Apply(body))).await.map(drop)
}

fn written(result: Result<(), ApiError>, kind: &str, name: &str) -> bool {
    match result {
        Ok(()) => true,
        // Deleted, or created anew, since the view was made.
        Err(error) if error.is_not_found() || error.is_conflict() => false,
        Err(error) => {
            tracing::warn!(kind, name, error = %error.chain(), "Status was not written");
            false
        }
    }
}
