//! Objects that people get wrong, and tenants who try to get round the gate: each is refused or told why, on a genuine API server.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use anyhow::{Context, Result};
use fairlead_crds::{NodeTopology, TenantQuota, WorkerPool};
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
    gates_hold(&cluster).await.unwrap();
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

/// What a tenant's own ServiceAccount may not do, though it may edit everything in its namespace.
async fn gates_hold(cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.bed.kubectl;
    let user = "--as=system:serviceaccount:shop:default";
    kubectl
        .run(
            &["-n", "shop", "create", "rolebinding", "edit", "--clusterrole=admin", "--serviceaccount=shop:default"],
            LIMIT,
        )
        .await?;
    // the quota admits ten pods: take them, so that the next one waits
    let mut filler = deployment("shop", "filler");
    filler["spec"]["replicas"] = json!(20);
    cluster.apply(&filler).await?;
    eventually("a pod waits with a reason", LIMIT, || async {
        let out = kubectl.run(&["-n", "shop", "get", "pods", "-o", "json"], LIMIT).await?;
        let pods: Value = serde_json::from_str(&out)?;
        let waits = |pod: &Value| pod["spec"]["schedulingGates"][0]["name"] == "fairlead.dev/quota";
        let told = |pod: &Value| {
            pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "fairlead.dev/Released" && c["status"] == "False")
        };
        let items = pods["items"].as_array().context("no items")?;
        let (waiting, explained) =
            (items.iter().filter(|p| waits(p)).count(), items.iter().filter(|p| waits(p) && told(p)).count());
        Ok(fairlead_e2e::eventually::seen(
            waiting > 0 && waiting == explained,
            format!("{waiting} waiting, {explained} with a reason"),
        ))
    })
    .await?;
    let out = kubectl.run(&["-n", "shop", "get", "pods", "-o", "json"], LIMIT).await?;
    let pods: Value = serde_json::from_str(&out)?;
    let waiting =
        pods["items"].as_array().context("no items")?.iter().find(|p| p["spec"]["schedulingGates"].is_array());
    let waiting = waiting.and_then(|p| p["metadata"]["name"].as_str()).context("no waiting pod")?.to_owned();
    let attempts: [(&str, Vec<&str>); 4] = [
        (
            "remove the gate",
            vec!["patch", "pod", &waiting, "--type=json", "-p", r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#],
        ),
        ("forge the release", vec!["annotate", "pod", &waiting, "fairlead.dev/released=1:1"]),
        ("forge the placement", vec!["annotate", "pod", &waiting, "fairlead.dev/placement={}"]),
        ("change the tenant", vec!["label", "pod", &waiting, "--overwrite", "fairlead.dev/tenant=second"]),
    ];
    for (what, args) in attempts {
        let mut all = vec!["-n", "shop", user];
        all.extend(args);
        let answer = kubectl.output(&all, None, LIMIT).await?;
        assert!(!answer.success, "a tenant could {what}");
        assert!(answer.stderr.contains("fairlead"), "{what}: {}", answer.stderr);
    }
    let mut bound = pod("shop", "bound");
    bound["spec"]["nodeName"] = json!("single-0");
    let mut forged = pod("shop", "forged");
    forged["metadata"]["annotations"] = json!({ "fairlead.dev/released": "1:1" });
    for (what, object) in [("name a node", bound), ("create a released pod", forged)] {
        let answer =
            kubectl.output(&["-n", "shop", user, "create", "-f", "-"], Some(&object.to_string()), LIMIT).await?;
        assert!(!answer.success, "a tenant could {what}");
    }
    let label = kubectl
        .output(&["label", "namespace", "shop", "--overwrite", "fairlead.dev/tenant=second"], None, LIMIT)
        .await?;
    assert!(!label.success, "even an administrator must not move a namespace by its label");
    Ok(())
}
