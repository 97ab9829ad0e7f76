//! Devices of resource claims: who wishes to be near them, how they are found, and that near a claim is near its address.
#![allow(clippy::unwrap_used, reason = "tests")]
mod support;

use fairlead_cluster::{
    Change, ClaimWish, ClaimedDevice, Event, Model, NodeView, PodWish, Snapshot, Unlocated, WishSource,
    claimed_devices, claims_of,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Like, model, node, one_node, placement, pod, pool, topology};

/// `n1` with a device on each of its two NUMA nodes.
fn with_devices() -> Model {
    let mut machine = topology("n1");
    let device =
        |address: &str, cpus: &str| json!({"address": address, "class": "0302", "id": "10de:2330", "cpus": cpus});
    machine.spec.pci_devices =
        serde_json::from_value(json!([device("0000:0a:00.0", "0-3"), device("0000:8a:00.0", "4-7")])).unwrap();
    model(vec![node("n1")], vec![machine], vec![placement("n1", 1, &[])])
}

/// With these claims: named ones, and of templates what the status says of them.
fn claiming(like: &Like, claims: Value, statuses: Value) -> Pod {
    let mut claiming = pod("p", like);
    claiming.spec.as_mut().unwrap().resource_claims = serde_json::from_value(claims).unwrap();
    claiming.status.as_mut().unwrap().resource_claim_statuses = serde_json::from_value(statuses).unwrap();
    claiming
}

fn gpu_pod(like: &Like) -> Pod {
    claiming(like, json!([{"name": "gpu", "resourceClaimName": "mine"}]), json!([]))
}

fn claim(name: &str, device: Option<&str>) -> ResourceClaim {
    let result = |device| json!({"driver": "gpu.example.com", "pool": "n1", "device": device, "request": "gpu"});
    let allocation = device.map(|device| json!({"devices": {"results": [result(device)]}}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop"}, "spec": {}, "status": {"allocation": allocation},
    }))
    .unwrap()
}

fn slice(node: &str, generation: i64, devices: &Value) -> ResourceSlice {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{node}-{generation}")},
        "spec": {
            "driver": "gpu.example.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
        },
    }))
    .unwrap()
}

fn at(name: &str, address: &str) -> Value {
    json!([{"name": name, "attributes": {"resource.kubernetes.io/pciBusID": {"string": address}}}])
}

fn n1(snapshot: &Snapshot) -> Arc<NodeView> {
    Arc::clone(snapshot.node_named("n1").unwrap())
}

/// The outcome for the one device of the claim `mine`.
fn known(device: Option<&str>, slices: &[ResourceSlice]) -> Result<String, Unlocated> {
    let snapshot = with_devices().snapshot();
    let devices = claimed_devices(&gpu_pod(&Like::default()), &[claim("mine", device)], slices);
    assert_eq!(devices.len(), 1);
    devices[0].cpus_on(&n1(&snapshot)).map(|cpus| cpus.to_string())
}

#[test]
fn the_devices_of_claims_are_wished_for_unless_a_list_leaves_them_out() {
    let snapshot = one_node(&[]).snapshot();
    let of = |snapshot: &Snapshot, wishes: &'static [(&'static str, &'static str)]| {
        let wish = snapshot.wish_of(&pod("p", &Like { app: Some("a"), wishes, ..Like::default() })).wish;
        (wish.claims.value, wish.claims.source, wish.near.value.into_iter().collect::<Vec<_>>())
    };
    let near = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(of(&snapshot, &[]), (ClaimWish::Near, WishSource::Default, near(&[])));
    assert_eq!(of(&snapshot, &[("near", "")]), (ClaimWish::Ignored, WishSource::Annotation, near(&[])));
    assert_eq!(of(&snapshot, &[("near", "eth0")]), (ClaimWish::Ignored, WishSource::Annotation, near(&["eth0"])));
    assert_eq!(of(&snapshot, &[("near", "eth0,Claims")]), (ClaimWish::Near, WishSource::Annotation, near(&["eth0"])));
    let mut model = one_node(&[]);
    model.apply(Event::Pools(Change::Reset(vec![pool("own", 1, Some("a"), json!({"near": ["eth0", "claims"]}))])));
    let snapshot = model.snapshot();
    assert_eq!(of(&snapshot, &[]), (ClaimWish::Near, WishSource::Pool, near(&["eth0"])));
    assert_eq!(of(&snapshot, &[("near", "eth1")]), (ClaimWish::Ignored, WishSource::Annotation, near(&["eth1"])));
    model.apply(Event::Pools(Change::Reset(vec![pool("own", 1, Some("a"), json!({"near": ["eth0"]}))])));
    assert_eq!(of(&model.snapshot(), &[]), (ClaimWish::Ignored, WishSource::Pool, near(&["eth0"])));
    let shared = PodWish::of(&pod("p", &Like { cpu: "500m", ..Like::default() }));
    assert!(!shared.wants_devices_near(), "nothing is chosen for it");
}

