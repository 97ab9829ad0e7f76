//! Carries the requests of the release protocol to the API and their answers back. Every request is answered exactly
//! once, also when nothing came back.
use super::errand::{Errand, Place, Report};
use super::failure_of;
use super::lanes::Lanes;
use super::patch::{self, LedgerOwner};
use super::refusals::Words;
use crate::book::PodNote;
use crate::clock::now_ms;
use crate::metrics::{OperatorMetrics, Stage};
use fairlead_crds::tenant_ledger::Intent as LedgerIntent;
use fairlead_crds::{TenantLedger, keys};
use fairlead_fairshare::protocol::{Event, Failure, Intent, Ledger, PodList, PodView, Uid, Version, parse_version};
use fairlead_runtime::{API_DEADLINE, ApiError, LeaseState, deadline};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

/// Objects per page of the consistent list.
const PAGE: u32 = 500;

/// Carries errands; cheap to clone.
#[derive(Clone)]
pub struct Courier {
    client: Client,
    holder: String,
    lease: watch::Receiver<LeaseState>,
    /// Bounds the writes on pods that are under way at once.
    lanes: Lanes,
    metrics: OperatorMetrics,
}

impl Courier {
    /// A courier that signs ledgers as `holder` and has at most `concurrency` writes on pods under way.
    #[must_use]
    pub fn new(
        client: Client,
        holder: String,
        lease: watch::Receiver<LeaseState>,
        concurrency: usize,
        metrics: OperatorMetrics,
    ) -> Self {
        Self { client, holder, lease, lanes: Lanes::new(concurrency), metrics }
    }

    /// Who may have how many writes on pods under way.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Carries one errand out.
    pub async fn carry(&self, errand: Errand) -> Report {
        match errand {
            Errand::ReadLedger { round, tenant } => match self.read_ledger(&tenant).await {
                Ok((ledger, places)) => report(tenant, Event::LedgerRead { round, result: Ok(ledger) }, places),
                Err(failure) => report(tenant, Event::LedgerRead { round, result: Err(failure) }, Vec::new()),
            },
            Errand::WriteLedger { round, owner, expect, epoch, intents } => {
                let result = self.write_ledger(&owner, expect, epoch, &intents).await;
                if result == Err(Failure::Conflict) {
                    self.metrics.ledger_conflicts.inc();
                }
                report(owner.name, Event::LedgerWritten { round, result }, Vec::new())
            }
            Errand::ListPods { round, tenant, namespaces, strays } => match self.list(&namespaces, &strays).await {
                Ok((list, places)) => report(tenant, Event::Listed { round, result: Ok(list) }, places),
                Err(failure) => report(tenant, Event::Listed { round, result: Err(failure) }, Vec::new()),
            },
            Errand::Ungate { tenant, uid, place, version, epoch } => {
                let (result, words) = match place {
                    Some(place) => self.ungate(&tenant, &uid, &place, version, epoch).await,
                    None => (Err(Failure::NotFound), None),
                };
                let refusal = words.map(|words| (uid.clone(), words));
                Report { refusal, ..report(tenant, Event::Ungated { uid, result }, Vec::new()) }
            }
            Errand::Touch { tenant, uid, place, epoch } => {
                let result = match place {
                    Some(place) => self.touch(&tenant, &uid, &place, epoch).await,
                    None => Err(Failure::NotFound),
                };
                report(tenant, Event::Touched { uid, result }, Vec::new())
            }
        }
    }

    /// Election is not fencing, but whoever knows that it does not lead need not try.
    fn leads(&self) -> Result<(), Failure> {
        self.lease.borrow().term_now().map(drop).ok_or(Failure::Forbidden)
    }

