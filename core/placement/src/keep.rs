//! Whether a pod may keep what is reserved for it when it is bound anew.
use crate::bind::{Pinned, room};
use crate::{Held, PlacementFacts, Reason, Reservation};
use fairlead_topology::{CpuClass, CpuRequest, HugePageNeed, Machine, NodeFree, NumaHugePages, Surroundings, evaluate};
use std::sync::Arc;

/// Whether what is held is what today's wish asks for: as much, and CPUs that it allows (a pool may ask for one NUMA node or
/// one L3 cache by now). What it only prefers moves nobody.
pub(crate) fn serves(held: &Reservation, pinned: &Pinned, facts: &PlacementFacts) -> bool {
    let wanted = &pinned.wanted;
    let asked = wanted.containers.iter().map(|container| (container.name.as_str(), container.cpus));
    let huge_pages = held.huge_page_bytes();
    let in_whole_pages = |need: &HugePageNeed| (need.page_bytes, need.whole_bytes());
    let as_much = held.containers.iter().map(|(name, cpus)| (name.as_str(), cpus.len())).eq(asked)
        && held.memory_bytes() == wanted.memory_bytes
        && huge_pages.into_iter().eq(wanted.huge_pages.iter().map(in_whole_pages).filter(|(_, bytes)| *bytes > 0))
        && held.isolated == (wanted.wish.class == CpuClass::Isolated);
    // Without a machine nothing is promised, and nothing known against what is held.
    let allowed = |machine: &Arc<Machine>| is_allowed(machine, held, wanted);
    as_much && facts.machine.as_ref().map_or(true, allowed)
}

/// Whether the wish could be granted if nothing were free but what is held.
fn is_allowed(machine: &Machine, held: &Reservation, wanted: &CpuRequest) -> bool {
    let mut memory_free_bytes = vec![0_u64; machine.numa_ids().len()];
    for (node, bytes) in &held.memory {
        if let Some(free) = machine.numa_index(*node).and_then(|index| memory_free_bytes.get_mut(index)) {
            *free = free.saturating_add(*bytes);
        }
    }
    let (memory_free_bytes, huge_pages) = (memory_free_bytes.as_slice(), held.huge_pages.as_slice());
    let only = NodeFree { cpus: &held.cpus, memory_free_bytes, huge_pages, shared_reserve: 0 };
    evaluate(machine, &only, wanted, &Surroundings::default()).is_ok()
}

/// Whether the pod may keep what it holds: nobody else holds a part of its CPUs, memory or huge pages, by a reservation or
/// without one, and what is left is enough for the shared pool.
pub(crate) fn may_renew(
    machine: &Machine,
    held: &Reservation,
    pinned: &Pinned,
    facts: &PlacementFacts,
) -> Result<(), Reason> {
    Held::of(machine, &facts.reservations).map_err(|_| Reason::NodeDistrusted)?;
    let room = room(machine, pinned, facts, &held.pod.uid)?;
    if !held.cpus.is_subset(&room.cpus) {
        return Err(Reason::NodeDistrusted);
    }
    let memory = |(node, bytes): &(u32, u64)| {
        let free = machine.numa_index(*node).and_then(|index| room.memory_bytes.get(index));
        free.is_some_and(|free| bytes <= free)
    };
    if !held.memory.iter().all(memory) {
        return Err(Reason::NotEnoughNumaMemory);
    }
    let pages = |held: &NumaHugePages| {
        let same = |free: &&NumaHugePages| (free.numa_node, free.page_bytes) == (held.numa_node, held.page_bytes);
        held.bytes == 0 || room.huge_pages.iter().find(same).is_some_and(|free| held.bytes <= free.bytes)
    };
    if !held.huge_pages.iter().all(pages) {
        return Err(Reason::NotEnoughHugePages);
    }
    let spare = room.cpus.subtract(&held.cpus).subtract(machine.isolated()).len();
    if spare < room.shared_reserve { Err(Reason::SharedPoolTooSmall) } else { Ok(()) }
}