#[test]
fn claims_have_the_names_that_the_pod_or_its_status_gives_them() {
    let claims = json!([
        {"name": "named", "resourceClaimName": "mine"},
        {"name": "made", "resourceClaimTemplateName": "t"},
        {"name": "awaited", "resourceClaimTemplateName": "t"},
        {"name": "needless", "resourceClaimTemplateName": "t"},
    ]);
    let statuses = json!([{"name": "made", "resourceClaimName": "p-made-x1"}, {"name": "needless"}]);
    let claims = claims_of(&claiming(&Like::default(), claims, statuses));
    let names: Vec<_> = claims.iter().map(|claim| (claim.name.as_str(), claim.object.as_deref())).collect();
    assert_eq!(names, [("named", Some("mine")), ("made", Some("p-made-x1")), ("awaited", None)]);
}

#[test]
fn a_device_is_found_by_its_address_or_else_by_its_numa_node() {
    let near =
        |attributes: Value| known(Some("g"), &[slice("n1", 1, &json!([{"name": "g", "attributes": attributes}]))]);
    let (pci, numa) = ("resource.kubernetes.io/pciBusID", "resource.kubernetes.io/numaNode");
    assert_eq!(near(json!({pci: {"string": "0000:8A:00.0"}})).as_deref(), Ok("4-7"));
    assert_eq!(near(json!({pci: {"string": "0000:8a:00.0"}, numa: {"int": 0}})).as_deref(), Ok("4-7"));
    assert_eq!(near(json!({numa: {"int": 1}})).as_deref(), Ok("4-7"));
    // A virtual function, say: hwloc does not list it.
    assert_eq!(near(json!({pci: {"string": "0000:8a:02.1"}, numa: {"int": 1}})).as_deref(), Ok("4-7"));
    let stranger = Unlocated::NotInMachine { address: "0000:8a:02.1".into() };
    assert_eq!(near(json!({pci: {"string": "0000:8a:02.1"}})), Err(stranger));
    assert_eq!(near(json!({numa: {"int": 7}})), Err(Unlocated::NotInMachine { address: "-".into() }));
    assert_eq!(near(json!({})), Err(Unlocated::NoAttribute));
    assert_eq!(near(json!({numa: {"int": -1}, pci: {"int": 3}})), Err(Unlocated::NoAttribute));
    for junk in ["", "8a:00.0", "0000:8a:00.0\n", "../../etc", "ÄÖ:ß", "0000:8a:00.8"] {
        let told = near(json!({pci: {"string": junk}})).unwrap_err();
        assert_eq!(told, Unlocated::AddressInvalid { value: junk.into() });
        assert!(told.to_string().contains(pci) && told.to_string().contains("0000:3b:00.0"), "{told}");
    }
}

#[test]
fn what_is_not_known_of_a_claim_has_a_name() {
    let here = slice("n1", 3, &at("g", "0000:8a:00.0"));
    assert_eq!(known(Some("g"), std::slice::from_ref(&here)).as_deref(), Ok("4-7"));
    assert_eq!(known(None, std::slice::from_ref(&here)), Err(Unlocated::ClaimUnallocated));
    assert_eq!(known(Some("other"), std::slice::from_ref(&here)), Err(Unlocated::Unlisted));
    assert_eq!(known(Some("g"), &[]), Err(Unlocated::Unlisted));
    let mut elsewhere = here.clone();
    elsewhere.spec.node_name = Some("n2".into());
    assert_eq!(known(Some("g"), &[elsewhere]), Err(Unlocated::OnAnotherNode { node: "n2".into() }));
    // Of a pool that is being published anew the old slices may still be there.
    let old = slice("n1", 2, &at("g", "0000:0a:00.0"));
    assert_eq!(known(Some("g"), &[here.clone(), old.clone()]).as_deref(), Ok("4-7"));
    assert_eq!(known(Some("g"), &[old, slice("n1", 4, &json!([]))]), Err(Unlocated::Unlisted));
    let gone = claimed_devices(&gpu_pod(&Like::default()), &[], &[here]);
    assert_eq!((gone.len(), &gone[0].location), (1, &Err(Unlocated::ClaimMissing)));
    let unpublished = model(vec![node("n1")], vec![], vec![]).snapshot();
    let device = ClaimedDevice { location: known_location(), ..gone[0].clone() };
    assert_eq!(device.cpus_on(&n1(&unpublished)), Err(Unlocated::NoMachine));
}

