//! Moves and states as a person reads them.
use super::canon::Renaming;
use super::moves::{Move, What};
use super::steps::Outcome;
use super::world::{Entry, NONE, WriteKind};

/// A pod.
#[must_use]
pub fn pod_name(pod: u8) -> String {
    format!("pod-{}", pod.saturating_add(1))
}

/// A node.
#[must_use]
pub fn node_name(node: usize) -> String {
    format!("node-{}", node + 1)
}

/// CPUs in the kernel's list format.
#[must_use]
pub fn cpus(mask: u8) -> String {
    let ids: Vec<String> = (0..8).filter(|id| mask & (1 << id) != 0).map(|id| id.to_string()).collect();
    if ids.len() == 1 { format!("CPU {}", ids[0]) } else { format!("CPUs {}", ids.join(",")) }
}

/// One line about a move. `names` leads from the state's numbers to those of the whole path.
#[must_use]
pub fn line(made: &Move, names: &Renaming) -> String {
    let pod = pod_name(names.pod(made.pod));
    let node = node_name(usize::from(names.node(made.node)));
    let who = match names.extender(made.extender) {
        NONE => String::new(),
        extender => {
            let letter = char::from(b'A'.saturating_add(extender));
            if made.binds {
                format!("extender {letter} (bind {pod} to {node}) ")
            } else {
                format!("extender {letter} (withdraw {pod} from {node}) ")
            }
        }
    };
    match made.what {
        What::Begins { behind: false } => format!("{who}begins"),
        What::Begins { behind: true } => format!("{who}begins with the pod as a watch shows it that is behind"),
        What::ReadsPod { behind: false } => format!("{who}reads the live pod"),
        What::ReadsPod { behind: true } => format!("{who}reads the pod from a watch that is behind"),
        What::ReadsPlacement { live, behind, unseen } => {
            let from = match (live, behind) {
                (true, _) => "live",
                (false, false) => "from the watch",
                (false, true) => "from a watch that is behind",
            };
            let blind: Vec<String> =
                (0..8).filter(|pod| unseen & (1 << pod) != 0).map(|pod| pod_name(names.pod(pod))).collect();
            let blind =
                if blind.is_empty() { String::new() } else { format!(", not seeing {} bound", blind.join(", ")) };
            format!("{who}reads the NodePlacement {from}{blind}")
        }
        What::Writes(kind, outcome) => format!("{who}{}{}", write(&kind, names), came_to(outcome)),
        What::Loses(kind) => format!("{who}{}: sent, no answer comes", write(&kind, names)),
        What::Arrives(kind, outcome) => {
            format!("what was sent before arrives: {pod} on {node}: {}{}", write(&kind, names), came_to(outcome))
        }
        What::Deadline => format!("{who}runs out of time; what it sent may yet arrive"),
        What::Crashes => format!(
            "extender {} dies; what it sent may yet arrive",
            char::from(b'A'.saturating_add(names.extender(made.extender)))
        ),
        What::PodGoes => format!("{pod} is deleted and gone"),
        What::PodDeleting => format!("{pod} gets a deletion timestamp"),
        What::PodEnds => format!("{pod} ends"),
        What::WishChanges { pool: true } => format!("the WorkerPool of {pod} wishes otherwise"),
        What::WishChanges { pool: false } => format!("{pod} is annotated with another wish"),
        What::PodWritten => format!("somebody writes to {pod}"),
        What::NodeGoes => format!("Node {node} is deleted, its containers run on"),
        What::Collected => format!("the NodePlacement of {node} is collected"),
        What::NodeReturns => format!("Node {node} is back under its name"),
        What::Made => format!("the agent makes the NodePlacement of {node}"),
        What::Runs => format!("the agent lets {pod} run on {node}"),
    }
}

fn write(kind: &WriteKind, names: &Renaming) -> String {
    match kind {
        WriteKind::None => String::new(),
        WriteKind::Reserve { replaces, cpus: mask, restored, .. } => {
            let how = if *replaces == NONE { "reserves" } else { "renews the reservation of" };
            let restored: Vec<String> = restored
                .iter()
                .filter(|entry| entry.pod != NONE)
                .map(|Entry { pod, cpus: mask }| format!("{} of {}", cpus(*mask), pod_name(names.pod(*pod))))
                .collect();
            let besides =
                if restored.is_empty() { String::new() } else { format!(", restores {}", restored.join(", ")) };
            format!("{how} {}{besides}", cpus(*mask))
        }
        WriteKind::Release { entries } => {
            let pods: Vec<String> =
                entries.iter().filter(|entry| entry.pod != NONE).map(|entry| pod_name(names.pod(entry.pod))).collect();
            format!("removes the reservation of {}", pods.join(" and "))
        }
        WriteKind::Touch => "touches the pod".to_owned(),
        WriteKind::Bind { cpus: 0 } => "binds to the shared pool".to_owned(),
        WriteKind::Bind { cpus: mask } => format!("binds, carrying {}", cpus(*mask)),
    }
}

fn came_to(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => ": done",
        Outcome::Conflict => ": conflict",
        Outcome::Gone => ": not found",
        Outcome::Lost => ": no answer",
        Outcome::Refused => ": refused",
    }
}
