//! Machines by what a NodeTopology says of them: nodes of one kind of hardware share one checked machine.
use crate::holes::cache_groups;
use crate::topology::machine_of;
use fairlead_crds::NodeTopologySpec;
use fairlead_crds::node_topology::PinningMode;
use fairlead_topology::Machine;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

/// What the `spec` of a NodeTopology comes to.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) spec: NodeTopologySpec,
    pub(crate) machine: Result<Arc<Machine>, String>,
    /// [`cache_groups`] of the machine.
    pub(crate) groups: Box<[u32]>,
}

impl Shape {
    /// Whether the agent pins on the node; where nobody said so it does not.
    pub(crate) fn is_owned(&self) -> bool {
        self.spec.pinning.as_ref().is_some_and(|pinning| pinning.mode == PinningMode::Own)
    }

    /// What the agent says of the pinning, for people.
    pub(crate) fn pinning_text(&self) -> String {
        match &self.spec.pinning {
            None => "spec.pinning of the NodeTopology is absent: the agent has not said yet that it pins".to_owned(),
            Some(pinning) => {
                let (mode, reason) = (pinning.mode, &pinning.reason);
                let message = if pinning.message.is_empty() { "" } else { ": " };
                format!("spec.pinning of the NodeTopology: {mode:?} ({reason}){message}{}", pinning.message)
            }
        }
    }
}

/// The shapes in use.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// By hash of the spec.
    known: BTreeMap<u64, Vec<Weak<Shape>>>,
}

impl Shapes {
    /// The shape of a spec; the one that is known already if there is one.
    pub(crate) fn of(&mut self, spec: &NodeTopologySpec) -> Arc<Shape> {
        let alike = self.known.entry(hash(spec)).or_default();
        alike.retain(|shape| shape.strong_count() > 0);
        if let Some(shape) = alike.iter().filter_map(Weak::upgrade).find(|shape| shape.spec == *spec) {
            return shape;
        }
        let machine = machine_of(spec).map(Arc::new).map_err(|error| error.to_string());
        let groups = machine.as_ref().map_or_else(|_| Box::default(), |machine| cache_groups(machine));
        let shape = Arc::new(Shape { spec: spec.clone(), machine, groups });
        alike.push(Arc::downgrade(&shape));
        shape
    }

    /// Forgets the shapes that no node has any more.
    pub(crate) fn forget_unused(&mut self) {
        self.known.retain(|_, alike| alike.iter().any(|shape| shape.strong_count() > 0));
    }
}

fn hash(spec: &NodeTopologySpec) -> u64 {
    // A spec is plain data, which always has a text; were it not so, all would share one list.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    foldhash::fast::FixedState::default().hash_one(text)
}
