//! A released pod: where it is and why there, or what each node would say to it now.
use super::devices;
use super::model::{Explanation, Inputs, NodeAnswer, Placed, PlacedContainer, Reserved, carried, condition, since};
use crate::amount::bytes;
use crate::drawing::{Holder, Scene};
use fairlead_cluster::{NodeView, PodView, PodWish, Snapshot};
use fairlead_crds::keys;
use fairlead_topology::CpuMask;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// NUMA nodes shown of one node; `-o json` has all.
const MOST_NUMA_NODES: usize = 8;

pub(super) fn for_node(inputs: &Inputs<'_>, wish: &PodWish, explanation: &mut Explanation) {
    let scheduled = condition(inputs.pod, "PodScheduled").filter(|condition| condition.status == "False");
    let says = scheduled.and_then(|condition| condition.message.clone());
    let waited = scheduled.and_then(|condition| since(condition, inputs.now)).map(|age| format!(" since {age}"));
    explanation.summary = format!(
        "was released and waits for a node{}: {}",
        waited.unwrap_or_default(),
        says.as_deref().unwrap_or("the scheduler has not tried it yet")
    );
    let Some(snapshot) = inputs.snapshot else { return };
    if let Some(reason) = snapshot.backstop(wish) {
        explanation.next.push(format!("the extender refuses it on every node: {reason}"));
        return;
    }
    if wish.exclusive.is_none() {
        explanation
            .next
            .push("it asks for no CPUs of its own: Fairlead refuses it nowhere, see the scheduler's message".into());
        return;
    }
    explanation.nodes = answers(snapshot, wish, None);
    let fitting = explanation.nodes.iter().filter(|answer| answer.fits).count();
    explanation.next.push(match fitting {
        0 => "no node can take it now: it is tried again whenever a pod ends or a node joins; \
              a cluster autoscaler sees it as unschedulable"
            .into(),
        _ => format!(
            "by topology {fitting} nodes could take it now; if it stays, something else refuses it (taints, affinity, \
             shared resources): see the scheduler's message"
        ),
    });
}

pub(super) fn placed(inputs: &Inputs<'_>, wish: &PodWish, view: Option<&PodView>, explanation: &mut Explanation) {
    let Some(node) = view.and_then(|view| view.node.clone()) else { return };
    let containers: Vec<PlacedContainer> = carried(inputs.pod)
        .into_iter()
        .flat_map(|placement| placement.containers)
        .map(|c| PlacedContainer { name: c.name, cpus: c.cpus, memory_nodes: c.memory_nodes })
        .collect();
    let mut notes = Vec::new();
    let mut reservation = None;
    let mut drawing = String::new();
    if containers.is_empty() {
        notes.push(why_shared(wish, &explanation.scheduler));
    }
    if let Some(found) = inputs.snapshot.and_then(|snapshot| snapshot.node_named(&node)) {
        if let Some(held) = found.held_by(&wish.id.uid) {
            notes.extend(terms(found, &held.cpus));
            notes.extend(devices::notes(&inputs.devices, found, &held.cpus));
            drawing = drawn(found, &wish.id.uid);
            reservation = Some(Reserved { cpus: held.cpus.to_string(), memory: held.memory.iter().copied().collect() });
        } else if !containers.is_empty() {
            notes.push(format!(
                "NodePlacement {node} holds no reservation for it: what the annotation says is not protected"
            ));
        }
        if let Some(distrust) = &found.distrust {
            notes.push(format!(
                "the node is not trusted with exclusive CPUs: {}: {}",
                distrust.reason.name(),
                distrust.detail
            ));
        }
    }
    let cpus: Vec<&str> = containers.iter().map(|container| container.cpus.as_str()).collect();
    explanation.summary = match cpus.as_slice() {
        [] => format!("is bound to node {node}, in its shared CPU pool"),
        lists => format!("is bound to node {node} with CPUs {} of its own", lists.join(",")),
    };
    explanation.placement = Some(Placed { node: node.clone(), containers, reservation, notes, drawing });
    if let (Some(snapshot), true) = (inputs.snapshot, wish.exclusive.is_some()) {
        explanation.nodes = answers(snapshot, wish, Some(&node));
    }
    explanation.next.push("nothing: it keeps its place until it ends".into());
}

