//! Events into the model: for each kind the same three cases, and what each touches.
use super::{Model, unlist};
use crate::event::{Change, Event};
use crate::node::{NodeFacts, PlacementEntry, TopologyFacts};
use crate::pod::PodView;
use crate::pools::PoolView;
use crate::snapshot::NamespaceView;
use crate::tenant::QuotaFacts;
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool, keys};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Model {
    /// Takes a change in. Changes of different objects may come in any order; those of one object in the order of its
    /// watch.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Nodes(change) => self.apply_nodes(change),
            Event::Pods(change) => self.apply_pods(change),
            Event::Quotas(change) => self.apply_quotas(change),
            Event::Pools(change) => self.apply_pools(change),
            Event::Topologies(change) => self.apply_topologies(change),
            Event::Placements(change) => self.apply_placements(change),
            Event::Written(placement) => self.apply_written(&placement),
            Event::Namespaces(change) => self.apply_namespaces(change),
        }
    }

    fn apply_nodes(&mut self, change: Change<Node>) {
        match change {
            Change::Reset(all) => {
                self.listed.nodes = true;
                self.dirty.any = true;
                for gone in absent(&self.nodes, all.iter().map(|node| &node.metadata)) {
                    self.set_node(&gone, None);
                }
                all.iter().for_each(|node| self.set_node(name_of(&node.metadata), Some(Arc::new(NodeFacts::of(node)))));
            }
            Change::Apply(node) => self.set_node(name_of(&node.metadata), Some(Arc::new(NodeFacts::of(&node)))),
            Change::Delete(node) => self.set_node(name_of(&node.metadata), None),
        }
    }

    pub(crate) fn set_node(&mut self, name: &str, facts: Option<Arc<NodeFacts>>) {
        let existed = self.nodes.contains_key(name);
        self.dirty.node_names |= existed != facts.is_some();
        if put(&mut self.nodes, name, facts) {
            self.touch_node(name);
        }
    }

    fn apply_topologies(&mut self, change: Change<NodeTopology>) {
        match change {
            Change::Reset(all) => {
                self.listed.topologies = true;
                self.dirty.any = true;
                for gone in absent(&self.topologies, all.iter().map(|topology| &topology.metadata)) {
                    self.set_topology(&gone, None);
                }
                all.iter().for_each(|topology| self.see_topology(topology));
                self.shapes.forget_unused();
            }
            Change::Apply(topology) => self.see_topology(&topology),
            Change::Delete(topology) => self.set_topology(name_of(&topology.metadata), None),
        }
    }

    pub(crate) fn see_topology(&mut self, topology: &NodeTopology) {
        let facts = Arc::new(TopologyFacts::of(topology, &mut self.shapes));
        self.set_topology(name_of(&topology.metadata), Some(facts));
    }

    fn set_topology(&mut self, name: &str, facts: Option<Arc<TopologyFacts>>) {
        if put(&mut self.topologies, name, facts) {
            self.touch_node(name);
        }
    }

    fn apply_placements(&mut self, change: Change<NodePlacement>) {
        match change {
            Change::Reset(all) => {
                self.listed.placements = true;
                self.dirty.any = true;
                for gone in absent(&self.placements, all.iter().map(|placement| &placement.metadata)) {
                    self.set_placement(&gone, None);
                }
                // What a list says is so, also where it has a lower generation than what was known: a cluster restored from
                // a backup shows former states of the same objects. What a patch wrote since the list follows by the watch.
                all.iter()
                    .for_each(|p| self.put_placement(name_of(&p.metadata), Some(Arc::new(PlacementEntry::of(p)))));
            }
            Change::Apply(placement) => {
                self.set_placement(name_of(&placement.metadata), Some(Arc::new(PlacementEntry::of(&placement))));
            }
            Change::Delete(placement) => {
                // The deletion of a former object may be heard after the creation of the one that took its name.
                let known = self.placements.get(name_of(&placement.metadata));
                if known.is_some_and(|known| placement.metadata.uid.as_ref().is_none_or(|uid| *uid == known.uid)) {
                    self.set_placement(name_of(&placement.metadata), None);
                }
            }
        }
    }

    fn apply_written(&mut self, placement: &NodePlacement) {
        let (name, written) = (name_of(&placement.metadata), Arc::new(PlacementEntry::of(placement)));
        // Of one generation the watch may know a later status than the answer to the patch.
        let is_newer = |known: &PlacementEntry| known.uid == written.uid && known.generation < written.generation;
        if self.placements.get(name).is_some_and(|known| is_newer(known)) {
            self.set_placement(name, Some(written));
        }
    }

    pub(crate) fn set_placement(&mut self, name: &str, entry: Option<Arc<PlacementEntry>>) {
        // A patch answers before the watch tells, so older states of the same object may follow newer ones.
        let newest =
            |known: &PlacementEntry, new: &PlacementEntry| known.uid != new.uid || known.generation <= new.generation;
        if let (Some(known), Some(new)) = (self.placements.get(name), &entry)
            && !newest(known, new)
        {
            return;
        }
        self.put_placement(name, entry);
    }

    fn put_placement(&mut self, name: &str, entry: Option<Arc<PlacementEntry>>) {
        if put(&mut self.placements, name, entry) {
            self.touch_node(name);
        }
    }

    fn apply_quotas(&mut self, change: Change<TenantQuota>) {
        match change {
            Change::Reset(all) => {
                self.listed.quotas = true;
                self.dirty.any = true;
                for gone in absent(&self.quotas, all.iter().map(|quota| &quota.metadata)) {
                    self.set_quota(&gone, None);
                }
                for quota in &all {
                    self.set_quota(name_of(&quota.metadata), Some(Arc::new(QuotaFacts::of(quota))));
                }
            }
            Change::Apply(quota) => self.set_quota(name_of(&quota.metadata), Some(Arc::new(QuotaFacts::of(&quota)))),
            Change::Delete(quota) => self.set_quota(name_of(&quota.metadata), None),
        }
    }

    pub(crate) fn set_quota(&mut self, name: &str, facts: Option<Arc<QuotaFacts>>) {
        if self.quotas.get(name) != facts.as_ref() {
            put(Arc::make_mut(&mut self.quotas), name, facts);
            self.dirty.any = true;
            self.dirty.quotas = true;
            self.dirty.tenants.insert(name.to_owned());
        }
    }

    fn apply_namespaces(&mut self, change: Change<Namespace>) {
        match change {
            Change::Reset(all) => {
                self.listed.namespaces = true;
                self.dirty.any = true;
                for gone in absent(&self.namespaces, all.iter().map(|namespace| &namespace.metadata)) {
                    self.set_namespace(&gone, None);
                }
                all.iter().for_each(|n| self.set_namespace(name_of(&n.metadata), Some(namespace_view(&n.metadata))));
            }
            Change::Apply(n) => self.set_namespace(name_of(&n.metadata), Some(namespace_view(&n.metadata))),
            Change::Delete(n) => self.set_namespace(name_of(&n.metadata), None),
        }
    }

    pub(crate) fn set_namespace(&mut self, name: &str, view: Option<NamespaceView>) {
        if self.namespaces.get(name) != view.as_ref() {
            put(Arc::make_mut(&mut self.namespaces), name, view);
            self.dirty.any = true;
        }
    }

    fn apply_pools(&mut self, change: Change<WorkerPool>) {
        match change {
            Change::Reset(all) => {
                self.listed.pools = true;
                self.dirty.any = true;
                let key = |meta: &ObjectMeta| (meta.namespace.clone().unwrap_or_default(), name_of(meta).to_owned());
                let listed: BTreeSet<(String, String)> = all.iter().map(|pool| key(&pool.metadata)).collect();
                let known = self.pools.iter().map(|(namespace, pool)| (namespace.to_owned(), pool.name.clone()));
                let gone: Vec<(String, String)> = known.filter(|key| !listed.contains(key)).collect();
                gone.iter().for_each(|(namespace, name)| self.set_pool(namespace, name, None));
                all.iter().for_each(|pool| self.see_pool(pool));
            }
            Change::Apply(pool) => self.see_pool(&pool),
            Change::Delete(pool) => {
                let namespace = pool.metadata.namespace.as_deref().unwrap_or_default();
                self.set_pool(namespace, name_of(&pool.metadata), None);
            }
        }
    }

    fn see_pool(&mut self, pool: &WorkerPool) {
        let namespace = pool.metadata.namespace.as_deref().unwrap_or_default();
        self.set_pool(namespace, name_of(&pool.metadata), Some(PoolView::of(pool)));
    }

    pub(crate) fn set_pool(&mut self, namespace: &str, name: &str, pool: Option<PoolView>) {
        // Status changes of a pool are many and mostly about its queue.
        if self.pools.get(namespace, name) == pool.as_ref() {
            return;
        }
        Arc::make_mut(&mut self.pools).set(namespace, name, pool);
        self.dirty.any = true;
        // Which pool the pods on a node belong to is a part of the node's view.
        let pods = self.in_namespace.get(namespace).into_iter().flatten().filter_map(|uid| self.pods.get(uid));
        let held = |pod: &Arc<PodView>| self.loose.get(&pod.id.uid).into_iter().flatten().cloned().collect::<Vec<_>>();
        let nodes: Vec<String> = pods.flat_map(|pod| pod.node.clone().into_iter().chain(held(pod))).collect();
        nodes.iter().for_each(|node| self.touch_node(node));
    }

    fn apply_pods(&mut self, change: Change<Pod>) {
        match change {
            Change::Reset(all) => {
                self.listed.pods = true;
                self.dirty.any = true;
                let listed: BTreeSet<&str> = all.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
                let known = self.pods.iter().map(|pod| &pod.id.uid);
                let gone: Vec<String> = known.filter(|uid| !listed.contains(uid.as_str())).cloned().collect();
                gone.iter().for_each(|uid| self.remove_pod(uid));
                // A promise may be for a pod that was never heard of and is gone already.
                let unheard = self.promises.keys().filter(|uid| !listed.contains(uid.as_str()));
                let lost: Vec<String> = unheard.cloned().collect();
                lost.iter().for_each(|uid| self.forget(uid));
                all.iter().filter_map(PodView::of).for_each(|pod| self.set_pod(pod));
            }
            Change::Apply(pod) => {
                if let Some(view) = PodView::of(&pod) {
                    self.set_pod(view);
                }
            }
            Change::Delete(pod) => self.remove_pod(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    pub(crate) fn set_pod(&mut self, pod: PodView) {
        let uid = pod.id.uid.clone();
        let mut former = self.pods.get(&uid).cloned();
        if former.as_deref() == Some(&pod) {
            return;
        }
        // No API server moves a pod; a restored backup that gives a UID out again might.
        if former.as_ref().is_some_and(|former| former.id.namespace != pod.id.namespace) {
            self.remove_pod(&uid);
            former = None;
        }
        if pod.terminal || pod.node.is_some() {
            self.forget(&uid);
        }
        self.dirty.any = true;
        self.touch_tenant_of(&pod.id.namespace);
        if former.as_deref().is_none_or(|former| weight_on_node(former) != weight_on_node(&pod)) {
            let nodes: Vec<String> =
                former.iter().filter_map(|former| former.node.clone()).chain(pod.node.clone()).collect();
            nodes.iter().for_each(|node| self.touch_node(node));
            self.touch_loose(&uid);
        }
        if let Some(node) = former.and_then(|former| former.node.clone()) {
            unlist(&mut self.on_node, &node, &uid);
        }
        if let Some(node) = &pod.node {
            self.on_node.entry(node.clone()).or_default().insert(uid.clone());
        }
        self.in_namespace.entry(pod.id.namespace.clone()).or_default().insert(uid);
        self.pods.insert(Arc::new(pod));
    }

    fn remove_pod(&mut self, uid: &str) {
        self.forget(uid);
        let Some(pod) = self.pods.remove(uid) else { return };
        self.dirty.any = true;
        self.touch_tenant_of(&pod.id.namespace);
        unlist(&mut self.in_namespace, &pod.id.namespace, uid);
        if let Some(node) = &pod.node {
            unlist(&mut self.on_node, node, uid);
            self.touch_node(node);
        }
        self.touch_loose(uid);
    }
}

/// The part of a pod that its node's view is made from.
fn weight_on_node(pod: &PodView) -> impl PartialEq + use<'_> {
    let asks = (&pod.request, pod.exclusive.as_ref());
    (pod.node.as_ref(), pod.terminal, asks, pod.placement.as_ref(), &pod.scheduler, &pod.labels, &pod.wishes)
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn namespace_view(meta: &ObjectMeta) -> NamespaceView {
    NamespaceView {
        label: meta.labels.as_ref().and_then(|labels| labels.get(keys::TENANT_LABEL)).cloned(),
        terminating: meta.deletion_timestamp.is_some(),
    }
}

/// Known names that a list does not have.
fn absent<'a, V>(known: &BTreeMap<String, V>, listed: impl Iterator<Item = &'a ObjectMeta>) -> Vec<String> {
    let listed: BTreeSet<&str> = listed.map(name_of).collect();
    known.keys().filter(|name| !listed.contains(name.as_str())).cloned().collect()
}

/// Sets or removes an entry; true if that changed something.
fn put<V: PartialEq>(map: &mut BTreeMap<String, V>, name: &str, value: Option<V>) -> bool {
    match value {
        Some(value) if map.get(name) == Some(&value) => false,
        Some(value) => {
            map.insert(name.to_owned(), value);
            true
        }
        None => map.remove(name).is_some(),
    }
}
