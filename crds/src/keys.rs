//! Every name that Fairlead writes into a cluster: labels, annotations, gates, field managers, conditions, reasons.

/// API group of all kinds.
pub const GROUP: &str = "fairlead.dev";
/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// `schedulerName` that managed pods get at creation.
pub const SCHEDULER_NAME: &str = "fairlead-scheduler";

/// Scheduling gate of a pod that waits for its release.
pub const QUOTA_GATE: &str = "fairlead.dev/quota";
/// Label on namespaces and pods: the tenant. Written by the operator (namespaces) and the admission policy (pods) only.
pub const TENANT_LABEL: &str = "fairlead.dev/tenant";
/// Pod annotation `EPOCH:UNIX_MS`, written by the operator in the patch that removes the gate.
pub const RELEASED_ANNOTATION: &str = "fairlead.dev/released";
/// Pod annotation carried by the Binding: JSON of [`crate::placement::Placement`].
pub const PLACEMENT_ANNOTATION: &str = "fairlead.dev/placement";
/// Prefix of the pod annotations that state a topology wish: `topology.fairlead.dev/cpus`, `…/threads`, `…/align`, `…/cache`,
/// `…/packing`, `…/class`, `…/near`, `…/likes`, `…/dislikes`, `…/mode`; lists are separated by commas.
pub const WISH_ANNOTATION_PREFIX: &str = "topology.fairlead.dev/";
/// Pod annotation that the operator writes to cancel an intent, and the extender before it takes a reservation back: it
/// only has to change the resourceVersion, so that no write under way still holds (rule 5).
pub const TOUCHED_ANNOTATION: &str = "fairlead.dev/touched";
/// Annotation of Secrets with a certificate that the operator makes: when it is to be renewed, RFC 3339.
pub const RENEW_ANNOTATION: &str = "fairlead.dev/renew-after";

/// NodePlacement annotation, written by a person: UIDs of pods, separated by commas, whose drift from their promise is known
/// and borne, so that the node is trusted all the same.
pub const TRUST_ANNOTATION: &str = "fairlead.dev/trust";

/// Field managers, one per use site: an apply removes what the same manager owned before and left out.
pub mod manager {
    /// Operator: tenant label of namespaces.
    pub const NAMESPACE_LABEL: &str = "fairlead-operator/namespace-label";
    /// Operator: gate removal and the released annotation.
    pub const RELEASE: &str = "fairlead-operator/release";
    /// Operator: TenantLedger writes.
    pub const LEDGER: &str = "fairlead-operator/ledger";
    /// Operator: pod conditions.
    pub const POD_CONDITION: &str = "fairlead-operator/pod-condition";
    /// Operator: TenantQuota status.
    pub const QUOTA_STATUS: &str = "fairlead-operator/quota-status";
    /// Operator: WorkerPool status.
    pub const POOL_STATUS: &str = "fairlead-operator/pool-status";
    /// Operator: NodeTopology status.
    pub const TOPOLOGY_STATUS: &str = "fairlead-operator/topology-status";
    /// Operator: replicas through the scale subresource.
    pub const SCALE: &str = "fairlead-operator/scale";
    /// Operator: certificates of the extender.
    pub const CERTIFICATES: &str = "fairlead-operator/certificates";
    /// Extender: reservations.
    pub const RESERVATION: &str = "fairlead-extender/reservation";
    /// Agent: NodeTopology.
    pub const TOPOLOGY: &str = "fairlead-agent/topology";
    /// Agent: creation of NodePlacement.
    pub const PLACEMENT: &str = "fairlead-agent/placement";
    /// Agent: NodePlacement status.
    pub const PLACEMENT_STATUS: &str = "fairlead-agent/placement-status";
    /// CLI: drain.
    pub const DRAIN: &str = "kubectl-fairlead/drain";
}

/// Condition types.
pub mod condition {
    /// TenantQuota: the object is valid and all its namespaces are its own.
    pub const READY: &str = "Ready";
    /// WorkerPool: replicas are being driven.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
    /// WorkerPool: a fresh sample of the queue is at hand.
    pub const QUEUE_KNOWN: &str = "QueueKnown";
    /// WorkerPool: the tenant's hard limit keeps the pool below what the queue asks for.
    pub const LIMITED_BY_QUOTA: &str = "LimitedByQuota";
    /// NodeTopology: the described machine is consistent and trusted.
    pub const ACCEPTED: &str = "Accepted";
    /// NodePlacement: every reservation fits the machine that the agent sees.
    pub const CONSISTENT: &str = "Consistent";
    /// NodePlacement: every container with CPUs of its own runs on exactly them.
    pub const PINNED: &str = "Pinned";
    /// Pod: why it waits behind the gate (status False), or that it was released (status True).
    pub const RELEASED: &str = "fairlead.dev/Released";
}

/// Condition reasons that more than one part writes or reads.
pub mod reason {
    /// Everything holds.
    pub const AS_EXPECTED: &str = "AsExpected";
    /// A namespace belongs to an older TenantQuota.
    pub const NAMESPACE_CLAIMED: &str = "NamespaceClaimedByOther";
    /// A namespace that may never be managed.
    pub const NAMESPACE_FORBIDDEN: &str = "NamespaceForbidden";
    /// The scale target does not exist.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// Another autoscaler has the same target.
    pub const SCALE_CONFLICT: &str = "ScaleConflict";
    /// The pool's namespace belongs to no tenant.
    pub const NO_TENANT: &str = "NoTenant";
    /// The tenant's hard limit is reached.
    pub const HARD_LIMIT_REACHED: &str = "HardLimitReached";
    /// The queue asks for no more than the quota admits.
    pub const BELOW_LIMIT: &str = "BelowLimit";
}
