//! Filter and prioritize over the router: golden replies, and an answer for every bad input.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use support::api::{Api, placement_path, pod_path};
use support::world::{SINGLE, TWO_SOCKETS, World, args, node_name, pod, reservation};
use support::{House, LIMITS, text};

/// `big` has two sockets and nothing on it, `full` no core left, `bare` no NodeTopology.
fn world() -> World {
    let mut world = World::default();
    world.add("bare", SINGLE, &[]);
    world.topologies.clear();
    world.add("big", TWO_SOCKETS, &[]);
    world.add("full", SINGLE, &[reservation(SINGLE, "uid-holder", 0, 16)]);
    let mut holder = pod("holder", "32");
    holder["spec"]["nodeName"] = json!("full");
    world.pods.push(holder);
    world
}

fn house() -> House {
    House::new(world().model(), &Api::default())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn filter_names_every_node_once() {
    let body = args(&pod("p", "4"), &["full", "big", "bare", "gone\"x"]);
    let (status, reply) = house().post("/filter", body).await;
    assert_eq!(status, 200);
    assert_eq!(
        reply,
        concat!(
            r#"{"NodeNames":["big"],"Nodes":null,"#,
            r#""FailedNodes":{"full":"fairlead: not enough free whole cores"},"#,
            r#""FailedAndUnresolvableNodes":{"bare":"fairlead: node has no NodeTopology","#,
            r#""gone\"x":"fairlead: node is not known"},"Error":""}"#,
        )
    );
}

#[tokio::test]
async fn a_pod_without_cpus_of_its_own_passes_where_the_pool_has_room() {
    let body = args(&pod("p", "500m"), &["full", "big", "bare"]);
    let (_, reply) = house().post("/filter", body).await;
    let reply = parsed(&reply);
    assert_eq!(reply["NodeNames"], json!(["big", "bare"]));
    assert_eq!(reply["FailedNodes"], json!({"full": "fairlead: shared CPU pool would be too small"}));
}

#[tokio::test]
async fn full_node_objects_are_answered_in_kind() {
    let node = |name: &str| json!({ "metadata": { "name": name, "labels": { "a": "b" } }, "spec": {} });
    let items = [node("big"), node("gone")];
    let body = json!({ "Pod": pod("p", "4"), "Nodes": { "items": items }, "NodeNames": null });
    let (status, reply) = house().post("/filter", body.to_string()).await;
    let reply = parsed(&reply);
    assert_eq!((status, &reply["NodeNames"]), (200, &json!(["big"])));
    assert_eq!(reply["Nodes"]["items"], json!([node("big")]));
    assert_eq!(reply["FailedAndUnresolvableNodes"], json!({"gone": "fairlead: node is not known"}));
    let (_, scores) = house().post("/prioritize", body.to_string()).await;
    assert_eq!(parsed(&scores)[0]["Host"], "big");
}

#[tokio::test]
async fn an_empty_list_is_answered_with_an_empty_array() {
    let (status, reply) = house().post("/filter", args(&pod("p", "4"), &[])).await;
    assert_eq!((status, &parsed(&reply)["NodeNames"]), (200, &json!([])));
}

#[tokio::test]
async fn scores_are_sparse_whole_and_within_the_protocols_range() {
    let house = House::new(World::of_nodes(300).model(), &Api::default());
    let names: Vec<String> = (0..300).map(node_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (status, reply) = house.post("/prioritize", args(&pod("p", "4"), &names)).await;
    assert_eq!(status, 200);
    let reply = parsed(&reply);
    let scores: Vec<u64> = reply.as_array().unwrap().iter().map(|entry| entry["Score"].as_u64().unwrap()).collect();
    assert!(!scores.is_empty() && scores.iter().all(|score| (1..=10).contains(score)));
    let (_, none) = house.post("/prioritize", args(&pod("p", "500m"), &names)).await;
    assert_eq!(none, "[]");
}

#[tokio::test]
async fn the_same_request_gives_the_same_bytes_and_every_node_is_named() {
    let house = House::new(World::of_nodes(300).model(), &Api::default());
    let mut names: Vec<String> = (0..300).rev().map(node_name).collect();
    names.push("gone".into());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for cpu in ["4", "30", "200", "500m"] {
        let body = args(&pod("p", cpu), &names);
        let first = house.post("/filter", body.clone()).await;
        assert_eq!(first, house.post("/filter", body.clone()).await);
        assert_eq!(house.post("/prioritize", body.clone()).await, house.post("/prioritize", body).await);
        let reply = parsed(&first.1);
        let mut named: Vec<&str> = reply["NodeNames"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        for map in ["FailedNodes", "FailedAndUnresolvableNodes"] {
            named.extend(reply[map].as_object().unwrap().keys().map(String::as_str));
        }
        assert_eq!(named.len(), names.len());
        assert_eq!(named.iter().collect::<BTreeSet<_>>(), names.iter().collect());
    }
}

#[tokio::test]
async fn a_gated_pod_is_refused_everywhere() {
    let mut gated = pod("p", "4");
    gated["spec"]["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
    let (_, reply) = house().post("/filter", args(&gated, &["big"])).await;
    assert_eq!(parsed(&reply)["FailedAndUnresolvableNodes"], json!({"big": "fairlead: pod has a scheduling gate"}));
}

#[tokio::test]
async fn a_pod_of_a_pool_whose_selector_is_not_known_is_refused_everywhere() {
    let mut world = world();
    world.pools.push(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
        "metadata": { "name": "picker", "namespace": "apps", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "picker" }, "maxReplicas": 9,
            "queueSources": [], "topology": { "align": "SingleNUMA" },
        },
    }));
    let mut pod = pod("p", "4");
    pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "picker-5d8f", "uid": "o", "controller": true }]);
    world.pods.push(pod.clone());
    let api = Api::default();
    api.put(pod_path("p"), pod.clone());
    // The second node that the world was given.
    api.put(placement_path("big"), world.placements[1].clone());
    let house = House::new(world.model(), &api);
    let text = "fairlead: WorkerPool of the pod has no readable status.selector";
    let (_, reply) = house.post("/filter", args(&pod, &["big"])).await;
    assert_eq!(parsed(&reply)["FailedAndUnresolvableNodes"], json!({ "big": text }));
    assert_eq!(house.bind("p", "big").await, text);
}

