//! What was chosen is dealt to the containers.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::{CpuMask, CpuRequest, Machine, Role, Threads};

/// A whole core, or one thread of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unit {
    /// Dense index.
    pub(crate) core: usize,
    /// The thread, if it is one.
    pub(crate) cpu: Option<u32>,
}

impl Unit {
    /// Adds all its CPUs.
    pub(crate) fn add_to(self, machine: &Machine, mask: &mut CpuMask) {
        match self.cpu {
            Some(cpu) => drop(mask.insert(cpu)),
            None => machine.cores()[self.core].add_to(mask),
        }
    }
}

/// Units taken from one cache group.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Dense index of the NUMA node.
    pub(crate) numa: usize,
    /// Ascending.
    pub(crate) units: Vec<Unit>,
}

pub(crate) fn deal(machine: &Machine, request: &CpuRequest, mut parts: Vec<Part>) -> Vec<(String, CpuMask)> {
    let containers = &request.containers;
    let (starting, mut running): (Vec<usize>, Vec<usize>) =
        (0..containers.len()).partition(|&index| containers[index].role == Role::Init);
    let all = if starting.is_empty() { Vec::new() } else { parts.clone() };
    let mut units: Vec<Vec<Unit>> = vec![Vec::new(); containers.len()];
    let needed = |index: usize| request.units_of(containers[index].cpus, machine.smt_width()) as usize;
    running.sort_by_key(|&index| (Reverse(containers[index].cpus), index));
    for index in running {
        units[index] = draw(&mut parts, needed(index));
    }
    for index in starting {
        let before = (0..index).filter(|&other| containers[other].role == Role::Sidecar);
        let kept: BTreeSet<Unit> = before.flat_map(|sidecar| units[sidecar].iter().copied()).collect();
        let mut left = all.clone();
        for part in &mut left {
            part.units.retain(|unit| !kept.contains(unit));
        }
        left.retain(|part| !part.units.is_empty());
        units[index] = draw(&mut left, needed(index));
    }
    let mask = |(container, units): (&crate::ContainerCpus, Vec<Unit>)| {
        (container.name.clone(), threads(machine, request.wish.threads, container.cpus, &units))
    };
    containers.iter().zip(units).map(mask).collect()
}

/// The CPUs that a container runs on.
fn threads(machine: &Machine, wish: Threads, wanted: u32, units: &[Unit]) -> CpuMask {
    let mut mask = CpuMask::new();
    let mut missing = wanted;
    for unit in units {
        let core = &machine.cores()[unit.core];
        let most = if wish == Threads::OnePerCore { 1 } else { missing };
        if unit.cpu.is_some() || core.cpus.len() <= most {
            unit.add_to(machine, &mut mask);
            missing = missing.saturating_sub(if unit.cpu.is_some() { 1 } else { core.cpus.len() });
        } else {
            mask.extend(core.cpus.iter().take(most as usize));
            missing = missing.saturating_sub(most);
        }
    }
    mask
}

/// Takes `count` units out of the parts for one container.
fn draw(parts: &mut [Part], count: usize) -> Vec<Unit> {
    let whole = (0..parts.len()).filter(|&p| parts[p].units.len() >= count).min_by_key(|&p| (parts[p].units.len(), p));
    if let Some(part) = whole {
        return parts[part].units.drain(..count).collect();
    }
    let left = |numa: usize, parts: &[Part]| -> usize {
        parts.iter().filter(|part| part.numa == numa).map(|part| part.units.len()).sum()
    };
    let mut nodes: Vec<usize> = parts.iter().map(|part| part.numa).collect();
    nodes.dedup();
    let holding = nodes.iter().copied().filter(|&numa| left(numa, parts) >= count);
    if let Some(tight) = holding.min_by_key(|&numa| (left(numa, parts), numa)) {
        nodes = vec![tight];
    } else {
        nodes.sort_by_key(|&numa| (Reverse(left(numa, parts)), numa));
    }
    let mut drawn = Vec::with_capacity(count);
    for numa in nodes {
        let mut own: Vec<usize> = (0..parts.len()).filter(|&p| parts[p].numa == numa).collect();
        own.sort_by_key(|&p| (Reverse(parts[p].units.len()), p));
        for part in own {
            let more = (count - drawn.len()).min(parts[part].units.len());
            drawn.extend(parts[part].units.drain(..more));
        }
    }
    drawn.sort_unstable();
    drawn
}
