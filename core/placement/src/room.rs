//! What a node has left for one more pod: the machine without its reservations and without what is held beside them.
use crate::reservation::take_huge_pages;
use crate::{Held, Reservation, ReservationFault};
use fairlead_topology::{CpuMask, Machine, NodeFree, NumaHugePages};
use std::borrow::Cow;

/// What a bind of this process counts on before the watch shows its pod bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// UID of the pod.
    pub pod_uid: String,
    /// Milli-CPU that it will take from the shared pool.
    pub shared_milli: u64,
    /// The CPUs and the memory that it gets for itself.
    pub reservation: Option<Reservation>,
}

/// What is held on a node without being in its NodePlacement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// All live pods bound there whose Binding carried a placement. One that has no reservation (its NodePlacement was
    /// deleted and made anew) runs on those CPUs all the same. Those with one are here too: which have one is known only
    /// with the list of reservations that is decided on ([`Beside::unlisted`]).
    pub carried: Vec<Reservation>,
    /// Promises of this process to pods that the watch does not show as bound yet.
    pub promises: Vec<Promise>,
    /// CPUs that the node has and does not offer, rounded up.
    pub system_reserve: u32,
    /// Bytes without huge pages that the machine has and the node does not offer: for the system, the kubelet, the eviction
    /// threshold. Nobody knows on which NUMA nodes they are, so each is taken to give its part.
    pub system_memory_bytes: u64,
    /// Milli-CPU that the pods bound there request of the shared pool.
    pub shared_milli: u64,
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// CPUs that nobody holds.
    pub cpus: CpuMask,
    /// Bytes without huge pages that nobody holds, by dense NUMA index.
    pub memory_bytes: Vec<u64>,
    /// Huge pages that nobody holds.
    pub huge_pages: Vec<NumaHugePages>,
    /// CPUs of those that must stay in the shared pool.
    pub shared_reserve: u32,
}

impl Beside {
    /// CPUs that must stay in the shared pool with so many milli-CPU more in it, if it is the pod `own` that asks.
    #[must_use]
    pub fn shared_reserve(&self, own: &str, more_milli: u64) -> u32 {
        let others = self.promises.iter().filter(|promise| promise.pod_uid != own);
        let promised = others.fold(more_milli, |sum, promise| sum.saturating_add(promise.shared_milli));
        let cpus = self.shared_milli.saturating_add(promised).div_ceil(1000);
        self.system_reserve.saturating_add(u32::try_from(cpus).unwrap_or(u32::MAX))
    }

    /// What pods other than `own` that are known to be bound carry, and have no reservation for among these.
    pub fn unrestored<'a>(&'a self, listed: &'a [Reservation], own: &'a str) -> impl Iterator<Item = &'a Reservation> {
        self.carried
            .iter()
            .filter(move |held| held.pod.uid != own && !listed.iter().any(|entry| entry.pod.uid == held.pod.uid))
    }

    /// What is held by pods other than `own` that have no reservation among these.
    pub fn unlisted<'a>(&'a self, listed: &'a [Reservation], own: &'a str) -> impl Iterator<Item = &'a Reservation> {
        let promised = self.promises.iter().filter_map(|promise| promise.reservation.as_ref());
        let all = self.carried.iter().chain(promised);
        all.filter(move |held| held.pod.uid != own && !listed.iter().any(|entry| entry.pod.uid == held.pod.uid))
    }
}

impl Room {
    /// What is left for the pod `own`, not counting what that pod holds itself, if `more_milli` of its request stay in the
    /// shared pool. Filter, choice and bind all ask this.
    ///
    /// # Errors
    /// Reservations of others that contradict each other or the machine. What is held beside them may overlap with them
    /// for as long as one watch is behind another, and is only taken away.
    pub fn of(
        machine: &Machine,
        listed: &[Reservation],
        beside: &Beside,
        own: &str,
        more_milli: u64,
    ) -> Result<Self, ReservationFault> {
        let others = match listed.iter().position(|held| held.pod.uid == own) {
            Some(index) => {
                let mut others = listed.to_vec();
                others.remove(index);
                Cow::Owned(others)
            }
            None => Cow::Borrowed(listed),
        };
        let held = Held::of(machine, &others)?;
        let mut room = Self {
            cpus: held.free_cpus(machine),
            memory_bytes: held.free_memory_bytes(machine),
            huge_pages: held.free_huge_pages(machine),
            shared_reserve: beside.shared_reserve(own, more_milli),
        };
        room.take_system_memory(machine, beside.system_memory_bytes);
        for held in beside.unlisted(listed, own) {
            room.take(machine, held);
        }
        Ok(room)
    }

    /// In proportion to the memory of the NUMA nodes without huge pages, rounded up.
    fn take_system_memory(&mut self, machine: &Machine, bytes: u64) {
        let of_nodes = (0..machine.numa_ids().len()).map(|index| machine.numa_ordinary_bytes(index));
        let all: u128 = of_nodes.clone().map(u128::from).sum();
        for (left, of_node) in self.memory_bytes.iter_mut().zip(of_nodes) {
            let part = (u128::from(bytes) * u128::from(of_node)).div_ceil(all.max(1));
            *left = left.saturating_sub(u64::try_from(part).unwrap_or(u64::MAX));
        }
    }

    fn take(&mut self, machine: &Machine, held: &Reservation) {
        self.cpus.subtract_with(&held.cpus);
        for (numa_node, bytes) in &held.memory {
            if let Some(left) = machine.numa_index(*numa_node).and_then(|index| self.memory_bytes.get_mut(index)) {
                *left = left.saturating_sub(*bytes);
            }
        }
        for pages in &held.huge_pages {
            take_huge_pages(&mut self.huge_pages, pages);
        }
    }

    /// CPUs of the shared pool: isolated ones are no part of it.
    #[must_use]
    pub fn pool_cpus(&self, machine: &Machine) -> u32 {
        self.cpus.subtract(machine.isolated()).len()
    }

    /// As the choice of CPUs wants it.
    #[must_use]
    pub fn as_node(&self) -> NodeFree<'_> {
        NodeFree {
            cpus: &self.cpus,
            memory_free_bytes: &self.memory_bytes,
            huge_pages: &self.huge_pages,
            shared_reserve: self.shared_reserve,
        }
    }
}
