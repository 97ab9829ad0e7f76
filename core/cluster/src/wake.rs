//! Which refused pods are worth another try: a node has room for them.
//!
//! kube-scheduler tries a pod that an extender refused again on any event of the API that it watches; our own objects are
//! not among them. So cores that come free by a write to a NodePlacement, and nodes that become trusted, would be noticed
//! at its flush of 5 minutes only. The same holds where it showed the extender a sample of the nodes, and the one with room
//! was not in it: the next try goes on where the last one ended.
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
    /// It may not want that node: it chooses by rules that are not read here.
    pub choosy: bool,
}

/// Different wishes that one look answers; a crowd of pods mostly has few. The others are found at a later look, when a
/// node changes.
const SHAPES_MAX: usize = 64;

/// What pods of the same wish get to hear at one look.
struct Shape {
    wish: PodWish,
    newly: bool,
    node: Option<String>,
}

impl Snapshot {
    /// Refused pods for which a node has room: those that were not refused in `before`, by any node, and those that were, by
    /// a node that changed and had no room then. Of a choosy pod only the latter says anything, since some node that it does
    /// not want has room nearly always. Most important first, at most `pods_max`.
    #[must_use]
    pub fn awaited(&self, before: &Self, pods_max: usize) -> Vec<Awaited> {
        if !self.synced {
            return Vec::new();
        }
        let changed: Vec<u32> = (0u32..)
            .zip(self.nodes.iter())
            .filter(|(_, node)| before.node_named(&node.name).is_none_or(|old| !Arc::ptr_eq(old, node)))
            .map(|(index, _)| index)
            .collect();
        let newly = |pod: &PodView| !pod.choosy && before.pods.get(&pod.id.uid).is_none_or(|old| !old.refused);
        let asks = |pod: &&Arc<PodView>| pod.refused && pod.waits_for_a_node() && (!changed.is_empty() || newly(pod));
        let mut waiting: Vec<&Arc<PodView>> = self.pods.iter().filter(asks).collect();
        waiting.sort_by_key(|pod| (Reverse(pod.priority), pod.created_ms, &pod.id.uid));
        let mut shapes: Vec<Shape> = Vec::new();
        let mut found = Vec::new();
        for pod in waiting {
            if found.len() >= pods_max {
                break;
            }
            let (newly, mut wish) = (newly(pod), PodWish::of_view(pod, &self.pools));
            // Whom the tenant's limit keeps out depends on the pod's age.
            if self.backstop(&wish).is_some() {
                continue;
            }
            (wish.id.name, wish.id.uid, wish.created_ms) = (String::new(), String::new(), 0);
            let at = shapes.iter().position(|shape| shape.newly == newly && shape.wish == wish);
            let node = match at.and_then(|at| shapes.get(at)) {
                Some(shape) => shape.node.clone(),
                None if shapes.len() >= SHAPES_MAX => None,
                None => {
                    let node = self.room_for_shape(before, &wish, (!newly).then_some(&changed));
                    shapes.push(Shape { wish, newly, node: node.clone() });
                    node
                }
            };
            found.extend(node.map(|node| Awaited {
                pod: pod.id.clone(),
                resource_version: pod.resource_version.clone(),
                node,
                choosy: pod.choosy,
            }));
        }
        found
    }

    /// The first node that has room: of all, or of those that had none before.
    fn room_for_shape(&self, before: &Self, wish: &PodWish, among: Option<&Vec<u32>>) -> Option<String> {
        let has_room = |index: u32| self.node(index).filter(|node| self.has_room(index, node, wish));
        let node = match among {
            None => (0u32..).take(self.nodes.len()).find_map(has_room),
            Some(changed) => {
                changed.iter().filter_map(|&index| has_room(index)).find(|node| !before.had_room(&node.name, wish))
            }
        };
        node.map(|node| node.name.clone())
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
            choosy: pod.choosy,
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
