//! Which namespace is whose: decided by the TenantQuotas alone.
use std::collections::{BTreeMap, BTreeSet};

/// Namespaces that belong to the cluster itself; the schema of TenantQuota refuses them too.
const OF_THE_CLUSTER: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// A namespace that a TenantQuota names and does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The namespace.
    pub namespace: String,
    /// Why not.
    pub kind: ConflictKind,
}

/// Why a TenantQuota does not get a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// An older TenantQuota (or one first by name) has it.
    ClaimedBy(String),
    /// It may never be managed.
    Forbidden,
}

/// What one TenantQuota claims.
pub(crate) struct Claim<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) created_ms: u64,
    pub(crate) namespaces: &'a [String],
}

/// The outcome of all claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    owners: BTreeMap<String, String>,
    conflicts: BTreeMap<String, Vec<Conflict>>,
}

impl Claims {
    pub(crate) fn settle(mut claims: Vec<Claim<'_>>, own_namespace: &str) -> Self {
        claims.sort_by_key(|claim| (claim.created_ms, claim.tenant));
        let mut settled = Self::default();
        for claim in claims {
            let names: BTreeSet<&String> = claim.namespaces.iter().collect();
            for namespace in names {
                let kind = if namespace == own_namespace || OF_THE_CLUSTER.contains(&namespace.as_str()) {
                    ConflictKind::Forbidden
                } else if let Some(owner) = settled.owners.get(namespace) {
                    ConflictKind::ClaimedBy(owner.clone())
                } else {
                    settled.owners.insert(namespace.clone(), claim.tenant.to_owned());
                    continue;
                };
                let conflict = Conflict { namespace: namespace.clone(), kind };
                settled.conflicts.entry(claim.tenant.to_owned()).or_default().push(conflict);
            }
        }
        settled
    }

    pub(crate) fn owner(&self, namespace: &str) -> Option<&str> {
        self.owners.get(namespace).map(String::as_str)
    }

    /// Tenant by namespace.
    pub(crate) fn owners(&self) -> &BTreeMap<String, String> {
        &self.owners
    }

    /// Ascending.
    pub(crate) fn namespaces_of(&self, tenant: &str) -> Vec<String> {
        self.owners.iter().filter(|(_, owner)| *owner == tenant).map(|(namespace, _)| namespace.clone()).collect()
    }

    pub(crate) fn conflicts_of(&self, tenant: &str) -> Vec<Conflict> {
        self.conflicts.get(tenant).cloned().unwrap_or_default()
    }
}
