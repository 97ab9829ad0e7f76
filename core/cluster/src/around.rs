//! What lies around a pod on one node: devices it wants to be near, and the CPUs of pods it likes or dislikes.
use crate::node::NodeView;
use crate::pod::PodWish;
use crate::snapshot::Snapshot;
use fairlead_topology::{CpuMask, Machine, PciDescription, Surroundings};
use std::collections::BTreeSet;

/// CPUs of its own that a pod of a WorkerPool holds on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) namespace: String,
    pub(crate) pool: String,
    pub(crate) pod_uid: String,
    pub(crate) cpus: CpuMask,
}

impl Snapshot {
    /// What lies around the pod on that node; nothing where it wishes nothing, or where no machine is known.
    #[must_use]
    pub fn around(&self, node: &str, pod: &PodWish) -> Surroundings {
        let view = self.node_named(node);
        let known = view.and_then(|view| Some((view, view.machine.as_deref()?)));
        known.map(|(view, machine)| view.around(machine, pod, |_| true)).unwrap_or_default()
    }
}

impl NodeView {
    /// Of the neighbours only those that stay.
    pub(crate) fn around(&self, machine: &Machine, pod: &PodWish, stays: impl Fn(&str) -> bool) -> Surroundings {
        let wish = &pod.wish;
        if !pod.looks_around() {
            return Surroundings::default();
        }
        let held_by = |pools: &BTreeSet<String>| {
            let mut cpus = CpuMask::new();
            let own = self.neighbours.iter().filter(|held| held.namespace == pod.id.namespace);
            for held in own.filter(|held| pools.contains(&held.pool) && stays(&held.pod_uid)) {
                cpus.union_with(&held.cpus);
            }
            cpus
        };
        let mut near = CpuMask::new();
        for device in machine.pci_devices() {
            if wish.near.value.iter().any(|wished| is_meant(device, wished)) {
                near.union_with(&device.cpus);
            }
        }
        near.union_with(&self.near_claimed(pod));
        Surroundings { near, liked: held_by(&wish.likes.value), disliked: held_by(&wish.dislikes.value) }
    }
}

/// By PCI address, by `vendor:device` in hexadecimal with `*` for any, or by a name of the operating system.
fn is_meant(device: &PciDescription, wished: &str) -> bool {
    let hexadecimal = |part: &str, id: u16| part == "*" || u16::from_str_radix(part, 16) == Ok(id);
    let by_id = |(vendor, kind)| hexadecimal(vendor, device.vendor) && hexadecimal(kind, device.device);
    device.address.eq_ignore_ascii_case(wished)
        || device.names.iter().any(|name| name == wished)
        || wished.split_once(':').is_some_and(by_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_meant_by_address_by_id_or_by_name() {
        let device = PciDescription {
            address: "0000:3b:00.0".into(),
            class: 0x0302,
            vendor: 0x10de,
            device: 0x2330,
            names: vec!["card0".into()],
            cpus: CpuMask::new(),
            switch: None,
        };
        for wished in ["0000:3B:00.0", "10de:2330", "10DE:*", "*:2330", "card0"] {
            assert!(is_meant(&device, wished), "{wished}");
        }
        for wished in ["3b:00.0", "10de:2331", "10de", "card", "8086:*", ""] {
            assert!(!is_meant(&device, wished), "{wished}");
        }
    }
}
