//! From hwloc's PCI objects to devices with their locality.

use fairlead_topology::{CpuMask, PciDescription};
use hwlocality::Topology;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::{ObjectAttributes, PCIDeviceAttributes, UpstreamAttributes};
use hwlocality::object::types::ObjectType;

use super::reading::mask;
use crate::{DiscoveryError, shape};

/// `all` are the CPUs of the machine.
pub(super) fn pci_devices(topology: &Topology, all: &CpuMask) -> Result<Vec<PciDescription>, DiscoveryError> {
    let mut devices = Vec::new();
    for object in topology.pci_devices() {
        let Some(ObjectAttributes::PCIDevice(pci)) = object.attributes() else { continue };
        if !shape::is_of_interest(pci.class_id()) {
            continue;
        }
        devices.push(PciDescription {
            address: address(pci),
            class: pci.class_id(),
            vendor: pci.vendor_id(),
            device: pci.device_id(),
            names: names(object),
            cpus: local_cpus(object, all)?,
            switch: shape::switch_of(&bridges(object)),
        });
    }
    Ok(shape::pci_devices(devices))
}

/// What hwloc hangs the device on: an L3, a NUMA node, a package, or the machine where it knows nothing.
fn local_cpus(object: &TopologyObject, all: &CpuMask) -> Result<CpuMask, DiscoveryError> {
    let cpus = match object.first_non_io_ancestor().and_then(TopologyObject::cpuset) {
        Some(set) => mask(&set, "PCIDevice")?.intersect(all),
        None => CpuMask::new(),
    };
    Ok(if cpus.is_empty() { all.clone() } else { cpus })
}

fn names(object: &TopologyObject) -> Vec<String> {
    let children = object.io_children().filter(|child| child.object_type() == ObjectType::OSDevice);
    children.filter_map(|child| Some(child.name()?.to_str().ok()?.to_owned())).collect()
}

/// Addresses of the PCI bridges above, from the root port down; host bridges have none.
fn bridges(object: &TopologyObject) -> Vec<String> {
    let mut above: Vec<String> = object
        .ancestors()
        .filter_map(|ancestor| match ancestor.attributes() {
            Some(ObjectAttributes::Bridge(bridge)) => {
                bridge.upstream_attributes().map(|UpstreamAttributes::PCI(pci)| address(pci))
            }
            _ => None,
        })
        .collect();
    above.reverse();
    above
}

fn address(pci: &PCIDeviceAttributes) -> String {
    format!("{:04x}:{:02x}:{:02x}.{:x}", pci.domain(), pci.bus_id(), pci.bus_device(), pci.function())
}
