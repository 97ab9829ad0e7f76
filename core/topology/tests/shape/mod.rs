//! Small machines with every oddity, for comparison with brute force.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;

use fairlead_topology::{
    CacheDescription, CoreDescription, CpuMask, Machine, MachineDescription, NumaDescription, NumaDistance,
    PackageDescription,
};
use proptest::prelude::*;

/// A small machine by hand, with ids that are neither dense nor in order.
#[derive(Debug, Clone)]
pub struct Shape {
    pub smt: u32,
    /// NUMA node of each core.
    pub numa: Vec<usize>,
    /// L3 of each core within its NUMA node; 0 for all if there is no L3.
    pub l3: Vec<usize>,
    pub has_l3: bool,
    /// distances[from][to]
    pub distances: Vec<Vec<u32>>,
    pub memory_free_bytes: Vec<u64>,
    /// CPUs that the kernel was told to isolate.
    pub isolated: CpuMask,
}

impl Shape {
    pub fn regular(smt: u32, numa_nodes: usize, l3_per_numa: usize, cores_per_l3: usize) -> Self {
        let cores = numa_nodes * l3_per_numa.max(1) * cores_per_l3;
        let per_numa = cores / numa_nodes;
        Self {
            smt,
            numa: (0..cores).map(|core| core / per_numa).collect(),
            l3: (0..cores).map(|core| core % per_numa / cores_per_l3).collect(),
            has_l3: l3_per_numa > 0,
            distances: (0..numa_nodes)
                .map(|a| (0..numa_nodes).map(|b| 10 + 7 * a.abs_diff(b) as u32).collect())
                .collect(),
            memory_free_bytes: (0..numa_nodes).map(|node| 100 + node as u64 % 2 * 60).collect(),
            isolated: CpuMask::new(),
        }
    }

    pub fn cores(&self) -> usize {
        self.numa.len()
    }

    /// Siblings lie far apart, as on most servers.
    pub fn cpus(&self, core: usize) -> CpuMask {
        (0..self.smt).map(|thread| core as u32 + thread * self.cores() as u32).collect()
    }

    pub fn cpus_of(&self, wanted: impl Fn(usize) -> bool) -> CpuMask {
        (0..self.cores())
            .filter(|&core| wanted(core))
            .flat_map(|core| self.cpus(core).iter().collect::<Vec<_>>())
            .collect()
    }

    pub fn numa_id(node: usize) -> u32 {
        node as u32 * 3 + 1
    }

    pub fn machine(&self) -> Machine {
        let groups: BTreeSet<(usize, usize)> = (0..self.cores()).map(|core| (self.numa[core], self.l3[core])).collect();
        let caches = groups.into_iter().enumerate().map(|(index, group)| CacheDescription {
            id: index as u32 * 2,
            cpus: self.cpus_of(|core| (self.numa[core], self.l3[core]) == group),
            size_bytes: 1,
        });
        let description = MachineDescription {
            packages: vec![PackageDescription { id: 0, cpus: self.cpus_of(|_| true) }],
            numa_nodes: (0..self.distances.len())
                .map(|node| NumaDescription {
                    id: Self::numa_id(node),
                    cpus: self.cpus_of(|core| self.numa[core] == node),
                    memory_bytes: 1_000,
                    distances: (0..self.distances.len())
                        .map(|to| NumaDistance { to: Self::numa_id(to), value: self.distances[node][to] })
                        .collect(),
                    ..NumaDescription::default()
                })
                .collect(),
            l3_caches: if self.has_l3 { caches.collect() } else { vec![] },
            cores: (0..self.cores()).map(|core| CoreDescription { id: core as u32, cpus: self.cpus(core) }).collect(),
            isolated: self.isolated.clone(),
            ..MachineDescription::default()
        };
        Machine::new(&description).unwrap()
    }

    /// The cores in canonical order: NUMA node, L3, lowest CPU.
    pub fn order(&self) -> Vec<usize> {
        let mut cores: Vec<usize> = (0..self.cores()).collect();
        cores.sort_by_key(|&core| (self.numa[core], self.l3[core], core));
        cores
    }
}

prop_compose! {
    /// Up to six NUMA nodes, so that the bounds of the search are at work, and few different values, so that there are
    /// ties and twins.
    pub fn irregular()(
        smt in 1u32..=2,
        nodes in 1usize..=6,
        caches in 0usize..=3,
        places in prop::collection::vec((0usize..6, 0usize..3), 1..=8),
        distances in prop_oneof![
            Just(vec![20; 36]),
            prop::collection::vec(prop::sample::select(vec![12u32, 20, 32]), 36),
        ],
        memory in prop_oneof![Just(vec![100; 6]), prop::collection::vec(0u64..200, 6)],
    ) -> Shape {
        let numa: Vec<usize> = places.iter().map(|(node, _)| node % nodes).collect();
        let distance = |a: usize, b: usize| if a == b { 10 } else { distances[a * 6 + b] };
        Shape {
            smt,
            l3: places.iter().map(|(_, l3)| l3 % caches.max(1)).collect(),
            has_l3: caches > 0,
            distances: (0..nodes).map(|a| (0..nodes).map(|b| distance(a, b)).collect()).collect(),
            // Memory of a node without CPUs is not counted.
            memory_free_bytes: (0..nodes).map(|node| if numa.contains(&node) { memory[node] } else { 0 }).collect(),
            numa,
            isolated: CpuMask::new(),
        }
    }
}

prop_compose! {
    /// Six NUMA nodes of one to three cores that often are each other's equal: what the search skips is put to the test.
    pub fn wide()(
        caches in prop::collection::vec(0usize..2, 4),
        near in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        memory in prop_oneof![2 => Just(vec![100; 6]), 1 => prop::collection::vec(prop::sample::select(vec![60u64, 100]), 6)],
        extra in prop::collection::vec(0usize..6, 4),
    ) -> Shape {
        let mut places: Vec<(usize, usize)> = (0..6).map(|node| (node, 0)).collect();
        places.extend(extra.into_iter().zip(caches));
        let mut distances = vec![vec![20; 6]; 6];
        for pair in near {
            let (a, b) = (pair.index(36) / 6, pair.index(36) % 6);
            distances[a][b] = 12;
        }
        let (numa, l3) = places.into_iter().unzip();
        Shape { smt: 1, numa, l3, has_l3: true, distances, memory_free_bytes: memory, isolated: CpuMask::new() }
    }
}
