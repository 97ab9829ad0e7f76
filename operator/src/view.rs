//! What the house knows at one moment, for those who write status, scale pools or are asked. Immutable and cheap to clone.
use crate::book::PodsOfNamespace;
use crate::objects::Objects;
use fairlead_cluster::Snapshot;
use fairlead_fairshare::protocol::{Trouble, Uid};
use fairlead_fairshare::{ResourceVector, Waiting};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One tenant as the last plan saw it.
#[derive(Clone, Debug, Default)]
pub struct TenantFacts {
    /// Its release protocol is ready and the size of all that counts is known.
    pub ready: bool,
    /// What keeps the protocol from being ready.
    pub trouble: Option<Trouble>,
    /// Epoch of the ledger.
    pub epoch: u64,
    /// Requests of all that counts.
    pub used: ResourceVector,
    /// Number of pods that count.
    pub released_pods: usize,
    /// Hard limits.
    pub hard: ResourceVector,
    /// Part of the cluster by weight.
    pub base: ResourceVector,
    /// Part of the cluster by weight, demand and limits.
    pub entitled: ResourceVector,
    /// Pods behind the gate that are not being released.
    pub waiting: usize,
    /// Creation of the oldest of them, milliseconds since the Unix epoch.
    pub oldest_waiting_ms: Option<u64>,
    /// Releases under way.
    pub in_flight: usize,
    /// Pods that count and that the watch still shows behind the gate.
    pub releasing: BTreeSet<Uid>,
    /// Waiting pods by reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct View {
    /// This process leads.
    pub leading: bool,
    /// In which term.
    pub term: u64,
    /// All that releases, labels and tenants depend on was listed, and in this term.
    pub synced: bool,
    /// So were all pools and all autoscalers: before, nobody can say that a target has no other writer (I10).
    pub rivals_synced: bool,
    /// The cluster.
    pub snapshot: Arc<Snapshot>,
    /// What the tenants share.
    pub total: ResourceVector,
    /// The tenants.
    pub tenants: BTreeMap<String, TenantFacts>,
    /// Pods that stay behind the gate, by the last plan.
    pub waiting: Arc<Vec<Waiting>>,
    /// Pods by namespace.
    pub pods: BTreeMap<String, Arc<PodsOfNamespace>>,
    /// Our kinds and what else is watched.
    pub objects: Objects,
}

impl View {
    /// Nothing known yet.
    #[must_use]
    pub fn empty(snapshot: Arc<Snapshot>) -> Self {
        Self {
            leading: false,
            term: 0,
            synced: false,
            rivals_synced: false,
            snapshot,
            total: ResourceVector::new(),
            tenants: BTreeMap::new(),
            waiting: Arc::default(),
            pods: BTreeMap::new(),
            objects: Objects::default(),
        }
    }

    /// For `/debug/dump`: what is shared, what each tenant holds, and every pod that waits with its reason.
    #[must_use]
    pub fn dump(&self) -> Value {
        let tenants = self.tenants.iter().map(|(name, facts)| {
            let entry = json!({
                "ready": facts.ready,
                "trouble": facts.trouble.map(|trouble| format!("{trouble:?}")),
                "epoch": facts.epoch,
                "used": facts.used,
                "hard": facts.hard,
                "base": facts.base,
                "entitled": facts.entitled,
                "releasedPods": facts.released_pods,
                "waitingPods": facts.waiting,
                "inFlight": facts.in_flight,
                "reasons": facts.reasons,
                "namespaces": self.snapshot.tenants.get(name).map(|tenant| tenant.namespaces.clone()),
            });
            (name.clone(), entry)
        });
        let waiting = self
            .waiting
            .iter()
            .map(|waiting| json!({ "tenant": waiting.tenant, "uid": waiting.uid, "reason": waiting.reason.as_str() }));
        let nodes = self.snapshot.nodes.iter().map(|node| {
            json!({ "name": node.name, "ready": node.ready, "unschedulable": node.unschedulable,
                "allocatable": node.allocatable, "requested": node.requested, "unmanaged": node.unmanaged })
        });
        json!({
            "leading": self.leading,
            "term": self.term,
            "synced": self.synced,
            "rivalsSynced": self.rivals_synced,
            "total": self.total,
            "free": self.snapshot.free(),
            "tenants": Value::Object(tenants.collect()),
            "waiting": waiting.collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }

    /// Pools may be judged: as leader, and by what was listed in this term.
    #[must_use]
    pub fn may_scale(&self) -> bool {
        self.leading && self.synced && self.rivals_synced
    }

    /// The tenant of a namespace, by the TenantQuotas.
    #[must_use]
    pub fn tenant_of(&self, namespace: &str) -> Option<(&str, &TenantFacts)> {
        let name = self.snapshot.tenant_of_namespace(namespace)?;
        self.tenants.get_key_value(name).map(|(name, facts)| (name.as_str(), facts))
    }
}
