//! Prints the agent's metric reference as rows of a Markdown table.
use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let (page, _counters) = fairlead_agent::metrics::page();
    let mut out = std::io::stdout().lock();
    for doc in fairlead_runtime::metrics::reference(&page) {
        writeln!(out, "| `{}` | {} | {} |", doc.name, doc.kind, doc.help)?;
    }
    Ok(())
}
