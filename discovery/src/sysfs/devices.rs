//! PCI devices as sysfs tells them: identity, locality, names, and the bridges above.

use std::collections::BTreeMap;
use std::path::Path;

use fairlead_topology::{CpuMask, PciDescription};

use super::files::Files;
use crate::{DiscoveryError, shape};

/// Folders of names that the operating system gives; their entries link to the devices.
const CLASSES: [&str; 4] = ["class/net", "class/infiniband", "class/drm", "block"];

/// `online` are the CPUs of the machine.
pub(super) fn pci_devices(sysfs: &Path, online: &CpuMask) -> Result<Vec<PciDescription>, DiscoveryError> {
    let files = Files::below(sysfs.join("bus/pci/devices"));
    let mut names = names(sysfs)?;
    let mut devices = Vec::new();
    for address in files.entries("")?.into_iter().filter(|name| PciDescription::is_address(name)) {
        let number = |name: &str| files.hexadecimal(&format!("{address}/{name}"));
        // Base class, subclass, programming interface: one byte each.
        let Some(class) =
            number("class")?.map(|class| (class >> 8) as u16).filter(|class| shape::is_of_interest(*class))
        else {
            continue;
        };
        // A device may go while it is being read.
        let (Some(vendor), Some(device)) = (number("vendor")?, number("device")?) else { continue };
        let bridges = files.link(&address).map(|link| addresses(&link)).unwrap_or_default();
        devices.push(PciDescription {
            class,
            vendor: vendor as u16,
            device: device as u16,
            names: names.remove(&address).unwrap_or_default(),
            cpus: local_cpus(&files, &address, online)?,
            switch: shape::switch_of(bridges.split_last().map_or(&[], |(_, above)| above)),
            address,
        });
    }
    Ok(shape::pci_devices(devices))
}

fn local_cpus(files: &Files, address: &str, online: &CpuMask) -> Result<CpuMask, DiscoveryError> {
    let told = match files.list(&format!("{address}/local_cpulist"))? {
        Some(cpus) => Some(cpus),
        None => files.mask(&format!("{address}/local_cpus"))?,
    };
    let local = told.unwrap_or_default().intersect(online);
    Ok(if local.is_empty() { online.clone() } else { local })
}

/// Names by the address of the nearest PCI device.
fn names(sysfs: &Path) -> Result<BTreeMap<String, Vec<String>>, DiscoveryError> {
    let files = Files::below(sysfs.to_owned());
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for class in CLASSES {
        for name in files.entries(class)? {
            // Connectors of a display card (card0-DP-1) hang below the card itself.
            let link = files.link(&format!("{class}/{name}")).filter(|_| !name.contains('-') || class != "class/drm");
            if let Some(address) = link.and_then(|link| addresses(&link).pop()) {
                names.entry(address).or_default().push(name);
            }
        }
    }
    Ok(names)
}

/// The PCI addresses in a path of the device tree, from the root port down; a host bridge (`pci0000:3a`) has none.
fn addresses(path: &str) -> Vec<String> {
    path.split('/').filter(|part| PciDescription::is_address(part)).map(str::to_owned).collect()
}