    async fn read_ledger(&self, tenant: &str) -> Result<(Option<Ledger>, Vec<(Uid, Place)>), Failure> {
        let api: Api<TenantLedger> = Api::all(self.client.clone());
        let found = deadline("read TenantLedger", API_DEADLINE, api.get_opt(tenant)).await;
        let Some(found) = found.map_err(|error| told(&error))? else { return Ok((None, Vec::new())) };
        let version = version_of(found.metadata.resource_version.as_deref())?;
        let epoch = u64::try_from(found.spec.epoch).map_err(|_| Failure::Forbidden)?;
        let mut places = Vec::new();
        let mut intents = Vec::new();
        for LedgerIntent { pod_uid, namespace, name, resource_version } in found.spec.intents {
            let uid: Uid = pod_uid.into();
            intents.push(Intent { uid: uid.clone(), version: version_of(Some(&resource_version))? });
            places.push((uid, Place { namespace, name }));
        }
        Ok((Some(Ledger { version, epoch, intents }), places))
    }

    async fn write_ledger(
        &self,
        owner: &LedgerOwner,
        expect: Option<Version>,
        epoch: u64,
        intents: &[LedgerIntent],
    ) -> Result<Version, Failure> {
        self.leads()?;
        let _timer = self.metrics.stage(Stage::Ledger);
        let api: Api<TenantLedger> = Api::all(self.client.clone());
        let written = match expect {
            Some(version) => {
                let body = Patch::Merge(patch::ledger(version, epoch, &self.holder, intents));
                let params =
                    PatchParams { field_manager: Some(keys::manager::LEDGER.into()), ..PatchParams::default() };
                deadline("write TenantLedger", API_DEADLINE, api.patch(&owner.name, &params, &body)).await
            }
            None => {
                let body: TenantLedger = serde_json::from_value(patch::new_ledger(owner, epoch, &self.holder, intents))
                    .map_err(|_| Failure::Forbidden)?;
                let params = PostParams { field_manager: Some(keys::manager::LEDGER.into()), ..PostParams::default() };
                deadline("create TenantLedger", API_DEADLINE, api.create(&params, &body)).await
            }
        };
        version_of(written.map_err(|error| told(&error))?.metadata.resource_version.as_deref())
    }

