//! One reservation, and what all reservations of a node come to.
use fairlead_topology::{Choice, CpuMask, Machine, NumaHugePages};
use std::collections::BTreeMap;

/// Which pod, by the name it is read under and the UID that makes it this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// CPUs and memory promised to one pod on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The pod.
    pub pod: PodRef,
    /// When the promise was made or last renewed, ms since the Unix epoch. On the wire it has whole seconds, so two
    /// writes of one reservation lie at least a second apart here.
    pub reserved_at_ms: u64,
    /// All CPUs taken, idle siblings included. Of a pod that wished for single threads these alone: their siblings may be
    /// another pod's.
    pub cpus: CpuMask,
    /// The CPUs of each container that has its own, in the order of the pod.
    pub containers: Vec<(String, CpuMask)>,
    /// Bytes by NUMA node id, without huge pages.
    pub memory: Vec<(u32, u64)>,
    /// Huge pages by NUMA node id and size; these nodes are in `memory` too.
    pub huge_pages: Vec<NumaHugePages>,
    /// Whether the CPUs are isolated ones.
    pub isolated: bool,
}

impl Reservation {
    /// The promise of a choice.
    #[must_use]
    pub fn of_choice(pod: PodRef, reserved_at_ms: u64, choice: Choice) -> Self {
        let Choice { containers, cpus, memory, huge_pages, isolated, .. } = choice;
        Self { pod, reserved_at_ms, cpus, containers, memory, huge_pages, isolated }
    }

    /// Reads one from the plain parts that it has on the wire: CPU lists, containers with theirs, and (NUMA node, bytes).
    ///
    /// # Errors
    /// A CPU list or a number that cannot be read.
    pub fn parse<'a>(
        pod: PodRef,
        reserved_at_ms: i64,
        cpus: &str,
        containers: impl IntoIterator<Item = (&'a str, &'a str)>,
        memory: impl IntoIterator<Item = (i64, i64)>,
    ) -> Result<Self, ReservationFault> {
        let malformed =
            |field, message: String| ReservationFault::Malformed { pod_uid: pod.uid.clone(), field, message };
        let mask = |field, text: &str| CpuMask::parse_list(text).map_err(|error| malformed(field, error.to_string()));
        let container = |(name, cpus): (&str, &str)| Ok((name.to_owned(), mask("containers.cpus", cpus)?));
        let memory_of = |(numa_node, bytes): (i64, i64)| {
            let id = u32::try_from(numa_node);
            let id = id.map_err(|_| malformed("memory.numaNode", format!("{numa_node} is no NUMA node")))?;
            let amount = u64::try_from(bytes);
            Ok((id, amount.map_err(|_| malformed("memory.bytes", format!("{bytes} is no amount")))?))
        };
        let cpus = mask("cpus", cpus)?;
        let containers = containers.into_iter().map(container).collect::<Result<_, _>>()?;
        let memory = memory.into_iter().map(memory_of).collect::<Result<_, _>>()?;
        let reserved_at_ms = u64::try_from(reserved_at_ms).unwrap_or(0);
        Ok(Self { pod, reserved_at_ms, cpus, containers, memory, huge_pages: Vec::new(), isolated: false })
    }

    /// Adds what reservations of the first releases did not have: (NUMA node, bytes of a page, bytes), and the class of the
    /// CPUs.
    ///
    /// # Errors
    /// A number that cannot be.
    pub fn with_huge_pages(
        mut self,
        pages: impl IntoIterator<Item = (i64, i64, i64)>,
        isolated: bool,
    ) -> Result<Self, ReservationFault> {
        let malformed = |field, value: i64| ReservationFault::Malformed {
            pod_uid: self.pod.uid.clone(),
            field,
            message: format!("{value} is no amount"),
        };
        let of_size = |(numa_node, page_bytes, bytes): (i64, i64, i64)| {
            Ok(NumaHugePages {
                numa_node: u32::try_from(numa_node).map_err(|_| malformed("memory.numaNode", numa_node))?,
                page_bytes: u64::try_from(page_bytes)
                    .map_err(|_| malformed("memory.hugePages.pageBytes", page_bytes))?,
                bytes: u64::try_from(bytes).map_err(|_| malformed("memory.hugePages.bytes", bytes))?,
            })
        };
        self.huge_pages = pages.into_iter().map(of_size).collect::<Result<_, _>>()?;
        self.isolated = isolated;
        Ok(self)
    }

    /// Bytes in huge pages on all NUMA nodes, by size.
    #[must_use]
    pub fn huge_page_bytes(&self) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::<u64, u64>::new();
        for pages in &self.huge_pages {
            let sum = sums.entry(pages.page_bytes).or_default();
            *sum = sum.saturating_add(pages.bytes);
        }
        sums
    }

    /// Bytes on all NUMA nodes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().fold(0, |sum, &(_, bytes)| sum.saturating_add(bytes))
    }
}