#[tokio::test]
async fn nothing_is_promised_before_everything_was_listed() {
    let house = House::new(fairlead_cluster::Model::new("ns"), &Api::default());
    let body = args(&pod("p", "4"), &["big"]);
    let text = "fairlead: starting, the cluster has not been read completely";
    assert_eq!(house.post("/filter", body.clone()).await, (200, json!({ "Error": text }).to_string()));
    assert_eq!(house.post("/prioritize", body).await, (503, json!({ "Error": text }).to_string()));
    assert_eq!(house.bind("p", "big").await, text);
}

#[tokio::test]
async fn what_is_well_formed_and_impossible_says_why() {
    let mut nobody = pod("p", "4");
    nobody["metadata"]["uid"] = json!("");
    let cases = [
        (json!({ "Pod": nobody, "NodeNames": ["big"] }), "Pod.metadata.uid is empty"),
        (json!({ "Pod": null, "NodeNames": ["big"] }), "Pod is missing"),
        (json!({ "Pod": pod("p", "4") }), "NodeNames and Nodes are both missing"),
    ];
    for (body, text) in cases {
        let (status, reply) = house().post("/filter", body.to_string()).await;
        assert_eq!(status, 200);
        assert!(parsed(&reply)["Error"].as_str().unwrap().contains(text), "{reply}");
        let (status, reply) = house().post("/prioritize", body.to_string()).await;
        assert_eq!(status, 422);
        assert!(reply.contains(text), "{reply}");
    }
}

