//! The explanation as text for people.
use super::model::{Explanation, TenantNumbers, Waiting};
use crate::amount::{amount, bytes};
use crate::table::Table;

/// Nodes shown; `-o json` has all.
const MOST_NODES: usize = 12;

pub(super) fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    let tenant = match &explanation.tenant {
        Some(tenant) => format!("tenant {tenant}"),
        None if explanation.missing_rights.is_empty() => "of no tenant".to_owned(),
        None => "tenant not known".to_owned(),
    };
    field(&mut out, "Pod", &format!("{}/{} ({tenant})", explanation.namespace, explanation.name));
    field(&mut out, "State", &explanation.summary);
    if let Some(waiting) = &explanation.waiting {
        field(&mut out, "Reason", &waiting.reason);
        field(&mut out, "Line", &line(waiting));
    }
    field(&mut out, "Requests", &request(explanation));
    if let Some(placed) = &explanation.placement {
        let mut table = Table::new(&["CONTAINER", "CPUS", "MEMORY OF NUMA NODES"]);
        for container in &placed.containers {
            table.row([container.name.clone(), container.cpus.clone(), container.memory_nodes.clone()]);
        }
        if !table.is_empty() {
            out.push_str(&table.render(2));
        }
        if let Some(held) = &placed.reservation {
            let memory: Vec<String> =
                held.memory.iter().map(|(node, value)| format!("{} on NUMA node {node}", bytes(*value))).collect();
            field(&mut out, "Reserved", &format!("CPUs {}; memory {}", held.cpus, memory.join(", ")));
        }
        for note in &placed.notes {
            field(&mut out, "Why", note);
        }
        if !placed.drawing.is_empty() {
            out.push_str(&format!("\n{}\n", placed.drawing));
        }
    }
    if let Some(numbers) = &explanation.tenant_numbers {
        out.push_str(&tenant_table(&tenant, numbers));
    }
    out.push_str(&node_table(explanation));
    for next in &explanation.next {
        field(&mut out, "Next", next);
    }
    for right in &explanation.missing_rights {
        field(&mut out, "Left out", &format!("you lack the right to {right} (ClusterRole fairlead-reader has it)"));
    }
    out
}

fn field(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(&format!("{name:<10}{value}\n"));
    }
}

fn line(waiting: &Waiting) -> String {
    match (waiting.position, waiting.line_length) {
        (Some(position), Some(length)) => format!("position {position} of {length}"),
        (None, Some(length)) => format!("not among the {length} pods that the limits would let go one after the other"),
        _ => String::new(),
    }
}

fn request(explanation: &Explanation) -> String {
    let wanted = explanation.request.iter().filter(|(resource, _)| *resource != "pods");
    let mut parts: Vec<String> =
        wanted.map(|(resource, value)| format!("{resource} {}", amount(resource, *value))).collect();
    if parts.is_empty() {
        parts.push("nothing".into());
    }
    let own: Vec<String> =
        explanation.exclusive_cpus.iter().map(|own| format!("{} {}", own.container, own.cpus)).collect();
    let own = if own.is_empty() { "none".to_owned() } else { own.join(", ") };
    format!("{}; CPUs of its own: {own}", parts.join(", "))
}

fn tenant_table(tenant: &str, numbers: &TenantNumbers) -> String {
    let mut table = Table::new(&["RESOURCE", "POD", "USED", "HARD", "ENTITLED", "SHARED BY ALL"]);
    for row in &numbers.resources {
        let show = |value: Option<u64>, none: &str| value.map_or(none.to_owned(), |value| amount(&row.resource, value));
        table.row([
            row.resource.clone(),
            amount(&row.resource, row.request),
            amount(&row.resource, row.used),
            show(row.hard, "unlimited"),
            show(row.entitled, "-"),
            show(row.total, "-"),
        ]);
    }
    format!(
        "\n{}{}, weight {}: {} pods released, {} waiting\n{}\n",
        tenant.get(..1).unwrap_or_default().to_uppercase(),
        tenant.get(1..).unwrap_or_default(),
        numbers.weight,
        numbers.released_pods,
        numbers.waiting_pods,
        table.render(2)
    )
}

fn node_table(explanation: &Explanation) -> String {
    let mut table = Table::new(&["NODE", "ANSWER NOW", "SCORE", "DETAIL"]);
    for answer in explanation.nodes.iter().take(MOST_NODES) {
        let verdict = match (answer.fits, answer.reason.as_str()) {
            (true, _) => "fits",
            (false, "") => "not schedulable",
            (false, reason) => reason,
        };
        let score = answer.score.map_or("-".to_owned(), |score| score.to_string());
        table.row([answer.node.clone(), verdict.to_owned(), score, answer.detail.clone()]);
    }
    if table.is_empty() {
        return String::new();
    }
    let heading = if explanation.placement.is_some() { "Other nodes" } else { "Nodes" };
    let rest = explanation.nodes.len().saturating_sub(MOST_NODES);
    let rest = if rest == 0 { String::new() } else { format!("  and {rest} more (-o json)\n") };
    format!("\n{heading}\n{}{rest}\n", table.render(2))
}
