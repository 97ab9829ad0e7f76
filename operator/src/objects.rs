//! The watched objects that are no pods and no nodes, kept by name. Cloning shares.
use fairlead_crds::worker_pool::ScaleTargetRef;
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
use fairlead_runtime::WatchEvent;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Namespace and name of a WorkerPool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A scale target, whatever the version of its API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// Namespace.
    pub namespace: String,
    /// API group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl TargetKey {
    /// The target in `namespace` that `api_version`, `kind` and `name` say.
    #[must_use]
    pub fn new(namespace: &str, api_version: &str, kind: &str, name: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self { namespace: namespace.into(), group: group.into(), kind: kind.into(), name: name.into() }
    }

    /// The target of a pool in `namespace`.
    #[must_use]
    pub fn of(namespace: &str, target: &ScaleTargetRef) -> Self {
        Self::new(namespace, &target.api_version, &target.kind, &target.name)
    }
}

/// What a namespace says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceNote {
    /// UID.
    pub uid: String,
    /// Value of our label.
    pub tenant: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
}

/// The maps.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Pools.
    pub pools: Arc<BTreeMap<PoolKey, Arc<WorkerPool>>>,
    /// Quotas, by name.
    pub quotas: Arc<BTreeMap<String, Arc<TenantQuota>>>,
    /// Topologies, by name.
    pub topologies: Arc<BTreeMap<String, Arc<NodeTopology>>>,
    /// Namespaces, by name.
    pub namespaces: Arc<BTreeMap<String, NamespaceNote>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Arc<Autoscalers>,
}

/// HorizontalPodAutoscalers, by their own name: several may have one target, and the target is free only when the last of
/// them is gone.
#[derive(Clone, Debug, Default)]
pub struct Autoscalers {
    /// Namespace and name to target.
    targets: BTreeMap<(String, String), TargetKey>,
    /// The same the other way round: names in the target's namespace.
    names: BTreeMap<TargetKey, BTreeSet<String>>,
}

impl Autoscalers {
    /// The autoscaler of a target, the first by name if it has several.
    #[must_use]
    pub fn of(&self, target: &TargetKey) -> Option<&str> {
        self.names.get(target)?.first().map(String::as_str)
    }

    fn put(&mut self, hpa: &HorizontalPodAutoscaler) {
        // Its target may have been edited: the old one goes first.
        self.remove(hpa);
        let (Some(namespace), Some(name)) = (&hpa.metadata.namespace, &hpa.metadata.name) else { return };
        let Some(target) = hpa.spec.as_ref().map(|spec| &spec.scale_target_ref) else { return };
        let version = target.api_version.as_deref().unwrap_or_default();
        let target = TargetKey::new(namespace, version, &target.kind, &target.name);
        self.names.entry(target.clone()).or_default().insert(name.clone());
        self.targets.insert((namespace.clone(), name.clone()), target);
    }

    fn remove(&mut self, hpa: &HorizontalPodAutoscaler) {
        let (Some(namespace), Some(name)) = (&hpa.metadata.namespace, &hpa.metadata.name) else { return };
        let Some(target) = self.targets.remove(&(namespace.clone(), name.clone())) else { return };
        if let Some(names) = self.names.get_mut(&target) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&target);
            }
        }
    }
}

impl Objects {
    /// Takes a change of the pools.
    pub fn pool(&mut self, event: WatchEvent<WorkerPool>) {
        fold(&mut self.pools, event, |pool| {
            let key = PoolKey { namespace: pool.metadata.namespace.clone()?, name: pool.metadata.name.clone()? };
            Some((key, Arc::new(pool)))
        });
    }

    /// Takes a change of the quotas.
    pub fn quota(&mut self, event: WatchEvent<TenantQuota>) {
        fold(&mut self.quotas, event, |quota| Some((quota.metadata.name.clone()?, Arc::new(quota))));
    }

    /// Takes a change of the topologies.
    pub fn topology(&mut self, event: WatchEvent<NodeTopology>) {
        fold(&mut self.topologies, event, |topology| Some((topology.metadata.name.clone()?, Arc::new(topology))));
    }

