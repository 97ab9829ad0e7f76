//! `explain node`: its machine as a drawing, who holds what there, and whether it is trusted with CPUs of pods' own.
use crate::access::Access;
use crate::amount::bytes;
use crate::args::{ExplainNodeArgs, Output};
use crate::drawing::{Holder, Scene};
use crate::error::CliError;
use crate::gather::gather;
use crate::say;
use fairlead_cluster::NodeView;
use fairlead_crds::node_placement::{ObservedContainer, PinState};
use fairlead_crds::node_topology::{Pinning, PinningMode};
use fairlead_crds::{NodePlacement, NodeTopology};
use fairlead_topology::Machine;
use kube::Api;
use serde::Serialize;

/// The whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeExplanation {
    name: String,
    ready: bool,
    cordoned: bool,
    /// Absent where no machine is known that could be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<MachineNumbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinning: Option<Pinning>,
    /// Why it gets no pods with CPUs of their own; absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    distrust: Option<String>,
    /// CPUs that nobody holds.
    free_cpus: String,
    /// CPUs of those that stay in the shared pool.
    shared_reserve: u32,
    pods: Vec<PodOnNode>,
    /// The machine as text; only for people.
    #[serde(skip)]
    drawing: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MachineNumbers {
    packages: usize,
    numa_nodes: usize,
    l3_caches: usize,
    cores: usize,
    cpus: u32,
    isolated_cpus: String,
}

/// A pod with CPUs of its own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodOnNode {
    namespace: String,
    name: String,
    cpus: String,
    memory_bytes: u64,
    /// What the agent saw of its containers; empty: nothing yet.
    containers: Vec<ObservedContainer>,
}

pub(crate) async fn node(access: &Access, args: &ExplainNodeArgs) -> Result<(), CliError> {
    let explanation = explanation(access, &args.name).await?;
    match args.output {
        Output::Json => {
            let text = serde_json::to_string_pretty(&explanation)
                .map_err(|source| CliError::Output { source: source.into() })?;
            say(&text)
        }
        Output::Table => say(text(&explanation).trim_end()),
    }
}

async fn explanation(access: &Access, name: &str) -> Result<NodeExplanation, CliError> {
    let gathered = Box::pin(gather(access)).await?;
    let Some(snapshot) = gathered.snapshot else {
        return Err(CliError::Forbidden { rights: gathered.missing, hint: " (ClusterRole fairlead-reader has it)" });
    };
    let view = snapshot.node_named(name).ok_or_else(|| CliError::NotFound { what: format!("node {name}") })?;
    let topology = access.get(&Api::<NodeTopology>::all(access.client.clone()), name, "").await?;
    let placement = access.get(&Api::<NodePlacement>::all(access.client.clone()), name, "").await?;
    let observed = placement.and_then(|placement| placement.status).map(|status| status.containers).unwrap_or_default();
    Ok(explain(view, topology.and_then(|topology| topology.spec.pinning), &observed))
}

pub(super) fn explain(view: &NodeView, pinning: Option<Pinning>, observed: &[ObservedContainer]) -> NodeExplanation {
    let held: Vec<_> = view.placement.iter().flat_map(|placement| &placement.reservations).collect();
    let pods: Vec<PodOnNode> = held
        .iter()
        .map(|held| PodOnNode {
            namespace: held.pod.namespace.clone(),
            name: held.pod.name.clone(),
            cpus: held.cpus.to_string(),
            memory_bytes: held.memory_bytes(),
            containers: observed.iter().filter(|one| one.pod_uid == held.pod.uid).cloned().collect(),
        })
        .collect();
    let holders: Vec<Holder> = held.iter().zip(&pods).map(|(held, pod)| Holder::of(held, note(pod))).collect();
    let drawing = view.machine.as_ref().map(|machine| {
        Scene { machine, holders: &holders, memory_free_bytes: &view.memory_free_bytes, only: None }.draw()
    });
    NodeExplanation {
        name: view.name.clone(),
        ready: view.ready,
        cordoned: view.unschedulable,
        machine: view.machine.as_ref().map(|machine| numbers(machine)),
        pinning,
        distrust: view.distrust.as_ref().map(|distrust| format!("{}: {}", distrust.reason.name(), distrust.detail)),
        free_cpus: view.free.to_string(),
        shared_reserve: view.shared_reserve,
        pods,
        drawing: drawing.unwrap_or_default(),
    }
}

fn numbers(machine: &Machine) -> MachineNumbers {
    MachineNumbers {
        packages: machine.package_ids().len(),
        numa_nodes: machine.numa_ids().len(),
        l3_caches: machine.l3_ids().len(),
        cores: machine.core_count(),
        cpus: machine.cpus().len(),
        isolated_cpus: machine.isolated().to_string(),
    }
}

/// Bytes, and how its containers run.
fn note(pod: &PodOnNode) -> String {
    let mut parts = vec![bytes(pod.memory_bytes)];
    let amiss: Vec<String> = pod
        .containers
        .iter()
        .filter(|one| matches!(one.state, PinState::Unpinned | PinState::Drifted))
        .map(|one| format!("{} {:?} on {}", one.name, one.state, one.cpus))
        .collect();
    parts.push(match (amiss.is_empty(), pod.containers.iter().any(|one| one.state == PinState::Pinned)) {
        (false, _) => amiss.join(", "),
        (true, true) => "pinned".to_owned(),
        (true, false) => "not seen running yet".to_owned(),
    });
    parts.join("   ")
}

pub(super) fn text(node: &NodeExplanation) -> String {
    let mut out = String::new();
    let mut field = |name: &str, value: String| out.push_str(&format!("{name:<10}{value}\n"));
    let state = match (node.ready, node.cordoned) {
        (false, _) => "not Ready",
        (true, true) => "Ready, cordoned",
        (true, false) => "Ready",
    };
    field("Node", format!("{} ({state})", node.name));
    if let Some(machine) = &node.machine {
        field(
            "Machine",
            format!(
                "{} sockets, {} NUMA nodes, {} L3 caches, {} cores, {} CPUs",
                machine.packages, machine.numa_nodes, machine.l3_caches, machine.cores, machine.cpus
            ),
        );
    }
    field("Pinning", pinning_text(node.pinning.as_ref()));
    if let Some(distrust) = &node.distrust {
        field("Refused", format!("no pod gets CPUs of its own here: {distrust}"));
    }
    field("Shared", format!("at least {} CPUs stay in the shared pool", node.shared_reserve));
    if !node.drawing.is_empty() {
        out.push('\n');
        out.push_str(&node.drawing);
    }
    out
}

fn pinning_text(pinning: Option<&Pinning>) -> String {
    match pinning {
        None => "not known: the agent has not said".to_owned(),
        Some(pinning) => {
            let by = match pinning.mode {
                PinningMode::Own => "by the agent",
                PinningMode::Observe => "not by the agent",
            };
            let runtime = pinning.runtime.as_ref().map(|runtime| format!(" through {runtime}")).unwrap_or_default();
            let why = if pinning.message.is_empty() { String::new() } else { format!(": {}", pinning.message) };
            format!("{by}{runtime} ({}){why}", pinning.reason)
        }
    }
}
