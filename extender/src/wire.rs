//! The extender protocol on the wire: Go's field names, capitalised because the upstream types carry no JSON tags.
//!
//! Requests are parsed lazily: node names are borrowed from the body, full Node objects stay raw text but for their
//! name, and of the pod only what a decision reads is decoded.
use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSchedulingGate, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Body of `/filter` and `/prioritize` (`ExtenderArgs`). The scheduler sets one of the two lists, by `nodeCacheCapable`.
#[derive(Debug, Deserialize)]
pub struct SchedulingArgs<'a> {
    /// The pod to be placed.
    #[serde(rename = "Pod", default)]
    pub pod: Option<PodPart>,
    /// Names of the candidates; used if both lists are set.
    #[serde(rename = "NodeNames", default, borrow)]
    pub node_names: Option<Vec<Name<'a>>>,
    /// The candidates as full objects.
    #[serde(rename = "Nodes", default, borrow)]
    pub nodes: Option<NodeListPart<'a>>,
}

/// A node's name, borrowed from the body where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A `NodeList`, its items untouched.
#[derive(Debug, Deserialize)]
pub struct NodeListPart<'a> {
    /// The items as they came.
    #[serde(default, borrow)]
    pub items: Option<Vec<&'a RawValue>>,
}

/// Of a full Node only the name.
#[derive(Debug, Deserialize)]
pub struct NodePart<'a> {
    /// Object metadata.
    #[serde(borrow)]
    pub metadata: NodeMetadataPart<'a>,
}

/// Of a Node's metadata only the name.
#[derive(Debug, Deserialize)]
pub struct NodeMetadataPart<'a> {
    /// Name of the node.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
}

/// What a decision reads of a pod.
#[derive(Debug, Default, Deserialize)]
pub struct PodPart {
    #[serde(default)]
    metadata: MetadataPart,
    #[serde(default)]
    spec: Option<SpecPart>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetadataPart {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    containers: Option<Vec<ContainerPart>>,
    init_containers: Option<Vec<ContainerPart>>,
    resources: Option<ResourceRequirements>,
    overhead: Option<BTreeMap<String, Quantity>>,
    scheduling_gates: Option<Vec<PodSchedulingGate>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPart {
    name: String,
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
}

impl From<ContainerPart> for Container {
    fn from(part: ContainerPart) -> Self {
        Self { name: part.name, resources: part.resources, restart_policy: part.restart_policy, ..Self::default() }
    }
}

impl From<SpecPart> for PodSpec {
    fn from(part: SpecPart) -> Self {
        let containers = |list: Vec<ContainerPart>| list.into_iter().map(Container::from).collect();
        Self {
            containers: part.containers.map(containers).unwrap_or_default(),
            init_containers: part.init_containers.map(containers),
            resources: part.resources,
            overhead: part.overhead,
            scheduling_gates: part.scheduling_gates,
            ..Self::default()
        }
    }
}

impl From<PodPart> for Pod {
    fn from(part: PodPart) -> Self {
        let MetadataPart { name, namespace, uid, annotations, labels, creation_timestamp, owner_references } =
            part.metadata;
        let identity = ObjectMeta { name, namespace, uid, owner_references, ..ObjectMeta::default() };
        Self {
            metadata: ObjectMeta { annotations, labels, creation_timestamp, ..identity },
            spec: part.spec.map(PodSpec::from),
            ..Self::default()
        }
    }
}

/// Body of `/bind` (`ExtenderBindingArgs`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindingArgs {
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// UID of the pod.
    #[serde(rename = "PodUID")]
    pub pod_uid: String,
    /// The node chosen by the scheduler.
    pub node: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_borrowed_and_the_rest_of_the_pod_is_skipped() {
        let body = r#"{"Pod":{"metadata":{"name":"p","namespace":"ns","uid":"u","managedFields":[{"x":1}]},
            "spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"2"}}}],"volumes":[{"a":{}}]}},
            "Nodes":null,"NodeNames":["n1","n\u0032"]}"#;
        let args: SchedulingArgs = serde_json::from_str(body).unwrap();
        let names = args.node_names.unwrap();
        assert!(matches!(names[0].0, Cow::Borrowed("n1")));
        assert_eq!(names[1].0, "n2");
        assert!(args.nodes.is_none());
        let pod = Pod::from(args.pod.unwrap());
        assert_eq!(pod.metadata.uid.as_deref(), Some("u"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "2");
        assert!(spec.volumes.is_none());
    }

    #[test]
    fn full_nodes_give_their_names() {
        let body = r#"{"Nodes":{"metadata":{},"items":[{"metadata":{"name":"n1","labels":{}},"status":{}}]}}"#;
        let args: SchedulingArgs = serde_json::from_str(body).unwrap();
        let items = args.nodes.unwrap().items.unwrap();
        let node: NodePart = serde_json::from_str(items[0].get()).unwrap();
        assert_eq!(node.metadata.name, "n1");
    }

    #[test]
    fn binding_args_carry_the_uid() {
        let body = r#"{"PodName":"p","PodNamespace":"ns","PodUID":"u","Node":"n"}"#;
        let args: BindingArgs = serde_json::from_str(body).unwrap();
        assert_eq!((args.pod_uid.as_str(), args.node.as_str()), ("u", "n"));
    }
}
