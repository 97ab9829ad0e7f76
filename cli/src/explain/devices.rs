//! What the devices of a bound pod's claims had to do with its CPUs.
use crate::access::Access;
use crate::error::CliError;
use fairlead_cluster::{ClaimedDevice, NodeView, claimed_devices, claims_of};
use fairlead_topology::CpuMask;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::Api;

/// The devices allocated to a bound pod; none for one without claims, and none if they may not be read: then `missing`
/// says so.
pub(super) async fn read(
    access: &Access,
    pod: &Pod,
    missing: &mut Vec<String>,
) -> Result<Vec<ClaimedDevice>, CliError> {
    let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { return Ok(Vec::new()) };
    let names: Vec<String> = claims_of(pod).into_iter().filter_map(|claim| claim.object).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match objects(access, &names, namespace, node).await {
        Ok((claims, slices)) => Ok(claimed_devices(pod, &claims, &slices)),
        Err(CliError::Forbidden { rights, .. }) => {
            missing.extend(rights);
            Ok(Vec::new())
        }
        Err(other) => Err(other),
    }
}

async fn objects(
    access: &Access,
    names: &[String],
    namespace: &str,
    node: &str,
) -> Result<(Vec<ResourceClaim>, Vec<ResourceSlice>), CliError> {
    let api: Api<ResourceClaim> = Api::namespaced(access.client.clone(), namespace);
    let mut claims = Vec::new();
    for name in names {
        claims.extend(access.get(&api, name, namespace).await?);
    }
    let slices = Api::<ResourceSlice>::all(access.client.clone());
    Ok((claims, access.list(&slices, "", Some(&format!("spec.nodeName={node}"))).await?))
}

/// How near the CPUs of a pod are to each of its devices, or why nothing could be near it.
pub(super) fn notes(devices: &[ClaimedDevice], node: &NodeView, cpus: &CpuMask) -> Vec<String> {
    let note = |device: &ClaimedDevice| {
        let (claim, name) = (&device.claim, device.device.as_deref().unwrap_or("the devices"));
        match device.cpus_on(node) {
            Ok(near) => {
                let both = cpus.intersect(&near).len();
                format!("{both} of its {} CPUs are near {name} of its claim {claim}", cpus.len())
            }
            Err(why) => format!("its CPUs were chosen without {name} of its claim {claim}: {why}"),
        }
    };
    devices.iter().map(note).collect()
}
