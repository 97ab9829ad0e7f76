//! Many nodes for the schedulers to choose from: Node objects that nothing runs behind, with machines of the simulated
//! nodes.

use std::time::Duration;

use anyhow::{Context, Result};
use fairlead_crds::{NodePlacement, NodePlacementSpec, NodeTopology, NodeTopologySpec};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bed::Bed;
use crate::nodes::{RESERVED_CPUS, SimulatedNode};

const AT_ONCE: usize = 16;
const CALL_LIMIT: Duration = Duration::from_secs(20);
const ZONES: usize = 3;

/// The nodes beyond those that kwok simulates.
pub(super) struct Fleet {
    client: kube::Client,
    /// A simulated node of each shape, with the machine that its agent published.
    models: Vec<(SimulatedNode, NodeTopologySpec)>,
    size: usize,
}

impl Fleet {
    /// Takes the machines from the objects that the agents published.
    pub(super) async fn new(bed: &Bed) -> Result<Self> {
        let topologies: Api<NodeTopology> = Api::all(bed.client.clone());
        let mut models: Vec<(SimulatedNode, NodeTopologySpec)> = Vec::new();
        for node in &bed.nodes {
            if models.iter().all(|(known, _)| known.shape != node.shape) {
                models.push((node.clone(), topologies.get(&node.name).await?.spec));
            }
        }
        Ok(Self { client: bed.client.clone(), models, size: bed.nodes.len() })
    }

    /// Creates nodes until there are `size` of them, the simulated ones included.
    pub(super) async fn grow(&mut self, size: usize) -> Result<()> {
        let fresh = self.size..size.max(self.size);
        futures::stream::iter(fresh.map(|index| self.create(index)))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.size = self.size.max(size);
        Ok(())
    }

    async fn create(&self, index: usize) -> Result<()> {
        let all = async {
            let (model, machine) =
                self.models.get(index % self.models.len().max(1)).context("no machine was published")?;
            let name = format!("fleet-{index:05}");
            let params = PostParams::default();
            let nodes: Api<Node> = Api::all(self.client.clone());
            let node = nodes.create(&params, &object(&name, index, model)?).await?;
            // The API server taints every new node as not ready; its controller would take that off.
            let ready = Patch::Merge(json!({ "spec": { "taints": null } }));
            nodes.patch(&name, &PatchParams::default(), &ready).await?;
            let owner = OwnerReference {
                api_version: Node::api_version(&()).into_owned(),
                kind: Node::kind(&()).into_owned(),
                name: name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            };
            let mut topology = NodeTopology::new(&name, machine.clone());
            topology.metadata.owner_references = Some(vec![owner.clone()]);
            Api::all(self.client.clone()).create(&params, &topology).await?;
            let mut placement = NodePlacement::new(&name, NodePlacementSpec::default());
            placement.metadata.owner_references = Some(vec![owner]);
            Api::all(self.client.clone()).create(&params, &placement).await?;
            anyhow::Ok(())
        };
        tokio::time::timeout(CALL_LIMIT, all).await.with_context(|| format!("node {index} not created in time"))?
    }
}

/// Without the label of simulated nodes, for which kwok looks, and without that of the operating system, for which the
/// pods of the release look.
pub(super) fn object(name: &str, index: usize, model: &SimulatedNode) -> Result<Node> {
    let shape = model.shape;
    let resources = |cpus: u32| json!({ "cpu": cpus.to_string(), "memory": (shape.memory_bytes - (2 << 30)).to_string(), "pods": "110" });
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": format!("zone-{}", index % ZONES),
            },
        },
        "spec": {},
        "status": {
            "capacity": resources(shape.cpus),
            "allocatable": resources(shape.cpus - RESERVED_CPUS),
            "addresses": [{ "type": "InternalIP", "address": format!("10.2.{}.{}", index / 250, index % 250 + 1) }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Bench", "message": "nothing runs behind it",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    }))?)
}
