//! The cluster as the user may read it, as one snapshot of the model that operator and extender decide with.
use crate::access::Access;
use crate::error::CliError;
use fairlead_cluster::{Change, Event, Model, Snapshot};
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;

/// Where the chart is installed by the book; it matters only if a TenantQuota names it.
const OWN_NAMESPACE: &str = "fairlead-system";

/// What could be read.
pub(crate) struct Gathered {
    /// `None` if a part may not be read: half a cluster would be judged wrongly.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// All TenantQuotas; empty if they may not be read.
    pub(crate) quotas: Vec<TenantQuota>,
    /// Rights that the user lacks.
    pub(crate) missing: Vec<String>,
}

/// Reads all kinds that decisions depend on.
pub(crate) async fn gather(access: &Access) -> Result<Gathered, CliError> {
    let (nodes, pods, namespaces, quotas, topologies, placements, pools) = futures::join!(
        all::<Node>(access),
        all::<Pod>(access),
        all::<Namespace>(access),
        all::<TenantQuota>(access),
        all::<NodeTopology>(access),
        all::<NodePlacement>(access),
        all::<WorkerPool>(access),
    );
    let mut missing = Vec::new();
    let nodes = allowed(nodes, &mut missing)?;
    let pods = allowed(pods, &mut missing)?;
    let namespaces = allowed(namespaces, &mut missing)?;
    let quotas = allowed(quotas, &mut missing)?;
    let topologies = allowed(topologies, &mut missing)?;
    let placements = allowed(placements, &mut missing)?;
    let pools = allowed(pools, &mut missing)?;
    let snapshot = missing.is_empty().then(|| {
        snapshot([
            Event::Nodes(Change::Reset(nodes)),
            Event::Pods(Change::Reset(pods)),
            Event::Namespaces(Change::Reset(namespaces)),
            Event::Quotas(Change::Reset(quotas.clone())),
            Event::Topologies(Change::Reset(topologies)),
            Event::Placements(Change::Reset(placements)),
            Event::Pools(Change::Reset(pools)),
        ])
    });
    Ok(Gathered { snapshot, quotas, missing })
}

pub(crate) fn snapshot(events: impl IntoIterator<Item = Event>) -> Arc<Snapshot> {
    let mut model = Model::new(OWN_NAMESPACE);
    for event in events {
        model.apply(event);
    }
    model.snapshot()
}

async fn all<K>(access: &Access) -> Result<Vec<K>, CliError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    access.list(&Api::all(access.client.clone()), "", None).await
}

fn allowed<K>(answer: Result<Vec<K>, CliError>, missing: &mut Vec<String>) -> Result<Vec<K>, CliError> {
    match answer {
        Err(CliError::Forbidden { rights, .. }) => {
            missing.extend(rights);
            Ok(Vec::new())
        }
        other => other,
    }
}
