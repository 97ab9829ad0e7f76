//! The one writer of namespace labels and of the status of TenantQuotas and NodeTopologies: looks at each new view, at most
//! once a second, and writes what differs.
use super::patience::Patience;
use super::{apply_body, ours, quota, topology};
use crate::clock::Clock;
use crate::metrics::OperatorMetrics;
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

/// By name; what was written of one object: its UID and the status.
type Written<S> = Patience<String, (Option<String>, S)>;

/// The writer.
pub struct Writer {
    client: Client,
    view: watch::Receiver<Arc<View>>,
    lease: watch::Receiver<LeaseState>,
    events: EventRecorder,
    metrics: OperatorMetrics,
    pulse: Pulse,
    clock: Clock,
    labels: Patience<String, namespaces::Change>,
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
        metrics: OperatorMetrics,
        pulse: Pulse,
    ) -> Self {
        let (labels, quotas, topologies) = (Patience::default(), Patience::default(), Patience::default());
        Self { client, view, lease, events, metrics, pulse, clock: Clock::new(), labels, quotas, topologies }
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
            if view.synced {
                self.metrics.keep_tenants(|tenant| view.objects.quotas.contains_key(tenant));
            }
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

    async fn labels(&mut self, view: &View) {
        self.labels.retain(|namespace| view.objects.namespaces.contains_key(namespace));
        for change in namespaces::changes(view) {
            let now_ms = self.clock.ms();
            if !self.labels.may(&change.namespace, &change, now_ms) {
                continue;
            }
            self.pulse.beat();
            let refused = match namespaces::write(&self.client, &change).await {
                Ok(()) => {
                    tracing::info!(namespace = change.namespace, tenant = change.tenant, "Labelled a namespace");
                    false
                }
                Err(error) if is_outdated(&error) => continue,
                Err(error) => {
                    tracing::warn!(namespace = change.namespace, error = %error.chain(), "Not labelled");
                    true
                }
            };
            self.labels.wrote(change.namespace.clone(), change, refused, now_ms);
        }
    }

    async fn quotas(&mut self, view: &View) {
        self.quotas.retain(|name| view.objects.quotas.contains_key(name));
        for (name, object) in view.objects.quotas.iter() {
            self.pulse.beat();
            let now_ms = self.clock.ms();
            let Some(wanted) = quota::wanted(view, object, self.clock.wall_ms()) else { continue };
            let written = (object.metadata.uid.clone(), wanted);
            if shows(object, &written.1) || !self.quotas.may(name, &written, now_ms) {
                continue;
            }
            self.tell_claims(object, &written.1);
            let params = params(manager::QUOTA_STATUS);
            let body = apply_body("TenantQuota", None, name, written.0.as_deref(), &written.1);
            let answer = apply::<TenantQuota>(&self.client, name, &params, &body).await;
            if let Some(refused) = refused(answer, "TenantQuota", name) {
                self.quotas.wrote(name.clone(), written, refused, now_ms);
            }
        }
    }

    async fn topologies(&mut self, view: &View) {
        self.topologies.retain(|name| view.objects.topologies.contains_key(name));
        for (name, object) in view.objects.topologies.iter() {
            self.pulse.beat();
            // Judged once for each generation.
            if object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation) {
                continue;
            }
            let now_ms = self.clock.ms();
            let written = (object.metadata.uid.clone(), topology::wanted(object, self.clock.wall_ms()));
            if !self.topologies.may(name, &written, now_ms) {
                continue;
            }
            let params = params(manager::TOPOLOGY_STATUS);
            let body = apply_body("NodeTopology", None, name, written.0.as_deref(), &written.1);
            let answer = apply::<NodeTopology>(&self.client, name, &params, &body).await;
            if let Some(refused) = refused(answer, "NodeTopology", name) {
                self.topologies.wrote(name.clone(), written, refused, now_ms);
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

/// What the API server has is what is wanted; conditions of others are theirs.
fn shows(object: &TenantQuota, wanted: &TenantQuotaStatus) -> bool {
    object.status.as_ref().is_some_and(|shown| {
        let conditions = ours(&shown.conditions, &wanted.conditions);
        TenantQuotaStatus { conditions, ..shown.clone() } == *wanted
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

/// Deleted, or created anew, since the view was made.
fn is_outdated(error: &ApiError) -> bool {
    error.is_not_found() || error.is_conflict()
}

/// Whether the write was refused; `None` for an object that is another by now.
fn refused(result: Result<(), ApiError>, kind: &str, name: &str) -> Option<bool> {
    match result {
        Ok(()) => Some(false),
        Err(error) if is_outdated(&error) => None,
        Err(error) => {
            tracing::warn!(kind, name, error = %error.chain(), "Status was not written");
            Some(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_of_somebody_else_is_no_difference() {
        let condition = |type_: &str, reason: &str| {
            json!({"type": type_, "status": "True", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let quota = |conditions: serde_json::Value| -> TenantQuota {
            serde_json::from_value(json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
                "metadata": {"name": "acme"}, "spec": {"namespaces": ["a"]}, "status": {"conditions": conditions}}))
            .unwrap()
        };
        let wanted = quota(json!([condition("Ready", "AsExpected")])).status.unwrap();
        assert!(shows(&quota(json!([condition("Foreign", "X"), condition("Ready", "AsExpected")])), &wanted));
        assert!(!shows(&quota(json!([condition("Foreign", "X"), condition("Ready", "Other")])), &wanted));
        assert!(!shows(&quota(json!([condition("Foreign", "X")])), &wanted));
    }
}
