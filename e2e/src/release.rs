//! What the bed gives our chart beside its defaults: machines for the simulated nodes, and the address of the queue.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::{Value, json};

use crate::RELEASE_NAMESPACE;
use crate::bed::Bed;

/// ConfigMap with one hwloc description per simulated node, as the chart's `agent.simulatedMachines` wants it.
pub const MACHINES: &str = "simulated-machines";

/// Values of `charts/fairlead` for this bed.
#[must_use]
pub fn values(bed: &Bed) -> Value {
    let queues: Vec<String> = bed.redis.iter().map(crate::redis::Redis::address).collect();
    json!({
        "agent": {
            "simulatedMachines": { "configMapName": MACHINES },
            "kubelet": { "configFile": "/var/lib/kubelet/config.yaml" },
        },
        "operator": { "queueAllow": queues },
    })
}

/// Creates the release's namespace and the machines of its agents, as whoever wants simulated nodes must. The namespace
/// admits the agent's host paths, as on a cluster that admits them nowhere by default.
pub async fn prepare(bed: &Bed) -> Result<()> {
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let params = PostParams::default();
    let privileged = [("pod-security.kubernetes.io/enforce".to_owned(), "privileged".to_owned())];
    let labelled = ObjectMeta { labels: Some(privileged.into()), ..metadata(RELEASE_NAMESPACE) };
    let namespace = Namespace { metadata: labelled, ..Namespace::default() };
    Api::all(bed.client.clone()).create(&params, &namespace).await?;
    let data: BTreeMap<String, String> =
        bed.nodes.iter().map(|node| (node.name.clone(), node.shape.synthetic.to_owned())).collect();
    let machines = ConfigMap { metadata: metadata(MACHINES), data: Some(data), ..ConfigMap::default() };
    Api::namespaced(bed.client.clone(), RELEASE_NAMESPACE).create(&params, &machines).await?;
    Ok(())
}
