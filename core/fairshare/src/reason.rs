//! Why a pod waits behind the gate: a closed list, each with a sentence that stays the same while the fact does.
use crate::limit::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a pod is not released now. Numbers that move with every release (usage, place in the line) are left out on
/// purpose: the reason is written to pods, and only when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "reason")]
pub enum WaitReason {
    /// The tenant uses what its hard limit on a resource admits.
    WaitingForTenantQuota {
        /// The resource.
        resource: String,
        /// What the pod asks for.
        requested: u64,
        /// The tenant's hard limit.
        hard: u64,
    },
    /// The pod asks for more than the tenant may ever have: it waits until its request or the limit changes.
    ExceedsHardLimit {
        /// The resource.
        resource: String,
        /// What the pod asks for.
        requested: u64,
        /// The tenant's hard limit.
        hard: u64,
    },
    /// The tenant's limits admit it; capacity is given out in fair order and its turn has not come.
    WaitingForFairShareTurn,
    /// The tenant has as many pods at once as its hard limit on concurrency admits.
    WaitingForConcurrencySlot {
        /// The hard limit on pods at once.
        hard: u64,
    },
    /// The pod asks for more than the cluster has, even when empty and with the release window on top.
    WaitingForCapacity {
        /// The resource.
        resource: String,
        /// What the pod asks for.
        requested: u64,
    },
    /// Nothing of the tenant is released now: its ledger or its pods cannot be read or written, or not yet.
    ReleaseStalled,
    /// The gate removal of this pod was refused or not answered, for instance because an admission webhook of the tenant
    /// says no or is away.
    ReleaseRefused {
        /// The API server's words.
        fault: String,
    },
    /// The tenant cannot take part until somebody repairs what the message names.
    Misconfigured {
        /// What is wrong, and the fix.
        fault: String,
    },
}

/// The one list of names: a reason that is not in it does not compile.
macro_rules! names {
    ($($reason:ident),* $(,)?) => {
        impl WaitReason {
            /// Every reason as conditions and metrics spell it.
            pub const ALL: &[&str] = &[$(stringify!($reason)),*];

            /// The reason as conditions and metrics spell it.
            #[must_use]
            pub fn as_str(&self) -> &'static str {
                match self {
                    $(Self::$reason { .. } => stringify!($reason),)*
                }
            }
        }
    };
}

names!(
    WaitingForTenantQuota,
    ExceedsHardLimit,
    WaitingForFairShareTurn,
    WaitingForConcurrencySlot,
    WaitingForCapacity,
    ReleaseStalled,
    ReleaseRefused,
    Misconfigured,
);

impl WaitReason {
    /// The reason of a pod that the tenant's hard limits refuse.
    #[must_use]
    pub fn from_refusal(refusal: &Refusal) -> Self {
        let Refusal { resource, requested, hard, never, .. } = refusal;
        let (requested, hard) = (*requested, *hard);
        if *never {
            Self::ExceedsHardLimit { resource: resource.clone(), requested, hard }
        } else if resource == crate::PODS {
            Self::WaitingForConcurrencySlot { hard }
        } else {
            Self::WaitingForTenantQuota { resource: resource.clone(), requested, hard }
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::WaitingForTenantQuota { resource, requested, hard } => format!(
                "the tenant's hard limit of {} {resource} admits no further pod of {} now (95 % rule)",
                Amount(resource, *hard),
                Amount(resource, *requested)
            ),
            Self::ExceedsHardLimit { resource, requested, hard } => format!(
                "the pod requests {} {resource}, the tenant's hard limit is {}: it can never be released as it is",
                Amount(resource, *requested),
                Amount(resource, *hard)
            ),
            Self::WaitingForFairShareTurn => {
                "the tenant's limits admit the pod; it is released in fair order as capacity becomes free".to_owned()
            }
            Self::WaitingForConcurrencySlot { hard } => {
                format!("the tenant's hard limit of {hard} pods at once admits no further pod now (95 % rule)")
            }
            Self::WaitingForCapacity { resource, requested } => format!(
                "the pod requests {} {resource}, more than the cluster has even when empty",
                Amount(resource, *requested)
            ),
            Self::ReleaseStalled => {
                "nothing of the tenant is released now: the condition Ready of its TenantQuota says why".to_owned()
            }
            Self::ReleaseRefused { fault } => {
                format!(
                    "it is the pod's turn, but its gate could not be removed: {fault}; tried again with growing pauses"
                )
            }
            Self::Misconfigured { fault } => fault.clone(),
        }
    }
}

/// An amount as Kubernetes users write it: CPUs (or milli-CPUs), powers of two for bytes where they divide.
struct Amount<'a>(&'a str, u64);

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(resource, amount) = *self;
        if resource == "cpu" {
            return if amount.is_multiple_of(1000) { write!(f, "{}", amount / 1000) } else { write!(f, "{amount}m") };
        }
        let bytes = resource == "memory" || resource == "ephemeral-storage" || resource.starts_with("hugepages-");
        let suffix = [("Gi", 1u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
        match suffix.iter().find(|(_, unit)| bytes && amount > 0 && amount.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", amount / unit),
            None => write!(f, "{amount}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_speak_in_the_units_of_kubernetes() {
        let quota = WaitReason::WaitingForTenantQuota { resource: "cpu".into(), requested: 1500, hard: 200_000 };
        assert_eq!(
            quota.message(),
            "the tenant's hard limit of 200 cpu admits no further pod of 1500m now (95 % rule)"
        );
        let never = WaitReason::ExceedsHardLimit { resource: "memory".into(), requested: 3 << 30, hard: 1 << 20 };
        assert!(never.message().contains("3Gi memory") && never.message().contains("1Mi"), "{}", never.message());
        assert_eq!(never.as_str(), "ExceedsHardLimit");
        assert_eq!(WaitReason::ReleaseStalled.as_str(), "ReleaseStalled");
        assert!(WaitReason::ALL.contains(&never.as_str()));
    }
}
