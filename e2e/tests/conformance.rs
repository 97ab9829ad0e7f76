//! The genuine API server passes the cases that the fake one is held to (`sim/src/conformance`).
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::time::Duration;

use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{eventually, seen};
use fairlead_sim::api::{Answer, Request, Verb};
use fairlead_sim::conformance::{Api, NAMESPACE, cases, run};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::runtime::Handle;

const LIMIT: Duration = Duration::from_secs(60);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A pause for controllers.
const MOMENT: Duration = Duration::from_millis(200);
/// A watch is open for so long: everything it is to tell has happened before.
const WATCH_SECONDS: u32 = 1;

/// A client of the genuine one, called from a thread that may wait.
struct Genuine {
    client: kube::Client,
    runtime: Handle,
}

impl Api for Genuine {
    fn call(&mut self, request: &Request) -> Answer {
        let sent = async { tokio::time::timeout(CALL_LIMIT, send(&self.client, request)).await.unwrap() };
        self.runtime.block_on(sent)
    }

    fn pass_time(&mut self) {
        std::thread::sleep(MOMENT);
    }
}

async fn send(client: &kube::Client, request: &Request) -> Answer {
    let watch = format!("watch=true&timeoutSeconds={WATCH_SECONDS}");
    let (method, kind) = match request.verb {
        Verb::Get | Verb::List | Verb::Watch => ("GET", "application/json"),
        Verb::Create => ("POST", "application/json"),
        Verb::JsonPatch => ("PATCH", "application/json-patch+json"),
        Verb::MergePatch => ("PATCH", "application/merge-patch+json"),
        Verb::Delete => ("DELETE", "application/json"),
    };
    let query = if request.verb == Verb::Watch { format!("{watch}&{}", request.query) } else { request.query.clone() };
    let body = if request.body.is_null() { Vec::new() } else { request.body.to_string().into_bytes() };
    let wire = http::Request::builder()
        .method(method)
        .uri(format!("{}?{query}", request.path))
        .header("Content-Type", kind)
        .body(Body::from(body))
        .unwrap();
    let answer = client.send(wire).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let body = if request.verb == Verb::Watch && code == 200 {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Value::Array(lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
    } else {
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    };
    Answer { code, body }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_genuine_one_passes_every_case() {
    fairlead_e2e::init_logs();
    let options = Options::new("conformance");
    let nodes = options.nodes.into_iter().take(1).collect();
    let bed = Bed::start(Options { nodes, redis_password: None, ..Options::new("conformance") }).await.unwrap();
    let namespaces = [NAMESPACE, RELEASE_NAMESPACE]
        .map(|name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }).to_string());
    for namespace in namespaces {
        bed.kubectl.run_with(&["apply", "-f", "-"], Some(&namespace), LIMIT).await.unwrap();
    }
    let crds = bed.parts.chart("fairlead-crds").display().to_string();
    bed.helm.run(&["install", "fairlead-crds", &crds, "--wait"], LIMIT).await.unwrap();
    let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(bed.client.clone(), NAMESPACE);
    eventually("pods can be created", LIMIT, || async {
        Ok(seen(accounts.get_opt("default").await?.is_some(), "no ServiceAccount"))
    })
    .await
    .unwrap();

    let (client, runtime) = (bed.client.clone(), Handle::current());
    let failed = tokio::task::spawn_blocking(move || run(&mut Genuine { client, runtime })).await.unwrap();
    eprintln!("conformance genuine: {} cases", cases().len());
    assert_eq!(failed, []);
    bed.stop().await.unwrap();
}
