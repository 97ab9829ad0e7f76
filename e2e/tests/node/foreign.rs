//! Pods that others bound to the node, past our scheduler.

use anyhow::{Context as _, Result, ensure};
use fairlead_crds::keys::PLACEMENT_ANNOTATION;
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::eventually::{Seen, eventually};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::{Value, json};

use crate::steps::{LASTING, unchanged};
use crate::world::{LIMIT, NODE, World, told};

/// The user that the extender is.
pub fn as_extender() -> String {
    format!("--as=system:serviceaccount:{RELEASE_NAMESPACE}:fairlead-scheduler")
}

/// A pod that no scheduler looks at.
async fn foreign(world: &World, name: &str, cpu: &str) -> Result<()> {
    world.create(name, Some(cpu), |pod| pod["spec"]["schedulerName"] = json!("nobody")).await
}

/// Binds as a scheduler does; only the extender may carry annotations of ours.
async fn bind(world: &World, pod: &str, annotations: Option<Value>) -> Result<()> {
    let namespace = world.pods.get(pod).await?.namespace().unwrap_or_default();
    let user = annotations.is_some().then(as_extender);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": pod, "namespace": namespace, "annotations": annotations.unwrap_or(json!({})) },
        "target": { "kind": "Node", "name": NODE },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/binding");
    let mut args = vec!["create", "--raw", &path, "-f", "-"];
    args.extend(user.as_deref());
    world.bed.kubectl.run_with(&args, Some(&binding.to_string()), LIMIT).await.map(drop)
}

/// Waits until the kubelet says that the runtime refuses the pod's container, and gives its words.
pub async fn refused(world: &World, pod: &str) -> Result<String> {
    eventually(&format!("the container of {pod} is refused"), LIMIT, || async {
        let pod = world.pods.get(pod).await?;
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()).next();
        let refused = waiting.filter(|waiting| waiting.reason.as_deref() == Some("CreateContainerError"));
        Ok(refused.map_or_else(|| Seen::NotYet(told(&pod)), |why| Seen::Yes(why.message.clone().unwrap_or_default())))
    })
    .await
}

/// A pod is bound with our annotation and nothing is reserved for it: the agent does not let it be created. Another one,
/// of which it knows as little and which carries no annotation, runs in the shared pool.
pub async fn unseen(world: &World) -> Result<()> {
    foreign(world, "unseen", "2").await?;
    foreign(world, "unknown", "2").await?;
    let free = world.look().await?.shared_pool()?;
    let cpu = free.last().context("the shared pool is empty")?;
    let told_cpus = json!({ "containers": [{ "name": "worker", "cpus": cpu.to_string(), "memoryNodes": "0" }] });
    bind(world, "unseen", Some(json!({ PLACEMENT_ANNOTATION: told_cpus.to_string() }))).await?;
    bind(world, "unknown", None).await?;
    world.running(&["unknown"]).await?;
    eprintln!("           refused: {}", refused(world, "unseen").await?);
    let picture = world.as_promised(&[&LASTING[..], &["unknown"]].concat()).await?;
    ensure!(!picture.containers.contains_key("unseen"), "it runs");
    ensure!(picture.of("unknown")?.kernel.cpus == picture.shared_pool()?, "{:?}", picture.of("unknown")?);
    world.delete(&["unseen", "unknown"]).await
}

/// A second scheduler binds more than is left. The kubelet adds up requests and fails that pod; ours stay where they are.
pub async fn overcommitted(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let nodes: Api<Node> = Api::all(world.bed.client.clone());
    let status = nodes.get(NODE).await?.status.context("a node without status")?;
    let cpus = status.allocatable.context("nothing is allocatable")?;
    let cpus: usize = cpus.get("cpu").context("no CPUs are allocatable")?.0.parse()?;
    let asked = cpus + 1 - before.promised()?.len();
    foreign(world, "greedy", &asked.to_string()).await?;
    bind(world, "greedy", None).await?;
    let message = eventually("the kubelet fails the pod", LIMIT, || async {
        let pod = world.pods.get("greedy").await?;
        let status = pod.status.clone().unwrap_or_default();
        let failed = status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("OutOfcpu");
        Ok(if failed { Seen::Yes(status.message.unwrap_or_default()) } else { Seen::NotYet(told(&pod)) })
    })
    .await?;
    eprintln!("           {asked} CPUs more: {message}");
    let after = world.as_promised(&LASTING).await?;
    unchanged(&before, &after)?;
    ensure!(after.placement.spec == before.placement.spec, "promises changed: {:?}", after.placement.spec);
    world.delete(&["greedy"]).await
}
