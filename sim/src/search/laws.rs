//! What must hold in every state (I1).
use super::Setting;
use super::words::{cpus, node_name, pod_name};
use super::world::{NODES, PODS, World};

/// The first law that is broken, in words.
///
/// # Errors
/// No CPU and no reserved memory is held by two live pods; and a pod that is bound has exactly the reservation that its
/// Binding carried, unless its NodePlacement was lost: then it holds what it runs on. One that is bound to the shared pool
/// leaves nothing behind that was reserved for it before.
pub fn check(setting: &Setting, world: &World) -> Result<(), String> {
    for index in 0..NODES {
        placement(setting, world, index)?;
    }
    for index in 0..PODS {
        bound(world, index)?;
    }
    if world.left_behind {
        return Err("a pod is bound to the shared pool, and CPUs reserved for it before are held by nobody".to_owned());
    }
    Ok(())
}

fn placement(setting: &Setting, world: &World, index: usize) -> Result<(), String> {
    let placement = &world.nodes[index].placement;
    let mut held = 0u8;
    for (at, entry) in placement.listed().enumerate() {
        if held & entry.cpus != 0 {
            let other = placement.listed().take(at).find(|other| other.cpus & entry.cpus != 0);
            let other = other.map(|other| pod_name(other.pod)).unwrap_or_default();
            return Err(format!(
                "{} of {} is promised to {other} and to {}",
                cpus(held & entry.cpus),
                node_name(index),
                pod_name(entry.pod)
            ));
        }
        held |= entry.cpus;
    }
    let (promised, memory) =
        (placement.listed().count() * usize::from(setting.pod_memory), usize::from(setting.memory));
    if promised > memory {
        return Err(format!("{promised} parts of the memory of {} are promised, which has {memory}", node_name(index)));
    }
    let spare = u32::from(setting.cpus).saturating_sub(held.count_ones());
    if spare < u32::from(setting.foreign_cpus) {
        return Err(format!(
            "{} of {} are promised, of {} CPUs, {} of which pods of the shared pool run on",
            cpus(held),
            node_name(index),
            setting.cpus,
            setting.foreign_cpus
        ));
    }
    Ok(())
}

fn bound(world: &World, index: usize) -> Result<(), String> {
    let pod = world.pods[index];
    let number = u8::try_from(index).unwrap_or(u8::MAX);
    if !pod.is_bound() {
        return Ok(());
    }
    let node = &world.nodes[usize::from(pod.node)];
    let own = node.placement.listed().find(|entry| entry.pod == number);
    let on = node_name(usize::from(pod.node));
    if pod.cpus != 0 && !node.lost && own.map(|entry| entry.cpus) != Some(pod.cpus) {
        let has = own.map_or("nothing".to_owned(), |entry| cpus(entry.cpus));
        return Err(format!("{} is bound to {on} with {}, reserved is {has}", pod_name(number), cpus(pod.cpus)));
    }
    if !world.running[index] {
        return Ok(());
    }
    for entry in node.placement.listed().filter(|entry| entry.pod != number && entry.cpus & pod.cpus != 0) {
        if world.pods[usize::from(entry.pod)].is_live() {
            let shared = cpus(entry.cpus & pod.cpus);
            return Err(format!("{} runs on {shared} of {on}, promised to {}", pod_name(number), pod_name(entry.pod)));
        }
    }
    for other in (0..PODS).filter(|&other| other != index && world.running[other]) {
        let there = world.pods[other];
        if there.node == pod.node && there.cpus & pod.cpus != 0 {
            let shared = cpus(there.cpus & pod.cpus);
            let other = pod_name(u8::try_from(other).unwrap_or(u8::MAX));
            return Err(format!("{} and {other} both run on {shared} of {on}", pod_name(number)));
        }
    }
    Ok(())
}
