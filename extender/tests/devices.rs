//! Bind of pods with resource claims: CPUs near the devices that the scheduler allocated a moment ago.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::House;
use support::api::{Api, Fault, placement_path, pod_path};
use support::world::{TWO_SOCKETS, World, pod};

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

fn claim_path(name: &str) -> String {
    format!("/apis/resource.k8s.io/v1/namespaces/apps/resourceclaims/{name}")
}

/// A pod of 4 CPUs with these claims, made from a template.
fn claiming(claims: u32) -> Value {
    let mut claiming = pod("p", "4");
    let all = |entry: fn(u32) -> Value| json!((0..claims).map(entry).collect::<Vec<_>>());
    claiming["spec"]["resourceClaims"] =
        all(|index| json!({ "name": format!("c{index}"), "resourceClaimTemplateName": "gpu" }));
    claiming["status"]["resourceClaimStatuses"] =
        all(|index| json!({ "name": format!("c{index}"), "resourceClaimName": format!("p-c{index}") }));
    claiming
}

fn claim(name: &str, device: &str) -> Value {
    let result = json!({ "driver": "gpu.example.com", "pool": "n1", "device": device, "request": "gpu" });
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "apps" }, "spec": {},
        "status": { "allocation": { "devices": { "results": [result] } } },
    })
}

/// Devices `low` and `high` on the first and on the second socket; `junk` says nonsense.
fn slices() -> Value {
    let device = |name: &str, address: &str| json!({ "name": name, "attributes": { "resource.kubernetes.io/pciBusID": { "string": address } } });
    let devices = [device("low", "0000:0a:00.0"), device("high", "0000:8a:00.0"), device("junk", "../etc/passwd")];
    json!({ "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSliceList", "metadata": {}, "items": [{
        "metadata": { "name": "n1-gpu" },
        "spec": {
            "driver": "gpu.example.com", "nodeName": "n1", "devices": devices,
            "pool": { "name": "n1", "generation": 1, "resourceSliceCount": 1 },
        },
    }]})
}

/// A node of two sockets with a device on each, and one pod.
fn house(pod: &Value) -> (House, Api) {
    let (api, mut world) = (Api::default(), World::default());
    world.add("n1", TWO_SOCKETS, &[]);
    let device =
        |address: &str, cpus: &Value| json!({ "address": address, "class": "0302", "id": "10de:2330", "cpus": cpus });
    let numa = world.topologies[0]["spec"]["numaNodes"].clone();
    world.topologies[0]["spec"]["pciDevices"] =
        json!([device("0000:0a:00.0", &numa[0]["cpus"]), device("0000:8a:00.0", &numa[1]["cpus"])]);
    // Not new, so that nothing of what pods carry is listed.
    world.placements[0]["metadata"]["generation"] = json!(2);
    api.put(placement_path("n1"), world.placements[0].clone());
    api.put(pod_path("p"), pod.clone());
    api.put(SLICES.to_owned(), slices());
    world.pods = vec![pod.clone()];
    (House::new(world.model(), &api), api)
}

fn cpus(api: &Api) -> String {
    let placement = api.get(&placement_path("n1")).unwrap();
    placement["spec"]["reservations"][0]["cpus"].as_str().unwrap().to_owned()
}

fn outcome(house: &House, name: &str) -> bool {
    let page = house.page.encode().unwrap();
    page.contains(&format!("fairlead_extender_claimed_devices_total{{outcome=\"{name}\"}} 1"))
}

#[tokio::test]
async fn cpus_are_near_the_device_that_was_allocated() {
    for (device, near) in [("low", "0-1,32-33"), ("high", "16-17,48-49")] {
        let (house, api) = house(&claiming(1));
        api.put(claim_path("p-c0"), claim("p-c0", device));
        assert_eq!(house.bind("p", "n1").await, "");
        assert_eq!(cpus(&api), near, "{device}");
        assert!(outcome(&house, "Near"));
        let reads: Vec<String> =
            api.0.lock().unwrap().seen.iter().filter(|line| line.starts_with("GET")).cloned().collect();
        let wanted = [format!("GET {}", pod_path("p")), format!("GET {}", claim_path("p-c0")), format!("GET {SLICES}")];
        assert_eq!(reads, wanted, "no other read than these");
    }
}

#[tokio::test]
async fn who_has_no_claims_or_renounces_them_costs_no_read() {
    let mut renounced = claiming(1);
    renounced["metadata"]["annotations"] = json!({ "topology.fairlead.dev/near": "" });
    let mut shared = claiming(1);
    shared["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("500m");
    for pod in [pod("p", "4"), renounced, shared] {
        let (house, api) = house(&pod);
        api.put(claim_path("p-c0"), claim("p-c0", "high"));
        assert_eq!(house.bind("p", "n1").await, "");
        assert_eq!((api.seen("resource.k8s.io"), api.seen("GET")), (0, 0));
    }
}

#[tokio::test]
async fn what_is_not_known_of_a_claim_is_counted_and_the_pod_is_bound() {
    let mut pending = claim("p-c0", "high");
    pending["status"] = json!({});
    let cases = [
        (None, "ClaimMissing"),
        (Some(pending), "ClaimUnallocated"),
        (Some(claim("p-c0", "other")), "Unlisted"),
        (Some(claim("p-c0", "junk")), "AddressInvalid"),
    ];
    for (object, name) in cases {
        let (house, api) = house(&claiming(1));
        if let Some(object) = object {
            api.put(claim_path("p-c0"), object);
        }
        assert_eq!(house.bind("p", "n1").await, "", "{name}");
        assert_eq!(cpus(&api), "0-1,32-33", "{name}: as without claims");
        assert!(outcome(&house, name), "{name}");
    }
    // One that is known is enough to be near it.
    let (house, api) = house(&claiming(2));
    api.put(claim_path("p-c1"), claim("p-c1", "high"));
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(cpus(&api), "16-17,48-49");
    assert!(outcome(&house, "Near") && outcome(&house, "ClaimMissing"));
}

#[tokio::test]
async fn a_hundred_and_twenty_eight_claims_are_read() {
    let (house, api) = house(&claiming(128));
    for index in 0..128 {
        let name = format!("p-c{index}");
        api.put(claim_path(&name), claim(&name, "high"));
    }
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!((cpus(&api).as_str(), api.seen("resourceclaims")), ("16-17,48-49", 128));
}

#[tokio::test(start_paused = true)]
async fn claims_that_cannot_be_read_hold_nothing_up() {
    let (house, api) = house(&claiming(1));
    api.put(claim_path("p-c0"), claim("p-c0", "high"));
    api.fail_always(Fault::ClaimsSilent);
    let begun = tokio::time::Instant::now();
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(begun.elapsed(), support::BIND_DEADLINE / 3);
    assert_eq!(cpus(&api), "0-1,32-33");
    assert!(outcome(&house, "Unread"));
}
