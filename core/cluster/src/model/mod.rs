//! The one mutable thing: takes events in, remembers what they touch, and rebuilds only that for the next snapshot.
mod apply;

use crate::brief::{Briefs, Stamp};
use crate::claims::{Claim, Claims};
use crate::memo::Memo;
use crate::names::NameIndex;
use crate::node::{NodeFacts, NodeView, Parts, PlacementEntry, TopologyFacts};
use crate::pod_table::PodTable;
use crate::pools::Pools;
use crate::shapes::Shapes;
use crate::share::Waters;
use crate::snapshot::{NamespaceView, Snapshot};
use crate::sums::Sums;
use crate::table::Table;
use crate::tenant::{QuotaFacts, TenantView};
use fairlead_placement::Promise;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The cluster as the watches tell it. One owner; everybody else reads its snapshots.
#[derive(Debug, Default)]
pub struct Model {
    own_namespace: Arc<str>,
    nodes: BTreeMap<String, Arc<NodeFacts>>,
    topologies: BTreeMap<String, Arc<TopologyFacts>>,
    placements: BTreeMap<String, Arc<PlacementEntry>>,
    quotas: Arc<BTreeMap<String, Arc<QuotaFacts>>>,
    pools: Arc<Pools>,
    shapes: Shapes,
    namespaces: Arc<BTreeMap<String, NamespaceView>>,
    pods: PodTable,
    /// UIDs of the bound pods by node name.
    on_node: BTreeMap<String, BTreeSet<String>>,
    /// UIDs by namespace.
    in_namespace: BTreeMap<String, BTreeSet<String>>,
    /// Node and promise by pod UID; never of a pod that is known to be bound.
    promises: BTreeMap<String, (String, Promise)>,
    claims: Claims,
    listed: Listed,
    dirty: Dirty,
    views: BTreeMap<String, Arc<NodeView>>,
    /// Names of the nodes where a pod holds something without being bound there, by its UID: their views change with it.
    loose: BTreeMap<String, BTreeSet<String>>,
    /// Of the view that was built last.
    stamp: u64,
    tenants: BTreeMap<String, Arc<TenantView>>,
    sums: Sums,
    waters: Waters,
    snapshot: Arc<Snapshot>,
}

/// Which kinds have been listed.
#[derive(Debug, Default)]
struct Listed {
    nodes: bool,
    pods: bool,
    quotas: bool,
    topologies: bool,
    placements: bool,
    namespaces: bool,
    pools: bool,
}

/// What the next snapshot has to rebuild.
#[derive(Debug, Default)]
struct Dirty {
    /// Anything at all.
    any: bool,
    /// The set of nodes.
    node_names: bool,
    quotas: bool,
    nodes: BTreeSet<String>,
    tenants: BTreeSet<String>,
}

impl Model {
    /// An empty model. Pods of `own_namespace` (where Fairlead itself runs) belong to no tenant, whatever a quota says.
    #[must_use]
    pub fn new(own_namespace: impl AsRef<str>) -> Self {
        Self { own_namespace: own_namespace.as_ref().into(), ..Self::default() }
    }

    /// Whether every kind has been listed.
    #[must_use]
    pub fn synced(&self) -> bool {
        let Listed { nodes, pods, quotas, topologies, placements, namespaces, pools } = self.listed;
        nodes && pods && quotas && topologies && placements && namespaces && pools
    }

    /// What is known is all there is.
    pub(crate) fn all_listed(&mut self) {
        self.listed = Listed {
            nodes: true,
            pods: true,
            quotas: true,
            topologies: true,
            placements: true,
            namespaces: true,
            pools: true,
        };
        self.dirty.any = true;
    }

    /// Counts a promise as held from the moment something is about to be written for it. It ends by itself when the watch
    /// shows the pod bound (not its reservation alone, which a deleted NodePlacement takes along), ended or gone; a bind
    /// that fails must [`Model::forget`] it.
    pub fn assume(&mut self, node: &str, promise: Promise) {
        let uid = promise.pod_uid.clone();
        self.forget(&uid);
        if self.pods.get(&uid).is_some_and(|pod| pod.terminal || pod.node.is_some()) {
            return;
        }
        self.promises.insert(uid, (node.to_owned(), promise));
        self.touch_node(node);
    }

    /// Takes an assumption back.
    pub fn forget(&mut self, pod_uid: &str) {
        if let Some((node, _)) = self.promises.remove(pod_uid) {
            self.touch_node(&node);
        }
    }

