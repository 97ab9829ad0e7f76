//! WorkerPools as far as placements are decided by them: which pods are theirs, and what those wish.
use crate::fields::created_ms;
use crate::selector::Selector;
use fairlead_crds::{TopologyWish, WorkerPool};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A WorkerPool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Name; unique in its namespace.
    pub name: String,
    /// Creation, ms since the Unix epoch.
    pub created_ms: u64,
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
            selector_text,
            pool.spec.topology.clone().unwrap_or_default(),
        )
    }

    pub(crate) fn new(name: String, created_ms: u64, selector_text: Option<String>, wish: TopologyWish) -> Self {
        let selector = selector_text.as_deref().and_then(|text| Selector::parse(text).ok().flatten());
        Self { name, created_ms, selector_text, wish, selector }
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
        let selects = |pool: &&Arc<PoolView>| pool.selector.as_ref().is_some_and(|selector| selector.selects(labels));
        self.by_namespace.get(namespace)?.iter().find(selects)
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
