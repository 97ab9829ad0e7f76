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

/// Different wishes that one look answers; a crowd of pods mostly has few. The next look goes on with the others.
const SHAPES_MAX: usize = 64;

/// A place in the order of the pods that wait: the most important first, then the oldest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    priority: Reverse<i32>,
    created_ms: u64,
    uid: String,
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Pods to be tried again, in the order of their turns.
    pub found: Vec<Awaited>,
    /// The last pod that was looked at, if the look ended at one of its limits: the next one goes on behind it, with the
    /// same snapshot for `before`.
    pub ended_at: Option<Turn>,
}

/// What pods of the same wish get to hear at one look.
struct Shape {
    wish: PodWish,
    newly: bool,
    node: Option<String>,
}

impl Snapshot {
    /// Refused pods for which a node has room: those that were not refused in `before` or wish something else by now, by
    /// any node, and the others by a node that changed and had no room then. Of a choosy pod that was just refused only the
    /// latter says anything, since some node that it does not want has room nearly always. At most `pods_max`, and only
    /// those whose turn comes after `behind`.
    #[must_use]
    pub fn awaited(&self, before: &Self, behind: Option<&Turn>, pods_max: usize) -> Look {
        let mut look = Look { found: Vec::new(), ended_at: None };
        if !self.synced {
            return look;
        }
        let changed: Vec<u32> = (0u32..)
            .zip(self.nodes.iter())
            .filter(|(_, node)| before.node_named(&node.name).is_none_or(|old| !Arc::ptr_eq(old, node)))
            .map(|(index, _)| index)
            .collect();
        let just_refused = |pod: &PodView| before.pods.get(&pod.id.uid).is_none_or(|old| !old.refused);
        let newly = |pod: &PodView| {
            (!pod.choosy && just_refused(pod)) || self.wishes_anew(before, pod) || self.lets_in(before, pod)
        };
        let asks = |pod: &&Arc<PodView>| pod.refused && pod.waits_for_a_node() && (!changed.is_empty() || newly(pod));
        let in_turn = |pod: &Arc<PodView>| behind.is_none_or(|behind| *behind < pod.turn());
        let mut waiting: Vec<&Arc<PodView>> = self.pods.iter().filter(asks).filter(|pod| in_turn(pod)).collect();
        waiting.sort_by_key(|pod| (Reverse(pod.priority), pod.created_ms, &pod.id.uid));
        let mut shapes: Vec<Shape> = Vec::new();
        let mut last = behind.cloned();
        for pod in waiting {
            if look.found.len() >= pods_max {
                look.ended_at = last;
                break;
            }
            let (newly, mut wish) = (newly(pod), PodWish::of_view(pod, &self.pools));
            // Whom the tenant's limit keeps out depends on the pod's age.
            if self.backstop(&wish).is_some() {
                last = Some(pod.turn());
                continue;
            }
            (wish.id.name, wish.id.uid, wish.created_ms) = (String::new(), String::new(), 0);
            let at = shapes.iter().position(|shape| shape.newly == newly && shape.wish == wish);
            let node = match at.and_then(|at| shapes.get(at)) {
                Some(shape) => shape.node.clone(),
                None if shapes.len() >= SHAPES_MAX => {
                    look.ended_at = last;
                    break;
                }
                None => {
                    let node = self.room_for_shape(before, &wish, (!newly).then_some(&changed));
                    shapes.push(Shape { wish, newly, node: node.clone() });
                    node
                }
            };
            look.found.extend(node.map(|node| Awaited {
                pod: pod.id.clone(),
                resource_version: pod.resource_version.clone(),
                node,
                choosy: pod.choosy,
            }));
            last = Some(pod.turn());
        }
        look
    }

    /// Whether its tenant changed and what kept the pod out before may do so no more.
    fn lets_in(&self, before: &Self, pod: &PodView) -> bool {
        let same = match (self.tenant_in(&pod.id.namespace), before.tenant_in(&pod.id.namespace)) {
            (Some(now), Some(then)) => std::ptr::eq(now, then),
            (now, then) => now.is_none() && then.is_none(),
        };
        !same && before.backstop(&PodWish::of_view(pod, &before.pools)).is_some()
    }

    /// Whether the pod's WorkerPool makes it wish something else than before, or nobody knew what.
    fn wishes_anew(&self, before: &Self, pod: &PodView) -> bool {
        !Arc::ptr_eq(&self.pools, &before.pools)
            && PodWish::of_view(pod, &self.pools).asks_otherwise(&PodWish::of_view(pod, &before.pools))
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
        let wish = PodWish::of_view(pod, &self.pools);
        let room = self.backstop(&wish).is_none() && self.has_room(index, self.node(index)?, &wish);
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

impl PodWish {
    fn asks_otherwise(&self, former: &Self) -> bool {
        (&self.exclusive, self.shared_milli, &self.wish, &self.refusal)
            != (&former.exclusive, former.shared_milli, &former.wish, &former.refusal)
    }
}

impl PodView {
    fn turn(&self) -> Turn {
        Turn { priority: Reverse(self.priority), created_ms: self.created_ms, uid: self.id.uid.clone() }
    }

    fn waits_for_a_node(&self) -> bool {
        self.node.is_none() && !self.quota_gated && !self.otherwise_gated && !self.deleting && !self.terminal
    }
}
