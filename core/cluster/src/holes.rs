//! Aligned holes: how many pods of a size would still find all their cores under one L3 cache.
use fairlead_topology::{CpuMask, Machine};
use serde::Serialize;

/// Sizes that are counted, in whole cores.
pub const HOLE_SIZES: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// For each of [`HOLE_SIZES`], how many disjoint sets of so many wholly free cores there are, each within one L3 cache (or,
/// on a machine without L3, within one NUMA node).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Holes(pub [u64; HOLE_SIZES.len()]);

impl Holes {
    /// Counts them in `free`; `groups` is [`cache_groups`] of the machine.
    pub(crate) fn of(machine: &Machine, groups: &[u32], free: &CpuMask) -> Self {
        let mut counts: Vec<u32> = Vec::new();
        for (core, &group) in groups.iter().enumerate() {
            let at = usize::try_from(group).unwrap_or(0);
            if counts.len() <= at {
                counts.resize(at + 1, 0);
            }
            if let Some(count) = counts.get_mut(at)
                && machine.core_cpus(core).is_some_and(|cpus| cpus.is_subset(free))
            {
                *count += 1;
            }
        }
        Self(HOLE_SIZES.map(|size| counts.iter().map(|&count| u64::from(count / size)).sum()))
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.0.iter_mut().zip(more.0).for_each(|(sum, count)| *sum += count);
    }

    pub(crate) fn remove(&mut self, less: &Self) {
        self.0.iter_mut().zip(less.0).for_each(|(sum, count)| *sum = sum.saturating_sub(count));
    }
}

/// For each core by dense index, a number that cores under the same L3 cache share.
pub(crate) fn cache_groups(machine: &Machine) -> Box<[u32]> {
    let caches = machine.l3_cpus();
    let nodes = 0..machine.numa_ids().len();
    let group = |core: usize| {
        let cpus = machine.core_cpus(core)?;
        let cache = caches.iter().position(|cache| cache.intersects(cpus));
        let node = || {
            let own = nodes.clone().find(|&node| machine.numa_cpus(node).is_some_and(|own| own.intersects(cpus)));
            own.map(|node| caches.len() + node)
        };
        u32::try_from(cache.or_else(node)?).ok()
    };
    (0..machine.core_count()).map(|core| group(core).unwrap_or(0)).collect()
}