/// What the reservations of a node hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All CPUs.
    pub cpus: CpuMask,
    /// Bytes by dense NUMA index of the machine, without huge pages.
    pub memory_bytes: Vec<u64>,
    /// Huge pages by NUMA node id and size.
    pub huge_pages: Vec<NumaHugePages>,
}

/// How reservations contradict each other or their machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationFault {
    /// A text of a reservation cannot be read.
    #[error("spec.reservations[podUID={pod_uid}].{field}: {message}")]
    Malformed {
        /// Whose reservation.
        pod_uid: String,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// No CPUs.
    #[error("spec.reservations[podUID={pod_uid}].cpus: empty")]
    Empty {
        /// Whose reservation.
        pod_uid: String,
    },
    /// CPUs that the machine does not have.
    #[error("spec.reservations[podUID={pod_uid}].cpus: the machine has no CPUs {cpus}")]
    OutOfRange {
        /// Whose reservation.
        pod_uid: String,
        /// The CPUs.
        cpus: CpuMask,
    },
    /// Two pods hold the same CPUs.
    #[error("spec.reservations: pods {first} and {second} both hold CPUs {cpus}")]
    Overlap {
        /// UID of the pod that comes first.
        first: String,
        /// UID of the pod that comes later.
        second: String,
        /// What both hold.
        cpus: CpuMask,
    },
    /// Two entries for one pod.
    #[error("spec.reservations: pod {pod_uid} is there twice")]
    Twice {
        /// The pod.
        pod_uid: String,
    },
    /// A container's CPUs are not among those of its pod.
    #[error("spec.reservations[podUID={pod_uid}].containers[name={container}].cpus: not a part of the pod's CPUs")]
    Container {
        /// Whose reservation.
        pod_uid: String,
        /// The container.
        container: String,
    },
    /// A NUMA node that the machine does not have.
    #[error("spec.reservations[podUID={pod_uid}].memory: the machine has no NUMA node {numa_node}")]
    UnknownNumaNode {
        /// Whose reservation.
        pod_uid: String,
        /// The node.
        numa_node: u32,
    },
    /// More memory than a NUMA node has.
    #[error("spec.reservations: {held_bytes} bytes are held of NUMA node {numa_node}, which has {memory_bytes}")]
    MemoryOvercommitted {
        /// The node.
        numa_node: u32,
        /// What the reservations hold of it together.
        held_bytes: u64,
        /// What it has.
        memory_bytes: u64,
    },
    /// More huge pages than a NUMA node has.
    #[error(
        "spec.reservations: {held_bytes} bytes in huge pages of {page_bytes} bytes are held of NUMA node {numa_node}, which \
         has {all_bytes}"
    )]
    HugePagesOvercommitted {
        /// The node.
        numa_node: u32,
        /// Size of one page.
        page_bytes: u64,
        /// What the reservations hold of it together.
        held_bytes: u64,
        /// What it has.
        all_bytes: u64,
    },
}

impl Held {
    /// Adds the reservations up.
    ///
    /// # Errors
    /// The first contradiction; such a node is trusted with nothing more until somebody repairs it.
    pub fn of(machine: &Machine, reservations: &[Reservation]) -> Result<Self, ReservationFault> {
        let memory_bytes = vec![0; machine.numa_ids().len()];
        let mut held = Self { cpus: CpuMask::new(), memory_bytes, huge_pages: Vec::new() };
        for (index, reservation) in reservations.iter().enumerate() {
            let pod_uid = || reservation.pod.uid.clone();
            check_containers(reservation)?;
            if !reservation.cpus.is_subset(machine.cpus()) {
                return Err(ReservationFault::OutOfRange {
                    pod_uid: pod_uid(),
                    cpus: reservation.cpus.subtract(machine.cpus()),
                });
            }
            let earlier = &reservations[..index];
            if earlier.iter().any(|other| other.pod.uid == reservation.pod.uid) {
                return Err(ReservationFault::Twice { pod_uid: pod_uid() });
            }
            if held.cpus.intersects(&reservation.cpus) {
                let first = earlier.iter().find(|other| other.cpus.intersects(&reservation.cpus));
                return Err(ReservationFault::Overlap {
                    first: first.map(|other| other.pod.uid.clone()).unwrap_or_default(),
                    second: pod_uid(),
                    cpus: held.cpus.intersect(&reservation.cpus),
                });
            }
            held.cpus.union_with(&reservation.cpus);
            for &(numa_node, bytes) in &reservation.memory {
                let unknown = || ReservationFault::UnknownNumaNode { pod_uid: pod_uid(), numa_node };
                let index = machine.numa_index(numa_node).ok_or_else(unknown)?;
                let sum = held.memory_bytes.get_mut(index).ok_or_else(unknown)?;
                *sum = sum.saturating_add(bytes);
            }
            for pages in &reservation.huge_pages {
                held.add_huge_pages(machine, reservation, pages)?;
            }
        }
        held.check_memory(machine)?;
        held.check_huge_pages(machine)?;
        Ok(held)
    }

