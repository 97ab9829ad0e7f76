//! The certificates of the extender: made once, renewed in time, and never over another's write.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod fake;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_operator::certificates::{AUTHORITY, CLIENT, Desk, SERVER};
use fairlead_runtime::{Heartbeat, LeaseState};
use fake::refusal;
use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::sync::watch;

type Secrets = Arc<Mutex<BTreeMap<String, Value>>>;

fn empty() -> Secrets {
    let secret = |name: &str| json!({ "metadata": { "name": name, "resourceVersion": "1" } });
    Arc::new(Mutex::new([AUTHORITY, SERVER, CLIENT].map(|name| (name.to_owned(), secret(name))).into()))
}

/// A desk over an API server that keeps Secrets; none can be created.
fn desk(secrets: &Secrets) -> Desk {
    desk_for(secrets, "kube-scheduler.fairlead.dev")
}

fn desk_for(secrets: &Secrets, client_name: &str) -> Desk {
    let kept = secrets.clone();
    let (client, _) = fake::server(move |seen| {
        let mut all = kept.lock().unwrap();
        let name = seen.path.rsplit('/').next().unwrap_or_default();
        let Some(secret) = all.get_mut(name) else { return refusal(404) };
        if seen.method == http::Method::PATCH {
            if seen.body["metadata"]["resourceVersion"] != secret["metadata"]["resourceVersion"] {
                return refusal(409);
            }
            let version: u32 = secret["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            secret["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            secret["metadata"]["annotations"] = seen.body["metadata"]["annotations"].clone();
            secret["data"] = seen.body["data"].clone();
        }
        (200, secret.clone())
    });
    let (_, lease) = watch::channel(LeaseState { leading: true, term: 1, until: None });
    let pulse = Heartbeat::new().register("certificates", Duration::from_secs(60));
    Desk::new(client, "fairlead-system", client_name, lease, pulse)
}

fn of(secrets: &Secrets, name: &str) -> Secret {
    serde_json::from_value(secrets.lock().unwrap()[name].clone()).unwrap()
}

fn field(secrets: &Secrets, name: &str, key: &str) -> String {
    String::from_utf8(of(secrets, name).data.unwrap()[key].0.clone()).unwrap()
}

fn day(number: i64) -> Timestamp {
    "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap().checked_add((number * 24).hours()).unwrap()
}

#[tokio::test]
async fn empty_secrets_are_filled_and_then_left_alone() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    for name in [SERVER, CLIENT] {
        assert_eq!(field(&secrets, name, "ca.crt"), field(&secrets, AUTHORITY, "ca.crt"), "{name}");
        assert!(field(&secrets, name, "tls.crt").starts_with("-----BEGIN CERTIFICATE"), "{name}");
        assert!(field(&secrets, name, "tls.key").contains("PRIVATE KEY"), "{name}");
        assert!(!of(&secrets, name).data.unwrap().contains_key("ca.key"), "the authority's key stays where it is");
    }
    let before = secrets.lock().unwrap().clone();
    // A restart, and a look shortly before the renewal.
    desk(&secrets).look(day(3)).await.unwrap();
    assert_eq!(*secrets.lock().unwrap(), before);
}

#[tokio::test]
async fn leaves_are_renewed_in_time_and_by_the_same_authority() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    let (authority, server, client) =
        (of(&secrets, AUTHORITY), field(&secrets, SERVER, "tls.crt"), field(&secrets, CLIENT, "tls.crt"));
    desk(&secrets).look(day(4)).await.unwrap();
    assert_ne!(field(&secrets, SERVER, "tls.crt"), server);
    assert_eq!(field(&secrets, CLIENT, "tls.crt"), client);
    desk(&secrets).look(day(246)).await.unwrap();
    assert_ne!(field(&secrets, CLIENT, "tls.crt"), client);
    assert_eq!(of(&secrets, AUTHORITY), authority);
}