fn known_location() -> Result<fairlead_cluster::DeviceLocation, Unlocated> {
    let place = fairlead_cluster::DeviceLocation { node: "n1".into(), pci_address: None, numa_node: Some(0) };
    Ok(place)
}

#[test]
fn what_is_allocated_for_administration_is_nobodys_device() {
    let mut watching = claim("mine", Some("g"));
    let results = watching.status.as_mut().unwrap().allocation.as_mut().unwrap().devices.as_mut().unwrap();
    results.results.as_mut().unwrap()[0].admin_access = Some(true);
    let slices = [slice("n1", 1, &at("g", "0000:8a:00.0"))];
    assert_eq!(claimed_devices(&gpu_pod(&Like::default()), &[watching], &slices), []);
}

#[test]
fn a_hundred_and_twenty_eight_claims_are_all_looked_up() {
    let names: Vec<String> = (0..128).map(|index| format!("c{index}")).collect();
    let entries: Vec<Value> = names.iter().map(|name| json!({"name": name, "resourceClaimName": name})).collect();
    let claims: Vec<ResourceClaim> = names.iter().map(|name| claim(name, Some(name))).collect();
    let device = |name: &String| at(name, "0000:8a:00.0")[0].clone();
    let slices = [slice("n1", 1, &names.iter().map(device).collect())];
    let devices = claimed_devices(&claiming(&Like::default(), json!(entries), json!([])), &claims, &slices);
    let snapshot = with_devices().snapshot();
    assert_eq!(devices.iter().filter(|device| device.cpus_on(&n1(&snapshot)).is_ok()).count(), 128);
}

#[test]
fn a_pod_that_the_watch_shows_says_whether_it_has_claims_and_so_does_a_dump() {
    let mut model = with_devices();
    model.apply(Event::Pods(Change::Apply(gpu_pod(&Like::default()))));
    let snapshot = model.snapshot();
    assert!(snapshot.pods.get("p").unwrap().claims_devices);
    let text = serde_json::to_string(&snapshot.dump()).unwrap();
    let again = Model::from_dump(&serde_json::from_str(&text).unwrap()).unwrap().snapshot();
    assert_eq!(*again, *snapshot);
}

proptest! {
    /// The same CPUs by the claim as by the address, whatever else is held; and never another verdict than without.
    #[test]
    fn near_a_claim_is_near_its_address(
        second in any::<bool>(),
        cpus in prop::sample::select(vec!["1", "2", "3", "4", "6", "8"]),
        held in prop::sample::subsequence(vec!["0-1", "2-3", "4-5", "6-7"], 0..4),
    ) {
        let address = if second { "0000:8a:00.0" } else { "0000:0a:00.0" };
        let mut model = with_devices();
        let uids: Vec<String> = held.iter().map(|cpus| format!("other-{cpus}")).collect();
        let pairs: Vec<(&str, &str)> = uids.iter().map(String::as_str).zip(held).collect();
        model.apply(Event::Placements(Change::Apply(placement("n1", 1, &pairs))));
        let snapshot = model.snapshot();
        let like = |wishes: &'static [(&'static str, &'static str)]| Like { cpu: cpus, wishes, ..Like::default() };
        let mut by_claim = snapshot.wish_of(&gpu_pod(&like(&[])));
        let blind = by_claim.clone();
        by_claim.devices =
            claimed_devices(&gpu_pod(&like(&[])), &[claim("mine", Some("g"))], &[slice("n1", 1, &at("g", address))]);
        let wish: &'static [_] = if second { &[("near", "0000:8a:00.0")] } else { &[("near", "0000:0a:00.0")] };
        let by_address = snapshot.wish_of(&pod("p", &like(wish)));
        prop_assert_eq!(snapshot.around("n1", &by_claim), snapshot.around("n1", &by_address));
        prop_assert_eq!(snapshot.choose(0, &by_claim), snapshot.choose(0, &by_address));
        prop_assert_eq!(snapshot.judge(0, &by_claim), snapshot.judge(0, &by_address));
        prop_assert_eq!(snapshot.judge(0, &by_claim).is_ok(), snapshot.judge(0, &blind).is_ok());
        // Renounced, the devices are nothing.
        let renounced = PodWish { devices: by_claim.devices.clone(), ..snapshot.wish_of(&pod("p", &like(&[("near", "")]))) };
        prop_assert_eq!(snapshot.choose(0, &renounced), snapshot.choose(0, &blind));
    }
}