#[tokio::test]
async fn what_is_malformed_is_refused() {
    let bodies = [
        "",
        "{",
        "null",
        "[]",
        r#"{"NodeNames":7}"#,
        r#"{"Pod":{"spec":{"containers":[{"resources":{"requests":{"cpu":{}}}}]}},"NodeNames":[]}"#,
        r#"{"Pod":{},"Nodes":{"items":[{"metadata":{}}]}}"#,
        "\u{fffd}",
    ];
    for verb in ["/filter", "/prioritize", "/bind"] {
        for body in bodies {
            if verb == "/bind" && body.starts_with(r#"{""#) {
                continue;
            }
            let (status, reply) = house().post(verb, body).await;
            assert_eq!(status, 400, "{verb} {body}: {reply}");
            assert!(parsed(&reply)["Error"].as_str().unwrap().starts_with("malformed request body"), "{reply}");
        }
    }
    let (status, _) = house().post("/filter", vec![0xff, 0xfe, b'{']).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn verb_path_and_content_type_are_checked() {
    let house = house();
    let response = house.send(Request::get("/filter").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(text(response).await, (405, r#"{"Error":"use POST"}"#.to_owned()));
    let (status, reply) = house.post("/reserve", "{}").await;
    assert!(status == 404 && reply.contains("/filter, /prioritize, /preempt and /bind"), "{reply}");
    for kind in ["text/plain", "application/jsonx", ""] {
        let request = Request::post("/bind").header("Content-Type", kind).body(Body::from("{}")).unwrap();
        let (status, reply) = text(house.send(request).await).await;
        assert!(status == 415 && reply.contains("application/json"), "{reply}");
    }
    let request = Request::post("/filter").header("Content-Type", "Application/JSON; charset=utf-8");
    let request = request.body(Body::from(args(&pod("p", "4"), &["big"]))).unwrap();
    assert_eq!(house.send(request).await.status(), 200);
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_announced_or_not() {
    let house = house();
    let long = vec![b' '; LIMITS.body_bytes + 1];
    let announced = Request::post("/filter").header("Content-Type", "application/json");
    let announced = announced.header("Content-Length", "999999999").body(Body::empty()).unwrap();
    assert_eq!(house.send(announced).await.status(), 413);
    let (status, reply) = house.post("/bind", long).await;
    assert!(status == 413 && reply.contains("--max-body-bytes"), "{reply}");
}

#[tokio::test]
async fn too_many_at_once_are_refused_quickly() {
    let house = house();
    let stuck: Vec<_> = (0..LIMITS.in_flight)
        .map(|_| {
            let never = futures::stream::pending::<Result<Vec<u8>, std::convert::Infallible>>();
            let request = Request::post("/filter").header("Content-Type", "application/json");
            let request = request.body(Body::from_stream(never)).unwrap();
            let router = house.router.clone();
            tokio::spawn(tower::ServiceExt::oneshot(router, request))
        })
        .collect();
    while house.post("/filter", args(&pod("p", "4"), &["big"])).await.0 != 503 {
        tokio::task::yield_now().await;
    }
    // Binds have places of their own.
    let error = house.bind("p", "big").await;
    assert!(error.contains("pod does not exist"), "{error}");
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(house.page.encode().unwrap().contains("fairlead_extender_requests_shed_total 1"));
}

fn wishing(name: &str, cpu: &str, annotations: &Value) -> Value {
    let mut asked = pod(name, cpu);
    asked["metadata"]["annotations"] = annotations.clone();
    asked
}

#[tokio::test]
async fn a_pod_in_decide_mode_gets_the_one_best_node_and_no_text_about_the_others() {
    let house = House::new(World::of_nodes(300).model(), &Api::default());
    let names: Vec<String> = (0..300).map(node_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let decide = json!({ "topology.fairlead.dev/mode": "Decide" });
    let mut chosen = BTreeSet::new();
    for number in 0..8 {
        let name = format!("p{number}");
        let (_, scores) = house.post("/prioritize", args(&wishing(&name, "4", &decide), &names)).await;
        let scores = parsed(&scores);
        let best = scores.as_array().unwrap().iter().map(|entry| entry["Score"].as_u64().unwrap()).max().unwrap();
        let body = args(&wishing(&name, "4", &decide), &names);
        let first = house.post("/filter", body.clone()).await;
        assert_eq!(first, house.post("/filter", body).await, "the same question, the same bytes");
        let reply = parsed(&first.1);
        assert_eq!((&reply["FailedNodes"], &reply["FailedAndUnresolvableNodes"]), (&json!({}), &json!({})));
        let one = reply["NodeNames"].as_array().unwrap();
        assert_eq!(one.len(), 1);
        let is_best = |entry: &&Value| entry["Host"] == one[0] && entry["Score"] == best;
        assert!(scores.as_array().unwrap().iter().any(|entry| is_best(&entry)), "{one:?}");
        chosen.insert(one[0].as_str().unwrap().to_owned());
    }
    assert!(chosen.len() > 1, "pods asked about at one time do not all choose alike: {chosen:?}");
    // Where nothing fits every node is named, and of the shared pool we have no opinion.
    let (_, none) = house.post("/filter", args(&wishing("p", "200", &decide), &names)).await;
    assert_eq!(parsed(&none)["FailedAndUnresolvableNodes"].as_object().unwrap().len(), 300);
    let (_, shared) = house.post("/filter", args(&wishing("p", "500m", &decide), &names)).await;
    assert_eq!(parsed(&shared)["NodeNames"].as_array().unwrap().len(), 300);
}

#[tokio::test]
async fn the_wish_of_a_pods_pool_is_heard_and_a_wrong_one_refused() {
    let mut world = world();
    world.pools.push(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
        "metadata": { "name": "picker", "namespace": "apps" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "picker" },
            "maxReplicas": 9, "queueSources": [], "topology": { "cpus": "Shared" },
        },
        "status": { "selector": "app=picker" },
    }));
    let house = House::new(world.model(), &Api::default());
    let mut picker = pod("p", "4");
    let (_, alone) = house.post("/filter", args(&picker, &["bare"])).await;
    assert_eq!(parsed(&alone)["NodeNames"], json!([]), "CPUs of its own need a NodeTopology");
    picker["metadata"]["labels"] = json!({ "app": "picker" });
    let (_, pooled) = house.post("/filter", args(&picker, &["bare"])).await;
    assert_eq!(parsed(&pooled)["NodeNames"], json!(["bare"]));
    for (field, cpu, text) in [
        ("align", "4", "fairlead: an annotation topology.fairlead.dev/ of the pod cannot be read"),
        ("cpus", "1500m", "fairlead: pod wishes CPUs of its own and is not Guaranteed with whole CPUs"),
    ] {
        let asked = wishing("p", cpu, &json!({ format!("topology.fairlead.dev/{field}"): "Exclusive" }));
        let (_, refused) = house.post("/filter", args(&asked, &["big"])).await;
        assert_eq!(parsed(&refused)["FailedAndUnresolvableNodes"], json!({ "big": text }));
    }
}

#[test]
fn a_replayed_dump_answers_byte_for_byte() {
    use fairlead_cluster::{Dump, Model};
    use fairlead_extender::{answer, dump};
    let mut world = World::fragmented(60);
    let mut asked = pod("asked", "6");
    asked["metadata"]["annotations"] = json!({ "topology.fairlead.dev/align": "SingleNUMA" });
    world.pods.push(asked.clone());
    let snapshot = world.model().snapshot();
    let text = dump::dump(&snapshot).to_string();
    let read: Dump = serde_json::from_str(&text).unwrap();
    let replayed = Model::from_dump(&read).unwrap().snapshot();
    assert_eq!(dump::dump(&replayed).to_string(), text);
    let explained = dump::explain(&snapshot, "apps", "asked").unwrap().to_string();
    assert_eq!(dump::explain(&replayed, "apps", "asked").unwrap().to_string(), explained);
    let names: Vec<String> = (0..60).map(node_name).collect();
    let body = args(&asked, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for verb in [answer::filter, answer::prioritize] {
        assert_eq!(verb(&replayed, &body), verb(&snapshot, &body));
    }
    assert!(dump::explain(&snapshot, "apps", "nobody").is_none());
}
