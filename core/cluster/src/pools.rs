//! WorkerPools as far as placements are decided by them: which pods are theirs, and what those wish.
use crate::fields::created_ms;
use crate::pod::Owner;
use crate::selector::Selector;
use fairlead_crds::worker_pool::ScaleTargetRef;
use fairlead_crds::{TopologyWish, WorkerPool};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Label by which the controller of Deployments tells the pods of its ReplicaSets apart, and the end of their names.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// A WorkerPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Name; unique in its namespace.
    pub name: String,
    /// Creation, ms since the Unix epoch.
    pub created_ms: u64,
    /// `spec.scaleTargetRef`.
    pub target: ScaleTargetRef,
    /// `status.selector` as it is written.
    pub selector_text: Option<String>,
    /// `spec.topology`.
    pub wish: TopologyWish,
    /// None: it selects no pod, because the operator has not read it yet, or because it cannot be read.
    selector: Option<Selector>,
}

impl PoolView {
    pub(crate) fn of(pool: &WorkerPool) -> Self {
        let selector_text = pool.status.as_ref().and_then(|status| status.selector.clone());
        Self::new(
            pool.metadata.name.clone().unwrap_or_default(),
            created_ms(&pool.metadata),
            pool.spec.scale_target_ref.clone(),
            selector_text,
            pool.spec.topology.clone().unwrap_or_default(),
        )
    }

    pub(crate) fn new(
        name: String,
        created_ms: u64,
        target: ScaleTargetRef,
        selector_text: Option<String>,
        wish: TopologyWish,
    ) -> Self {
        let selector = selector_text.as_deref().and_then(|text| Selector::parse(text).ok().flatten());
        Self { name, created_ms, target, selector_text, wish, selector }
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.selects(labels))
    }

    /// Whether the pod's controller is the target, or one that the target may have made: a Deployment's ReplicaSet carries
    /// the hash that its pods have as a label, and controllers at large name what they make after themselves.
    fn may_make(&self, labels: &BTreeMap<String, String>, owner: &Owner) -> bool {
        let ScaleTargetRef { kind, name, .. } = &self.target;
        if owner.kind == *kind {
            return owner.name == *name;
        }
        let Some(suffix) = owner.name.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('-')) else {
            return false;
        };
        kind != "Deployment" || labels.get(TEMPLATE_HASH_LABEL).is_none_or(|hash| hash == suffix)
    }
}

/// All WorkerPools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// By namespace, the oldest first, then by name.
    by_namespace: BTreeMap<String, Vec<Arc<PoolView>>>,
}

impl Pools {
    /// The pool of a pod with these labels: of several the oldest, then the first by name.
    #[must_use]
    pub fn of_pod(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Arc<PoolView>> {
        self.by_namespace.get(namespace)?.iter().find(|pool| pool.selects(labels))
    }

    /// A pool that wishes something and may be the pod's, before the one that [`Pools::of_pod`] finds: nobody knows which pods
    /// are its own, and the pod's controller seems to be its target's.
    #[must_use]
    pub fn unread_of_pod(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        owner: Option<&Owner>,
    ) -> Option<&Arc<PoolView>> {
        let (owner, no_wish) = (owner?, TopologyWish::default());
        let before = self.by_namespace.get(namespace)?.iter().take_while(|pool| !pool.selects(labels));
        let mut unread = before.filter(|pool| pool.selector.is_none() && pool.wish != no_wish);
        unread.find(|pool| pool.may_make(labels, owner))
    }

    /// Namespace and pool, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<PoolView>)> {
        self.by_namespace.iter().flat_map(|(namespace, pools)| pools.iter().map(|pool| (namespace.as_str(), pool)))
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&PoolView> {
        self.by_namespace.get(namespace)?.iter().find(|pool| pool.name == name).map(|pool| &**pool)
    }

    /// Sets or removes a pool.
    pub(crate) fn set(&mut self, namespace: &str, name: &str, pool: Option<PoolView>) {
        let pools = self.by_namespace.entry(namespace.to_owned()).or_default();
        pools.retain(|known| known.name != name);
        if let Some(pool) = pool {
            let at = pools.partition_point(|other| (other.created_ms, &other.name) < (pool.created_ms, &pool.name));
            pools.insert(at, Arc::new(pool));
        }
        if pools.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }
}
