//! Bind and reap against an API server with faults.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use fairlead_extender::duty::Duty;
use fairlead_extender::reaper::{LEASE_NAME, Reaper};
use fairlead_runtime::{Heartbeat, LeaseConfig, lease};
use serde_json::{Value, json};
use support::House;
use support::api::{Api, Fault, placement_path, pod_path};
use support::world::{SINGLE, World, pod, reservation};
use tokio_util::sync::CancellationToken;

const NODES: [&str; 2] = ["n1", "n2"];

/// Two nodes and the pods; the watch has seen what the API server has.
fn house(pods: &[Value], reservations: &[Value]) -> (House, Api) {
    let (api, mut world) = (Api::default(), World::default());
    for node in NODES {
        world.add(node, SINGLE, if node == "n1" { reservations } else { &[] });
    }
    for (node, placement) in NODES.iter().zip(&world.placements) {
        api.put(placement_path(node), placement.clone());
    }
    for pod in pods {
        api.put(pod_path(pod["metadata"]["name"].as_str().unwrap()), pod.clone());
    }
    world.pods = pods.to_vec();
    (House::new(world.model(), &api), api)
}

fn held(api: &Api, node: &str) -> Vec<String> {
    let placement = api.get(&placement_path(node)).unwrap();
    let uid = |held: &Value| held["podUID"].as_str().unwrap().to_owned();
    placement["spec"]["reservations"].as_array().unwrap().iter().map(uid).collect()
}

fn bound_to(api: &Api, pod: &str) -> Value {
    api.get(&pod_path(pod)).unwrap()["spec"]["nodeName"].clone()
}

#[tokio::test]
async fn a_bind_reserves_exact_cpus_and_tells_the_pod() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(bound_to(&api, "p"), "n1");
    let placement = api.get(&placement_path("n1")).unwrap();
    let reservation = &placement["spec"]["reservations"][0];
    assert_eq!((reservation["podUID"].as_str(), reservation["cpus"].as_str()), (Some("uid-p"), Some("0-1,16-17")));
    assert_eq!(reservation["memory"], json!([{ "numaNode": 0, "bytes": 1 << 30 }]));
    let live = api.get(&pod_path("p")).unwrap();
    let annotation = live["metadata"]["annotations"]["fairlead.dev/placement"].as_str().unwrap();
    let annotation: Value = serde_json::from_str(annotation).unwrap();
    assert_eq!(
        annotation,
        json!({ "containers": [{ "name": "main", "cpus": "0-1,16-17", "memoryNodes": "0" }], "cpus": "0-1,16-17" })
    );
    let page = house.page.encode().unwrap();
    assert!(page.contains(r#"fairlead_extender_binds_total{outcome="Bound"} 1"#), "{page}");
    assert!(page.contains("fairlead_extender_reservations 1"), "{page}");
}

#[tokio::test]
async fn asked_again_it_succeeds_again_and_elsewhere_it_does_not() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(house.bind("p", "n1").await, "");
    let error = house.bind("p", "n2").await;
    assert!(error.contains("pod is bound to another node, n1"), "{error}");
    assert_eq!((held(&api, "n1").len(), held(&api, "n2").len()), (1, 0));
    assert_eq!(bound_to(&api, "p"), "n1");
}

#[tokio::test]
async fn a_placement_made_anew_gives_away_nothing_that_a_pod_runs_on() {
    let mut runs = pod("runs", "4");
    runs["spec"]["nodeName"] = json!("n1");
    let placement =
        json!({ "containers": [{ "name": "main", "cpus": "0-1,16-17", "memoryNodes": "0" }], "cpus": "0-1,16-17" });
    runs["metadata"]["annotations"] = json!({ "fairlead.dev/placement": placement.to_string() });
    let (house, api) = house(&[runs, pod("p", "4")], &[]);
    assert_eq!(house.bind("p", "n1").await, "");
    let placement = api.get(&placement_path("n1")).unwrap();
    let reservations = &placement["spec"]["reservations"];
    assert_eq!(reservations[0]["cpus"], "2-3,18-19");
    // The first promise there restores what was lost.
    assert_eq!((&reservations[1]["podUID"], &reservations[1]["cpus"]), (&json!("uid-runs"), &json!("0-1,16-17")));
}

