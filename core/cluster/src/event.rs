//! What the watches say.
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};

/// A change of one kind of object.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "events are moved once, from the watch into the model")]
pub enum Change<K> {
    /// A list: these exist and no others.
    Reset(Vec<K>),
    /// This one was added or changed.
    Apply(K),
    /// This one is gone.
    Delete(K),
}

/// A change of the cluster.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "events are moved once, from the watch into the model")]
pub enum Event {
    /// Nodes.
    Nodes(Change<Node>),
    /// Pods of all namespaces.
    Pods(Change<Pod>),
    /// TenantQuotas.
    Quotas(Change<TenantQuota>),
    /// WorkerPools of all namespaces.
    Pools(Change<WorkerPool>),
    /// NodeTopologies.
    Topologies(Change<NodeTopology>),
    /// NodePlacements.
    Placements(Change<NodePlacement>),
    /// The NodePlacement that a patch answered with, ahead of the watch or behind it: it counts if the watch knows that
    /// very object in no later state.
    Written(NodePlacement),
    /// Namespaces.
    Namespaces(Change<Namespace>),
}
