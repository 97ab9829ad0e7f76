//! The fake API server: the cases that the genuine one is held to as well, and the faults that only a fake has on demand.
#![allow(clippy::print_stderr, reason = "tests")]
use fairlead_sim::api::{Fault, Request, Server, Verb};
use fairlead_sim::conformance::{NAMESPACE, cases, run};
use serde_json::{Value, json};

fn request(verb: Verb, path: &str, body: Value) -> Request {
    Request { verb, path: path.into(), query: String::new(), body }
}

/// One that has forgotten its beginnings, as every API server has after a while.
fn server() -> Server {
    let mut server = Server::default();
    for name in ["a", "b"] {
        server.call(&request(Verb::Create, "/api/v1/nodes", json!({ "metadata": { "name": name } })));
    }
    server.compact();
    server
}

#[test]
fn the_fake_passes_every_case() {
    let failed = run(&mut server());
    eprintln!("conformance fake: {} cases", cases().len());
    assert_eq!(failed, []);
    assert!(cases().len() >= 25);
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<&str> = cases().iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases().len());
    assert!(names.iter().all(|name| name.len() <= 63), "they name objects");
}

#[test]
fn a_lost_answer_is_a_write_all_the_same_and_a_throttled_one_is_none() {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let create = |name: &str| request(Verb::Create, &pods, json!({ "metadata": { "name": name }, "spec": {} }));
    let mut server = server();
    server.fail_next(Fault::AnswerLost);
    assert_eq!(server.call(&create("lost")).code, 500);
    assert_eq!(server.call(&request(Verb::Get, &format!("{pods}/lost"), Value::Null)).code, 200);
    server.fail_next(Fault::Throttled);
    assert_eq!(server.call(&create("throttled")).code, 429);
    assert_eq!(server.call(&request(Verb::Get, &format!("{pods}/throttled"), Value::Null)).code, 404);
    assert_eq!(server.call(&create("throttled")).code, 201, "a fault happens once");
}

#[test]
fn it_is_a_value() {
    let mut one = server();
    let mut other = one.clone();
    let create = request(Verb::Create, "/api/v1/nodes", json!({ "metadata": { "name": "c" } }));
    assert_eq!(one.call(&create), other.call(&create));
    assert_eq!(one, other);
}
