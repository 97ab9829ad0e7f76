//! Objects that people get wrong, and tenants who try to get round the gate: each is refused or told why, on a genuine API server.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "objects/agents.rs"]
mod agents;
#[path = "objects/attempts.rs"]
mod attempts;
#[path = "objects/rights.rs"]
mod rights;

use anyhow::Result;
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{Seen, eventually};
use fairlead_e2e::release;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::Api;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

struct Cluster {
    bed: Bed,
}

impl Cluster {
    async fn apply(&self, object: &Value) -> Result<String> {
        self.bed.kubectl.run_with(&["apply", "-f", "-"], Some(&object.to_string()), LIMIT).await
    }

    async fn refused(&self, object: &Value, because: &str) {
        let answer = self.bed.kubectl.output(&["apply", "-f", "-"], Some(&object.to_string()), LIMIT).await.unwrap();
        assert!(!answer.success, "accepted: {object}");
        assert!(answer.stderr.contains(because), "refused, but not because of {because:?}: {}", answer.stderr);
    }

    /// Carries out an attempt that must fail with these words.
    async fn denied(&self, what: &str, args: &[&str], object: Option<&Value>, because: &str) {
        let object = object.map(Value::to_string);
        let answer = self.bed.kubectl.output(args, object.as_deref(), LIMIT).await.unwrap();
        assert!(!answer.success, "somebody could {what}");
        assert!(answer.stderr.contains(because), "{what}: not because of {because:?}: {}", answer.stderr);
    }

    /// Waits for a condition of an object to have this status and reason; gives its message.
    async fn condition<K>(&self, api: Api<K>, name: &str, type_: &str, status: &str, reason: &str) -> String
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
    {
        eventually(&format!("{name}: {type_}={status} {reason}"), LIMIT, || async {
            let object = serde_json::to_value(api.get(name).await?)?;
            let conditions: Vec<Condition> =
                serde_json::from_value(object["status"]["conditions"].clone()).unwrap_or_default();
            let found = conditions.iter().find(|c| c.type_ == type_);
            Ok(match found {
                Some(c) if c.status == status && c.reason == reason => Seen::Yes(c.message.clone()),
                _ => Seen::NotYet(format!("{conditions:?}")),
            })
        })
        .await
        .unwrap()
    }

    fn pools(&self, namespace: &str) -> Api<WorkerPool> {
        Api::namespaced(self.bed.client.clone(), namespace)
    }

    fn quotas(&self) -> Api<TenantQuota> {
        Api::all(self.bed.client.clone())
    }
}

fn quota(name: &str, namespace: &str, weight: i64) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota", "metadata": { "name": name },
        "spec": { "namespaces": [namespace], "weight": weight, "concurrency": { "hard": 10 } } })
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

fn pool(namespace: &str, name: &str, target: &str) -> Value {
    json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool", "metadata": { "name": name, "namespace": namespace },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": target }, "minReplicas": 1, "maxReplicas": 5,
            "queueSources": [{ "type": "RedisStream", "redisStream": { "address": "127.0.0.1:1", "stream": "s", "group": "g" } }] } })
}

fn deployment(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": namespace },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": name } }, "template": { "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "c", "image": "example.com/c:1", "resources": { "requests": { "cpu": "2", "memory": "1Gi" }, "limits": { "cpu": "2", "memory": "1Gi" } } }] } } } })
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": { "containers": [{ "name": "c", "image": "example.com/c:1" }] } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_objects_and_ways_round_the_gate() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options::new("objects")).await.unwrap();
    bed.install_fairlead(&release::values(&bed)).await.unwrap();
    let cluster = Cluster { bed };
    schema_refuses(&cluster).await;
    claims_are_settled(&cluster).await;
    pools_say_what_is_wrong(&cluster).await;
    machines_that_lie(&cluster).await;
    attempts::fail(&cluster).await.unwrap();
    agents::write_their_own_node_only(&cluster).await.unwrap();
    rights::are_as_small_as_documented(&cluster).await.unwrap();
    the_release_keeps_to_itself(&cluster).await;
    kinds_outlive_their_chart(&cluster).await.unwrap();
    cluster.bed.stop().await.unwrap();
}

async fn schema_refuses(cluster: &Cluster) {
    cluster.refused(&quota("none", "a", 0), "spec.weight").await;
    cluster.refused(&quota("huge", "a", 1_000_001), "spec.weight").await;
    cluster.refused(&quota("system", "kube-system", 1), "cannot be managed").await;
    let mut bad = quota("units", "a", 1);
    bad["spec"]["resources"] = json!({ "hard": { "cpu": "many" } });
    cluster.refused(&bad, "spec.resources.hard.cpu").await;
    let mut bad = pool("default", "bounds", "x");
    bad["spec"]["minReplicas"] = json!(6);
    cluster.refused(&bad, "minReplicas must not be above maxReplicas").await;
    let mut bad = pool("default", "union", "x");
    bad["spec"]["queueSources"] = json!([{ "type": "RedisStream" }]);
    cluster.refused(&bad, "needs redisStream").await;
}

