//! Reads, for a bind, which devices were allocated to the claims of its pod and where they are.
//!
//! A few live reads for a pod that has claims cost less than a watch on all ResourceSlices of the cluster, and the
//! allocation was written a moment ago: a watch might not show it yet.
use std::time::Duration;

use fairlead_cluster::{ClaimedDevice, claimed_devices, claims_of};
use fairlead_placement::PodRef;
use fairlead_runtime::{ApiError, deadline};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::api::ListParams;
use kube::{Api, Client};

/// Claims of one pod that are read at a time.
const AT_A_TIME: usize = 8;

/// The devices allocated to the claims of the live pod, looked up in the ResourceSlices of the node; none for a pod that
/// is gone. All reads together take no longer than `limit`.
///
/// # Errors
/// [`ApiError`]: something could not be read.
pub async fn devices_of(
    client: &Client,
    pod: &PodRef,
    node: &str,
    limit: Duration,
) -> Result<Vec<ClaimedDevice>, ApiError> {
    deadline("read devices of ResourceClaims", limit, read(client, pod, node)).await
}

async fn read(client: &Client, pod: &PodRef, node: &str) -> kube::Result<Vec<ClaimedDevice>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let live = pods.get_opt(&pod.name).await?.filter(|live| live.metadata.uid.as_ref() == Some(&pod.uid));
    let Some(live) = live else { return Ok(Vec::new()) };
    let claims: Api<ResourceClaim> = Api::namespaced(client.clone(), &pod.namespace);
    let get = |name: String| {
        let claims = claims.clone();
        async move { claims.get_opt(&name).await }
    };
    let names = claims_of(&live).into_iter().filter_map(|claim| claim.object);
    let found = futures::stream::iter(names).map(get).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>();
    let slices: Api<ResourceSlice> = Api::all(client.clone());
    let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let (found, slices) = futures::try_join!(found, slices.list(&of_node))?;
    let found: Vec<ResourceClaim> = found.into_iter().flatten().collect();
    Ok(claimed_devices(&live, &found, &slices.items))
}
