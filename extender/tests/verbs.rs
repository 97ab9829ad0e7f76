//! Filter and prioritize over the router: golden replies, and an answer for every bad input.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use support::api::Api;
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
