//! The run as text for people: one line a pod, then the machines.
use super::devices::DeviceAfter;
use super::placement::{Run, Step, Verdict};
use crate::table::Table;

pub(super) fn text(run: &Run) -> String {
    let mut table = Table::new(&["POD", "VERDICT", "NODE", "SCORE", "CPUS", "MEMORY NODES", "WHY"]);
    for step in &run.steps {
        let best = step.answers.first();
        let score = match (step.verdict, best.and_then(|answer| answer.detail.score)) {
            (Verdict::Placed, Some(score)) if !step.containers.is_empty() => score.to_string(),
            _ => "-".to_owned(),
        };
        table.row([
            step.pod.clone(),
            format!("{:?}", step.verdict),
            step.node.clone().unwrap_or_else(|| "-".to_owned()),
            score,
            cpus(step),
            step.containers.first().map_or("-".to_owned(), |one| one.memory_nodes.clone()),
            why(step),
        ]);
    }
    let mut out = table.render(0);
    out.push_str(&format!("\n{} placed, {} refused\n", run.placed, run.refused));
    for node in &run.nodes {
        out.push_str(&format!(
            "\nnode {}   {} CPUs, free {}\n{}",
            node.name,
            node.cpus,
            or_none(&node.free_cpus),
            node.drawing
        ));
    }
    out
}

fn cpus(step: &Step) -> String {
    match step.containers.as_slice() {
        [] if step.verdict == Verdict::Placed => "shared".to_owned(),
        [] => "-".to_owned(),
        [one] => one.cpus.clone(),
        several => several.iter().map(|one| format!("{} {}", one.name, one.cpus)).collect::<Vec<_>>().join("; "),
    }
}

fn why(step: &Step) -> String {
    match step.verdict {
        Verdict::Placed => step.devices.iter().map(device).collect::<Vec<_>>().join("; "),
        Verdict::Deleted => String::new(),
        Verdict::Refused => step.answers.first().map_or_else(String::new, |answer| {
            let obstacle = answer.obstacle.clone();
            let said = obstacle.unwrap_or_else(|| answer.detail.message.clone());
            format!("{}: {said}", answer.detail.node)
        }),
    }
}

fn device(device: &DeviceAfter) -> String {
    let name = device.device.as_deref().unwrap_or("the devices");
    match &device.unlocated {
        None => format!("near {name} of claim {}", device.claim),
        Some(why) => format!("without {name} of claim {}: {why}", device.claim),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
