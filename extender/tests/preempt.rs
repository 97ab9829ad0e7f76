//! Preempt over the router: golden replies, and an answer for every bad input.
#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::House;
use support::api::Api;
use support::world::{SINGLE, World, pod, reservation};

fn holder(name: &str, cpu: &str, node: &str, priority: i32) -> Value {
    let mut pod = pod(name, cpu);
    pod["spec"]["nodeName"] = json!(node);
    pod["spec"]["priority"] = json!(priority);
    pod
}

/// Two machines of 16 cores: `n1` is full of `a` (4 cores) and `b` (12), `n2` of `c`, `bare` says nothing of its machine.
fn house() -> House {
    let mut world = World::default();
    world.add("bare", SINGLE, &[]);
    world.topologies.clear();
    world.add("n1", SINGLE, &[reservation(SINGLE, "uid-a", 0, 4), reservation(SINGLE, "uid-b", 4, 12)]);
    world.add("n2", SINGLE, &[reservation(SINGLE, "uid-c", 0, 16)]);
    world.pods.extend([holder("a", "8", "n1", 7), holder("b", "24", "n1", 3), holder("c", "32", "n2", 3)]);
    world.pods.push(holder("d", "500m", "bare", 1));
    House::new(world.model(), &Api::default())
}

fn meta(pod: &Value, nodes: Value) -> String {
    let victims =
        |uids: &Value| -> Vec<Value> { uids.as_array().unwrap().iter().map(|uid| json!({ "UID": uid })).collect() };
    let nodes: serde_json::Map<String, Value> = nodes
        .as_object()
        .unwrap()
        .iter()
        .map(|(node, uids)| (node.clone(), json!({ "Pods": victims(uids), "NumPDBViolations": 2 })))
        .collect();
    json!({ "Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": nodes }).to_string()
}

#[tokio::test]
async fn the_needed_victims_go_and_nodes_that_cannot_help_are_dropped() {
    let all = json!({ "n1": ["uid-a", "uid-b"], "n2": ["uid-c"], "bare": ["uid-d"], "gone": ["uid-x"] });
    let (status, reply) = house().post("/preempt", meta(&pod("p", "8"), all)).await;
    assert_eq!(status, 200);
    assert_eq!(
        reply,
        concat!(
            r#"{"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"uid-b"}],"NumPDBViolations":1},"#,
            r#""n2":{"Pods":[{"UID":"uid-c"}],"NumPDBViolations":1}}}"#,
        )
    );
}

#[tokio::test]
async fn a_pod_in_the_shared_pool_is_given_room_too() {
    let all = json!({ "n1": ["uid-a", "uid-b"], "bare": ["uid-d"] });
    let (_, reply) = house().post("/preempt", meta(&pod("p", "500m"), all)).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let nodes = &reply["NodeNameToMetaVictims"];
    assert_eq!(nodes["n1"]["Pods"], json!([{ "UID": "uid-b" }]));
    assert_eq!(nodes["bare"], Value::Null, "it fits there already: nobody goes");
}

#[tokio::test]
async fn full_pods_are_answered_by_uid() {
    let body = json!({ "Pod": pod("p", "32"), "NodeNameToMetaVictims": null, "NodeNameToVictims": {
        "n1": { "Pods": [holder("a", "8", "n1", 7), holder("b", "24", "n1", 3)], "NumPDBViolations": 0 },
        "n2": { "Pods": null, "NumPDBViolations": 0 },
        "bare": null,
    } });
    let (status, reply) = house().post("/preempt", body.to_string()).await;
    assert_eq!(status, 200);
    let n1 = r#"{"NodeNameToMetaVictims":{"n1":{"Pods":[{"UID":"uid-a"},{"UID":"uid-b"}],"NumPDBViolations":0}}}"#;
    assert_eq!(reply, n1);
}

#[tokio::test]
async fn victims_that_may_be_in_the_way_otherwise_are_not_given_back() {
    let obstacles = [
        ("/spec/containers/0/ports", json!([{ "containerPort": 80, "hostPort": 80 }])),
        ("/spec/affinity", json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [] } })),
        ("/spec/topologySpreadConstraints", json!([{ "maxSkew": 1 }])),
        ("/spec/resourceClaims", json!([{ "name": "gpu" }])),
        ("/spec/volumes", json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "x" } }])),
    ];
    for (path, value) in obstacles {
        let mut pod = pod("p", "8");
        let (parent, last) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[last] = value;
        let (_, reply) = house().post("/preempt", meta(&pod, json!({ "n1": ["uid-a", "uid-b"] }))).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["NodeNameToMetaVictims"]["n1"]["Pods"].as_array().unwrap().len(), 2, "{path}");
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_bytes_and_changes_nothing() {
    let house = house();
    let before = house.snapshot.load_full();
    let body = meta(&pod("p", "8"), json!({ "n2": ["uid-c"], "n1": ["uid-b", "uid-a"] }));
    assert_eq!(house.post("/preempt", body.clone()).await, house.post("/preempt", body).await);
    assert_eq!(*before, **house.snapshot.load());
}

#[tokio::test]
async fn what_has_no_answer_says_why() {
    let mut nobody = pod("p", "4");
    nobody["metadata"]["uid"] = json!("");
    let cases = [
        (400, "[]".to_owned(), "malformed request body"),
        (400, r#"{"Pod":{},"NodeNameToMetaVictims":{"n":{"Pods":[{}]}}}"#.to_owned(), "UID"),
        (400, r#"{"Pod":7,"NodeNameToMetaVictims":{}}"#.to_owned(), "malformed request body"),
        (422, json!({ "Pod": pod("p", "4") }).to_string(), "both missing"),
        (422, json!({ "Pod": null, "NodeNameToMetaVictims": {} }).to_string(), "Pod is missing"),
        (422, meta(&nobody, json!({})), "Pod.metadata.uid is empty"),
    ];
    for (status, body, text) in cases {
        let answer = house().post("/preempt", body.clone()).await;
        assert!(answer.0 == status && answer.1.contains(text), "{body}: {answer:?}");
    }
    let starting = House::new(fairlead_cluster::Model::new("ns"), &Api::default());
    assert_eq!(starting.post("/preempt", meta(&pod("p", "4"), json!({}))).await.0, 503);
}
