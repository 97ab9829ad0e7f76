//! Sums over all nodes, kept up to date node by node: adding 5,000 of them up for every event would take longer than the
//! event.
use crate::fields::take;
use crate::holes::Holes;
use crate::node::NodeView;
use fairlead_fairshare::ResourceVector;
use fairlead_placement::Reason;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    total: Wide,
    free: Wide,
    pub(crate) reservations: usize,
    pub(crate) holes: Holes,
    /// Nodes that get no pods with CPUs of their own, by reason.
    pub(crate) distrusted: BTreeMap<Reason, usize>,
    /// Pods with CPUs of their own that dislike a WorkerPool, by namespace and pool; mostly there are none.
    disliked: Arc<BTreeMap<String, BTreeMap<String, usize>>>,
}

/// Amounts of many nodes, and how many nodes list each; wide enough never to saturate, so that what was added can be taken
/// away again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wide(BTreeMap<String, (u128, u32)>);

impl Wide {
    fn add(&mut self, amounts: &ResourceVector) {
        for (resource, &amount) in amounts {
            match self.0.get_mut(resource) {
                Some((sum, nodes)) => {
                    *sum += u128::from(amount);
                    *nodes += 1;
                }
                None => {
                    self.0.insert(resource.clone(), (u128::from(amount), 1));
                }
            }
        }
    }

    fn remove(&mut self, amounts: &ResourceVector) {
        for (resource, &amount) in amounts {
            let Some((sum, nodes)) = self.0.get_mut(resource) else { continue };
            *sum = sum.saturating_sub(u128::from(amount));
            *nodes = nodes.saturating_sub(1);
            if *nodes == 0 {
                self.0.remove(resource);
            }
        }
    }

    fn amounts(&self) -> ResourceVector {
        let clamped = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        self.0.iter().map(|(resource, (sum, _))| (resource.clone(), clamped(*sum))).collect()
    }
}

fn left(view: &NodeView, less: &ResourceVector) -> ResourceVector {
    let mut left = view.allocatable.clone();
    take(&mut left, less);
    left
}

/// Namespace and pool for each that a pod on the node dislikes.
fn disliked(view: &NodeView) -> impl Iterator<Item = (&String, &String)> {
    view.neighbours.iter().flat_map(|held| held.dislikes.iter().map(|pool| (&held.namespace, pool)))
}

impl Sums {
    pub(crate) fn add(&mut self, view: &NodeView) {
        self.reservations += view.listed().len();
        self.holes.add(&view.holes);
        if let Some(distrust) = &view.distrust {
            *self.distrusted.entry(distrust.reason).or_default() += 1;
        }
        for (namespace, pool) in disliked(view) {
            let pools = Arc::make_mut(&mut self.disliked).entry(namespace.clone()).or_default();
            *pools.entry(pool.clone()).or_default() += 1;
        }
        if view.ready && !view.unschedulable {
            self.total.add(&left(view, &view.unmanaged));
            self.free.add(&left(view, &view.requested));
        }
    }

    pub(crate) fn remove(&mut self, view: &NodeView) {
        self.reservations = self.reservations.saturating_sub(view.listed().len());
        self.holes.remove(&view.holes);
        if let Some(count) = view.distrust.as_ref().and_then(|distrust| self.distrusted.get_mut(&distrust.reason)) {
            *count -= 1;
        }
        self.distrusted.retain(|_, count| *count > 0);
        for (namespace, pool) in disliked(view) {
            self.like_again(namespace, pool);
        }
        if view.ready && !view.unschedulable {
            self.total.remove(&left(view, &view.unmanaged));
            self.free.remove(&left(view, &view.requested));
        }
    }

    fn like_again(&mut self, namespace: &str, pool: &str) {
        let disliked = Arc::make_mut(&mut self.disliked);
        let Some(pools) = disliked.get_mut(namespace) else { return };
        if let Some(count) = pools.get_mut(pool) {
            *count -= 1;
        }
        pools.retain(|_, count| *count > 0);
        if pools.is_empty() {
            disliked.remove(namespace);
        }
    }

    /// Whether some pod with CPUs of its own dislikes that pool.
    pub(crate) fn is_disliked(&self, namespace: &str, pool: &str) -> bool {
        self.disliked.get(namespace).is_some_and(|pools| pools.contains_key(pool))
    }

    pub(crate) fn total(&self) -> ResourceVector {
        self.total.amounts()
    }

    pub(crate) fn free(&self) -> ResourceVector {
        self.free.amounts()
    }
}
