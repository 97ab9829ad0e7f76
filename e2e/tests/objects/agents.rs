//! An agent's own token, tried on what belongs to another node: a token that leaked from one node is worth that node only.

use super::Cluster;
use anyhow::{Context, Result, ensure};
use fairlead_crds::{NodePlacement, NodeTopology};
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::control_plane::{client_of, kubeconfig_json};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

const ACCOUNT: &str = "fairlead-agent";

/// Writes with a real token of one agent: to its own node's objects, to another's, to what nobody has yet.
pub(super) async fn write_their_own_node_only(cluster: &Cluster) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.bed.client.clone(), RELEASE_NAMESPACE);
    let (own, other) = (cluster.bed.nodes[0].name.as_str(), cluster.bed.nodes[1].name.as_str());
    let all = pods.list(&Default::default()).await?;
    let on = |pod: &&Pod| {
        let spec = pod.spec.as_ref();
        pod.name_any().starts_with(ACCOUNT) && spec.and_then(|spec| spec.node_name.as_deref()) == Some(own)
    };
    let pod = all.iter().find(on).with_context(|| format!("no agent on {own}"))?;
    let agent = Agent::of(cluster, Some(pod)).await?;

    agent.tries("patch", "nodetopologies", own, None).await?;
    agent.tries("patch", "nodeplacements", own, Some("status")).await?;
    let foreign = |node: &str| format!("the agent of node {own} may not write the object of node {node}");
    for (resource, subresource) in [("nodetopologies", None), ("nodeplacements", Some("status"))] {
        agent.denied("patch", resource, other, subresource, &foreign(other)).await?;
    }
    for resource in ["nodetopologies", "nodeplacements"] {
        agent.denied("create", resource, "ghost", None, &foreign("ghost")).await?;
        agent.denied("delete", resource, own, None, "cannot delete resource").await?;
    }
    // Reservations and verdicts are others' to write, on its own node too.
    agent.denied("patch", "nodeplacements", own, None, "cannot patch resource").await?;
    agent.denied("patch", "nodetopologies", own, Some("status"), "cannot patch resource").await?;

    let unbound = Agent::of(cluster, None).await?;
    unbound.denied("patch", "nodetopologies", own, None, "names no node").await
}

/// A client with a token of the agents' ServiceAccount.
struct Agent {
    client: Client,
}

impl Agent {
    /// With a token bound to `pod`, as kubelets ask for it, or to nothing.
    async fn of(cluster: &Cluster, pod: Option<&Pod>) -> Result<Self> {
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.bed.client.clone(), RELEASE_NAMESPACE);
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let spec = TokenRequestSpec { bound_object_ref, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await?;
        let token = answer.status.context("a token without status")?.token;
        let plane = &cluster.bed.plane;
        let text = kubeconfig_json(&plane.url(), &plane.ca_file(), RELEASE_NAMESPACE, &json!({ "token": token }));
        let file = cluster.bed.dir.join("agent.kubeconfig");
        std::fs::write(&file, text)?;
        Ok(Self { client: client_of(&file).await? })
    }

    /// A write that would change nothing that anyone reads, on the server but not kept.
    async fn tries(&self, verb: &str, resource: &str, name: &str, subresource: Option<&str>) -> kube::Result<()> {
        match resource {
            "nodetopologies" => attempt::<NodeTopology>(&self.client, verb, name, subresource, topology(name)).await,
            _ => attempt::<NodePlacement>(&self.client, verb, name, subresource, placement(name)).await,
        }
    }

    async fn denied(
        &self,
        verb: &str,
        resource: &str,
        name: &str,
        subresource: Option<&str>,
        because: &str,
    ) -> Result<()> {
        let what = format!("{verb} {resource}/{name} {}", subresource.unwrap_or_default());
        let error = self.tries(verb, resource, name, subresource).await.err();
        let said = error.with_context(|| format!("an agent could {what}"))?.to_string();
        ensure!(said.contains(because), "{what}: not because of {because:?}: {said}");
        Ok(())
    }
}

async fn attempt<K>(
    client: &Client,
    verb: &str,
    name: &str,
    subresource: Option<&str>,
    object: Value,
) -> kube::Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let touch = Patch::Merge(json!({ "metadata": { "annotations": { "example.com/tried": "1" } } }));
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    match (verb, subresource) {
        ("create", _) => {
            let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            let params = PostParams { dry_run: true, ..PostParams::default() };
            api.create(&params, &object).await.map(drop)
        }
        ("delete", _) => api.delete(name, &kube::api::DeleteParams::default().dry_run()).await.map(drop),
        (_, Some(_)) => api.patch_status(name, &params, &touch).await.map(drop),
        (_, None) => api.patch(name, &params, &touch).await.map(drop),
    }
}

fn topology(name: &str) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology", "metadata": { "name": name },
        "spec": { "source": "Synthetic", "packages": [{ "id": 0, "cpus": "0" }],
            "numaNodes": [{ "id": 0, "cpus": "0", "memoryBytes": 1 }], "cores": [{ "id": 0, "cpus": "0" }] } })
}

fn placement(name: &str) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement", "metadata": { "name": name }, "spec": {} })
}
