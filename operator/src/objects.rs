//! The watched objects that are no pods and no nodes, kept by name. Cloning shares.
use fairlead_crds::worker_pool::ScaleTargetRef;
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
use fairlead_runtime::WatchEvent;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use std::collections::BTreeMap;
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
    /// Targets of HorizontalPodAutoscalers, with the autoscaler's name.
    pub autoscaled: Arc<BTreeMap<TargetKey, String>>,
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
        // The target of an autoscaler may be edited: its old entry goes first.
        if let WatchEvent::Apply(hpa) = &event {
            let (namespace, name) = (hpa.metadata.namespace.clone(), hpa.metadata.name.clone());
            Arc::make_mut(&mut self.autoscaled)
                .retain(|target, by| Some(&target.namespace) != namespace.as_ref() || Some(&*by) != name.as_ref());
        }
        fold(&mut self.autoscaled, event, |hpa| {
            let target = hpa.spec?.scale_target_ref;
            let namespace = hpa.metadata.namespace?;
            let key = TargetKey::new(
                &namespace,
                target.api_version.as_deref().unwrap_or_default(),
                &target.kind,
                &target.name,
            );
            Some((key, hpa.metadata.name?))
        });
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

    #[test]
    fn an_autoscaler_that_moves_leaves_its_old_target() {
        let mut objects = Objects::default();
        objects.autoscaler(WatchEvent::Reset(vec![hpa("h", "a")]));
        objects.autoscaler(WatchEvent::Apply(hpa("h", "b")));
        let targets: Vec<&str> = objects.autoscaled.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(targets, ["b"]);
        assert!(objects.autoscaled.contains_key(&TargetKey::new("n", "apps/v1beta9", "Deployment", "b")));
        objects.autoscaler(WatchEvent::Delete(hpa("h", "b")));
        assert!(objects.autoscaled.is_empty());
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
