//! What lies around a pod on one node: devices it wants to be near, the CPUs of pods it likes, and of pods that it dislikes
//! or that dislike it. Dislike works both ways, as anti-affinity does in Kubernetes: who came first does not matter.
use crate::devices::ClaimedDevice;
use crate::node::NodeView;
use crate::pod::{PodView, PodWish};
use crate::pools::Pools;
use crate::snapshot::Snapshot;
use crate::wish::Understood;
use fairlead_placement::{Beside, PlacementFacts, Reservation};
use fairlead_topology::{CpuMask, Machine, PciDescription, Surroundings};
use std::collections::{BTreeMap, BTreeSet};

/// CPUs of its own that a pod holds or was promised on a node, if others may care: it is of a WorkerPool, or dislikes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) namespace: String,
    pub(crate) pool: Option<String>,
    pub(crate) pod_uid: String,
    /// Pools of its namespace.
    pub(crate) dislikes: BTreeSet<String>,
    pub(crate) cpus: CpuMask,
}

impl Neighbour {
    /// None if nobody can care.
    fn of(pod: &PodView, pools: &Pools, cpus: &CpuMask) -> Option<Self> {
        let pool = pools.of_pod(&pod.id.namespace, &pod.labels);
        let pool_view = pool.map(|pool| &**pool);
        // A pod with an annotation that is no wish got it after it was placed, and still is one of its pool.
        let wish = Understood::of(&pod.wishes, pool_view).or_else(|_| Understood::of(&BTreeMap::new(), pool_view));
        let dislikes = wish.map(|wish| wish.dislikes.value).unwrap_or_default();
        (pool.is_some() || !dislikes.is_empty()).then(|| Self {
            namespace: pod.id.namespace.clone(),
            pool: pool.map(|pool| pool.name.clone()),
            pod_uid: pod.id.uid.clone(),
            dislikes,
            cpus: cpus.clone(),
        })
    }

    /// Pods with CPUs of their own on that node, by its list, by annotation or by a promise of this process, bound or not:
    /// one that is on its way there is held against others as they against it.
    pub(crate) fn on<'a>(
        node: &str,
        listed: &[Reservation],
        beside: &Beside,
        pools: &Pools,
        pod: impl Fn(&str) -> Option<&'a PodView>,
    ) -> Vec<Self> {
        let is_here = |pod: &&PodView| pod.node.as_deref().is_none_or(|at| at == node);
        let neighbour = |held: &Reservation| Self::of(pod(&held.pod.uid).filter(is_here)?, pools, &held.cpus);
        listed.iter().chain(beside.unlisted(listed, "")).filter_map(neighbour).collect()
    }

    fn is_of(&self, pools: &BTreeSet<String>) -> bool {
        self.pool.as_ref().is_some_and(|pool| pools.contains(pool))
    }

    /// Whether one of the two would rather be without the other.
    fn is_at_odds_with(&self, pod: &PodWish) -> bool {
        let shuns = pod.wish.pool.as_ref().is_some_and(|pool| self.dislikes.contains(pool));
        shuns || self.is_of(&pod.wish.dislikes.value)
    }
}

/// All that the surroundings of a pod depend on, beside the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbourhood {
    namespace: String,
    /// Only if somebody dislikes it.
    pool: Option<String>,
    near: BTreeSet<String>,
    /// Of its resource claims, if it wants to be near them.
    devices: Vec<ClaimedDevice>,
    likes: BTreeSet<String>,
    dislikes: BTreeSet<String>,
}

impl Snapshot {
    /// What lies around the pod on that node; nothing where neither it nor anybody there cares, or where no machine is known.
    #[must_use]
    pub fn around(&self, node: &str, pod: &PodWish) -> Surroundings {
        let known = self.known(node);
        known.map(|(view, machine)| view.around(machine, pod, |_| true)).unwrap_or_default()
    }

    /// The same by a reading of the node's NodePlacement, which may be newer than what the watch shows of it: whose CPUs
    /// are not free there is a neighbour.
    #[must_use]
    pub fn around_in(&self, node: &str, read: &PlacementFacts, pod: &PodWish) -> Surroundings {
        let Some((view, machine)) = self.known(node) else { return Surroundings::default() };
        let pod_of = |uid: &str| self.pods.get(uid).map(|pod| &**pod);
        let neighbours = Neighbour::on(node, &read.reservations, &read.beside, &self.pools, pod_of);
        view.among(&neighbours, machine, pod, |_| true)
    }

    fn known(&self, node: &str) -> Option<(&NodeView, &Machine)> {
        let view = self.node_named(node)?;
        Some((view, view.machine.as_deref()?))
    }

    /// None: nothing lies around the pod on any node.
    pub(crate) fn neighbourhood_of(&self, pod: &PodWish) -> Option<Neighbourhood> {
        let (namespace, wish) = (&pod.id.namespace, &pod.wish);
        let pool = wish.pool.as_ref().filter(|pool| self.sums.is_disliked(namespace, pool));
        (pod.looks_around() || pool.is_some()).then(|| Neighbourhood {
            namespace: namespace.clone(),
            pool: pool.cloned(),
            near: wish.near.value.clone(),
            devices: if pod.wants_devices_near() { pod.devices.clone() } else { Vec::new() },
            likes: wish.likes.value.clone(),
            dislikes: wish.dislikes.value.clone(),
        })
    }
}

impl NodeView {
    /// Of the neighbours only those that stay; a pod is no neighbour of itself.
    pub(crate) fn around(&self, machine: &Machine, pod: &PodWish, stays: impl Fn(&str) -> bool) -> Surroundings {
        self.among(&self.neighbours, machine, pod, stays)
    }

    fn among(
        &self,
        neighbours: &[Neighbour],
        machine: &Machine,
        pod: &PodWish,
        stays: impl Fn(&str) -> bool,
    ) -> Surroundings {
        let wish = &pod.wish;
        let mut around = Surroundings::default();
        for held in neighbours.iter().filter(|held| held.namespace == pod.id.namespace) {
            if held.pod_uid == pod.id.uid || !stays(&held.pod_uid) {
                continue;
            }
            if held.is_of(&wish.likes.value) {
                around.liked.union_with(&held.cpus);
            }
            if held.is_at_odds_with(pod) {
                around.disliked.union_with(&held.cpus);
            }
        }
        if !wish.near.value.is_empty() {
            for device in machine.pci_devices() {
                if wish.near.value.iter().any(|wished| is_meant(device, wished)) {
                    around.near.union_with(&device.cpus);
                }
            }
        }
        around.near.union_with(&self.near_claimed(pod));
        around
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