    fn add_huge_pages(
        &mut self,
        machine: &Machine,
        reservation: &Reservation,
        pages: &NumaHugePages,
    ) -> Result<(), ReservationFault> {
        let numa_node = pages.numa_node;
        if machine.numa_index(numa_node).is_none() {
            return Err(ReservationFault::UnknownNumaNode { pod_uid: reservation.pod.uid.clone(), numa_node });
        }
        let same = |other: &&mut NumaHugePages| (other.numa_node, other.page_bytes) == (numa_node, pages.page_bytes);
        match self.huge_pages.iter_mut().find(same) {
            Some(sum) => sum.bytes = sum.bytes.saturating_add(pages.bytes),
            None => self.huge_pages.push(*pages),
        }
        Ok(())
    }

    fn check_huge_pages(&self, machine: &Machine) -> Result<(), ReservationFault> {
        let all = all_huge_pages(machine);
        for held in &self.huge_pages {
            let same =
                |other: &&NumaHugePages| (other.numa_node, other.page_bytes) == (held.numa_node, held.page_bytes);
            let all_bytes = all.iter().find(same).map_or(0, |pages| pages.bytes);
            if held.bytes > all_bytes {
                let NumaHugePages { numa_node, page_bytes, bytes: held_bytes } = *held;
                return Err(ReservationFault::HugePagesOvercommitted { numa_node, page_bytes, held_bytes, all_bytes });
            }
        }
        Ok(())
    }

    fn check_memory(&self, machine: &Machine) -> Result<(), ReservationFault> {
        let all = machine.numa_ids().iter().zip(machine.numa_memory_bytes()).zip(&self.memory_bytes);
        for ((&numa_node, &memory_bytes), &held_bytes) in all {
            if held_bytes > memory_bytes {
                return Err(ReservationFault::MemoryOvercommitted { numa_node, held_bytes, memory_bytes });
            }
        }
        Ok(())
    }

    /// CPUs of the machine that are not held.
    #[must_use]
    pub fn free_cpus(&self, machine: &Machine) -> CpuMask {
        machine.cpus().subtract(&self.cpus)
    }

    /// Bytes that are not held and no huge pages, by dense NUMA index.
    #[must_use]
    pub fn free_memory_bytes(&self, machine: &Machine) -> Vec<u64> {
        let all = (0..self.memory_bytes.len()).map(|index| machine.numa_ordinary_bytes(index));
        all.zip(&self.memory_bytes).map(|(all, &held)| all.saturating_sub(held)).collect()
    }

    /// Huge pages that are not held.
    #[must_use]
    pub fn free_huge_pages(&self, machine: &Machine) -> Vec<NumaHugePages> {
        let mut free = all_huge_pages(machine);
        for held in &self.huge_pages {
            take_huge_pages(&mut free, held);
        }
        free
    }
}

/// All that the machine has.
fn all_huge_pages(machine: &Machine) -> Vec<NumaHugePages> {
    let of_node = |(index, &numa_node): (usize, &u32)| {
        machine.numa_huge_pages(index).iter().map(move |pages| NumaHugePages {
            numa_node,
            page_bytes: pages.page_bytes,
            bytes: pages.page_bytes.saturating_mul(pages.count),
        })
    };
    machine.numa_ids().iter().enumerate().flat_map(of_node).collect()
}

pub(crate) fn take_huge_pages(free: &mut [NumaHugePages], held: &NumaHugePages) {
    for pages in free.iter_mut() {
        if (pages.numa_node, pages.page_bytes) == (held.numa_node, held.page_bytes) {
            pages.bytes = pages.bytes.saturating_sub(held.bytes);
        }
    }
}

fn check_containers(reservation: &Reservation) -> Result<(), ReservationFault> {
    if reservation.cpus.is_empty() {
        return Err(ReservationFault::Empty { pod_uid: reservation.pod.uid.clone() });
    }
    for (name, cpus) in &reservation.containers {
        // Two may share CPUs: an init container ends before the others start.
        if !cpus.is_subset(&reservation.cpus) {
            return Err(ReservationFault::Container { pod_uid: reservation.pod.uid.clone(), container: name.clone() });
        }
    }
    Ok(())
}
