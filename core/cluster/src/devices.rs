//! Devices of resource claims (DRA): which devices were allocated to a pod, and where they are.
//!
//! kube-scheduler writes the allocation of a claim before it binds the pod, so that at bind the devices are known and
//! CPUs near them can be chosen. When nodes are filtered and scored they are not known, or they say nothing new: a claim
//! that was allocated earlier admits only the nodes that its devices are on.
use crate::node::NodeView;
use crate::pod::PodWish;
use fairlead_topology::{CpuMask, PciDescription};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{Device, ResourceClaim, ResourceSlice};
use std::collections::BTreeMap;

/// Standard attribute: the PCI address (<https://kubernetes.io/docs/reference/node/dra-standard-device-attributes/>).
const PCI_ADDRESS: &str = "resource.kubernetes.io/pciBusID";
/// Standard attribute, same page: the NUMA node as the kernel numbers it. Only its form of one integer is read.
const NUMA_NODE: &str = "resource.kubernetes.io/numaNode";

/// A claim of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    /// What the pod calls it.
    pub name: String,
    /// Name of the ResourceClaim; `None`: it is to be made from a template and is not there yet.
    pub object: Option<String>,
}

/// A device that was allocated to a claim of a pod, or a claim of which no device is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDevice {
    /// What the pod calls the claim.
    pub claim: String,
    /// Driver, pool and name of the device, separated by slashes; `None`: none is known.
    pub device: Option<String>,
    /// Where it is.
    pub location: Result<DeviceLocation, Unlocated>,
}

/// Where a device is, as its ResourceSlice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLocation {
    /// The node.
    pub node: String,
    /// `0000:3b:00.0`, lower case.
    pub pci_address: Option<String>,
    /// NUMA node id; there if the address is not, and perhaps beside it.
    pub numa_node: Option<u32>,
}

/// Why nothing can be near a device: its place is not known. CPUs are then chosen without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlocated {
    /// No such object, or none yet.
    #[error("its ResourceClaim does not exist")]
    ClaimMissing,
    /// Nobody allocated it.
    #[error("its ResourceClaim is not allocated")]
    ClaimUnallocated,
    /// No slice of a node has it.
    #[error("no ResourceSlice of a node lists it")]
    Unlisted,
    /// The slice of another node has it.
    #[error("it is on node {node}")]
    OnAnotherNode {
        /// That node.
        node: String,
    },
    /// The driver does not say where it is.
    #[error("its ResourceSlice gives neither {PCI_ADDRESS} as a text nor {NUMA_NODE} as an integer")]
    NoAttribute,
    /// The driver says nonsense.
    #[error("{PCI_ADDRESS} {value:?} is no PCI address such as \"0000:3b:00.0\": the DRA driver must publish one")]
    AddressInvalid {
        /// What it says.
        value: String,
    },
    /// No consistent NodeTopology is there.
    #[error("the machine of the node is not known")]
    NoMachine,
    /// The agent's hwloc did not see it.
    #[error("the NodeTopology has neither PCI device {address} nor a NUMA node with CPUs for it")]
    NotInMachine {
        /// Its address, or `-`.
        address: String,
    },
}

impl Unlocated {
    /// The name of the reason, for metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClaimMissing => "ClaimMissing",
            Self::ClaimUnallocated => "ClaimUnallocated",
            Self::Unlisted => "Unlisted",
            Self::OnAnotherNode { .. } => "OnAnotherNode",
            Self::NoAttribute => "NoAttribute",
            Self::AddressInvalid { .. } => "AddressInvalid",
            Self::NoMachine => "NoMachine",
            Self::NotInMachine { .. } => "NotInMachine",
        }
    }
}

impl ClaimedDevice {
    /// CPUs near it on that node.
    ///
    /// # Errors
    /// [`Unlocated`].
    pub fn cpus_on(&self, node: &NodeView) -> Result<CpuMask, Unlocated> {
        let place = self.location.as_ref().map_err(Unlocated::clone)?;
        let machine = node.machine.as_ref().ok_or(Unlocated::NoMachine)?;
        if place.node != node.name {
            return Err(Unlocated::OnAnotherNode { node: place.node.clone() });
        }
        let seen = place.pci_address.as_ref().and_then(|address| {
            machine.pci_devices().iter().find(|device| device.address == *address).map(|device| &device.cpus)
        });
        let numa = || machine.numa_cpus(machine.numa_index(place.numa_node?)?);
        let near = seen.or_else(numa).filter(|cpus| !cpus.is_empty());
        let address = || place.pci_address.clone().unwrap_or_else(|| "-".to_owned());
        near.cloned().ok_or_else(|| Unlocated::NotInMachine { address: address() })
    }
}

impl NodeView {
    /// CPUs near the devices of the pod's claims that are known to be here.
    pub(crate) fn near_claimed(&self, pod: &PodWish) -> CpuMask {
        let mut near = CpuMask::new();
        if pod.wants_devices_near() {
            for cpus in pod.devices.iter().filter_map(|device| device.cpus_on(self).ok()) {
                near.union_with(&cpus);
            }
        }
        near
    }
}

