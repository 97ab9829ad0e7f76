//! `top`: tenants, nodes and pools at a glance.
mod nodes;
mod pools;
mod tenants;

use crate::access::Access;
use crate::args::{TopArgs, TopList, TopPoolsArgs};
use crate::error::CliError;
use crate::gather::{Gathered, gather};
use crate::{note, say};
use fairlead_crds::WorkerPool;
use jiff::Timestamp;
use kube::Api;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Pause between two looks with `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Moves the cursor home and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Whose WorkerPools are listed.
#[derive(Default)]
struct PoolScope {
    /// `None`: of all namespaces.
    namespace: Option<String>,
    /// Why it is fewer than was asked for.
    note: Option<String>,
}

pub(crate) async fn run(access: &Access, args: &TopArgs) -> Result<(), CliError> {
    let on_terminal = std::io::stdout().is_terminal();
    let mut scope = PoolScope::default();
    if let Some(TopList::Pools(TopPoolsArgs { namespace })) = &args.what {
        scope.namespace.clone_from(namespace);
    }
    loop {
        let page = page(access, args.what.as_ref(), &mut scope).await?;
        if args.watch && on_terminal {
            write!(std::io::stdout(), "{CLEAR}").map_err(|source| CliError::Output { source })?;
        }
        say(page.trim_end())?;
        if let Some(text) = &scope.note {
            note(text);
        }
        if !args.watch {
            return Ok(());
        }
        if !on_terminal {
            say("")?;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn page(access: &Access, what: Option<&TopList>, scope: &mut PoolScope) -> Result<String, CliError> {
    let (tenants, nodes, pools) = match what {
        None => (true, true, true),
        Some(TopList::Tenants) => (true, false, false),
        Some(TopList::Nodes) => (false, true, false),
        Some(TopList::Pools(_)) => (false, false, true),
    };
    let now = Timestamp::now();
    let mut parts = Vec::new();
    if tenants || nodes {
        let Gathered { snapshot, quotas, missing } = Box::pin(gather(access)).await?;
        let Some(snapshot) = snapshot else {
            return Err(CliError::Forbidden {
                rights: missing,
                hint: ": the ClusterRole fairlead-reader holds what `explain` and `top` read",
            });
        };
        if tenants {
            parts.push(tenants::text(&snapshot, &quotas, now));
        }
        if nodes {
            parts.push(nodes::text(&snapshot));
        }
    }
    if pools {
        parts.push(pools::text(&worker_pools(access, scope).await?));
    }
    Ok(parts.join("\n"))
}

/// Those of all namespaces; of the context's alone for who may not list them all.
async fn worker_pools(access: &Access, scope: &mut PoolScope) -> Result<Vec<WorkerPool>, CliError> {
    let client = || access.client.clone();
    let namespace = match &scope.namespace {
        Some(namespace) => namespace.clone(),
        None => match access.list(&Api::all(client()), "", None).await {
            Err(CliError::Forbidden { rights, .. }) => {
                scope.note = Some(format!(
                    "note: pools of namespace {} only (-n for another): you lack the right to {}",
                    access.namespace,
                    rights.join(", and to ")
                ));
                access.namespace.clone()
            }
            all => return all,
        },
    };
    scope.namespace = Some(namespace.clone());
    access.list(&Api::namespaced(client(), &namespace), &namespace, None).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_server::{access, list, refusal};
    use serde_json::{Value, json};

    const ALL: &str = "GET /apis/fairlead.dev/v1alpha1/workerpools";
    const OF_ACME: &str = "GET /apis/fairlead.dev/v1alpha1/namespaces/acme/workerpools";
    const OF_GLOBEX: &str = "GET /apis/fairlead.dev/v1alpha1/namespaces/globex/workerpools";

    fn pools_of(namespace: &str) -> (u16, Value) {
        list(&[json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": { "name": "picker", "namespace": namespace },
            "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "picker" },
                "minReplicas": 2, "maxReplicas": 80, "queueSources": [ { "type": "RedisStream",
                    "redisStream": { "address": "r:6379", "stream": "s", "group": "g" } } ] } })])
    }

    /// For a tenant's user: rights in acme and globex alone.
    fn answer(question: &str) -> (u16, Value) {
        match question {
            OF_ACME => pools_of("acme"),
            OF_GLOBEX => pools_of("globex"),
            _ => refusal(403, "workerpools.fairlead.dev is forbidden"),
        }
    }

    #[tokio::test]
    async fn who_may_not_list_all_pools_sees_those_of_the_context() {
        let (access, asked) = access(answer);
        let what = TopList::Pools(TopPoolsArgs { namespace: None });
        let mut scope = PoolScope::default();
        for _ in 0..2 {
            let text = page(&access, Some(&what), &mut scope).await.unwrap();
            assert!(text.contains("acme") && text.contains("picker"), "{text}");
        }
        let note = scope.note.unwrap();
        assert!(note.contains("namespace acme only"), "{note}");
        assert!(note.ends_with("list workerpools.fairlead.dev in all namespaces"), "{note}");
        assert_eq!(*asked.lock().unwrap(), [ALL, OF_ACME, OF_ACME], "asked once for all");
    }

    #[tokio::test]
    async fn a_namespace_that_was_asked_for_is_listed_alone() {
        let (access, asked) = access(answer);
        let what = TopList::Pools(TopPoolsArgs { namespace: Some("globex".into()) });
        run(&access, &TopArgs { what: Some(what), watch: false }).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [OF_GLOBEX]);
    }

    #[tokio::test]
    async fn without_any_right_the_smallest_is_named() {
        let (access, _) = access(|_| refusal(403, "workerpools.fairlead.dev is forbidden"));
        let what = TopList::Pools(TopPoolsArgs { namespace: None });
        let error = page(&access, Some(&what), &mut PoolScope::default()).await.unwrap_err();
        assert!(error.to_string().contains("list workerpools.fairlead.dev in namespace acme"), "{error}");
    }
}
