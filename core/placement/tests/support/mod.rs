//! Small machines and facts for the tests of this crate.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "test support")]
use fairlead_placement::{Beside, PlacementFacts, PodFacts, PodRef, Reservation};
use fairlead_topology::{
    ContainerCpus, CoreDescription, CpuMask, CpuRequest, Machine, MachineDescription, NumaDescription,
    PackageDescription, Surroundings,
};
use std::sync::Arc;

/// One package, one NUMA node of 1,000 bytes, so many cores of one thread.
pub fn machine(cores: u32) -> Arc<Machine> {
    machine_of(cores, 1)
}

/// The same with so many threads a core; those of a core are neighbours.
pub fn machine_of(cores: u32, threads: u32) -> Arc<Machine> {
    let all: CpuMask = (0..cores * threads).collect();
    let core = |id: u32| CoreDescription { id, cpus: (id * threads..(id + 1) * threads).collect() };
    let description = MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: all.clone() }],
        numa_nodes: vec![NumaDescription {
            id: 0,
            cpus: all,
            memory_bytes: 1_000,
            distances: Vec::new(),
            ..NumaDescription::default()
        }],
        l3_caches: Vec::new(),
        cores: (0..cores).map(core).collect(),
        ..MachineDescription::default()
    };
    Arc::new(Machine::new(&description).unwrap())
}

pub fn mask(list: &str) -> CpuMask {
    CpuMask::parse_list(list).unwrap()
}

pub fn pod(uid: &str) -> PodRef {
    PodRef { namespace: "shop".into(), name: format!("name-of-{uid}"), uid: uid.into() }
}

pub fn cpus(count: u32) -> CpuRequest {
    CpuRequest {
        containers: vec![ContainerCpus { name: "main".into(), cpus: count, ..ContainerCpus::default() }],
        memory_bytes: 100,
        ..CpuRequest::default()
    }
}

pub fn held(uid: &str, list: &str) -> Reservation {
    Reservation {
        pod: pod(uid),
        reserved_at_ms: 5_000,
        cpus: mask(list),
        containers: vec![("main".into(), mask(list))],
        memory: vec![(0, 100)],
        huge_pages: Vec::new(),
        isolated: false,
    }
}

/// An unbound pod that asks for CPUs of its own.
pub fn waiting(uid: &str, count: u32) -> PodFacts {
    PodFacts {
        uid: uid.into(),
        resource_version: "7".into(),
        node: None,
        deleting: false,
        gated: false,
        terminal: false,
        exclusive: Some(cpus(count)),
        may_hold: true,
        refused: None,
        shared_milli: 0,
    }
}

pub fn placement(generation: i64, cores: u32, reservations: Vec<Reservation>) -> PlacementFacts {
    let beside = Beside::default();
    PlacementFacts {
        uid: "np".into(),
        generation,
        reservations,
        machine: Ok(machine(cores)),
        beside,
        around: Surroundings::default(),
    }
}
