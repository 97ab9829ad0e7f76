//! The closed list of reasons for which a node or a pod is refused.
use fairlead_topology::NoFit;
use std::fmt;

/// Why a pod may not go to a node. The text of each is fixed: kube-scheduler groups events by identical text, so numbers
/// belong to `explain` and not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not every kind has been listed yet.
    NotSynced,
    /// No such node is known.
    NodeUnknown,
    /// The node has no NodeTopology.
    NoTopology,
    /// The NodeTopology describes no possible machine, or its two sources disagree.
    TopologyRejected,
    /// The node has no NodePlacement.
    NoPlacementObject,
    /// Its reservations overlap or name CPUs or memory the machine does not have.
    NodeDistrusted,
    /// Its agent observed something else than what was promised.
    NodeDrifted,
    /// Its agent does not pin: the kubelet or somebody else does, or nobody.
    NodeNotOwned,
    /// The machine is too small even when empty.
    MachineTooSmall,
    /// Too few whole cores are free.
    NotEnoughExclusiveCpus,
    /// Too little memory is free on the NUMA nodes.
    NotEnoughNumaMemory,
    /// The shared pool would become too small for the pods in it.
    SharedPoolTooSmall,
    /// An annotation of the pod states a wish that there is not.
    WishInvalid,
    /// The pod wishes CPUs of its own that a pod of its kind cannot have.
    WishImpossible,
    /// The pod may be of a WorkerPool that wishes a topology, and which pods are that pool's is not known (yet).
    WishUnknown,
    /// Too few isolated CPUs are free.
    NotEnoughIsolatedCpus,
    /// The machine has too few isolated CPUs even when empty.
    TooFewIsolatedCpus,
    /// No NUMA node has CPUs and memory free together, and the pod wants one.
    NotOneNumaNode,
    /// The pod wants one NUMA node, and none is large enough even when empty.
    NumaNodeTooSmall,
    /// No L3 cache has enough CPUs free, and the pod wants one.
    NotOneL3,
    /// The pod wants one L3 cache, and none is large enough even when empty.
    L3TooSmall,
    /// Too few huge pages are free on the NUMA nodes.
    NotEnoughHugePages,
    /// The pod has a scheduling gate.
    PodGated,
    /// The pod came past the gate and its tenant is at a hard limit.
    TenantOverHardLimit,
}

impl Reason {
    /// Every reason, in a fixed order; for metrics and documentation.
    pub const ALL: [Self; 24] = [
        Self::NotSynced,
        Self::NodeUnknown,
        Self::NoTopology,
        Self::TopologyRejected,
        Self::NoPlacementObject,
        Self::NodeDistrusted,
        Self::NodeDrifted,
        Self::NodeNotOwned,
        Self::MachineTooSmall,
        Self::NotEnoughExclusiveCpus,
        Self::NotEnoughNumaMemory,
        Self::SharedPoolTooSmall,
        Self::WishInvalid,
        Self::WishImpossible,
        Self::WishUnknown,
        Self::NotEnoughIsolatedCpus,
        Self::TooFewIsolatedCpus,
        Self::NotOneNumaNode,
        Self::NumaNodeTooSmall,
        Self::NotOneL3,
        Self::L3TooSmall,
        Self::NotEnoughHugePages,
        Self::PodGated,
        Self::TenantOverHardLimit,
    ];