    /// The list's version is the smallest of those of the namespaces: what is newer will still come by the watch.
    async fn list(
        &self,
        namespaces: &[String],
        strays: &BTreeMap<Uid, String>,
    ) -> Result<(PodList, Vec<(Uid, Place)>), Failure> {
        let mut list = PodList { version: Version::MAX, pods: Vec::new() };
        let mut places = Vec::new();
        let foreign: BTreeSet<&String> = strays.values().collect();
        for namespace in namespaces.iter().chain(foreign.iter().copied()) {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let mut params = ListParams::default().limit(PAGE);
            loop {
                let page = deadline("list Pods", API_DEADLINE, api.list(&params)).await.map_err(|e| told(&e))?;
                list.version = list.version.min(version_of(page.metadata.resource_version.as_deref())?);
                for pod in &page.items {
                    let note = PodNote::of(pod).map_err(|error| {
                        tracing::error!(%error, "A pod cannot be taken into account");
                        Failure::Forbidden
                    })?;
                    if foreign.contains(namespace) && !strays.contains_key(&note.uid) {
                        continue;
                    }
                    places.push((note.uid.clone(), Place { namespace: note.namespace, name: note.name }));
                    list.pods.push((note.uid, note.view));
                }
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params.continue_token = Some(token),
                    None => break,
                }
            }
        }
        if list.version == Version::MAX {
            list.version = 0;
        }
        Ok((list, places))
    }

    async fn ungate(
        &self,
        tenant: &str,
        uid: &Uid,
        place: &Place,
        version: Version,
        epoch: u64,
    ) -> (Result<PodView, Failure>, Option<Words>) {
        let body = patch::ungate(uid, version, epoch, now_ms());
        let pod = match self.write_pod(tenant, "remove the gate of Pod", Some(Stage::Gate), place, &body).await {
            Ok(Ok(pod)) => pod,
            Ok(Err(error)) => return (Err(told(&error)), Words::of(&error)),
            Err(failure) => return (Err(failure), None),
        };
        let note = note_of(&pod);
        if let Ok(note) = &note {
            self.metrics.released(tenant, now_ms().saturating_sub(note.created_ms));
        }
        (note.map(|note| note.view), None)
    }

    /// A write on a pod in its tenant's lane, by who still leads. A busy server is waited for, outside of the lanes, and
    /// says nothing about the tenant. It has done nothing where it refused for certain: then a later try is the only one
    /// that can take effect, as if it had been slow to arrive. Otherwise only the protocol may send again.
    async fn write_pod(
        &self,
        tenant: &str,
        operation: &'static str,
        stage: Option<Stage>,
        place: &Place,
        body: &Value,
    ) -> Result<Result<Pod, ApiError>, Failure> {
        let lane = self.lanes.of(tenant);
        let mut patience = API_DEADLINE;
        loop {
            let written = {
                let _permit = self.lanes.enter(&lane).await;
                self.leads()?;
                let _timer = stage.map(|stage| self.metrics.stage(stage));
                self.patch(operation, place, keys::manager::RELEASE, body, false).await
            };
            let Some((error, asked_ms)) = written.as_ref().err().and_then(|e| Some((e, e.throttled_ms()?))) else {
                let failed = |error: &ApiError| matches!(failure_of(error), Failure::Forbidden | Failure::Lost);
                lane.told(written.as_ref().is_err_and(failed));
                return Ok(written);
            };
            let asked = Duration::from_millis(asked_ms);
            let pause = asked.min(patience);
            tokio::time::sleep(pause).await;
            patience -= pause;
            if pause < asked || error.outcome_unknown() {
                return Ok(written);
            }
        }
    }

    async fn touch(&self, tenant: &str, uid: &Uid, place: &Place, epoch: u64) -> Result<PodView, Failure> {
        let body = patch::touch(uid, epoch, now_ms());
        let error = match self.write_pod(tenant, "touch Pod", None, place, &body).await? {
            Ok(pod) => return Ok(note_of(&pod)?.view),
            Err(error) => error,
        };
        if !error.is_conflict() && !error.is_invalid() {
            return Err(told(&error));
        }
        // The patch carries a UID only: refused means that another pod has the name now, or that the server is busy.
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &place.namespace);
        match deadline("read Pod", API_DEADLINE, api.get_opt(&place.name)).await {
            Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(uid) => Err(Failure::Conflict),
            Ok(_) => Err(Failure::NotFound),
            Err(error) => Err(told(&error)),
        }
    }

    /// Patches a pod, or its status.
    ///
    /// # Errors
    /// As the API says.
    pub async fn patch(
        &self,
        operation: &'static str,
        place: &Place,
        manager: &str,
        body: &Value,
        status: bool,
    ) -> Result<Pod, ApiError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &place.namespace);
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        let body = Patch::Strategic(body);
        if status {
            deadline(operation, API_DEADLINE, api.patch_status(&place.name, &params, &body)).await
        } else {
            deadline(operation, API_DEADLINE, api.patch(&place.name, &params, &body)).await
        }
    }
}

fn report(tenant: String, event: Event, places: Vec<(Uid, Place)>) -> Report {
    Report { tenant, event, places, refusal: None }
}

fn version_of(text: Option<&str>) -> Result<Version, Failure> {
    parse_version(text.unwrap_or_default()).map_err(|error| {
        tracing::error!(%error, "Nothing can be released");
        Failure::Forbidden
    })
}

/// The write was done; a pod that cannot be read leaves open what it is now.
fn note_of(pod: &Pod) -> Result<PodNote, Failure> {
    PodNote::of(pod).map_err(|error| {
        tracing::error!(%error, "A pod cannot be taken into account");
        Failure::Lost
    })
}

fn told(error: &ApiError) -> Failure {
    let failure = failure_of(error);
    match failure {
        Failure::Conflict | Failure::NotFound => tracing::debug!(error = %error.chain(), "Release step"),
        Failure::Forbidden | Failure::Lost => tracing::warn!(error = %error.chain(), "Release step failed"),
    }
    failure
}
