//! The kinds of `fairlead.dev/v1alpha1`: what a user applies, and what Fairlead's parts keep among themselves.
//!
//! | kind | scope | spec by | status by |
//! |---|---|---|---|
//! | [`TenantQuota`] | cluster | user | operator |
//! | [`WorkerPool`] | namespaced | user | operator |
//! | [`NodeTopology`] | cluster, one a node | agent | operator |
//! | [`NodePlacement`] | cluster, one a node | extender | agent |
//! | [`TenantLedger`] | cluster, one a tenant | operator | – |
//!
//! The YAML of `charts/fairlead-crds` and `docs/reference/api.md` is generated from these types.
#![allow(clippy::duplicated_attributes, reason = "kube's printcolumn attributes repeat their keys")]

pub mod conditions;
pub mod keys;
pub mod node_placement;
pub mod node_topology;
pub mod placement;
pub mod quantity;
pub mod tenant_ledger;
pub mod tenant_quota;
pub mod topology_wish;
pub mod worker_pool;

pub use node_placement::{NodePlacement, NodePlacementSpec, NodePlacementStatus, Reservation};
pub use node_topology::{NodeTopology, NodeTopologySpec, NodeTopologyStatus};
pub use quantity::Quantity;
pub use tenant_ledger::{TenantLedger, TenantLedgerSpec};
pub use tenant_quota::{TenantQuota, TenantQuotaSpec, TenantQuotaStatus};
pub use topology_wish::TopologyWish;
pub use worker_pool::{WorkerPool, WorkerPoolSpec, WorkerPoolStatus};

#[cfg(test)]
mod rules_test;