#[tokio::test]
async fn another_authority_gets_other_leaves() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    let server = field(&secrets, SERVER, "tls.crt");
    secrets.lock().unwrap().get_mut(AUTHORITY).unwrap()["data"] = Value::Null;
    desk(&secrets).look(day(0)).await.unwrap();
    assert_ne!(field(&secrets, SERVER, "tls.crt"), server);
    assert_eq!(field(&secrets, SERVER, "ca.crt"), field(&secrets, AUTHORITY, "ca.crt"));
}

#[tokio::test]
async fn another_client_name_gets_another_certificate_and_the_server_keeps_its_own() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    let [server, client] = [SERVER, CLIENT].map(|name| field(&secrets, name, "tls.crt"));
    desk_for(&secrets, "scheduler.acme.example").look(day(0)).await.unwrap();
    assert_eq!(field(&secrets, SERVER, "tls.crt"), server);
    assert_ne!(field(&secrets, CLIENT, "tls.crt"), client);
    let before = secrets.lock().unwrap().clone();
    desk_for(&secrets, "scheduler.acme.example").look(day(1)).await.unwrap();
    assert_eq!(*secrets.lock().unwrap(), before);
    let error = desk_for(&secrets, "10.0.0.1").look(day(1)).await.unwrap_err().to_string();
    assert!(error.contains("\"10.0.0.1\" is no DNS name"), "{error}");
    assert_eq!(*secrets.lock().unwrap(), before);
}

#[tokio::test]
async fn another_key_of_the_authority_gets_its_own_certificate_and_other_leaves() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    let [server, client] = [SERVER, CLIENT].map(|name| field(&secrets, name, "tls.crt"));
    let (authority, former) = (field(&secrets, AUTHORITY, "ca.crt"), field(&secrets, AUTHORITY, "ca.key"));
    let strangers = empty();
    desk(&strangers).look(day(0)).await.unwrap();
    let other = strangers.lock().unwrap()[AUTHORITY]["data"]["ca.key"].clone();
    secrets.lock().unwrap().get_mut(AUTHORITY).unwrap()["data"]["ca.key"] = other.clone();
    desk(&secrets).look(day(0)).await.unwrap();
    assert_eq!(secrets.lock().unwrap()[AUTHORITY]["data"]["ca.key"], other, "the key that is there counts");
    assert_ne!(field(&secrets, AUTHORITY, "ca.key"), former);
    assert_ne!(field(&secrets, AUTHORITY, "ca.crt"), authority);
    for (name, leaf) in [(SERVER, server), (CLIENT, client)] {
        assert_ne!(field(&secrets, name, "tls.crt"), leaf, "{name}");
        assert_eq!(field(&secrets, name, "ca.crt"), field(&secrets, AUTHORITY, "ca.crt"), "{name}");
    }
    let before = secrets.lock().unwrap().clone();
    desk(&secrets).look(day(1)).await.unwrap();
    assert_eq!(*secrets.lock().unwrap(), before);
}

#[tokio::test]
async fn a_leaf_whose_key_is_another_is_issued_anew() {
    let secrets = empty();
    desk(&secrets).look(day(0)).await.unwrap();
    let server = field(&secrets, SERVER, "tls.crt");
    let strange = secrets.lock().unwrap()[CLIENT]["data"]["tls.key"].clone();
    secrets.lock().unwrap().get_mut(SERVER).unwrap()["data"]["tls.key"] = strange;
    desk(&secrets).look(day(0)).await.unwrap();
    assert_ne!(field(&secrets, SERVER, "tls.crt"), server);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let secrets = empty();
    secrets.lock().unwrap().remove(CLIENT);
    let error = desk(&secrets).look(day(0)).await.unwrap_err().to_string();
    assert_eq!(error, format!("failed to read Secret {CLIENT}"));
    let encoded = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    secrets.lock().unwrap().get_mut(AUTHORITY).unwrap()["data"] =
        json!({ "ca.crt": encoded("x"), "ca.key": encoded("x") });
    let error = desk(&secrets).look(day(0)).await.unwrap_err().to_string();
    assert!(error.contains("ca.key is no private key"), "{error}");
}
