//! Queues that are not as they should be: the pool holds its replicas, says Unknown, and says why.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use fairlead_crds::WorkerPool;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{Seen, eventually};
use fairlead_e2e::release;
use kube::api::Api;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);
const NAMESPACE: &str = "shop";

fn objects(address: &str, secret: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } },
        { "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota", "metadata": { "name": "shop" }, "spec": { "namespaces": [NAMESPACE] } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "redis", "namespace": NAMESPACE }, "stringData": { "password": secret } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "w", "namespace": NAMESPACE },
          "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "w" } }, "template": { "metadata": { "labels": { "app": "w" } },
            "spec": { "containers": [{ "name": "c", "image": "example.com/c:1" }] } } } },
        { "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool", "metadata": { "name": "w", "namespace": NAMESPACE },
          "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "w" }, "minReplicas": 1, "maxReplicas": 9,
            "queueSources": [{ "type": "RedisStream", "staleAfterSeconds": 2, "redisStream": { "address": address, "stream": "orders", "group": "w",
                "passwordSecretRef": { "name": "redis", "key": "password" } } }],
            "scaling": { "scaleDown": { "windowSeconds": 2, "idleSeconds": 1 } } } },
    ] })
}

async fn apply(bed: &Bed, object: &Value) {
    bed.kubectl.run_with(&["apply", "-f", "-"], Some(&object.to_string()), LIMIT).await.unwrap();
}

/// Waits until the queue's condition is Unknown for exactly this reason; gives the message.
async fn unknown(bed: &Bed, reason: &str) -> String {
    let pools: Api<WorkerPool> = Api::namespaced(bed.client.clone(), NAMESPACE);
    eventually(&format!("QueueKnown is Unknown: {reason}"), LIMIT, || async {
        let conditions = pools.get("w").await?.status.unwrap_or_default().conditions;
        let known = conditions.iter().find(|c| c.type_ == "QueueKnown");
        Ok(match known {
            Some(c) if c.status == "Unknown" && c.reason == reason => Seen::Yes(c.message.clone()),
            _ => Seen::NotYet(format!("{conditions:?}")),
        })
    })
    .await
    .unwrap()
}

async fn known(bed: &Bed) {
    let pools: Api<WorkerPool> = Api::namespaced(bed.client.clone(), NAMESPACE);
    eventually("QueueKnown is True", LIMIT, || async {
        let conditions = pools.get("w").await?.status.unwrap_or_default().conditions;
        let holds = conditions.iter().any(|c| c.type_ == "QueueKnown" && c.status == "True");
        Ok(fairlead_e2e::eventually::seen(holds, format!("{conditions:?}")))
    })
    .await
    .unwrap();
}

async fn replicas(bed: &Bed) -> String {
    let args = ["-n", NAMESPACE, "get", "deployment", "w", "-o", "jsonpath={.spec.replicas}"];
    bed.kubectl.run(&args, LIMIT).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_not_as_it_should_be_holds_the_pool() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options::new("queue")).await.unwrap();
    bed.install_fairlead(&release::values(&bed)).await.unwrap();
    let redis = bed.redis.as_ref().unwrap();
    let mut link = redis.client().unwrap().get_multiplexed_async_connection().await.unwrap();

    apply(&bed, &objects(&redis.address(), "wrong")).await;
    let message = unknown(&bed, "SecretNotGranted").await;
    assert!(message.contains("kubectl") && message.contains("--resource-name=redis"), "{message}");
    let command_lines: Vec<&str> = message.split("kubectl ").skip(1).collect();
    for line in command_lines {
        let words: Vec<&str> =
            line.split(['\n', ';', '&', '`']).next().unwrap_or_default().split_whitespace().collect();
        bed.kubectl.run(&words, LIMIT).await.unwrap();
    }
    unknown(&bed, "WrongCredentials").await;
    assert_eq!(replicas(&bed).await, "2", "an unknown queue must hold the pool");

    apply(&bed, &objects(&redis.address(), redis.password())).await;
    unknown(&bed, "NotFound").await;

    let _: () = redis::cmd("SET").arg("orders").arg("text").query_async(&mut link).await.unwrap();
    unknown(&bed, "WrongType").await;
    assert_eq!(replicas(&bed).await, "2");

    let _: () = redis::cmd("DEL").arg("orders").query_async(&mut link).await.unwrap();
    let _: () = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg("orders")
        .arg("w")
        .arg("$")
        .arg("MKSTREAM")
        .query_async(&mut link)
        .await
        .unwrap();
    known(&bed).await;

    redis.kill().await;
    unknown(&bed, "Unreachable").await;
    let held = replicas(&bed).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(replicas(&bed).await, held, "a queue that is gone must hold the pool");
    redis.resume().await.unwrap();
    let mut link = redis.client().unwrap().get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg("orders")
        .arg("w")
        .arg("$")
        .arg("MKSTREAM")
        .query_async(&mut link)
        .await
        .unwrap();
    known(&bed).await;

    apply(&bed, &objects("10.99.99.99:6379", redis.password())).await;
    let message = unknown(&bed, "AddressNotAllowed").await;
    assert!(message.contains("10.99.99.99"), "{message}");
    bed.stop().await.unwrap();
}
