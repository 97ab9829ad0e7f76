//! A pod that needs room, on the genuine control plane: it preempts exactly the pod that must go, and it is woken when a
//! node has room again without anything happening that kube-scheduler watches. And one that claims a device: it gets CPUs
//! near it.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "preempt/claims.rs"]
mod claims;

use anyhow::{Context as _, Result};
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{eventually, seen};
use fairlead_e2e::release;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// Far below the 5 minutes after which kube-scheduler tries everything again, with room for its longest pause of 10 s.
const WOKEN_LIMIT: Duration = Duration::from_secs(25);
/// 16 cores of two threads, of which the node offers 30 CPUs.
const NODE: &str = "single-0";

fn pod(name: &str, cpu: &str, class: Option<&str>) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "schedulerName": "fairlead-scheduler", "priorityClassName": class,
            "nodeSelector": { "kubernetes.io/hostname": NODE },
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": "example.com/c:1", "resources": { "requests": amounts, "limits": amounts } }],
        },
    })
}

fn class(name: &str, value: i32) -> Value {
    json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name }, "value": value })
}

async fn apply(bed: &Bed, object: &Value) -> Result<String> {
    bed.kubectl.run_with(&["apply", "-f", "-"], Some(&object.to_string()), LIMIT).await
}

async fn get(bed: &Bed, kind: &str, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&bed.kubectl.run(&["get", kind, name, "-o", "json"], LIMIT).await?)?)
}

/// CPUs of the pod's placement once it is bound with one.
async fn placed(bed: &Bed, name: &str, limit: Duration) -> Result<String> {
    eventually(&format!("{name} has cores of its own"), limit, async || {
        let pod = get(bed, "pod", name).await?;
        let text = pod["metadata"]["annotations"]["fairlead.dev/placement"].as_str().unwrap_or("{}");
        let placement: Value = serde_json::from_str(text)?;
        Ok(match placement["containers"][0]["cpus"].as_str() {
            Some(cpus) => fairlead_e2e::eventually::Seen::Yes(cpus.to_owned()),
            None => fairlead_e2e::eventually::Seen::NotYet(pod["status"]["conditions"].to_string()),
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_needs_room() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options { redis_password: None, ..Options::new("preempt") }).await.unwrap();
    bed.install_fairlead(&release::values(&bed)).await.unwrap();
    let outcome = async {
        preempts_what_must_go(&bed).await?;
        is_woken(&bed).await?;
        claims::cpus_are_near_the_allocated_device(&bed).await
    };
    if let Err(error) = outcome.await {
        panic!("{error:#}\n{}", bed.release_logs());
    }
    bed.stop().await.unwrap();
}

/// 28 of 30 CPUs are held; of the three that hold them only the least important one has to go.
async fn preempts_what_must_go(bed: &Bed) -> Result<()> {
    for (name, value) in [("low", 1), ("middle", 2), ("higher", 3), ("urgent", 1000)] {
        apply(bed, &class(name, value)).await?;
    }
    let mut held = Vec::new();
    for (name, cpu, class) in [("keeps", "16", "higher"), ("stays", "4", "middle"), ("goes", "8", "low")] {
        apply(bed, &pod(name, cpu, Some(class))).await?;
        held.push(placed(bed, name, LIMIT).await?);
    }
    let began = Instant::now();
    apply(bed, &pod("urgent", "8", Some("urgent"))).await?;
    let cpus = placed(bed, "urgent", LIMIT).await?;
    eprintln!("preemption: bound after {:.1} s", began.elapsed().as_secs_f32());
    assert_eq!(cpus, held[2], "the cores of the one that went");
    for name in ["keeps", "stays"] {
        let pod = get(bed, "pod", name).await?;
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{name} had to go");
    }
    let gone = bed.kubectl.output(&["get", "pod", "goes"], None, LIMIT).await?;
    assert!(!gone.success && gone.stderr.contains("not found"), "{gone:?}");
    let page = bed.kubelet.running();
    assert!(page.iter().any(|running| running.program == "fairlead-extender"));
    Ok(())
}

/// Name of the agent's pod on a node.
async fn agent_of(bed: &Bed, node: &str) -> Result<String> {
    let pods = bed.kubectl.run(&["-n", "fairlead-system", "get", "pods", "-o", "json"], LIMIT).await?;
    let pods: Value = serde_json::from_str(&pods)?;
    let on_node = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["nodeName"] == node);
    let name = on_node.filter_map(|pod| pod["metadata"]["name"].as_str()).find(|name| name.contains("agent"));
    Ok(name.context("no agent on the node")?.to_owned())
}

/// The node's machine is unknown for a while: its NodeTopology comes back, which no scheduler watches.
async fn is_woken(bed: &Bed) -> Result<()> {
    for name in ["urgent", "keeps", "stays"] {
        bed.kubectl.run(&["delete", "pod", name, "--wait=true"], LIMIT).await?;
    }
    // Its agent would publish it again at once.
    let agent = agent_of(bed, NODE).await?;
    let signal = |signal| bed.kubelet.signal(signal, |running| agent == running.pod.as_str());
    assert_eq!(signal(rustix::process::Signal::STOP), 1);
    let mut topology = get(bed, "nodetopology", NODE).await?;
    bed.kubectl.run(&["delete", "nodetopology", NODE], LIMIT).await?;

    apply(bed, &pod("waits", "4", None)).await?;
    eventually("the pod is refused for want of a machine", LIMIT, async || {
        let conditions = get(bed, "pod", "waits").await?["status"]["conditions"].to_string();
        Ok(seen(conditions.contains("fairlead: node has no NodeTopology"), conditions))
    })
    .await?;
    // The refusal itself is an update of the pod and brings one more try; let that pass.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let pod = get(bed, "pod", "waits").await?;
    assert!(pod["spec"]["nodeName"].is_null());
    assert!(pod["metadata"]["annotations"]["fairlead.dev/touched"].is_null(), "woken without a reason");

    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        topology["metadata"].as_object_mut().unwrap().remove(field);
    }
    let began = Instant::now();
    bed.kubectl.run_with(&["create", "-f", "-"], Some(&topology.to_string()), LIMIT).await?;
    placed(bed, "waits", WOKEN_LIMIT).await?;
    eprintln!("wake: bound {:.1} s after the machine was known again", began.elapsed().as_secs_f32());
    let pod = get(bed, "pod", "waits").await?;
    assert!(pod["metadata"]["annotations"]["fairlead.dev/touched"].is_string(), "something else woke it");
    assert_eq!(signal(rustix::process::Signal::CONT), 1);
    Ok(())
}