async fn claims_are_settled(cluster: &Cluster) {
    cluster.apply(&namespace("shop")).await.unwrap();
    cluster.apply(&quota("first", "shop", 1)).await.unwrap();
    cluster.condition(cluster.quotas(), "first", "Ready", "True", "AsExpected").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.apply(&quota("second", "shop", 1)).await.unwrap();
    let why = cluster.condition(cluster.quotas(), "second", "Ready", "False", "NamespaceClaimedByOther").await;
    assert!(why.contains("shop") && why.contains("first"), "{why}");
    cluster.condition(cluster.quotas(), "first", "Ready", "True", "AsExpected").await;
}

async fn pools_say_what_is_wrong(cluster: &Cluster) {
    cluster.apply(&pool("shop", "missing", "nothing-here")).await.unwrap();
    let why = cluster.condition(cluster.pools("shop"), "missing", "ScalingActive", "False", "TargetNotFound").await;
    assert!(why.contains("nothing-here"), "{why}");
    cluster.apply(&deployment("shop", "shared")).await.unwrap();
    let hpa = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "other", "namespace": "shop" },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shared" }, "maxReplicas": 3 } });
    cluster.apply(&hpa).await.unwrap();
    cluster.apply(&pool("shop", "contested", "shared")).await.unwrap();
    let why = cluster.condition(cluster.pools("shop"), "contested", "ScalingActive", "False", "ScaleConflict").await;
    assert!(why.contains("other"), "{why}");
}

async fn machines_that_lie(cluster: &Cluster) {
    let machines = || Api::<NodeTopology>::all(cluster.bed.client.clone());
    let lie = |name: &str, cores: Value| {
        json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology", "metadata": { "name": name },
            "spec": { "source": "Synthetic", "packages": [{ "id": 0, "cpus": "0-3" }],
                "numaNodes": [{ "id": 0, "cpus": "0-3", "memoryBytes": 1 }], "cores": cores } })
    };
    cluster.refused(&lie("empty", json!([])), "spec.cores").await;
    cluster.apply(&lie("overlap", json!([{ "id": 0, "cpus": "0-2" }, { "id": 1, "cpus": "2-3" }]))).await.unwrap();
    cluster.apply(&lie("range", json!([{ "id": 0, "cpus": "0-99999999" }]))).await.unwrap();
    for (name, words) in [("overlap", "cores"), ("range", "16383")] {
        let message = eventually(&format!("{name} is not accepted"), LIMIT, || async {
            let conditions = machines().get(name).await?.status.unwrap_or_default().conditions;
            let accepted = conditions.iter().find(|c| c.type_ == "Accepted");
            Ok(match accepted {
                Some(c) if c.status == "False" => Seen::Yes(c.message.clone()),
                _ => Seen::NotYet(format!("{conditions:?}")),
            })
        })
        .await
        .unwrap();
        assert!(message.contains(words), "{name}: {message}");
    }
}

/// None of its processes can be reached from beyond the loopback.
async fn the_release_keeps_to_itself(cluster: &Cluster) {
    let running = cluster.bed.kubelet.running();
    for program in ["kube-scheduler", "fairlead-extender", "fairlead-operator", "fairlead-agent"] {
        assert!(running.iter().any(|running| running.program == program), "{program} does not run");
    }
    for running in running {
        let addresses = listening(running.pid).unwrap();
        let loopback = |address: &String| address.starts_with("0100007F:");
        assert!(!addresses.is_empty() && addresses.iter().all(loopback), "{}: {addresses:?}", running.program);
    }
}

/// Where a process accepts connections: addresses and ports as the kernel prints them, in hexadecimal.
fn listening(pid: i32) -> Result<Vec<String>> {
    const LISTEN: &str = "0A";
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let sockets: Vec<String> =
        files.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_string_lossy().into_owned())).collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))?.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..]
                && sockets.contains(&format!("socket:[{inode}]"))
            {
                found.push(local.to_owned());
            }
        }
    }
    Ok(found)
}

/// Who uninstalls the chart of the kinds loses no object, and may install it again.
async fn kinds_outlive_their_chart(cluster: &Cluster) -> Result<()> {
    let Bed { helm, kubectl, parts, .. } = &cluster.bed;
    let chart = parts.chart("fairlead-crds").display().to_string();
    helm.run(&["uninstall", "fairlead-crds", "--namespace", RELEASE_NAMESPACE, "--wait"], LIMIT).await?;
    kubectl.run(&["get", "tenantquota", "first"], LIMIT).await?;
    helm.run(&["install", "fairlead-crds", &chart, "--namespace", RELEASE_NAMESPACE, "--wait"], LIMIT).await?;
    kubectl.run(&["get", "tenantquota", "first"], LIMIT).await?;
    Ok(())
}
