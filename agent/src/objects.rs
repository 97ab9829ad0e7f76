//! The agent's calls to the API server: read its Node, apply its NodeTopology, create its NodePlacement, write the status.
use std::time::Duration;

use fairlead_crds::keys::manager;
use fairlead_crds::{NodePlacement, NodePlacementStatus, NodeTopology, NodeTopologySpec};
use fairlead_runtime::{API_DEADLINE, ApiError, deadline};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use crate::pin::{Promises, Version, promises_of};

/// The objects of one node.
#[derive(Clone)]
pub struct Objects {
    node_name: String,
    nodes: Api<Node>,
    topologies: Api<NodeTopology>,
    placements: Api<NodePlacement>,
}

impl Objects {
    /// Those of the node of that name.
    #[must_use]
    pub fn new(client: &Client, node_name: &str) -> Self {
        Self {
            node_name: node_name.to_owned(),
            nodes: Api::all(client.clone()),
            topologies: Api::all(client.clone()),
            placements: Api::all(client.clone()),
        }
    }

    /// UID of the Node; `None` while there is no such Node.
    ///
    /// # Errors
    /// The API server could not be asked.
    pub async fn node_uid(&self) -> Result<Option<String>, ApiError> {
        let call = async { self.nodes.get_metadata_opt(&self.node_name).await };
        Ok(deadline("read Node", API_DEADLINE, call).await?.and_then(|node| node.metadata.uid))
    }

    /// Publishes the machine.
    ///
    /// # Errors
    /// The API server refused or did not answer; applying again does no harm.
    pub async fn apply_topology(&self, node_uid: &str, spec: &NodeTopologySpec) -> Result<NodeTopology, ApiError> {
        let body = topology_body(&self.node_name, node_uid, spec);
        let params = PatchParams::apply(manager::TOPOLOGY).force();
        let call = async { self.topologies.patch(&self.node_name, &params, &Patch::Apply(&body)).await };
        deadline("apply NodeTopology", API_DEADLINE, call).await
    }

    /// Creates the NodePlacement without reservations; `None` if there is one already. It is never written again: from
    /// then on the spec is the extender's.
    ///
    /// # Errors
    /// The API server refused or did not answer.
    pub async fn create_placement(&self, node_uid: &str) -> Result<Option<NodePlacement>, ApiError> {
        let object = NodePlacement {
            metadata: ObjectMeta {
                name: Some(self.node_name.clone()),
                owner_references: Some(vec![owner(&self.node_name, node_uid)]),
                ..ObjectMeta::default()
            },
            spec: fairlead_crds::NodePlacementSpec::default(),
            status: None,
        };
        let params = PostParams { field_manager: Some(manager::PLACEMENT.to_owned()), ..PostParams::default() };
        let call = async { self.placements.create(&params, &object).await };
        match deadline("create NodePlacement", API_DEADLINE, call).await {
            Ok(created) => Ok(Some(created)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the NodePlacement promises now, past every watch. A list of one, because that right the agent has anyway.
    ///
    /// # Errors
    /// The API server did not tell.
    pub async fn read_promises(&self) -> Result<(Version, Promises), ApiError> {
        let params = ListParams::default().fields(&format!("metadata.name={}", self.node_name));
        let call = async { self.placements.list(&params).await };
        Ok(promises_of(deadline("read NodePlacement", READ_DEADLINE, call).await?.items.first()))
    }

    /// Writes the status of exactly that NodePlacement: one that was created anew under the name is another.
    ///
    /// # Errors
    /// The API server refused or did not answer; writing again does no harm.
    pub async fn write_status(&self, uid: &str, status: &NodePlacementStatus) -> Result<NodePlacement, ApiError> {
        let body = status_body(&self.node_name, uid, status);
        let params = PatchParams::apply(manager::PLACEMENT_STATUS).force();
        let call = async { self.placements.patch_status(&self.node_name, &params, &Patch::Apply(&body)).await };
        deadline("write status of NodePlacement", API_DEADLINE, call).await
    }
}

/// A creation waits for it.
const READ_DEADLINE: Duration = Duration::from_secs(1);

/// The reference that makes the garbage collector delete an object with its Node, and with no other Node of that name.
#[must_use]
pub fn owner(node_name: &str, node_uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: Node::api_version(&()).into_owned(),
        kind: Node::kind(&()).into_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// Whether the object belongs to the Node of that UID, and to no other Node.
#[must_use]
pub fn owned_by(meta: &ObjectMeta, node_uid: &str) -> bool {
    let mut nodes = meta.owner_references.iter().flatten().filter(|owner| owner.kind == Node::kind(&()));
    nodes.next().is_some_and(|owner| owner.uid == node_uid) && nodes.next().is_none()
}

fn topology_body(node_name: &str, node_uid: &str, spec: &NodeTopologySpec) -> Value {
    json!({
        "apiVersion": NodeTopology::api_version(&()),
        "kind": NodeTopology::kind(&()),
        "metadata": { "name": node_name, "ownerReferences": [owner(node_name, node_uid)] },
        "spec": spec,
    })
}

fn status_body(node_name: &str, uid: &str, status: &NodePlacementStatus) -> Value {
    json!({
        "apiVersion": NodePlacement::api_version(&()),
        "kind": NodePlacement::kind(&()),
        "metadata": { "name": node_name, "uid": uid },
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_an_earlier_node_is_not_ours() {
        let of = |uids: &[&str]| ObjectMeta {
            owner_references: Some(uids.iter().map(|uid| owner("n1", uid)).collect()),
            ..ObjectMeta::default()
        };
        assert!(owned_by(&of(&["new"]), "new"));
        assert!(!owned_by(&of(&["old"]), "new"));
        assert!(!owned_by(&of(&["new", "old"]), "new"));
        assert!(!owned_by(&ObjectMeta::default(), "new"));
    }

    #[test]
    fn a_status_names_the_object_it_is_about() {
        let body = status_body("n1", "u1", &NodePlacementStatus::default());
        assert_eq!(body["metadata"], json!({"name": "n1", "uid": "u1"}));
        assert_eq!(body["apiVersion"], "fairlead.dev/v1alpha1");
        assert_eq!(owner("n1", "u").api_version, "v1");
    }
}