#[tokio::test]
async fn a_new_placement_is_promised_on_after_a_live_list_and_a_used_one_without() {
    let (house, api) = house(&[pod("p", "4"), pod("q", "4")], &[]);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(api.seen("GET /api/v1/pods"), 1);
    assert_eq!(house.bind("q", "n1").await, "");
    assert_eq!(api.seen("GET /api/v1/pods"), 1);
}

#[tokio::test]
async fn a_pod_without_cpus_of_its_own_costs_no_reservation() {
    let (house, api) = house(&[pod("p", "500m")], &[]);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!((held(&api, "n1").len(), api.seen("PATCH")), (0, 0));
}

#[tokio::test]
async fn a_burst_of_pods_does_not_overfill_the_shared_pool() {
    let pods: Vec<Value> = (0..6).map(|index| pod(&format!("p{index}"), "1500m")).collect();
    let (house, api) = house(&pods, &[reservation(SINGLE, "other", 0, 14)]);
    let names: Vec<String> = (0..6).map(|index| format!("p{index}")).collect();
    let errors = futures::future::join_all(names.iter().map(|name| house.bind(name, "n1"))).await;
    let refused = "fairlead: shared CPU pool would be too small";
    assert_eq!(errors.iter().filter(|error| error.as_str() == refused).count(), 4, "4 CPUs are left: {errors:?}");
    let bound = names.iter().filter(|name| bound_to(&api, name) == "n1").count();
    assert_eq!((bound, errors.iter().filter(|error| error.is_empty()).count()), (2, 2));
    assert_eq!(api.seen("PATCH"), 0);
}

#[tokio::test]
async fn pods_that_may_not_be_bound_are_refused_with_the_reason() {
    let changed = |path: &str, value: Value| {
        let mut changed = pod("p", "4");
        let (parent, last) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[last] = value;
        changed
    };
    let cases = [
        (changed("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")), "pod is being deleted"),
        (changed("/spec/schedulingGates", json!([{ "name": "fairlead.dev/quota" }])), "pod has a scheduling gate"),
        (changed("/metadata/uid", json!("another")), "pod was replaced by another of the same name"),
        (changed("/status/phase", json!("Failed")), "pod has ended"),
    ];
    for (live, text) in cases {
        // The watch is behind, but for the gate, which can be removed and never added.
        let gated = !live["spec"]["schedulingGates"].is_null();
        let (house, api) = house(&[if gated { live.clone() } else { pod("p", "4") }], &[]);
        let mut live = live;
        live["metadata"]["resourceVersion"] = json!("9");
        api.put(pod_path("p"), live);
        let error = house.bind("p", "n1").await;
        assert_eq!(error, format!("fairlead: {text}"));
        assert_eq!(held(&api, "n1"), [""; 0], "{text}");
    }
    let (house, _) = house(&[], &[]);
    assert_eq!(house.bind("p", "n1").await, "fairlead: pod does not exist any more");
    let (_, reply) = house.post("/bind", r#"{"PodName":"p","PodNamespace":"apps","Node":"n1"}"#).await;
    assert!(reply.contains("PodUID is empty"), "{reply}");
    assert!(house.bind("p", "nowhere").await.starts_with("fairlead: "));
}