    /// Takes a change of the namespaces.
    pub fn namespace(&mut self, event: WatchEvent<Namespace>) {
        fold(&mut self.namespaces, event, |namespace| {
            let meta = namespace.metadata;
            let tenant = meta.labels.as_ref().and_then(|l| l.get(fairlead_crds::keys::TENANT_LABEL)).cloned();
            let note = NamespaceNote { uid: meta.uid?, tenant, deleting: meta.deletion_timestamp.is_some() };
            Some((meta.name?, note))
        });
    }

    /// Takes a change of the autoscalers.
    pub fn autoscaler(&mut self, event: WatchEvent<HorizontalPodAutoscaler>) {
        match event {
            WatchEvent::Reset(all) => {
                let mut listed = Autoscalers::default();
                all.iter().for_each(|hpa| listed.put(hpa));
                self.autoscalers = Arc::new(listed);
            }
            WatchEvent::Apply(hpa) => Arc::make_mut(&mut self.autoscalers).put(&hpa),
            WatchEvent::Delete(hpa) => Arc::make_mut(&mut self.autoscalers).remove(&hpa),
        }
    }
}

fn fold<K, N: Ord + Clone, V: Clone>(
    map: &mut Arc<BTreeMap<N, V>>,
    event: WatchEvent<K>,
    entry: impl Fn(K) -> Option<(N, V)>,
) {
    match event {
        WatchEvent::Reset(all) => *map = Arc::new(all.into_iter().filter_map(entry).collect()),
        WatchEvent::Apply(one) => {
            if let Some((key, value)) = entry(one) {
                Arc::make_mut(map).insert(key, value);
            }
        }
        WatchEvent::Delete(one) => {
            if let Some((key, _)) = entry(one) {
                Arc::make_mut(map).remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hpa(name: &str, target: &str) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}}}))
        .unwrap()
    }

    fn target(name: &str) -> TargetKey {
        TargetKey::new("n", "apps/v1beta9", "Deployment", name)
    }

    #[test]
    fn an_autoscaler_that_moves_leaves_its_old_target() {
        let mut objects = Objects::default();
        objects.autoscaler(WatchEvent::Reset(vec![hpa("h", "a")]));
        objects.autoscaler(WatchEvent::Apply(hpa("h", "b")));
        assert_eq!((objects.autoscalers.of(&target("a")), objects.autoscalers.of(&target("b"))), (None, Some("h")));
        objects.autoscaler(WatchEvent::Delete(hpa("h", "b")));
        assert_eq!(objects.autoscalers.of(&target("b")), None);
    }

    #[test]
    fn a_target_is_free_when_the_last_of_its_autoscalers_is_gone() {
        let mut objects = Objects::default();
        objects.autoscaler(WatchEvent::Reset(vec![hpa("g", "a"), hpa("h", "a")]));
        objects.autoscaler(WatchEvent::Delete(hpa("g", "a")));
        assert_eq!(objects.autoscalers.of(&target("a")), Some("h"));
        objects.autoscaler(WatchEvent::Apply(hpa("g", "a")));
        objects.autoscaler(WatchEvent::Apply(hpa("g", "b")));
        assert_eq!(
            (objects.autoscalers.of(&target("a")), objects.autoscalers.of(&target("b"))),
            (Some("h"), Some("g"))
        );
        objects.autoscaler(WatchEvent::Reset(Vec::new()));
        assert_eq!(objects.autoscalers.of(&target("a")), None);
    }

    #[test]
    fn namespaces_keep_their_label() {
        let mut objects = Objects::default();
        let namespace: Namespace = serde_json::from_value(
            json!({"metadata": {"name": "a", "uid": "u", "labels": {"fairlead.dev/tenant": "acme"}}}),
        )
        .unwrap();
        objects.namespace(WatchEvent::Apply(namespace));
        assert_eq!(objects.namespaces["a"].tenant.as_deref(), Some("acme"));
    }
}
