//! The lies about what a machine has beside cores, memory nodes and caches.

use std::collections::BTreeSet;

use super::{Entry, Owners, all_in_cores, cores_nest, each_list_alone, entries};
use crate::machine::{CpuField, Field, HugePages, MAX_PCI_DEVICES, MAX_PCI_NAMES, PciDescription};
use crate::{CpuMask, MAX_CPUS, MachineDescription, MachineError};

/// Smallest page of any architecture Linux has.
const SMALLEST_PAGE_BYTES: u64 = 4096;

/// `cpus` are those of all `cores`; packages were checked before.
pub(super) fn check(
    description: &MachineDescription,
    cpus: &CpuMask,
    cores: &[Entry<'_>],
    packages: &[Entry<'_>],
    package_owners: &Owners,
) -> Result<(), MachineError> {
    let [dies, clusters, kinds] =
        [Field::Dies, Field::Clusters, Field::CpuKinds].map(|field| entries(description, field));
    let die_owners = groups(Field::Dies, &dies, cpus, cores, false)?;
    groups(Field::Clusters, &clusters, cpus, cores, false)?;
    groups(Field::CpuKinds, &kinds, cpus, cores, !kinds.is_empty())?;
    lie_within((Field::Dies, &dies), (Field::Packages, packages), package_owners)?;
    lie_within((Field::Clusters, &clusters), (Field::Packages, packages), package_owners)?;
    lie_within((Field::Clusters, &clusters), (Field::Dies, &dies), &die_owners)?;
    unusable(description, cpus)?;
    for node in &description.numa_nodes {
        huge_pages(node.id, node.memory_bytes, &node.huge_pages)?;
    }
    pci_devices(&description.pci_devices, cpus)
}

fn groups(
    field: Field,
    list: &[Entry<'_>],
    cpus: &CpuMask,
    cores: &[Entry<'_>],
    all_cores: bool,
) -> Result<Owners, MachineError> {
    each_list_alone(field, list)?;
    let owners = Owners::of_all(field, list)?;
    all_in_cores(field, list, cpus)?;
    cores_nest(cores, field, list, &owners, all_cores)?;
    Ok(owners)
}

/// Every entry of the first list that touches one of the second is wholly inside it.
fn lie_within(
    (field, list): (Field, &[Entry<'_>]),
    (around, outer): (Field, &[Entry<'_>]),
    owners: &Owners,
) -> Result<(), MachineError> {
    for &(id, cpus) in list {
        let touched = cpus.iter().find_map(|cpu| owners.of(cpu)).and_then(|position| outer.get(position));
        if let Some(&(other, inside)) = touched
            && !cpus.is_subset(inside)
        {
            return Err(MachineError::GroupStraddles { field, id, around, other });
        }
    }
    Ok(())
}

fn unusable(description: &MachineDescription, known: &CpuMask) -> Result<(), MachineError> {
    let MachineDescription { isolated, disallowed, offline, .. } = description;
    for (field, cpus) in
        [(CpuField::Isolated, isolated), (CpuField::Disallowed, disallowed), (CpuField::Offline, offline)]
    {
        if let Some(cpu) = cpus.last().filter(|&cpu| cpu >= MAX_CPUS) {
            return Err(MachineError::CpuSetOutOfRange { field, cpu, max: MAX_CPUS - 1 });
        }
    }
    if !isolated.is_subset(known) {
        return Err(MachineError::IsolatedUnknown { cpus: isolated.subtract(known) });
    }
    for (field, cpus) in [(CpuField::Disallowed, disallowed), (CpuField::Offline, offline)] {
        if cpus.intersects(known) {
            return Err(MachineError::UnusableInUse { field, cpus: cpus.intersect(known) });
        }
    }
    if disallowed.intersects(offline) {
        return Err(MachineError::DisallowedOffline { cpus: disallowed.intersect(offline) });
    }
    Ok(())
}

fn huge_pages(numa: u32, memory_bytes: u64, list: &[HugePages]) -> Result<(), MachineError> {
    let mut seen = BTreeSet::new();
    let mut left_bytes = memory_bytes;
    for &HugePages { page_bytes, count } in list {
        if page_bytes < SMALLEST_PAGE_BYTES || !page_bytes.is_power_of_two() {
            return Err(MachineError::PageSize { numa, page_bytes });
        }
        if !seen.insert(page_bytes) {
            return Err(MachineError::PageSizeTwice { numa, page_bytes });
        }
        left_bytes = page_bytes
            .checked_mul(count)
            .and_then(|bytes| left_bytes.checked_sub(bytes))
            .ok_or(MachineError::HugePagesAboveMemory { numa, memory_bytes })?;
    }
    Ok(())
}

fn pci_devices(devices: &[PciDescription], known: &CpuMask) -> Result<(), MachineError> {
    at_most(MAX_PCI_DEVICES, devices.len(), || "pciDevices".to_owned())?;
    let mut seen = BTreeSet::new();
    for device in devices {
        let address = || device.address.clone();
        for (field, text) in [("address", Some(&device.address)), ("switch", device.switch.as_ref())] {
            if let Some(text) = text.filter(|text| !PciDescription::is_address(text)) {
                return Err(MachineError::PciAddress { address: address(), field, text: text.clone() });
            }
        }
        if !seen.insert(&device.address) {
            return Err(MachineError::PciTwice { address: address() });
        }
        at_most(MAX_PCI_NAMES, device.names.len(), || format!("pciDevices[address={}].names", device.address))?;
        if device.cpus.is_empty() {
            return Err(MachineError::PciWithoutCpus { address: address() });
        }
        if !device.cpus.is_subset(known) {
            return Err(MachineError::PciNotInCore { address: address(), cpus: device.cpus.subtract(known) });
        }
    }
    Ok(())
}

fn at_most(max: usize, count: usize, field: impl Fn() -> String) -> Result<(), MachineError> {
    if count > max { Err(MachineError::TooMany { field: field(), count, max }) } else { Ok(()) }
}
