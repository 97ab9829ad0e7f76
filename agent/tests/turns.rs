//! The agent's loop against an API server that is a function, with the clock of the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

mod support;

use std::time::Duration;

use fairlead_agent::pin::{Finding, Observed};
use fairlead_agent::pinner::Report;
use fairlead_crds::conditions::Wanted;
use fairlead_crds::node_placement::{ObservedContainer, PinState};
use fairlead_crds::node_topology::{Pinning, PinningMode};
use fairlead_runtime::WatchEvent;
use serde_json::json;
use support::{House, REFRESH, placement, placement_event, topology_event};

const APPLY: &str = "PATCH /apis/fairlead.dev/v1alpha1/nodetopologies/n1";
const CREATE: &str = "POST /apis/fairlead.dev/v1alpha1/nodeplacements";
const STATUS: &str = "nodeplacements/n1/status";
const READ_NODE: &str = "GET /api/v1/nodes/n1";

fn uid(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_both_lists_came() {
    let house = House::new(Some("node-1"));
    house.tell(fairlead_agent::Seen::Topology(WatchEvent::Reset(vec![]))).await;
    house.pass(60).await;
    assert_eq!(house.with(|api| api.seen.len()), 0);
    assert!(!house.readiness.is_ready());
    // But read: while the API server is away, the pinning goes on by its checkpoint.
    assert_eq!(house.metrics.cpus.get(), 8);
    house.end().await;
}

/// I11: one write each, and then none, however long nothing happens.
#[tokio::test(start_paused = true)]
async fn it_publishes_judges_and_comes_to_rest() {
    let house = House::settled().await;
    assert!(house.readiness.is_ready());
    assert_eq!([APPLY, CREATE, STATUS, READ_NODE].map(|call| house.seen(call)), [1, 1, 1, 1]);
    assert_eq!(house.owners(), [uid("node-1"), uid("node-1")]);
    assert_eq!(house.with(|api| api.topology.as_ref().unwrap()["spec"]["cores"].as_array().unwrap().len()), 4);
    assert_eq!(house.consistent().unwrap()[..2], ["True", "AsExpected"]);
    house.pass(3_600).await;
    assert_eq!(house.with(|api| api.seen.len()), 4);
    // A restart finds everything as it should be: not one write more.
    house.list().await;
    house.pass(3_600).await;
    assert_eq!(house.writes(), 3);
    assert_eq!(house.metrics.topology_writes.get(), 1);
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_change_is_taken_back_once() {
    let house = House::settled().await;
    let own = house.with(|api| api.topology.clone()).unwrap();
    let mut foreign = own.clone();
    foreign["spec"]["cores"][0]["cpus"] = json!("0-7");
    house.tell(topology_event(&foreign)).await;
    house.pass(10).await;
    assert_eq!(house.seen(APPLY), 2);
    assert_eq!(house.with(|api| api.topology.clone()).unwrap()["spec"], own["spec"]);
    house.pass(600).await;
    assert_eq!(house.writes(), 4);
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_who_keeps_changing_is_answered_once_a_second() {
    let house = House::settled().await;
    let mut foreign = house.with(|api| api.topology.clone()).unwrap();
    foreign["spec"]["source"] = json!("Hwloc");
    for _ in 0..100 {
        house.tell(topology_event(&foreign)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answers = house.seen(APPLY) - 1;
    assert!((5..=11).contains(&answers), "{answers}");
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_machine_is_published_at_the_next_look() {
    let house = House::settled().await;
    house.becomes("pack:1 [numa(memory=64GB)] l3:1 core:2 pu:2");
    house.pass(2 * REFRESH.as_secs()).await;
    assert_eq!(house.seen(APPLY), 2);
    assert_eq!(house.metrics.cpus.get(), 4);
    house.pass(600).await;
    assert_eq!(house.seen(APPLY), 2);
    // What cannot be read any more leaves what is published, and is tried again.
    house.becomes("pack:two");
    house.pass(2 * REFRESH.as_secs()).await;
    assert_eq!(house.seen(APPLY), 2);
    assert!(house.errors("read machine") > 1);
    house.end().await;
}

/// The objects of an earlier Node are left to the garbage collector; then they are made for the Node of today.
#[tokio::test(start_paused = true)]
async fn an_earlier_nodes_placement_is_waited_for() {
    let house = House::new(Some("node-2"));
    house.with(|api| api.placement = Some(placement("p-1", "node-1")));
    house.list().await;
    house.pass(60).await;
    assert_eq!((house.seen(CREATE), house.owners()[1].clone()), (0, uid("node-1")));
    assert!(!house.readiness.is_ready());
    let tries = house.errors("create NodePlacement");
    assert!((6..=20).contains(&tries), "{tries}");
    // The topology is ours all the while, and applied once.
    assert_eq!((house.seen(APPLY), house.owners()[0].clone()), (1, uid("node-2")));
    house.collect_garbage().await;
    house.pass(20).await;
    assert_eq!(house.owners(), [uid("node-2"), uid("node-2")]);
    assert!(house.readiness.is_ready());
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_came_back_is_another() {
    let house = House::settled().await;
    house.with(|api| api.node_uid = None);
    house.collect_garbage().await;
    house.pass(30).await;
    assert_eq!(house.owners(), [None, None], "without its Node nothing is made");
    assert!(house.errors("read Node") > 0);
    house.with(|api| api.node_uid = uid("node-2"));
    house.pass(30).await;
    assert_eq!(house.owners(), [uid("node-2"), uid("node-2")]);
    assert_eq!(house.consistent().unwrap()[0], "True");
    let writes = house.writes();
    house.pass(600).await;
    assert_eq!(house.writes(), writes);
    house.end().await;
}

/// The watch is behind: the NodePlacement is there, and the list had none.
#[tokio::test(start_paused = true)]
async fn a_create_answered_409_is_no_failure() {
    let house = House::new(Some("node-1"));
    house.list().await;
    house.with(|api| api.placement = Some(placement("p-1", "node-1")));
    house.pass(30).await;
    // Once, and once more when the watch shows the NodeTopology.
    assert_eq!((house.seen(CREATE), house.errors("create NodePlacement")), (2, 0));
    assert_eq!(house.metrics.placements_created.get(), 0);
    house.tell(placement_event(&placement("p-1", "node-1"))).await;
    house.pass(10).await;
    assert_eq!(house.consistent().unwrap()[0], "True");
    house.pass(600).await;
    assert_eq!((house.seen(CREATE), house.seen(STATUS)), (2, 1));
    house.end().await;
}

/// The NodePlacement is another by now: its status is written once the watch has shown it, and never blindly.
#[tokio::test(start_paused = true)]
async fn a_status_answered_409_waits_for_the_watch() {
    let house = House::new(Some("node-1"));
    house.with(|api| api.placement = Some(placement("p-1", "node-1")));
    house.list().await;
    house.with(|api| api.placement = Some(placement("p-2", "node-1")));
    house.pass(600).await;
    assert_eq!((house.seen(STATUS), house.consistent()), (1, None));
    assert_eq!(house.metrics.status_writes.get(), 0);
    house.tell(placement_event(&placement("p-2", "node-1"))).await;
    house.pass(10).await;
    assert_eq!((house.seen(STATUS), house.consistent().unwrap()[0].as_str()), (2, "True"));
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_fails_is_tried_again_and_a_burst_is_judged_once() {
    let house = House::settled().await;
    house.with(|api| api.refuse = Some((STATUS, 500)));
    let mut held = house.with(|api| api.placement.clone()).unwrap();
    held["spec"]["reservations"] = json!([{
        "podUID": "a", "namespace": "ns", "name": "a", "reservedAt": "2026-01-01T00:00:00Z",
        "cpus": "8", "containers": [{ "name": "c", "cpus": "8" }], "memory": [],
    }]);
    for generation in 2..=20 {
        held["metadata"]["generation"] = json!(generation);
        house.with(|api| api.placement = Some(held.clone()));
        house.tell(placement_event(&held)).await;
    }
    house.pass(10).await;
    let tries = house.seen(STATUS) - 1;
    assert!((5..=10).contains(&tries), "{tries}");
    house.with(|api| api.refuse = None);
    house.pass(5).await;
    assert_eq!(house.consistent().unwrap()[..2], ["False", "CPUsOutOfRange"]);
    assert_eq!((house.seen(STATUS) - tries, house.metrics.status_writes.get()), (2, 2));
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_in_trouble_is_asked_less_and_less() {
    let house = House::new(Some("node-1"));
    house.with(|api| api.refuse = Some((APPLY, 500)));
    house.list().await;
    house.pass(60).await;
    let tries = house.seen(APPLY);
    // 0.2 s doubling to 8 s, each pause at least half of its step.
    assert!((10..=22).contains(&tries), "{tries}");
    assert_eq!(house.errors("apply NodeTopology"), tries as u64);
    assert!(!house.readiness.is_ready());
    assert_eq!(house.seen(CREATE), 0);
    house.with(|api| api.refuse = None);
    house.pass(9).await;
    assert_eq!((house.seen(APPLY), house.seen(CREATE)), (tries + 1, 1));
    assert!(house.readiness.is_ready());
    house.end().await;
}

fn report(mode: PinningMode) -> Report {
    let pinning = Pinning {
        mode,
        reason: "Because".into(),
        message: String::new(),
        cpu_manager_policy: None,
        memory_manager_policy: None,
        runtime: None,
    };
    let pinned = Wanted { type_: "Pinned", status: Some(true), reason: "AsExpected".into(), message: String::new() };
    let observed = Observed {
        shared_cpus: "0-3".into(),
        shared_cpu_count: 4,
        containers: Vec::new(),
        shared_containers: 0,
        pinned,
    };
    Report { pinning: Some(pinning), observed: Some(observed), ..Report::default() }
}

/// I11 again: what the pinning tells is written once.
#[tokio::test(start_paused = true)]
async fn who_pins_and_what_runs_is_published() {
    let house = House::settled().await;
    let mode = || house.with(|api| api.topology.clone().unwrap()["spec"]["pinning"]["mode"].clone());
    assert_eq!(mode(), json!(null));
    house.report.send_replace(report(PinningMode::Own));
    house.pass(10).await;
    assert_eq!((mode(), house.seen(APPLY), house.seen(STATUS)), (json!("Own"), 2, 2));
    let status = house.with(|api| api.placement.clone().unwrap()["status"].clone());
    assert_eq!(status["sharedCPUs"], "0-3");
    let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, ["Consistent", "Pinned"]);
    house.pass(3_600).await;
    assert_eq!(house.writes(), 5);
    house.report.send_replace(report(PinningMode::Observe));
    house.pass(10).await;
    assert_eq!((mode(), house.seen(APPLY), house.seen(STATUS)), (json!("Observe"), 3, 2));
    house.end().await;
}

/// An API server that is away does not lose it either.
#[tokio::test(start_paused = true)]
async fn what_was_found_amiss_is_written_before_what_became_of_it() {
    let house = House::settled().await;
    let line = |state| ObservedContainer {
        pod_uid: "a".into(),
        name: "c".into(),
        state,
        cpus: "2".into(),
        memory_nodes: "0".into(),
        message: String::new(),
    };
    let mut told = report(PinningMode::Own);
    told.observed.as_mut().unwrap().containers = vec![line(PinState::Pinned)];
    let written = || {
        let status = house.with(|api| api.placement.clone().unwrap()["status"].clone());
        let pinned = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Pinned").cloned();
        let state = status["containers"][0]["state"].as_str().map(str::to_owned);
        (state, pinned.map(|one| one["status"].as_str().unwrap().to_owned()))
    };
    let is = |state: &str, pinned: &str| (Some(state.to_owned()), Some(pinned.to_owned()));
    house.with(|api| api.refuse = Some((STATUS, 500)));
    told.found = vec![Finding { number: 1, line: line(PinState::Unpinned) }];
    house.report.send_replace(told.clone());
    house.pass(30).await;
    let tries = house.seen(STATUS);
    house.with(|api| api.refuse = None);
    while house.seen(STATUS) == tries {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(written(), is("Unpinned", "False"));
    house.pass(3).await;
    assert_eq!((written(), house.seen(STATUS)), (is("Pinned", "True"), tries + 2));
    // Amiss once more between two writes.
    told.found = vec![Finding { number: 2, line: line(PinState::Drifted) }];
    house.report.send_replace(told);
    while house.seen(STATUS) == tries + 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(written(), is("Drifted", "False"));
    house.pass(600).await;
    assert_eq!((written(), house.seen(STATUS)), (is("Pinned", "True"), tries + 4));
    house.end().await;
}

/// A restart of the agent is no news for the scheduler.
#[tokio::test(start_paused = true)]
async fn while_it_is_too_early_to_tell_what_was_said_stays() {
    let house = House::settled().await;
    house.report.send_replace(report(PinningMode::Own));
    house.pass(10).await;
    let writes = house.writes();
    house.report.send_replace(Report { pinning: None, ..report(PinningMode::Own) });
    house.pass(600).await;
    assert_eq!(house.writes(), writes);
    assert_eq!(house.with(|api| api.topology.clone().unwrap()["spec"]["pinning"]["mode"].clone()), json!("Own"));
    house.end().await;
}

/// Two that write by turns would do so for ever.
#[tokio::test(start_paused = true)]
async fn beside_another_agent_nothing_is_written() {
    let house = House::new(Some("node-1"));
    let second =
        Report { second_agent: Some("another agent runs on this node".into()), ..report(PinningMode::Observe) };
    house.report.send_replace(second.clone());
    house.list().await;
    house.pass(600).await;
    assert_eq!(house.writes(), 0);
    assert!(!house.readiness.is_ready() && house.errors("take the node") > 10);
    // The first one has ended.
    house.report.send_replace(report(PinningMode::Own));
    house.pass(10).await;
    assert_eq!([APPLY, CREATE, STATUS].map(|call| house.seen(call)), [1, 1, 1]);
    assert!(house.readiness.is_ready());
    // And one came in whose lock this agent never held.
    let writes = house.writes();
    house.report.send_replace(second);
    house.pass(600).await;
    assert_eq!((house.writes(), house.readiness.is_ready()), (writes, false));
    house.end().await;
}
