//! The machine of the benches: 512 CPUs, and what is taken of it.
#![allow(dead_code, clippy::unwrap_used, reason = "each bench uses a part of it")]

use fairlead_topology::{
    CacheDescription, ContainerCpus, CoreDescription, CpuMask, CpuRequest, Machine, MachineDescription,
    NumaDescription, PackageDescription,
};

/// Two sockets of four NUMA nodes, of four L3 caches, of eight cores, of two threads.
pub fn server() -> Machine {
    machine(2, 8, 4, 8)
}

/// Siblings are `cpu` and `cpu + cores`, as Linux numbers them on x86 servers.
pub fn machine(packages: u32, numa: u32, l3_per_numa: u32, cores_per_l3: u32) -> Machine {
    let per_numa = l3_per_numa * cores_per_l3;
    let cores = numa * per_numa;
    let cpus = |first: u32, count: u32| (first..first + count).chain(cores + first..cores + first + count).collect();
    let per_package = cores / packages;
    let description = MachineDescription {
        packages: (0..packages)
            .map(|id| PackageDescription { id, cpus: cpus(id * per_package, per_package) })
            .collect(),
        numa_nodes: (0..numa)
            .map(|id| NumaDescription {
                id,
                cpus: cpus(id * per_numa, per_numa),
                memory_bytes: 64 << 30,
                distances: vec![],
                ..NumaDescription::default()
            })
            .collect(),
        l3_caches: (0..numa * l3_per_numa)
            .map(|id| CacheDescription { id, cpus: cpus(id * cores_per_l3, cores_per_l3), size_bytes: 32 << 20 })
            .collect(),
        cores: (0..cores).map(|id| CoreDescription { id, cpus: cpus(id, 1) }).collect(),
        ..MachineDescription::default()
    };
    Machine::new(&description).unwrap()
}

/// Cores that `taken` names are not free.
fn without(machine: &Machine, taken: impl Fn(usize) -> bool) -> CpuMask {
    let mut free = machine.cpus().clone();
    for core in (0..machine.core_count()).filter(|&core| taken(core)) {
        free.subtract_with(machine.core_cpus(core).unwrap());
    }
    free
}

/// Every `step`-th core is taken.
pub fn fragmented(machine: &Machine, step: usize) -> CpuMask {
    without(machine, |core| core.is_multiple_of(step))
}

/// No two L3 caches need be alike: what is taken follows no pattern, and is the same on every run.
pub fn half_taken(machine: &Machine) -> CpuMask {
    without(machine, |core| (core as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40 & 1 == 1)
}

/// One container, 8 GiB.
pub fn request(cpus: u32) -> CpuRequest {
    CpuRequest {
        containers: vec![ContainerCpus { name: "work".into(), cpus, ..ContainerCpus::default() }],
        memory_bytes: 8 << 30,
        ..CpuRequest::default()
    }
}
