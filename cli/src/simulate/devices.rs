//! Resource claims of the simulated cluster. Claims are allocated as their manifests say: kube-scheduler's own allocator
//! is not simulated.
use super::error::SimulateError;
use super::manifests::Manifest;
use fairlead_cluster::{ClaimedDevice, NodeView, PodWish, claimed_devices};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use serde::Serialize;

/// The claims and slices given so far.
#[derive(Default)]
pub(super) struct Devices {
    claims: Vec<ResourceClaim>,
    slices: Vec<ResourceSlice>,
}

impl Devices {
    /// Takes in, changes or takes away a claim.
    pub(super) fn claim(&mut self, manifest: &Manifest) -> Result<(), SimulateError> {
        let mut claim: ResourceClaim = manifest.read()?;
        claim.metadata.namespace.get_or_insert_with(|| "default".to_owned());
        let key = |one: &ResourceClaim| (one.metadata.namespace.clone(), one.metadata.name.clone());
        put(&mut self.claims, claim, manifest, key)
    }

    /// The same of a slice.
    pub(super) fn slice(&mut self, manifest: &Manifest) -> Result<(), SimulateError> {
        put(&mut self.slices, manifest.read()?, manifest, |one: &ResourceSlice| one.metadata.name.clone())
    }

    /// What is allocated to the pod.
    pub(super) fn of(&self, pod: &Pod) -> Vec<ClaimedDevice> {
        claimed_devices(pod, &self.claims, &self.slices)
    }
}

fn put<K, Key: PartialEq>(
    all: &mut Vec<K>,
    object: K,
    manifest: &Manifest,
    key: impl Fn(&K) -> Key,
) -> Result<(), SimulateError> {
    let before = all.len();
    all.retain(|one| key(one) != key(&object));
    if !manifest.delete {
        all.push(object);
    } else if all.len() == before {
        let name = manifest.text_at("/metadata/name").unwrap_or_default().to_owned();
        return Err(SimulateError::NotThere { at: manifest.at.clone(), kind: manifest.kind.clone(), name });
    }
    Ok(())
}

/// What a device of a placed pod had to do with its CPUs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceAfter {
    pub(super) claim: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<String>,
    /// CPUs of the node that are near it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) near_cpus: Option<String>,
    /// Why none can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unlocated: Option<String>,
}

/// Each device of a pod that could be near it.
pub(super) fn after(wish: &PodWish, node: &NodeView) -> Vec<DeviceAfter> {
    let devices = wish.devices.iter().filter(|_| wish.wants_devices_near());
    let after = |one: &ClaimedDevice| {
        let near = one.cpus_on(node);
        DeviceAfter {
            claim: one.claim.clone(),
            device: one.device.clone(),
            near_cpus: near.as_ref().ok().map(ToString::to_string),
            unlocated: near.err().map(|why| why.to_string()),
        }
    };
    devices.map(after).collect()
}

/// A device that is not on the node keeps the pod away from there, as kube-scheduler would.
pub(super) fn obstacle(wish: &PodWish, node: &NodeView) -> Option<String> {
    let elsewhere = |one: &ClaimedDevice| {
        let place = one.location.as_ref().ok().filter(|place| place.node != node.name)?;
        Some(format!("{} of claim {} is on node {}", one.device.as_deref()?, one.claim, place.node))
    };
    wish.devices.iter().find_map(elsewhere)
}
