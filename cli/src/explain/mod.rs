//! `explain`: why a pod is where it is, or why it waits, and what comes next; what a node is, and who holds what there.
mod devices;
#[cfg(test)]
mod explain_test;
mod judge;
mod model;
mod node;
mod render;
mod waiting;

pub(crate) use node::node;

use crate::access::Access;
use crate::args::{ExplainPodArgs, Output};
use crate::error::CliError;
use crate::gather::gather;
use crate::say;
use fairlead_crds::{TenantQuota, keys};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource as _};
use model::{Explanation, Inputs, explain, labelled_tenant};

pub(crate) async fn pod(access: &Access, args: &ExplainPodArgs) -> Result<(), CliError> {
    let explanation = explanation(access, args).await?;
    match args.output {
        Output::Json => {
            let text = serde_json::to_string_pretty(&explanation)
                .map_err(|source| CliError::Output { source: source.into() })?;
            say(&text)
        }
        Output::Table => say(render::text(&explanation).trim_end()),
    }
}

async fn explanation(access: &Access, args: &ExplainPodArgs) -> Result<Explanation, CliError> {
    let namespace = args.namespace.as_deref().unwrap_or(&access.namespace);
    let api: Api<Pod> = Api::namespaced(access.client.clone(), namespace);
    let pod = access
        .get(&api, &args.name, namespace)
        .await?
        .ok_or_else(|| CliError::NotFound { what: format!("pod {namespace}/{}", args.name) })?;
    let mut gathered = Box::pin(gather(access)).await?;
    let quota = match &gathered.snapshot {
        Some(snapshot) => {
            let tenant = snapshot.tenant_of_namespace(namespace);
            gathered.quotas.into_iter().find(|quota| quota.metadata.name.as_deref() == tenant)
        }
        // Who sees only a part may still read the own TenantQuota; the label says which that is.
        None => own_quota(access, &pod, &mut gathered.missing).await?,
    };
    let devices = devices::read(access, &pod, &mut gathered.missing).await?;
    let inputs = Inputs {
        pod: &pod,
        devices,
        snapshot: gathered.snapshot.as_deref(),
        quota: quota.as_ref(),
        missing: gathered.missing,
        now: jiff::Timestamp::now(),
    };
    Ok(explain(&inputs))
}

async fn own_quota(access: &Access, pod: &Pod, missing: &mut Vec<String>) -> Result<Option<TenantQuota>, CliError> {
    let Some(tenant) = labelled_tenant(pod) else { return Ok(None) };
    match access.get(&Api::<TenantQuota>::all(access.client.clone()), tenant, "").await {
        Err(CliError::Forbidden { .. }) => {
            missing.push(format!("get {}.{} {tenant}", TenantQuota::plural(&()), keys::GROUP));
            Ok(None)
        }
        other => other,
    }
}
