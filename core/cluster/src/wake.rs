//! Which refused pods are worth another try: a node has room for them now and had none before.
//!
//! kube-scheduler tries a pod that an extender refused again on any event of the API that it watches; our own objects are
//! not among them. So cores that come free by a write to a NodePlacement, and nodes that become trusted, would be noticed
//! at its flush of 5 minutes only.
use crate::fields::add;
use crate::node::NodeView;
use crate::pod::{PodView, PodWish};
use crate::preempt::sums_hold;
use crate::snapshot::Snapshot;
use fairlead_placement::PodRef;
use std::cmp::Reverse;
use std::sync::Arc;

/// A pod to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Which pod.
    pub pod: PodRef,
    /// `metadata.resourceVersion` as the watch shows it.
    pub resource_version: String,
    /// A node that has room for it.
    pub node: String,
}

impl Snapshot {
    /// Refused pods for which a node has room that had none in `before`: most important first, at most `pods_max`. Nodes
    /// that did not change are not looked at, so that a look costs what changed.
    #[must_use]
    pub fn awaited(&self, before: &Self, pods_max: usize) -> Vec<Awaited> {
        let changed: Vec<(u32, &Arc<NodeView>)> = (0u32..)
            .zip(self.nodes.iter())
            .filter(|(_, node)| node.ready && !node.unschedulable)
            .filter(|(_, node)| before.node_named(&node.name).is_none_or(|old| !Arc::ptr_eq(old, node)))
            .collect();
        if !self.synced || changed.is_empty() {
            return Vec::new();
        }
        let waits = |pod: &&Arc<PodView>| pod.refused && pod.waits_for_a_node();
        let mut waiting: Vec<&Arc<PodView>> = self.pods.iter().filter(waits).collect();
        waiting.sort_by_key(|pod| (Reverse(pod.priority), pod.created_ms, &pod.id.uid));
        let mut found = Vec::new();
        for pod in waiting {
            if found.len() >= pods_max {
                break;
            }
            let wish = PodWish::of_view(pod, &self.pools);
            let opened = |(index, node): &&(u32, &Arc<NodeView>)| {
                self.has_room(*index, node, &wish) && !before.had_room(&node.name, &wish)
            };
            if self.backstop(&wish).is_none()
                && let Some((_, node)) = changed.iter().find(opened)
            {
                found.push(Awaited {
                    pod: pod.id.clone(),
                    resource_version: pod.resource_version.clone(),
                    node: node.name.clone(),
                });
            }
        }
        found
    }

    /// Whether a pod still waits after a refusal of ours, and some node has room for it.
    #[must_use]
    pub fn still_awaited(&self, pod_uid: &str, node: &str) -> Option<Awaited> {
        let pod = self.pods.get(pod_uid).filter(|pod| pod.refused && pod.waits_for_a_node())?;
        let index = self.index_of(node)?;
        let room = self.has_room(index, self.node(index)?, &PodWish::of_view(pod, &self.pools));
        room.then(|| Awaited {
            pod: pod.id.clone(),
            resource_version: pod.resource_version.clone(),
            node: node.to_owned(),
        })
    }

    /// Whether the node takes the pod, by its cores and by kube-scheduler's sums.
    fn has_room(&self, index: u32, node: &NodeView, wish: &PodWish) -> bool {
        let usable = node.ready && !node.unschedulable;
        usable && self.judge(index, wish).is_ok() && sums_hold(node, &self.requested_on(node, wish), wish)
    }

    fn had_room(&self, node: &str, wish: &PodWish) -> bool {
        let Some(index) = self.index_of(node) else { return false };
        self.node(index).is_some_and(|node| self.has_room(index, node, wish))
    }

    /// What the bound pods request, and those whose binds this process has under way.
    pub(crate) fn requested_on(&self, node: &NodeView, but: &PodWish) -> crate::ResourceVector {
        let mut requested = node.requested.clone();
        let promised = node.beside.promises.iter().filter(|promise| promise.pod_uid != but.id.uid);
        for pod in promised.filter_map(|promise| self.pods.get(&promise.pod_uid)) {
            if pod.node.is_none() {
                add(&mut requested, &pod.request);
            }
        }
        requested
    }
}

impl PodView {
    fn waits_for_a_node(&self) -> bool {
        self.node.is_none() && !self.quota_gated && !self.otherwise_gated && !self.deleting && !self.terminal
    }
}
