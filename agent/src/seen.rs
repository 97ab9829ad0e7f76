//! The node's own objects as the watches show them.
use fairlead_crds::{NodePlacement, NodeTopology};
use fairlead_runtime::WatchEvent;
use kube::Resource;

/// What the watches of the node's own objects saw.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful wait at most")]
pub enum Seen {
    /// Its NodeTopology.
    Topology(WatchEvent<NodeTopology>),
    /// Its NodePlacement.
    Placement(WatchEvent<NodePlacement>),
}

/// The node's own object of one kind, as the watch shows it.
pub(crate) struct Slot<K> {
    /// Whether a list came.
    pub(crate) listed: bool,
    /// The object, if there is one.
    pub(crate) object: Option<K>,
}

impl<K: Resource> Slot<K> {
    pub(crate) const fn new() -> Self {
        Self { listed: false, object: None }
    }

    /// Takes an event in; true if the object is missing now.
    pub(crate) fn take(&mut self, event: WatchEvent<K>) -> bool {
        match event {
            WatchEvent::Reset(mut objects) => (self.listed, self.object) = (true, objects.pop()),
            WatchEvent::Apply(object) => self.object = Some(object),
            // Another of the name may have been made by this agent before the watch told of the end of the first.
            WatchEvent::Delete(gone) => drop(self.object.take_if(|seen| seen.meta().uid == gone.meta().uid)),
        }
        self.object.is_none()
    }
}