#[tokio::test]
async fn lost_answers_are_resolved_by_reading() {
    for fault in [Fault::BindingAnswerLost, Fault::PatchAnswerLost] {
        let (house, api) = house(&[pod("p", "4")], &[]);
        api.fail_next(fault);
        assert_eq!(house.bind("p", "n1").await, "", "{fault:?}");
        assert_eq!((bound_to(&api, "p"), held(&api, "n1")), (json!("n1"), vec!["uid-p".to_owned()]), "{fault:?}");
        assert!(house.page.encode().unwrap().contains("fairlead_extender_lost_answers_total 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_asks_to_wait_is_waited_for() {
    for fault in [Fault::BindingThrottled, Fault::PatchThrottled] {
        let (house, api) = house(&[pod("p", "4")], &[]);
        api.fail_next(fault);
        let begun = tokio::time::Instant::now();
        assert_eq!(house.bind("p", "n1").await, "", "{fault:?}");
        assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "{fault:?}");
        assert_eq!((bound_to(&api, "p"), held(&api, "n1")), (json!("n1"), vec!["uid-p".to_owned()]), "{fault:?}");
        assert!(house.page.encode().unwrap().contains("fairlead_extender_lost_answers_total 0"));
    }
}

#[tokio::test]
async fn a_conflict_is_tried_again_from_fresh_state() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    api.fail_next(Fault::OtherWriter);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!(held(&api, "n1"), ["uid-p"]);
    assert!(house.page.encode().unwrap().contains("fairlead_extender_reservation_conflicts_total 1"));
}

#[tokio::test]
async fn a_binding_that_loses_to_another_writer_is_a_conflict_too() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    // The watch is behind: its version of the pod is bound in vain.
    let mut live = pod("p", "4");
    live["metadata"]["resourceVersion"] = json!("9");
    api.put(pod_path("p"), live);
    assert_eq!(house.bind("p", "n1").await, "");
    assert!(house.page.encode().unwrap().contains("fairlead_extender_reservation_conflicts_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_given_up_and_the_bind_goes_on() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    api.fail_next(Fault::Silence);
    let begun = tokio::time::Instant::now();
    assert_eq!(house.bind("p", "n1").await, "");
    assert!(begun.elapsed() < support::BIND_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_ends_at_the_deadline() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    api.fail_always(Fault::Silence);
    let begun = tokio::time::Instant::now();
    assert_eq!(house.bind("p", "n1").await, "fairlead: no answer from the API server in time");
    assert_eq!(begun.elapsed().as_secs(), support::BIND_DEADLINE.as_secs());
    // The Binding may yet arrive: the reservation stays, for the next attempt or for the reaper.
    assert_eq!(held(&api, "n1"), ["uid-p"]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let promises = |house: &House| house.snapshot.load().node_named("n1").unwrap().beside.promises.clone();
    assert_eq!(promises(&house), []);
}

#[tokio::test(start_paused = true)]
async fn a_bind_whose_caller_hung_up_keeps_its_place_and_is_counted() {
    let (house, api) = house(&[pod("p", "4")], &[]);
    api.fail_always(Fault::Silence);
    for _ in 0..support::LIMITS.in_flight {
        let hung_up = tokio::time::timeout(Duration::from_millis(10), house.bind("p", "n1")).await;
        assert!(hung_up.is_err());
    }
    let args = r#"{"PodName":"p","PodNamespace":"apps","PodUID":"uid-p","Node":"n1"}"#;
    let (status, reply) = house.post("/bind", args).await;
    assert_eq!(status, 503, "{reply}");
    tokio::time::sleep(support::BIND_DEADLINE).await;
    assert_eq!(house.post("/bind", args).await.0, 200);
    let page = house.page.encode().unwrap();
    assert!(page.contains(r#"fairlead_extender_binds_total{outcome="Deadline"} 33"#), "{page}");
}

#[tokio::test]
async fn many_binds_to_one_node_share_no_cpu_and_conflict_with_nobody() {
    let pods: Vec<Value> = (0..16).map(|index| pod(&format!("p{index}"), "2")).collect();
    let (house, api) = house(&pods, &[]);
    let names: Vec<String> = (0..16).map(|index| format!("p{index}")).collect();
    let errors = futures::future::join_all(names.iter().map(|name| house.bind(name, "n1"))).await;
    assert_eq!(errors, [""; 16]);
    let placement = api.get(&placement_path("n1")).unwrap();
    let mut seen = fairlead_topology::CpuMask::new();
    for held in placement["spec"]["reservations"].as_array().unwrap() {
        let cpus = fairlead_topology::CpuMask::parse_list(held["cpus"].as_str().unwrap()).unwrap();
        assert!(!seen.intersects(&cpus) && cpus.len() == 2);
        seen.union_with(&cpus);
    }
    assert_eq!(seen.len(), 32);
    assert!(house.page.encode().unwrap().contains("fairlead_extender_reservation_conflicts_total 0"));
    let error = house.bind("p0", "n2").await;
    assert!(error.contains("bound to another node"), "{error}");
}

/// Guaranteed and with whole CPUs, it could have had some of its own; it wishes none (any more).
fn wishes_none(name: &str) -> Value {
    let mut pod = pod(name, "4");
    pod["metadata"]["annotations"] = json!({ "topology.fairlead.dev/cpus": "Shared" });
    pod["metadata"]["resourceVersion"] = json!("8");
    pod
}

#[tokio::test]
async fn a_pod_whose_wish_changed_leaves_no_reservation_behind() {
    let mut former = reservation(SINGLE, "uid-p", 0, 2);
    former["name"] = json!("p");
    let (house, api) = house(&[wishes_none("p")], &[]);
    // The watch has not shown yet what another extender reserved by the former wish.
    let mut placement = api.get(&placement_path("n1")).unwrap();
    placement["spec"]["reservations"] = json!([reservation(SINGLE, "other", 4, 1), former]);
    placement["metadata"]["generation"] = json!(2);
    api.put(placement_path("n1"), placement);
    assert_eq!(house.bind("p", "n1").await, "");
    assert_eq!((bound_to(&api, "p"), held(&api, "n1")), (json!("n1"), vec!["other".to_owned()]));
    assert_eq!(api.seen("PATCH /api/v1/namespaces/apps/pods/p/status"), 1, "no Binding under way can come");
}

#[tokio::test]
async fn a_binding_of_a_pod_of_the_shared_pool_is_of_the_version_that_was_judged() {
    let (house, api) = house(&[pod("p", "500m")], &[]);
    let mut live = pod("p", "500m");
    live["metadata"]["resourceVersion"] = json!("9");
    api.put(pod_path("p"), live);
    assert_eq!(house.bind("p", "n1").await, "");
    assert!(house.page.encode().unwrap().contains("fairlead_extender_reservation_conflicts_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_bind_whose_turn_did_not_come_says_how_many_were_ahead() {
    let pods: Vec<Value> = (0..3).map(|index| pod(&format!("p{index}"), "4")).collect();
    let (house, api) = house(&pods, &[]);
    api.fail_always(Fault::PatchSilence);
    let names = ["p0", "p1", "p2"];
    let errors = futures::future::join_all(names.map(|name| house.bind(name, "n1"))).await;
    let queued = |error: &&String| {
        let rest = error.strip_prefix("fairlead: waited 3000 ms for its turn to write to node n1, ");
        rest.is_some_and(|rest| ["1 binds are still ahead", "2 binds are still ahead"].contains(&rest))
    };
    let waited = errors.iter().filter(queued).count();
    let unanswered = errors.iter().filter(|error| *error == "fairlead: no answer from the API server in time").count();
    assert!(waited > 0 && waited + unanswered == names.len(), "{errors:?}");
    let page = house.page.encode().unwrap();
    assert!(page.contains(&format!(r#"fairlead_extender_binds_total{{outcome="Queued"}} {waited}"#)), "{page}");
}

/// Neither replica's watch shows what the other has just bound.
#[tokio::test(start_paused = true)]
async fn of_two_replicas_behind_a_service_one_binds_and_the_pool_keeps_its_reserve() {
    let api = Api::default();
    let pods = ["p", "q"].map(|name| pod(name, "3500m"));
    let replica = |duty| {
        let mut world = World::default();
        // Of 32 CPUs 28 are promised: one of the two has room in the pool.
        world.add("n1", SINGLE, &[reservation(SINGLE, "other", 0, 14)]);
        world.pods = pods.to_vec();
        api.put(placement_path("n1"), world.placements[0].clone());
        House::on_duty(world.model(), &api, duty)
    };
    for (name, pod) in ["p", "q"].iter().zip(&pods) {
        api.put(pod_path(name), pod.clone());
    }
    let stop = CancellationToken::new();
    let candidate = |name: &str| {
        let config = LeaseConfig::new("fairlead-system", LEASE_NAME, name);
        lease::run(api.client(), config, stop.clone()).unwrap()
    };
    let first = candidate("first");
    let house = replica(Duty::while_leading(first.watch()));
    let (status, _) = house.post("/filter", "{}").await;
    assert_eq!(status, 200, "filter needs no Lease");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = "fairlead: another replica of the extender binds now, the one that holds the Lease \
                   fairlead-extender-reaper; try again";
    assert_eq!(house.bind("p", "n1").await, refused, "its term has to settle");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = candidate("second");
    let other = replica(Duty::while_leading(second.watch()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let answers = [house.bind("p", "n1").await, other.bind("q", "n1").await];
    assert_eq!(answers, ["", refused]);
    assert_eq!(bound_to(&api, "q"), Value::Null);
    let args = json!({ "PodName": "q", "PodNamespace": "apps", "PodUID": "uid-q", "Node": "n1" }).to_string();
    let request = |body: String| {
        http::Request::post("/bind").header("Content-Type", "application/json").body(body.into()).unwrap()
    };
    assert_eq!(other.send(request(args.clone())).await.headers()["connection"], "close", "the next goes elsewhere");
    assert!(!house.send(request(args)).await.headers().contains_key("connection"));
    stop.cancel();
    first.ended().await;
    second.ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_reaper_frees_all_of_a_node_in_one_write() {
    let gone: Vec<Value> = (0..12).map(|index| reservation(SINGLE, &format!("gone-{index}"), index, 1)).collect();
    let (house, api) = house(&[], &gone);
    let running = reaper(&house, &api, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((held(&api, "n1").len(), api.seen("PATCH /apis/fairlead.dev/v1alpha1/nodeplacements/n1")), (0, 1));
    let page = house.page.encode().unwrap();
    assert!(page.contains(r#"fairlead_extender_releases_total{outcome="Released"} 12"#), "{page}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_reaper_frees_what_nobody_holds_and_nothing_else() {
    let mut runs = pod("runs", "2");
    runs["spec"]["nodeName"] = json!("n1");
    // The watch has not seen `late`, but the API server has it bound here.
    let mut late = pod("late", "2");
    late["spec"]["nodeName"] = json!("n1");
    let held_by = |uid: &str, core| reservation(SINGLE, uid, core, 1);
    let (house, api) = house(&[runs], &[held_by("uid-runs", 0), held_by("gone", 1), held_by("uid-late", 2)]);
    api.put(pod_path("late"), late);
    let mut placement = api.get(&placement_path("n1")).unwrap();
    placement["spec"]["reservations"][2]["name"] = json!("late");
    placement["metadata"]["generation"] = json!(placement["metadata"]["generation"].as_i64().unwrap() + 1);
    api.put(placement_path("n1"), placement.clone());
    let placement = serde_json::from_value(placement).unwrap();
    let (published, seen) = tokio::sync::oneshot::channel();
    let message = fairlead_extender::model::Message::Written { placement: Box::new(placement), published };
    house.courier.tell(message).await;
    seen.await.unwrap();

    let running = reaper(&house, &api, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(held(&api, "n1"), ["uid-runs", "uid-late"]);
    let page = house.page.encode().unwrap();
    assert!(page.contains(r#"fairlead_extender_releases_total{outcome="Released"} 1"#), "{page}");
    assert!(page.contains(r#"outcome="Kept""#), "{page}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_reaper_touches_an_unbound_pod_before_it_frees_what_is_held_for_it() {
    let mut stamped = reservation(SINGLE, "uid-waits", 0, 1);
    stamped["name"] = json!("waits");
    stamped["reservedAt"] = json!("2090-01-01T00:00:00Z");
    let (house, api) = house(&[pod("waits", "2")], &[stamped]);
    let running = reaper(&house, &api, Duration::from_secs(6));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((held(&api, "n1").len(), api.seen("PATCH /api/v1/namespaces/apps/pods/waits")), (1, 0), "its grace");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((held(&api, "n1").len(), api.seen("PATCH /api/v1/namespaces/apps/pods/waits/status")), (0, 1));
    let touched = api.get(&pod_path("waits")).unwrap();
    assert_eq!(touched["metadata"]["annotations"]["fairlead.dev/touched"], "7");
    assert_eq!(touched["metadata"]["resourceVersion"], "8", "no Binding that names the former version can come");
    running.end().await;
}

struct Running {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn reaper(house: &House, api: &Api, grace: Duration) -> Running {
    let (shutdown, lease_token) = (CancellationToken::new(), CancellationToken::new());
    let config = LeaseConfig::new("fairlead-system", LEASE_NAME, "me");
    let lease = lease::run(api.client(), config, lease_token.clone()).unwrap();
    let reaper = Reaper {
        courier: house.courier.clone(),
        lease: lease.watch(),
        grace,
        metrics: house.metrics.clone(),
        pulse: Heartbeat::new().register("reaper", Duration::from_secs(60)),
    };
    let stopped = shutdown.clone();
    let task = tokio::spawn(async move {
        reaper.run(stopped).await;
        lease_token.cancel();
        lease.ended().await;
    });
    Running { task, shutdown }
}