    /// Its place in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The text for events and for the scheduler's reply.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSynced => "fairlead: starting, the cluster has not been read completely",
            Self::NodeUnknown => "fairlead: node is not known",
            Self::NoTopology => "fairlead: node has no NodeTopology",
            Self::TopologyRejected => "fairlead: NodeTopology is not accepted",
            Self::NoPlacementObject => "fairlead: node has no NodePlacement",
            Self::NodeDistrusted => "fairlead: reservations of the node contradict its machine",
            Self::NodeDrifted => "fairlead: pods of the node do not run on what they were promised",
            Self::NodeNotOwned => "fairlead: CPUs of the node are pinned by somebody else, or by nobody",
            Self::MachineTooSmall => "fairlead: machine has fewer whole cores than requested",
            Self::NotEnoughExclusiveCpus => "fairlead: not enough free whole cores",
            Self::NotEnoughNumaMemory => "fairlead: not enough free memory on the NUMA nodes",
            Self::SharedPoolTooSmall => "fairlead: shared CPU pool would be too small",
            Self::WishInvalid => "fairlead: an annotation topology.fairlead.dev/ of the pod cannot be read",
            Self::WishImpossible => "fairlead: pod wishes CPUs of its own and is not Guaranteed with whole CPUs",
            Self::WishUnknown => "fairlead: WorkerPool of the pod has no readable status.selector",
            Self::NotEnoughIsolatedCpus => "fairlead: not enough free isolated CPUs",
            Self::TooFewIsolatedCpus => "fairlead: machine has fewer isolated CPUs than requested",
            Self::NotOneNumaNode => "fairlead: no NUMA node has enough free CPUs and memory",
            Self::NumaNodeTooSmall => "fairlead: machine has no NUMA node as large as requested",
            Self::NotOneL3 => "fairlead: no L3 cache has enough free CPUs",
            Self::L3TooSmall => "fairlead: machine has no L3 cache as large as requested",
            Self::NotEnoughHugePages => "fairlead: not enough free huge pages on the NUMA nodes",
            Self::PodGated => "fairlead: pod has a scheduling gate",
            Self::TenantOverHardLimit => "fairlead: tenant is at its hard limit and the pod was not released",
        }
    }

    /// The name, as metrics label and in `explain`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotSynced => "NotSynced",
            Self::NodeUnknown => "NodeUnknown",
            Self::NoTopology => "NoTopology",
            Self::TopologyRejected => "TopologyRejected",
            Self::NoPlacementObject => "NoPlacementObject",
            Self::NodeDistrusted => "NodeDistrusted",
            Self::NodeDrifted => "NodeDrifted",
            Self::NodeNotOwned => "NodeNotOwned",
            Self::MachineTooSmall => "MachineTooSmall",
            Self::NotEnoughExclusiveCpus => "NotEnoughExclusiveCpus",
            Self::NotEnoughNumaMemory => "NotEnoughNumaMemory",
            Self::SharedPoolTooSmall => "SharedPoolTooSmall",
            Self::WishInvalid => "WishInvalid",
            Self::WishImpossible => "WishImpossible",
            Self::WishUnknown => "WishUnknown",
            Self::NotEnoughIsolatedCpus => "NotEnoughIsolatedCpus",
            Self::TooFewIsolatedCpus => "TooFewIsolatedCpus",
            Self::NotOneNumaNode => "NotOneNumaNode",
            Self::NumaNodeTooSmall => "NumaNodeTooSmall",
            Self::NotOneL3 => "NotOneL3",
            Self::L3TooSmall => "L3TooSmall",
            Self::NotEnoughHugePages => "NotEnoughHugePages",
            Self::PodGated => "PodGated",
            Self::TenantOverHardLimit => "TenantOverHardLimit",
        }
    }

    /// Whether evicting pods from the node could not help: then it belongs into `FailedAndUnresolvableNodes`.
    #[must_use]
    pub const fn unresolvable(self) -> bool {
        !matches!(
            self,
            Self::NotEnoughExclusiveCpus
                | Self::NotEnoughNumaMemory
                | Self::SharedPoolTooSmall
                | Self::NotEnoughIsolatedCpus
                | Self::NotOneNumaNode
                | Self::NotOneL3
                | Self::NotEnoughHugePages
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<NoFit> for Reason {
    fn from(no: NoFit) -> Self {
        match no {
            NoFit::LargerThanMachine { .. } => Self::MachineTooSmall,
            NoFit::NothingRequested | NoFit::NotEnoughFreeCpus { .. } => Self::NotEnoughExclusiveCpus,
            NoFit::SharedReserve { .. } => Self::SharedPoolTooSmall,
            NoFit::NotEnoughMemory { .. } => Self::NotEnoughNumaMemory,
            NoFit::TooFewIsolatedCpus { .. } => Self::TooFewIsolatedCpus,
            NoFit::NotEnoughIsolatedCpus { .. } => Self::NotEnoughIsolatedCpus,
            NoFit::NotEnoughHugePages { .. } => Self::NotEnoughHugePages,
            NoFit::LargerThanL3 { .. } => Self::L3TooSmall,
            NoFit::NotOneL3 { .. } => Self::NotOneL3,
            NoFit::LargerThanNumaNode { .. } => Self::NumaNodeTooSmall,
            NoFit::NotOneNumaNode { .. } => Self::NotOneNumaNode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn texts_and_names_are_distinct_and_short() {
        let texts: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!((texts.len(), names.len()), (Reason::ALL.len(), Reason::ALL.len()));
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| reason.index() == index));
        assert!(texts.iter().all(|text| text.len() < 80 && text.starts_with("fairlead: ")));
    }

    #[test]
    fn only_what_a_running_pod_holds_can_be_resolved_by_preemption() {
        let resolvable: Vec<_> = Reason::ALL.into_iter().filter(|reason| !reason.unresolvable()).collect();
        assert_eq!(
            resolvable,
            [
                Reason::NotEnoughExclusiveCpus,
                Reason::NotEnoughNumaMemory,
                Reason::SharedPoolTooSmall,
                Reason::NotEnoughIsolatedCpus,
                Reason::NotOneNumaNode,
                Reason::NotOneL3,
                Reason::NotEnoughHugePages,
            ]
        );
    }
}
