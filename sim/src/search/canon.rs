//! One representative for all states that differ only in the names of equal pods, nodes and extenders.
use super::Setting;
use super::world::{Ask, Entry, NODES, NONE, PODS, Placement, World, Write, WriteKind};

/// New names by old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// Of the pods.
    pub pods: [u8; PODS],
    /// Of the nodes.
    pub nodes: [u8; NODES],
    /// Of the extenders.
    pub extenders: [u8; 2],
}

impl Renaming {
    /// Everything keeps its name.
    pub const NONE: Self = Self { pods: [0, 1, 2], nodes: [0, 1], extenders: [0, 1] };

    /// All that a setting allows; the first changes nothing.
    #[must_use]
    pub fn all(setting: &Setting) -> Vec<Self> {
        let pods: &[[u8; PODS]] = match setting.pods {
            0 | 1 => &[[0, 1, 2]],
            2 => &[[0, 1, 2], [1, 0, 2]],
            _ => &[[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]],
        };
        let pairs = |count: u8| -> &[[u8; 2]] { if count < 2 { &[[0, 1]] } else { &[[0, 1], [1, 0]] } };
        let mut all = Vec::new();
        for &pods in pods {
            for &nodes in pairs(setting.nodes) {
                all.extend(pairs(setting.extenders).iter().map(|&extenders| Self { pods, nodes, extenders }));
            }
        }
        all
    }

    /// This one after another.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        Self {
            pods: first.pods.map(|pod| self.pod(pod)),
            nodes: first.nodes.map(|node| self.node(node)),
            extenders: first.extenders.map(|extender| self.extender(extender)),
        }
    }

    /// The way back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let mut back = Self::NONE;
        (0u8..).zip(self.pods).for_each(|(old, new)| back.pods[usize::from(new)] = old);
        (0u8..).zip(self.nodes).for_each(|(old, new)| back.nodes[usize::from(new)] = old);
        (0u8..).zip(self.extenders).for_each(|(old, new)| back.extenders[usize::from(new)] = old);
        back
    }

    /// The new name of a pod.
    #[must_use]
    pub fn pod(&self, pod: u8) -> u8 {
        self.pods.get(usize::from(pod)).copied().unwrap_or(NONE)
    }

    /// The new name of a node.
    #[must_use]
    pub fn node(&self, node: u8) -> u8 {
        self.nodes.get(usize::from(node)).copied().unwrap_or(NONE)
    }

    /// The new name of an extender.
    #[must_use]
    pub fn extender(&self, extender: u8) -> u8 {
        self.extenders.get(usize::from(extender)).copied().unwrap_or(NONE)
    }

    fn placement(&self, mut placement: Placement) -> Placement {
        for entry in &mut placement.entries {
            entry.pod = self.pod(entry.pod);
        }
        placement
    }

    fn write(&self, mut write: Write) -> Write {
        (write.pod, write.node) = (self.pod(write.pod), self.node(write.node));
        let renamed = |entry: Entry| Entry { pod: self.pod(entry.pod), ..entry };
        match &mut write.kind {
            WriteKind::Reserve { restored, .. } => *restored = restored.map(renamed),
            WriteKind::Release { entries } => *entries = entries.map(renamed),
            WriteKind::None | WriteKind::Touch | WriteKind::Bind { .. } => {}
        }
        write
    }

    /// A state under new names, its unordered parts in order.
    #[must_use]
    pub fn apply(&self, world: &World) -> World {
        let mut after = *world;
        for old in 0..PODS {
            let new = usize::from(self.pods[old]);
            after.pods[new] = world.pods[old];
            after.pods_before[new] = world.pods_before[old];
            after.running[new] = world.running[old];
            for pod in [&mut after.pods[new], &mut after.pods_before[new]] {
                pod.node = self.node(pod.node);
            }
        }
        for old in 0..NODES {
            let mut node = world.nodes[old];
            node.placement = self.placement(node.placement);
            node.before = self.placement(node.before);
            after.nodes[usize::from(self.nodes[old])] = node;
        }
        for attempt in after.attempts.iter_mut().filter(|attempt| attempt.is_some()) {
            attempt.extender = self.extender(attempt.extender);
            (attempt.pod, attempt.node) = (self.pod(attempt.pod), self.node(attempt.node));
            (attempt.also, attempt.at) = (self.pod(attempt.also), self.pod(attempt.at));
            if let Ask::Write(write) = attempt.ask {
                attempt.ask = Ask::Write(self.write(write));
            }
        }
        for write in after.late.iter_mut().filter(|write| write.kind != WriteKind::None) {
            *write = self.write(*write);
        }
        after.attempts.sort_unstable();
        after.late.sort_unstable();
        after
    }
}

/// The least of a state's names, and the renaming that leads to it.
#[must_use]
pub fn canonical(world: &World, all: &[Renaming]) -> (World, Renaming) {
    let mut least = (Renaming::NONE.apply(world), Renaming::NONE);
    for renaming in all.iter().skip(1) {
        let candidate = renaming.apply(world);
        if candidate < least.0 {
            least = (candidate, *renaming);
        }
    }
    least
}
