//! What a pod asks of one node: exclusive CPUs for each container, memory beside them, and its wishes.

use crate::{Threads, Wish};

/// When a container runs, and so what of its CPUs others may use again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs with the other app containers, after all init containers have ended.
    #[default]
    App,
    /// An init container that is never ended (`restartPolicy: Always`): runs with everything after it, gives nothing back.
    Sidecar,
    /// Runs alone beside the sidecars before it, and ends: uses the CPUs that the app containers get.
    Init,
}

/// Exclusive whole CPUs for one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ContainerCpus {
    /// The container's name, unique in its pod.
    pub name: String,
    /// How many CPUs; each container starts on a core of its own, unless [`Threads::Any`] is wished for. 0 is allowed and
    /// gets none.
    pub cpus: u32,
    /// When it runs.
    pub role: Role,
}

/// Huge pages of one size that a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HugePageNeed {
    /// Size of one page, bytes; 0 asks for nothing.
    pub page_bytes: u64,
    /// Bytes in such pages; what is no multiple of a page takes one more.
    pub bytes: u64,
}

impl HugePageNeed {
    /// Bytes in whole pages.
    #[must_use]
    pub fn whole_bytes(&self) -> u64 {
        self.pages().saturating_mul(self.page_bytes)
    }

    /// Whole pages.
    pub(crate) fn pages(&self) -> u64 {
        if self.page_bytes == 0 { 0 } else { self.bytes.div_ceil(self.page_bytes) }
    }
}

/// What a pod asks of one node: exclusive CPUs per container, and memory beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct CpuRequest {
    /// The containers that get exclusive CPUs, in the order of the pod: init containers and sidecars as they start, then
    /// the others.
    pub containers: Vec<ContainerCpus>,
    /// Memory of the whole pod, bytes, without huge pages; must fit into the NUMA nodes chosen.
    pub memory_bytes: u64,
    /// Huge pages of the whole pod by size, ascending; must fit into the NUMA nodes chosen.
    pub huge_pages: Vec<HugePageNeed>,
    /// What it wishes beyond the numbers.
    pub wish: Wish,
}

impl CpuRequest {
    /// CPUs that the pod takes from a machine with this many threads per core, idle siblings included: what its containers
    /// run on together, or, if that is more, what an init container and the sidecars before it run on.
    #[must_use]
    pub fn held_cpus(&self, smt_width: u32) -> u64 {
        self.units(smt_width).saturating_mul(u64::from(self.unit_cpus(smt_width)))
    }

    /// How many cores, or with [`Threads::Any`] threads, are taken.
    pub(crate) fn units(&self, smt_width: u32) -> u64 {
        let (mut running, mut sidecars, mut starting) = (0u64, 0u64, 0u64);
        for container in &self.containers {
            let own = u64::from(self.units_of(container.cpus, smt_width));
            match container.role {
                Role::App => running += own,
                Role::Sidecar => (running, sidecars) = (running + own, sidecars + own),
                Role::Init => starting = starting.max(sidecars + own),
            }
        }
        running.max(starting)
    }

    /// The same for one container.
    pub(crate) fn units_of(&self, cpus: u32, smt_width: u32) -> u32 {
        if self.wish.threads == Threads::WholeCores { cpus.div_ceil(smt_width.max(1)) } else { cpus }
    }

    /// CPUs that are taken with each of them.
    pub(crate) fn unit_cpus(&self, smt_width: u32) -> u32 {
        if self.wish.threads == Threads::Any { 1 } else { smt_width.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(threads: Threads, containers: &[(Role, u32)]) -> CpuRequest {
        let container = |&(role, cpus): &(Role, u32)| ContainerCpus { name: "c".into(), cpus, role };
        CpuRequest {
            containers: containers.iter().map(container).collect(),
            wish: Wish { threads, ..Wish::default() },
            ..CpuRequest::default()
        }
    }

    #[test]
    fn threads_decide_what_a_container_takes() {
        let held = |threads, cpus| request(threads, &[(Role::App, cpus), (Role::App, 1)]).held_cpus(2);
        assert_eq!([3, 4].map(|cpus| held(Threads::WholeCores, cpus)), [6, 6]);
        assert_eq!([3, 4].map(|cpus| held(Threads::OnePerCore, cpus)), [8, 10]);
        assert_eq!([3, 4].map(|cpus| held(Threads::Any, cpus)), [4, 5]);
    }

    /// The example of the kubelet's rule: what has ended gives its CPUs back, a sidecar never does.
    #[test]
    fn init_containers_reuse_and_sidecars_do_not() {
        use Role::{App, Init, Sidecar};
        let held = |containers: &[(Role, u32)]| request(Threads::Any, containers).held_cpus(1);
        assert_eq!(held(&[(Init, 4), (Init, 2), (App, 3)]), 4);
        assert_eq!(held(&[(Init, 4), (App, 3), (App, 3)]), 6);
        // The first init container runs before the sidecar, the second beside it.
        assert_eq!(held(&[(Init, 4), (Sidecar, 2), (App, 1)]), 4);
        assert_eq!(held(&[(Sidecar, 2), (Init, 4), (App, 1)]), 6);
        assert_eq!(held(&[(Sidecar, 2), (Init, 1), (App, 3)]), 5);
    }
}
