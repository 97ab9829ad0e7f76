//! One tenant: its limits, what it holds, what it waits for.
use crate::claims::{Claims, Conflict};
use crate::fields::{add, created_ms};
use crate::pod::PodView;
use crate::table::Named;
use fairlead_crds::{TenantQuota, TenantQuotaSpec};
use fairlead_fairshare::{PODS, PendingPod, ResourceVector, TenantInput, capped_demand, first_refusal};
use std::sync::Arc;

/// A TenantQuota as far as anything is decided by it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuotaFacts {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) created_ms: u64,
    pub(crate) spec: TenantQuotaSpec,
}

impl Eq for QuotaFacts {}

impl QuotaFacts {
    pub(crate) fn of(quota: &TenantQuota) -> Self {
        Self {
            uid: quota.metadata.uid.clone().unwrap_or_default(),
            generation: quota.metadata.generation.unwrap_or(0),
            created_ms: created_ms(&quota.metadata),
            spec: quota.spec.clone(),
        }
    }

    /// The hard limits that can be read, and the first fault.
    fn limits(&self) -> (ResourceVector, Option<String>) {
        let mut hard = ResourceVector::new();
        let mut fault = None;
        let mut note = |text: String| {
            fault.get_or_insert(text);
        };
        for (resource, text) in self.spec.resources.iter().flat_map(|resources| &resources.hard) {
            let read = if resource == crate::fields::CPU { text.milli() } else { text.units() };
            match read {
                Ok(amount) => {
                    hard.insert(resource.clone(), amount);
                }
                Err(error) => note(format!("spec.resources.hard[{resource}]: {error}")),
            }
        }
        if let Some(concurrency) = &self.spec.concurrency {
            match u64::try_from(concurrency.hard) {
                Ok(pods) => {
                    hard.insert(PODS.to_owned(), pods);
                }
                Err(_) => note(format!("spec.concurrency.hard: {} is negative; the least is 0", concurrency.hard)),
            }
        }
        if self.spec.weight < 1 {
            note(format!("spec.weight: {} is too small; the least is 1", self.spec.weight));
        }
        (hard, fault)
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantView {
    /// Name of its TenantQuota.
    pub name: String,
    /// UID of it.
    pub uid: String,
    /// `metadata.generation` of it.
    pub generation: i64,
    /// Weight, at least 1; 1 where it cannot be read.
    pub weight: u64,
    /// Hard limits that can be read; `pods` is the one on concurrency.
    pub hard: ResourceVector,
    /// Its namespaces, ascending; whether they exist or not.
    pub namespaces: Vec<String>,
    /// Namespaces it names and does not get.
    pub conflicts: Vec<Conflict>,
    /// Requests of its released, live pods, `pods` included.
    pub used: ResourceVector,
    /// What it asks for of each resource, capped by what its hard limits can ever admit: what it uses, and what its waiting
    /// pods request that these limits do not refuse for good.
    pub demand: ResourceVector,
    /// The part of `used` that is not bound to a node yet.
    pub unbound: ResourceVector,
    /// Its released, live pods, oldest first.
    pub released: Vec<Arc<PodView>>,
    /// Its pods behind the gate, oldest first.
    pub waiting: Vec<Arc<PodView>>,
    /// Creation of the oldest that waits, ms since the Unix epoch.
    pub oldest_waiting_ms: Option<u64>,
    /// What of the TenantQuota cannot be read, naming the field: nothing may be released until it is repaired.
    pub error: Option<String>,
}

impl Named for TenantView {
    fn name(&self) -> &str {
        &self.name
    }
}

impl TenantView {
    pub(crate) fn build(
        name: &str,
        quota: &QuotaFacts,
        claims: &Claims,
        pods: impl Iterator<Item = Arc<PodView>>,
    ) -> Self {
        let (hard, error) = quota.limits();
        let mut view = Self {
            name: name.to_owned(),
            uid: quota.uid.clone(),
            generation: quota.generation,
            weight: u64::try_from(quota.spec.weight).unwrap_or(1).max(1),
            hard,
            namespaces: claims.namespaces_of(name),
            conflicts: claims.conflicts_of(name),
            used: ResourceVector::new(),
            demand: ResourceVector::new(),
            unbound: ResourceVector::new(),
            released: Vec::new(),
            waiting: Vec::new(),
            oldest_waiting_ms: None,
            error,
        };
        for pod in pods.filter(|pod| !pod.terminal) {
            if pod.quota_gated {
                view.waiting.push(pod);
                continue;
            }
            add(&mut view.used, &pod.request);
            if pod.node.is_none() {
                add(&mut view.unbound, &pod.request);
            }
            view.released.push(pod);
        }
        for list in [&mut view.released, &mut view.waiting] {
            list.sort_by(|a, b| (a.created_ms, &a.id.uid).cmp(&(b.created_ms, &b.id.uid)));
        }
        view.demand = view.asked();
        view.oldest_waiting_ms = view.waiting.first().map(|pod| pod.created_ms);
        view
    }

    fn asked(&self) -> ResourceVector {
        let mut demand = self.used.clone();
        let hopeless =
            |pod: &PodView| first_refusal(&self.hard, &self.used, &pod.request).is_some_and(|refusal| refusal.never);
        for pod in self.waiting.iter().filter(|pod| !pod.deleting && !hopeless(pod)) {
            add(&mut demand, &pod.request);
        }
        for (resource, amount) in &mut demand {
            *amount = capped_demand(resource, self.hard.get(resource).copied(), *amount);
        }
        demand
    }

    /// Its weight in shares; a tenant whose TenantQuota cannot be read is entitled to nothing.
    pub(crate) fn share_weight(&self) -> u64 {
        if self.error.is_some() { 0 } else { self.weight }
    }

    /// The waiting pods as the order of release wants them. A pod that is being deleted is left out: it will never run.
    #[must_use]
    pub fn pending(&self) -> Vec<PendingPod> {
        self.waiting.iter().filter(|pod| !pod.deleting).map(|pod| pod.pending()).collect()
    }

    /// The tenant as the order of release wants it, from the pods alone: intents that are not visible in the pods yet
    /// come on top of `used`.
    #[must_use]
    pub fn input(&self) -> TenantInput {
        TenantInput {
            name: self.name.clone(),
            weight: self.weight,
            hard: self.hard.clone(),
            used: self.used.clone(),
            pending: self.pending(),
        }
    }
}