/// The claims of a pod that have an object, or are to have one.
#[must_use]
pub fn claims_of(pod: &Pod) -> Vec<PodClaim> {
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref());
    let entries = pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default();
    let claim = |entry: &k8s_openapi::api::core::v1::PodResourceClaim| {
        let name = entry.name.clone();
        if let Some(object) = &entry.resource_claim_name {
            return Some(PodClaim { name, object: Some(object.clone()) });
        }
        match statuses.unwrap_or_default().iter().find(|status| status.name == name) {
            // An entry without a name: the template asks for nothing.
            Some(status) => status.resource_claim_name.clone().map(|object| PodClaim { name, object: Some(object) }),
            None => Some(PodClaim { name, object: None }),
        }
    };
    entries.iter().filter_map(claim).collect()
}

/// The devices allocated to the claims of a pod. Of `claims` those of its namespace count; of `slices` those of nodes,
/// and of each driver's pool the newest generation.
#[must_use]
pub fn claimed_devices(pod: &Pod, claims: &[ResourceClaim], slices: &[ResourceSlice]) -> Vec<ClaimedDevice> {
    let listed = Listed::of(slices);
    let namespace = pod.metadata.namespace.as_deref();
    let mut devices = Vec::new();
    for PodClaim { name, object } in claims_of(pod) {
        let of_pod = |claim: &&ResourceClaim| {
            claim.metadata.namespace.as_deref() == namespace && claim.metadata.name == object && object.is_some()
        };
        match claims.iter().find(of_pod) {
            Some(claim) => devices.extend(listed.allocated(&name, claim)),
            None => devices.push(nothing_of(&name, Unlocated::ClaimMissing)),
        }
    }
    devices
}

fn nothing_of(claim: &str, why: Unlocated) -> ClaimedDevice {
    ClaimedDevice { claim: claim.to_owned(), device: None, location: Err(why) }
}

/// Devices of nodes with their node: by driver, pool and name.
struct Listed<'a>(BTreeMap<(&'a str, &'a str, &'a str), (&'a Device, &'a str)>);

impl<'a> Listed<'a> {
    fn of(slices: &'a [ResourceSlice]) -> Self {
        let mut newest: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let pool = |slice: &'a ResourceSlice| (slice.spec.driver.as_str(), slice.spec.pool.name.as_str());
        for slice in slices {
            let generation = newest.entry(pool(slice)).or_insert(slice.spec.pool.generation);
            *generation = slice.spec.pool.generation.max(*generation);
        }
        let mut devices = BTreeMap::new();
        for slice in slices.iter().filter(|slice| newest.get(&pool(slice)) == Some(&slice.spec.pool.generation)) {
            let Some(node) = slice.spec.node_name.as_deref() else { continue };
            let (driver, pool) = pool(slice);
            for device in slice.spec.devices.iter().flatten() {
                devices.insert((driver, pool, device.name.as_str()), (device, node));
            }
        }
        Self(devices)
    }

    fn allocated(&self, name: &str, claim: &ResourceClaim) -> Vec<ClaimedDevice> {
        let Some(allocation) = claim.status.as_ref().and_then(|status| status.allocation.as_ref()) else {
            return vec![nothing_of(name, Unlocated::ClaimUnallocated)];
        };
        let results = allocation.devices.as_ref().and_then(|devices| devices.results.as_deref()).unwrap_or_default();
        // Administrative access watches a device that others use.
        let used = results.iter().filter(|result| result.admin_access != Some(true));
        let claimed = |driver: &str, pool: &str, device: &str| ClaimedDevice {
            claim: name.to_owned(),
            device: Some(format!("{driver}/{pool}/{device}")),
            location: self
                .0
                .get(&(driver, pool, device))
                .map_or(Err(Unlocated::Unlisted), |(device, node)| location(device, node)),
        };
        used.map(|result| claimed(&result.driver, &result.pool, &result.device)).collect()
    }
}

fn location(device: &Device, node: &str) -> Result<DeviceLocation, Unlocated> {
    let attribute = |name: &str| device.attributes.as_ref().and_then(|all| all.get(name));
    let written = attribute(PCI_ADDRESS).and_then(|value| value.string.as_deref());
    let lower_case = written.map(str::to_ascii_lowercase);
    let pci_address = lower_case.filter(|address| PciDescription::is_address(address));
    let numa_node = attribute(NUMA_NODE).and_then(|value| value.int).and_then(|id| u32::try_from(id).ok());
    match (written, &pci_address, numa_node) {
        (Some(value), None, None) => Err(Unlocated::AddressInvalid { value: value.to_owned() }),
        (None, None, None) => Err(Unlocated::NoAttribute),
        _ => Ok(DeviceLocation { node: node.to_owned(), pci_address, numa_node }),
    }
}