pub(super) fn ended(inputs: &Inputs<'_>, wish: &PodWish, view: Option<&PodView>, explanation: &mut Explanation) {
    let Some(snapshot) = inputs.snapshot else {
        explanation.summary = "has ended".into();
        return;
    };
    if let Some((node, held)) = snapshot.nodes.iter().find_map(|node| Some((node, node.held_by(&wish.id.uid)?))) {
        explanation.summary = format!("has ended; its CPUs {} on node {} are not given back yet", held.cpus, node.name);
        explanation.next.push("the extender gives them back; until then no other pod gets them".into());
        return;
    }
    let node = view.and_then(|view| view.node.as_deref()).and_then(|name| snapshot.node_named(name));
    let unreadable = node.filter(|node| node.placement.as_ref().is_some_and(|placement| !placement.readable));
    explanation.summary = match unreadable {
        Some(node) => format!("has ended; NodePlacement {} cannot be read for what it may still hold", node.name),
        None => "has ended and holds nothing any more".into(),
    };
}

fn why_shared(wish: &PodWish, scheduler: &str) -> String {
    match (&wish.exclusive, scheduler == keys::SCHEDULER_NAME) {
        (None, _) => {
            "it asks for no CPUs of its own: that takes a Guaranteed pod (limits equal requests) with whole CPUs".into()
        }
        (Some(_), false) => format!("scheduler {scheduler} bound it: only {} reserves CPUs", keys::SCHEDULER_NAME),
        (Some(_), true) => "it asks for CPUs of its own and was bound without a placement".into(),
    }
}

/// The part of the machine that the pod is on.
fn drawn(node: &NodeView, pod_uid: &str) -> String {
    let Some(machine) = &node.machine else { return String::new() };
    let held: Vec<_> = node.placement.iter().flat_map(|placement| &placement.reservations).collect();
    let holders: Vec<Holder> = held.iter().map(|held| Holder::of(held, String::new())).collect();
    let only = held.iter().position(|held| held.pod.uid == pod_uid);
    Scene { machine, holders: &holders, memory_free_bytes: &node.memory_free_bytes, only }.draw()
}

/// What the choice came to on its machine.
fn terms(node: &NodeView, cpus: &CpuMask) -> Vec<String> {
    let Some(machine) = &node.machine else { return Vec::new() };
    let numa = machine.numa_nodes_of(cpus).count();
    let caches = machine.l3_cpus().iter().filter(|cache| cache.intersects(cpus)).count();
    let packages = machine.package_cpus().iter().filter(|package| package.intersects(cpus)).count();
    let cores: BTreeSet<usize> = cpus.iter().filter_map(|cpu| machine.core_of(cpu)).collect();
    let mut text = format!(
        "{} CPUs on {} cores, in {numa} of {} NUMA nodes, {packages} of {} sockets",
        cpus.len(),
        cores.len(),
        machine.numa_ids().len(),
        machine.package_ids().len()
    );
    if !machine.l3_cpus().is_empty() {
        text.push_str(&format!(", {caches} of {} L3 caches", machine.l3_cpus().len()));
    }
    vec![text]
}

/// Every node's answer, the best first; `except` is where the pod is.
fn answers(snapshot: &Snapshot, wish: &PodWish, except: Option<&str>) -> Vec<NodeAnswer> {
    let nodes = snapshot.nodes.iter().filter(|node| Some(node.name.as_str()) != except);
    let mut answers: Vec<NodeAnswer> = nodes.filter_map(|node| answer(snapshot, node, wish)).collect();
    answers.sort_by(|a, b| (Reverse(a.score), !a.fits, &a.node).cmp(&(Reverse(b.score), !b.fits, &b.node)));
    answers
}

fn answer(snapshot: &Snapshot, node: &NodeView, wish: &PodWish) -> Option<NodeAnswer> {
    let numbers = snapshot.why_not(&node.name, wish)?;
    let obstacle = match (node.ready, node.unschedulable) {
        (false, _) => Some("not Ready"),
        (true, true) => Some("cordoned"),
        (true, false) => None,
    };
    let fits = numbers.reason.is_none() && obstacle.is_none();
    let mut parts: Vec<String> = obstacle.into_iter().map(str::to_owned).collect();
    if numbers.reason.is_some() {
        parts.push(numbers.message.clone());
    }
    let numa = numbers.numa.iter().take(MOST_NUMA_NODES).map(|numa| {
        format!("NUMA {}: {} of {} cores, {}", numa.id, numa.free_cores, numa.cores, bytes(numa.memory_free_bytes))
    });
    let numa: Vec<String> = numa.collect();
    if !numa.is_empty() {
        parts.push(format!("free on {}", numa.join(", ")));
    }
    Some(NodeAnswer {
        node: node.name.clone(),
        fits,
        score: numbers.score.filter(|_| fits),
        reason: numbers.reason.unwrap_or_default().to_owned(),
        detail: parts.join("; "),
        numbers,
    })
}