    /// The cluster as it is now. What did not change is shared with the snapshot before; without any change it is the same.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if !self.dirty.any {
            return Arc::clone(&self.snapshot);
        }
        let dirty = std::mem::take(&mut self.dirty);
        let (mut nodes, mut tenants) = (dirty.nodes, dirty.tenants);
        let mut owners = Arc::clone(&self.snapshot.owners);
        if dirty.quotas && self.settle_claims() {
            tenants.extend(self.quotas.keys().cloned());
            nodes.extend(self.on_node.keys().cloned());
            owners = Arc::new(self.claims.owners().clone());
        }
        let (mut node_table, mut briefs) = (self.snapshot.nodes.clone(), self.snapshot.briefs.clone());
        let mut tenant_table = self.snapshot.tenants.clone();
        for name in nodes {
            let Some(view) = self.rebuild_node(name) else { continue };
            let replaced = node_table.replace(Arc::clone(&view));
            debug_assert!(replaced.is_some() || dirty.node_names, "a view without a place in the table");
            replaced.into_iter().for_each(|index| briefs.replace(index, &view));
        }
        let (mut index, mut memo) = (Arc::clone(&self.snapshot.index), Arc::clone(&self.snapshot.memo));
        if dirty.node_names {
            node_table = Table::of_sorted(self.views.values().cloned());
            briefs = Briefs::of(self.views.values().map(|view| &**view));
            index = Arc::new(self.name_index());
            memo = Arc::new(Memo::of_nodes(node_table.len()));
        }
        let mut same_tenants = true;
        for name in tenants {
            same_tenants &= self.rebuild_tenant(name).is_some_and(|view| tenant_table.replace(view).is_some());
        }
        if !same_tenants {
            tenant_table = Table::of_sorted(self.tenants.values().cloned());
        }
        self.snapshot = Arc::new(Snapshot {
            synced: self.synced(),
            generation: self.snapshot.generation + 1,
            nodes: node_table,
            briefs,
            memo,
            tenants: tenant_table,
            namespaces: Arc::clone(&self.namespaces),
            pools: Arc::clone(&self.pools),
            quotas: Arc::clone(&self.quotas),
            pods: self.pods.clone(),
            index,
            owners,
            lines: self.waters.lines(self.sums.total()),
            sums: self.sums.clone(),
            own_namespace: Arc::clone(&self.own_namespace),
        });
        Arc::clone(&self.snapshot)
    }

    fn touch_node(&mut self, name: &str) {
        self.dirty.any = true;
        self.dirty.nodes.insert(name.to_owned());
    }

    fn touch_tenant_of(&mut self, namespace: &str) {
        if let Some(tenant) = self.claims.owner(namespace) {
            self.dirty.tenants.insert(tenant.to_owned());
        }
    }

    /// True if some namespace changed hands.
    fn settle_claims(&mut self) -> bool {
        let claims = self.quotas.iter().map(|(tenant, quota)| Claim {
            tenant,
            created_ms: quota.created_ms,
            namespaces: &quota.spec.namespaces,
        });
        let settled = Claims::settle(claims.collect(), &self.own_namespace);
        let changed = settled != self.claims;
        self.claims = settled;
        changed
    }

    /// The new view; none if the node is gone.
    fn rebuild_node(&mut self, name: String) -> Option<Arc<NodeView>> {
        let former = self.views.remove(&name);
        if let Some(former) = &former {
            self.sums.remove(former);
            former.loose.iter().for_each(|uid| unlist(&mut self.loose, uid, &name));
        }
        let node = self.nodes.get(&name)?;
        self.stamp += 1;
        let bound = self.on_node.get(&name).into_iter().flatten().filter_map(|uid| self.pods.get(uid));
        let promised = self.promises.values().filter(|(on, _)| *on == name).map(|(_, held)| held.clone());
        let view = Arc::new(NodeView::build(Parts {
            name: &name,
            node,
            topology: self.topologies.get(&name),
            placement: self.placements.get(&name),
            promises: promised.collect(),
            pods: bound.map(|pod| (&**pod, self.claims.owner(&pod.id.namespace).is_some())).collect(),
            pools: &self.pools,
            all_pods: &self.pods,
            stamp: Stamp(self.stamp),
        }));
        for uid in &view.loose {
            self.loose.entry(uid.clone()).or_default().insert(name.clone());
        }
        self.sums.add(&view);
        self.views.insert(name, Arc::clone(&view));
        Some(view)
    }

    /// The new view; none if the tenant is gone.
    fn rebuild_tenant(&mut self, name: String) -> Option<Arc<TenantView>> {
        let former = self.tenants.remove(&name);
        let Some(quota) = self.quotas.get(&name) else {
            self.waters.replace(former.as_deref(), None);
            return None;
        };
        let namespaces = self.claims.namespaces_of(&name);
        let uids = namespaces.iter().filter_map(|namespace| self.in_namespace.get(namespace)).flatten();
        let pods = uids.filter_map(|uid| self.pods.get(uid)).cloned();
        let view = Arc::new(TenantView::build(&name, quota, &self.claims, pods));
        self.waters.replace(former.as_deref(), Some(&view));
        self.tenants.insert(name, Arc::clone(&view));
        Some(view)
    }

    /// Nodes where something is held for a pod that is not bound there.
    fn touch_loose(&mut self, pod_uid: &str) {
        let nodes: Vec<String> = self.loose.get(pod_uid).into_iter().flatten().cloned().collect();
        nodes.iter().for_each(|node| self.touch_node(node));
    }

    fn name_index(&self) -> NameIndex {
        NameIndex::of(self.views.keys().map(String::as_str))
    }
}

/// Takes one entry out of an index of sets.
fn unlist(index: &mut BTreeMap<String, BTreeSet<String>>, key: &str, entry: &str) {
    if let Some(entries) = index.get_mut(key) {
        entries.remove(entry);
        if entries.is_empty() {
            index.remove(key);
        }
    }
}
