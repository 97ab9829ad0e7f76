//! The waker over an API server: who is written to, how often, and who is not.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use fairlead_cluster::{Change, Event};
use fairlead_crds::NodePlacement;
use fairlead_extender::model::Message;
use fairlead_extender::wake::Waker;
use fairlead_runtime::{Heartbeat, LeaseConfig, lease};
use serde_json::{Value, json};
use support::House;
use support::api::{Api, pod_path};
use support::world::{SINGLE, World, placement, pod, reservation};
use tokio_util::sync::CancellationToken;

const REFUSED: &str = "0/1 nodes are available: 1 fairlead: not enough free whole cores.";

fn waiting(name: &str, message: &str) -> Value {
    let mut pod = pod(name, "8");
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
    pod["status"]["conditions"] = json!([condition]);
    pod
}

/// One machine, full; the pods wait.
fn house(pods: Vec<Value>) -> (House, Api) {
    let (api, mut world) = (Api::default(), World::default());
    world.add("n1", SINGLE, &[reservation(SINGLE, "uid-holder", 0, 16)]);
    for pod in &pods {
        api.put(pod_path(pod["metadata"]["name"].as_str().unwrap()), pod.clone());
    }
    world.pods = pods;
    (House::new(world.model(), &api), api)
}

async fn set_free(house: &House, cores: u32, generation: u32) {
    let held = [reservation(SINGLE, "uid-holder", cores, 16 - cores)];
    let mut placement = placement("n1", &held);
    placement["metadata"]["generation"] = json!(generation);
    let placement: NodePlacement = serde_json::from_value(placement).unwrap();
    house.courier.tell(Message::Seen(Box::new(Event::Placements(Change::Apply(placement))))).await;
}

fn start(house: &House, api: &Api) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let config = LeaseConfig::new("fairlead-system", "lease", "me");
    let lease = lease::run(api.client(), config, shutdown.clone()).unwrap();
    let waker = Waker {
        courier: house.courier.clone(),
        lease: lease.watch(),
        metrics: house.metrics.clone(),
        pulse: Heartbeat::new().register("waker", Duration::from_secs(60)),
    };
    tokio::spawn(waker.run(shutdown.clone()));
    tokio::spawn(async move { lease.ended().await });
    shutdown
}

fn touches(api: &Api, pod: &str) -> usize {
    api.seen(&format!("PATCH /api/v1/namespaces/apps/pods/{pod}/status"))
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_is_woken_when_cores_come_free_and_then_left_in_peace() {
    let never_asked = pod("new", "8");
    let (house, api) = house(vec![waiting("refused", REFUSED), waiting("other", "0/1 nodes: taint"), never_asked]);
    let shutdown = start(&house, &api);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(touches(&api, "refused"), 0, "there is no room");
    set_free(&house, 4, 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(touches(&api, "refused"), 1);
    let touched = api.get(&pod_path("refused")).unwrap();
    assert!(touched["metadata"]["annotations"]["fairlead.dev/touched"].is_string(), "{touched}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((touches(&api, "refused"), touches(&api, "other"), touches(&api, "new")), (12, 0, 0));
    assert!(house.page.encode().unwrap().contains(r#"fairlead_extender_wakes_total{outcome="Woken"} 1"#));
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn room_that_went_again_wakes_nobody() {
    let (house, api) = house(vec![waiting("refused", REFUSED)]);
    let shutdown = start(&house, &api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    set_free(&house, 4, 2).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    set_free(&house, 0, 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(touches(&api, "refused"), 1);
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pod_refused_by_a_sample_is_tried_again_while_a_node_has_room() {
    let (house, api) = house(vec![pod("p", "8")]);
    set_free(&house, 4, 2).await;
    let shutdown = start(&house, &api);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(touches(&api, "p"), 0, "nobody refused it");
    let refused = serde_json::from_value(waiting("p", REFUSED)).unwrap();
    house.courier.tell(Message::Seen(Box::new(Event::Pods(Change::Apply(refused))))).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(touches(&api, "p"), 2);
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_woken_in_turns_most_important_first() {
    let mut crowd: Vec<Value> = (0..40).map(|index| waiting(&format!("p{index}"), REFUSED)).collect();
    crowd[39]["spec"]["priority"] = json!(9);
    let (house, api) = house(crowd);
    set_free(&house, 4, 2).await;
    let shutdown = start(&house, &api);
    let all = || (0..40).map(|index| touches(&api, &format!("p{index}"))).sum::<usize>();
    while all() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((all(), touches(&api, "p39")), (16, 1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!((0..40).all(|index| touches(&api, &format!("p{index}")) > 0));
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn of_more_pods_than_may_wait_for_their_turn_none_is_lost() {
    let name = |index: usize| format!("p{index}");
    let (house, api) = house((0..300).map(|index| waiting(&name(index), REFUSED)).collect());
    let shutdown = start(&house, &api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    set_free(&house, 4, 2).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let never: Vec<usize> = (0..300).filter(|&index| touches(&api, &name(index)) == 0).collect();
    assert_eq!(never, Vec::<usize>::new());
    let page = house.page.encode().unwrap();
    let cut = page.lines().find_map(|line| line.strip_prefix("fairlead_extender_wake_looks_cut_total ")).unwrap();
    assert!(cut.parse::<u64>().unwrap() >= 1, "{cut}");
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn of_more_wishes_than_one_look_answers_none_is_lost() {
    let name = |index: usize| format!("p{index}");
    let apart = |index: usize| {
        let mut pod = waiting(&name(index), REFUSED);
        let amounts = json!({ "cpu": "8", "memory": format!("{}Mi", 100 + index) });
        pod["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
        pod
    };
    let (house, api) = house((0..70).map(apart).collect());
    let shutdown = start(&house, &api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    set_free(&house, 4, 2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let never: Vec<usize> = (0..70).filter(|&index| touches(&api, &name(index)) == 0).collect();
    assert_eq!(never, Vec::<usize>::new());
    shutdown.cancel();
}
