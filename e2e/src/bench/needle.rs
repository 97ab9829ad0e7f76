//! 5,000 nodes of which one fits: how long until the pod is there, with kube-scheduler's own sampling and without any.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fairlead_crds::{NodePlacement, NodePlacementSpec, NodeTopology};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::fleet;
use super::report::Report;
use super::scheduler::{freeze_controllers, namespace};
use super::scrape;
use crate::bed::{Bed, Options};
use crate::eventually::{Seen, eventually, seen};
use crate::nodes::{SimulatedNode, TWO_SOCKET};
use crate::release;
use fairlead_crds::keys;

const NAMESPACE: &str = "bench";
const NODES: usize = 5_000;
/// The node that fits: somewhere in the middle.
const NEEDLE: usize = 3_141;
const AT_ONCE: usize = 16;
/// One setting of `percentageOfNodesToScore`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    name: &'static str,
    percent: u32,
    /// How many pods are tried.
    pods: usize,
}

/// Every node is looked at.
pub(super) const ALL: Setting = Setting { name: "needle", percent: 100, pods: 10 };
/// kube-scheduler's own choice. A pod may take a minute.
pub(super) const SAMPLED: Setting = Setting { name: "needle-sampled", percent: 0, pods: 6 };
/// Pods that fit everywhere, for the time that a setting costs every pod.
const ORDINARY: usize = 30;
const CALL_LIMIT: Duration = Duration::from_secs(20);
const KNOWN_LIMIT: Duration = Duration::from_secs(60);
/// Ten samples with the longest pauses between them, and some.
const BOUND_LIMIT: Duration = Duration::from_secs(150);

/// One simulated node, whose machine the needle gets.
pub(super) fn options() -> Options {
    let model = SimulatedNode { name: "model-0".to_owned(), shape: TWO_SOCKET };
    Options { redis_password: None, nodes: vec![model], ..Options::new("bench-needle") }
}

/// Measures one setting.
pub(super) async fn run(bed: &Bed, Setting { name, percent, pods }: Setting) -> Result<Report> {
    let mut values = release::values(bed);
    values["scheduler"] = json!({ "replicas": 1, "percentageOfNodesToScore": percent });
    values["operator"]["replicas"] = json!(1);
    bed.install_fairlead(&values).await?;
    namespace(bed).await?;
    haystack(bed).await?;
    let mut report = Report::new(name, "5,000 nodes of which one has room for the pod: created to bound");
    let mut seconds = Vec::new();
    for index in 0..pods {
        seconds.push(bound_after(bed, &format!("needle-{index}"), "60").await?);
        tracing::info!(percent, seconds = seconds.last(), "bound");
    }
    report.add_rounds(format!("percentageOfNodesToScore {percent}: created to bound"), &seconds, "s");
    let most = seconds.iter().copied().fold(0.0, f64::max);
    report.add(format!("percentageOfNodesToScore {percent}: longest of {pods}"), most, "s", pods);
    let before = algorithm(bed).await?;
    for index in 0..ORDINARY {
        bound_after(bed, &format!("ordinary-{index}"), "500m").await?;
    }
    let spent = algorithm(bed).await?.since(&before);
    let row = format!("percentageOfNodesToScore {percent}: scheduler's algorithm, a pod that fits everywhere");
    report.add(row, spent.mean_milli(), "ms", spent.observations());
    report.note(
        "A Guaranteed pod of 60 CPUs; every node offers 62, and one of them has a NodeTopology. 0 is kube-scheduler's own \
         setting: 500 of 5,000 nodes are shown to the extender at a try, and the next try goes on behind them, woken by the \
         extender as long as a node has room.",
    );
    Ok(report)
}

async fn algorithm(bed: &Bed) -> Result<scrape::Histogram> {
    let page = scrape::release(bed, "kube-scheduler", 10259).await?;
    Ok(page.histogram("scheduler_scheduling_algorithm_duration_seconds", &[]))
}

async fn haystack(bed: &Bed) -> Result<()> {
    let model = bed.nodes.first().context("no simulated node")?;
    let topologies: Api<NodeTopology> = Api::all(bed.client.clone());
    let machine = eventually("the model's machine is published", KNOWN_LIMIT, async || {
        Ok(match topologies.get_opt(&model.name).await? {
            Some(topology) => Seen::Yes(topology.spec),
            None => Seen::NotYet("no NodeTopology".to_owned()),
        })
    })
    .await?;
    freeze_controllers(bed).await?;
    futures::stream::iter((1..NODES).map(|index| create(bed, index, model)))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let nodes: Api<Node> = Api::all(bed.client.clone());
    let name = name(NEEDLE);
    let owner = OwnerReference {
        api_version: Node::api_version(&()).into_owned(),
        kind: Node::kind(&()).into_owned(),
        name: name.clone(),
        uid: nodes.get(&name).await?.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    };
    let params = PostParams::default();
    let mut topology = NodeTopology::new(&name, machine);
    topology.metadata.owner_references = Some(vec![owner.clone()]);
    topologies.create(&params, &topology).await?;
    let mut placement = NodePlacement::new(&name, NodePlacementSpec::default());
    placement.metadata.owner_references = Some(vec![owner]);
    Api::all(bed.client.clone()).create(&params, &placement).await?;
    // The model would fit as well.
    bed.kubectl.run(&["cordon", &model.name], CALL_LIMIT).await?;
    eventually("the extender knows all nodes", KNOWN_LIMIT, async || {
        let known = scrape::release(bed, "fairlead-extender", 9802).await?.sum("fairlead_extender_snapshot_nodes", &[]);
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        Ok(seen(known >= NODES as f64, format!("{known} nodes")))
    })
    .await
}

fn name(index: usize) -> String {
    format!("hay-{index:05}")
}

async fn create(bed: &Bed, index: usize, model: &SimulatedNode) -> Result<()> {
    let all = async {
        let nodes: Api<Node> = Api::all(bed.client.clone());
        let name = name(index);
        nodes.create(&PostParams::default(), &fleet::object(&name, index, model)?).await?;
        // The API server taints every new node as not ready; its controller would take that off.
        let ready = Patch::Merge(json!({ "spec": { "taints": null } }));
        nodes.patch(&name, &PatchParams::default(), &ready).await?;
        anyhow::Ok(())
    };
    tokio::time::timeout(CALL_LIMIT, all).await.with_context(|| format!("node {index} not created in time"))?
}

/// Seconds until the pod is bound; it is gone afterwards.
async fn bound_after(bed: &Bed, name: &str, cpu: &str) -> Result<f64> {
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "schedulerName": keys::SCHEDULER_NAME, "automountServiceAccountToken": false, "containers": [{
            "name": "c", "image": "example.com/c:1", "resources": { "requests": amounts, "limits": amounts } }] },
    }))?;
    let began = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    eventually(&format!("{name} is bound"), BOUND_LIMIT, async || {
        let pod = pods.get(name).await?;
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        Ok(seen(bound, format!("{:?}", pod.status.and_then(|status| status.conditions))))
    })
    .await?;
    let took = began.elapsed().as_secs_f64();
    // Without grace: nobody runs these pods who could end them.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(name, &now).await?;
    eventually("no reservation is left", KNOWN_LIMIT, async || {
        let held = scrape::release(bed, "fairlead-extender", 9802).await?.sum("fairlead_extender_reservations", &[]);
        Ok(seen(held < 0.5, format!("{held} reservations")))
    })
    .await?;
    Ok(took)
}
