//! Errands: requests of the release protocol with all that is needed to carry them out, and what comes of them.
use super::patch::LedgerOwner;
use super::refusals::Words;
use fairlead_crds::tenant_ledger::Intent as LedgerIntent;
use fairlead_fairshare::protocol::{Event, Intent, Uid, Version};
use std::collections::BTreeMap;

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Place {
    /// A pod whose place nobody knew when its intent was written.
    const NOWHERE: &str = "-";

    /// Somebody knew where it is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.namespace != Self::NOWHERE
    }
}

/// One request with all that is needed to carry it out.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Read the ledger.
    ReadLedger {
        /// The request's.
        round: u64,
        /// Tenant.
        tenant: String,
    },
    /// Create it, or swap its contents.
    WriteLedger {
        /// The request's.
        round: u64,
        /// Tenant and its TenantQuota.
        owner: LedgerOwner,
        /// Version that it must have; `None`: it must not be there.
        expect: Option<Version>,
        /// Epoch.
        epoch: u64,
        /// Intents with the places of their pods.
        intents: Vec<LedgerIntent>,
    },
    /// List the pods consistently.
    ListPods {
        /// The request's.
        round: u64,
        /// Tenant.
        tenant: String,
        /// Namespaces.
        namespaces: Vec<String>,
        /// Single pods of other namespaces, with these.
        strays: BTreeMap<Uid, String>,
    },
    /// Remove the gate.
    Ungate {
        /// Tenant.
        tenant: String,
        /// Pod.
        uid: Uid,
        /// Where it is; `None` when nobody knows.
        place: Option<Place>,
        /// Version that it must have.
        version: Version,
        /// For the annotation.
        epoch: u64,
    },
    /// Change the pod's version.
    Touch {
        /// Tenant.
        tenant: String,
        /// Pod.
        uid: Uid,
        /// Where it is; `None` when nobody knows.
        place: Option<Place>,
        /// For the annotation.
        epoch: u64,
    },
}

/// What came of an errand.
#[derive(Debug)]
pub struct Report {
    /// Tenant.
    pub tenant: String,
    /// For the protocol.
    pub event: Event,
    /// Places of pods that were learned on the way.
    pub places: Vec<(Uid, Place)>,
    /// What the server said to a gate removal that it did not do.
    pub refusal: Option<(Uid, Words)>,
}

/// Intents as the ledger keeps them. An intent whose pod nobody can place is kept under a name that no pod has: it still
/// counts until the list shows that there is no such pod.
#[must_use]
pub fn ledger_intents(intents: &[Intent], places: &BTreeMap<Uid, Place>) -> Vec<LedgerIntent> {
    let entry = |intent: &Intent| {
        let place = places.get(&intent.uid).cloned();
        let Place { namespace, name } =
            place.unwrap_or(Place { namespace: Place::NOWHERE.into(), name: Place::NOWHERE.into() });
        LedgerIntent { pod_uid: intent.uid.to_string(), namespace, name, resource_version: intent.version.to_string() }
    };
    intents.iter().map(entry).collect()
}
