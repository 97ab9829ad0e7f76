//! `top`: tenants, nodes and pools at a glance.
mod nodes;
mod pools;
mod tenants;

use crate::access::Access;
use crate::args::{TopArgs, TopList};
use crate::error::CliError;
use crate::gather::{Gathered, gather};
use crate::say;
use fairlead_crds::WorkerPool;
use jiff::Timestamp;
use kube::Api;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Pause between two looks with `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Moves the cursor home and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn run(access: &Access, args: &TopArgs) -> Result<(), CliError> {
    let on_terminal = std::io::stdout().is_terminal();
    loop {
        let page = page(access, args.what).await?;
        if args.watch && on_terminal {
            write!(std::io::stdout(), "{CLEAR}").map_err(|source| CliError::Output { source })?;
        }
        say(page.trim_end())?;
        if !args.watch {
            return Ok(());
        }
        if !on_terminal {
            say("")?;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn page(access: &Access, what: Option<TopList>) -> Result<String, CliError> {
    let wants = |list| what.is_none_or(|one| one == list);
    let now = Timestamp::now();
    let mut parts = Vec::new();
    if wants(TopList::Tenants) || wants(TopList::Nodes) {
        let Gathered { snapshot, quotas, missing } = Box::pin(gather(access)).await?;
        let Some(snapshot) = snapshot else {
            return Err(CliError::Forbidden {
                rights: missing,
                hint: ": the ClusterRole fairlead-reader holds what `explain` and `top` read",
            });
        };
        if wants(TopList::Tenants) {
            parts.push(tenants::text(&snapshot, &quotas, now));
        }
        if wants(TopList::Nodes) {
            parts.push(nodes::text(&snapshot));
        }
    }
    if wants(TopList::Pools) {
        let pools: Vec<WorkerPool> = access.list(&Api::all(access.client.clone()), None).await?;
        parts.push(pools::text(&pools));
    }
    Ok(parts.join("\n"))
}
