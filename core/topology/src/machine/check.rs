//! Finds the lies in a machine description: ids, ranges, overlaps, coverage, nesting, distances.

mod parts;

use std::collections::BTreeSet;

use super::{Field, MAX_CPUS, MachineDescription, MachineError};
use crate::CpuMask;

/// One entry of any list, seen as a named set of CPUs.
type Entry<'a> = (u32, &'a CpuMask);

const NOBODY: u32 = u32::MAX;

/// Which entry owns a CPU, by CPU id; entries are positions in the description's list.
pub(super) struct Owners(Vec<u32>);

impl Owners {
    /// The position of the entry that owns `cpu`.
    pub(super) fn of(&self, cpu: u32) -> Option<usize> {
        self.0.get(cpu as usize).copied().filter(|&owner| owner != NOBODY).map(|owner| owner as usize)
    }

    fn of_all(field: Field, entries: &[Entry<'_>]) -> Result<Self, MachineError> {
        let width = entries.iter().filter_map(|(_, cpus)| cpus.last()).max().map_or(0, |last| last as usize + 1);
        let mut owners = vec![NOBODY; width];
        for (position, (id, cpus)) in (0u32..).zip(entries) {
            for cpu in cpus.iter() {
                let owner = &mut owners[cpu as usize];
                if *owner != NOBODY {
                    let (first, other) = entries[*owner as usize];
                    return Err(MachineError::Overlap { field, first, second: *id, cpus: cpus.intersect(other) });
                }
                *owner = position;
            }
        }
        Ok(Self(owners))
    }
}

/// The owners of every CPU, found while checking.
pub(super) struct Checked {
    pub(super) cpus: CpuMask,
    pub(super) numa_nodes: Owners,
    pub(super) l3_caches: Owners,
}

fn entries(description: &MachineDescription, field: Field) -> Vec<Entry<'_>> {
    match field {
        Field::Packages => description.packages.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::NumaNodes => description.numa_nodes.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::L3Caches => description.l3_caches.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::Cores => description.cores.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::Dies => description.dies.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::Clusters => description.clusters.iter().map(|entry| (entry.id, &entry.cpus)).collect(),
        Field::CpuKinds => (0..).zip(&description.cpu_kinds).map(|(at, entry)| (at, &entry.cpus)).collect(),
    }
}

/// Checks everything; the first lie found is the error.
pub(super) fn check(description: &MachineDescription) -> Result<Checked, MachineError> {
    let [cores, packages, numa_nodes, l3_caches] =
        [Field::Cores, Field::Packages, Field::NumaNodes, Field::L3Caches].map(|field| entries(description, field));
    each_list_alone(Field::Cores, &cores)?;
    each_list_alone(Field::Packages, &packages)?;
    each_list_alone(Field::NumaNodes, &numa_nodes)?;
    each_list_alone(Field::L3Caches, &l3_caches)?;
    if numa_nodes.iter().all(|(_, cpus)| cpus.is_empty()) {
        return Err(MachineError::NoNumaNodeWithCpus);
    }

    Owners::of_all(Field::Cores, &cores)?;
    let package_owners = Owners::of_all(Field::Packages, &packages)?;
    let numa_owners = Owners::of_all(Field::NumaNodes, &numa_nodes)?;
    let l3_owners = Owners::of_all(Field::L3Caches, &l3_caches)?;

    let cpus: CpuMask = cores.iter().flat_map(|(_, cpus)| cpus.iter()).collect();
    for (field, list) in [(Field::Packages, &packages), (Field::NumaNodes, &numa_nodes), (Field::L3Caches, &l3_caches)]
    {
        all_in_cores(field, list, &cpus)?;
    }
    cores_nest(&cores, Field::Packages, &packages, &package_owners, true)?;
    cores_nest(&cores, Field::NumaNodes, &numa_nodes, &numa_owners, true)?;
    cores_nest(&cores, Field::L3Caches, &l3_caches, &l3_owners, false)?;
    caches_nest(&l3_caches, &numa_nodes, &numa_owners)?;
    distances(description)?;
    parts::check(description, &cpus, &cores, &packages, &package_owners)?;
    Ok(Checked { cpus, numa_nodes: numa_owners, l3_caches: l3_owners })
}

fn each_list_alone(field: Field, list: &[Entry<'_>]) -> Result<(), MachineError> {
    if list.is_empty() && matches!(field, Field::Cores | Field::Packages | Field::NumaNodes) {
        return Err(MachineError::Empty { field });
    }
    let mut seen = BTreeSet::new();
    for &(id, cpus) in list {
        if !seen.insert(id) {
            return Err(MachineError::DuplicateId { field, id });
        }
        match cpus.last() {
            None if field != Field::NumaNodes => return Err(MachineError::NoCpus { field, id }),
            Some(cpu) if cpu >= MAX_CPUS => {
                return Err(MachineError::CpuOutOfRange { field, id, cpu, max: MAX_CPUS - 1 });
            }
            _ => {}
        }
    }
    Ok(())
}

fn all_in_cores(field: Field, list: &[Entry<'_>], known: &CpuMask) -> Result<(), MachineError> {
    for &(id, cpus) in list {
        if !cpus.is_subset(known) {
            return Err(MachineError::NotInCore { field, id, cpus: cpus.subtract(known) });
        }
    }
    Ok(())
}

/// Every core is wholly inside one entry; where `required` is false it may also be outside all of them.
fn cores_nest(
    cores: &[Entry<'_>],
    field: Field,
    list: &[Entry<'_>],
    owners: &Owners,
    required: bool,
) -> Result<(), MachineError> {
    for &(core, cpus) in cores {
        let owner = cpus.iter().find_map(|cpu| owners.of(cpu));
        match owner.and_then(|position| list.get(position)) {
            None if required => return Err(MachineError::CoreOutside { core, field, cpus: cpus.clone() }),
            None => {}
            Some(&(_, inside)) if cpus.is_subset(inside) => {}
            Some(&(id, inside)) => {
                let missing = cpus.subtract(inside);
                return Err(if required && missing.iter().all(|cpu| owners.of(cpu).is_none()) {
                    MachineError::CoreOutside { core, field, cpus: missing }
                } else {
                    MachineError::CoreStraddles { core, cpus: cpus.clone(), field, id }
                });
            }
        }
    }
    Ok(())
}

/// An L3 lies within one NUMA node, or holds several whole ones (sub-NUMA clustering).
fn caches_nest(caches: &[Entry<'_>], nodes: &[Entry<'_>], owners: &Owners) -> Result<(), MachineError> {
    for &(l3, cpus) in caches {
        let touched: BTreeSet<usize> = cpus.iter().filter_map(|cpu| owners.of(cpu)).collect();
        for &(numa, node) in touched.iter().filter_map(|&position| nodes.get(position)) {
            if !cpus.is_subset(node) && !node.is_subset(cpus) {
                return Err(MachineError::L3StraddlesNuma { l3, numa });
            }
        }
    }
    Ok(())
}

fn distances(description: &MachineDescription) -> Result<(), MachineError> {
    let known: BTreeSet<u32> = description.numa_nodes.iter().map(|node| node.id).collect();
    for node in &description.numa_nodes {
        let mut seen = BTreeSet::new();
        for distance in &node.distances {
            let (numa, to) = (node.id, distance.to);
            if !known.contains(&to) {
                return Err(MachineError::DistanceToUnknown { numa, to });
            }
            if !seen.insert(to) {
                return Err(MachineError::DistanceTwice { numa, to });
            }
            if distance.value == 0 {
                return Err(MachineError::DistanceZero { numa, to });
            }
        }
    }
    Ok(())
}
