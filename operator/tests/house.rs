//! The house from watch events to writes: limits hold, intents come first, and who waits is told why.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod fake;

use fake::bed::{World, bed, house_in, quota};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn limits_hold_intents_come_first_and_the_rest_is_told_why() {
    let bed = Box::pin(bed(2, &["p1", "p2", "p3"])).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(bed.writes().is_empty(), "nobody leads: {:?}", bed.writes());
    bed.lead();
    bed.until("two releases", |writes| writes.len() >= 4).await;
    let mut writes = bed.writes();
    writes[2..].sort();
    assert_eq!(writes, ["ledger ", "ledger p1 p2", "ungate p1", "ungate p2"]);
    for name in ["p1", "p2"] {
        bed.show(&format!("a/{name}")).await;
    }
    bed.until_written("told p3 WaitingForConcurrencySlot").await;
    bed.until("the ledger at rest", |writes| writes[4..].iter().any(|write| write == "ledger ")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.view.borrow().tenants["acme"].released_pods, 2);
    assert_eq!(bed.writes().len(), 6, "the settled intents left once, the pod was told once: {:?}", bed.writes());
    bed.stop.cancel();
    bed.house.await.unwrap();
}

#[tokio::test]
async fn a_pod_that_ends_makes_room_and_what_was_told_is_taken_back() {
    let bed = Box::pin(bed(1, &["p1", "p2"])).await;
    bed.lead();
    bed.until_written("ungate p1").await;
    bed.show("a/p1").await;
    bed.until_written("told p2 WaitingForConcurrencySlot").await;
    bed.show("a/p2").await;
    bed.world.lock().unwrap().change("a/p1", |pod| pod["status"]["phase"] = "Succeeded".into());
    bed.show("a/p1").await;
    bed.until_written("ungate p2").await;
    bed.show("a/p2").await;
    bed.until_written("told p2 Released").await;
}

#[tokio::test]
async fn a_tenant_whose_pods_refuse_every_write_stops_nobody_and_is_told_why() {
    let mut world = World { version: 100, ..World::default() };
    for i in 0..12 {
        world.add("bad", &format!("bad{i:02}"), true);
    }
    world.add("good", "good0", true);
    world.refused.insert("bad/".into(), 500);
    let world = Arc::new(Mutex::new(world));
    let quotas = [quota("bad", &["bad"], 100), quota("good", &["good"], 100)];
    let bed = Box::pin(house_in(&world, &quotas)).await;
    bed.lead();
    bed.until_written("ungate good0").await;
    bed.show("good/good0").await;
    bed.until_written("told bad00 ReleaseRefused").await;
    assert!(bed.count("500 ungate") <= 24, "{:?}", bed.writes());
    // By now the pods of the one are stuck; those of the other go at once.
    world.lock().unwrap().add("good", "good1", true);
    bed.show("good/good1").await;
    bed.until_written("ungate good1").await;
    world.lock().unwrap().refused.clear();
    bed.until_written("ungate bad00").await;
}

#[tokio::test]
async fn a_pod_that_is_refused_for_certain_is_tried_again_with_pauses() {
    let mut world = World { version: 100, ..World::default() };
    world.add("a", "odd", true);
    world.refused.insert("a/odd".into(), 422);
    let world = Arc::new(Mutex::new(world));
    let bed = Box::pin(house_in(&world, &[quota("acme", &["a"], 2)])).await;
    bed.lead();
    bed.until_written("told odd ReleaseRefused").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bed.count("422 ungate") <= 4, "{:?}", bed.writes());
    assert_eq!(bed.count("told"), 1);
}

#[tokio::test]
async fn a_lease_won_again_waits_for_lists_of_its_own_term() {
    let mut bed = Box::pin(bed(1, &["p1", "p2"])).await;
    bed.lead();
    bed.until_written("ungate p1").await;
    bed.show("a/p1").await;
    bed.until_written("told p2 WaitingForConcurrencySlot").await;
    let before = bed.writes().len();
    bed.lead_again();
    // The watches are blind, and the room they show may be somebody else's by now: nothing is done with what they showed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.writes().len(), before, "{:?}", bed.writes());
    assert!(!bed.view.borrow().synced);
    bed.world.lock().unwrap().change("a/p1", |pod| pod["status"]["phase"] = "Succeeded".into());
    Box::pin(bed.list(&[quota("acme", &["a"], 1)])).await;
    bed.until_written("ungate p2").await;
}

#[tokio::test]
async fn a_pod_that_ended_unseen_before_a_relist_freezes_nobody() {
    let bed = Box::pin(bed(2, &["p1"])).await;
    // Let out by another leader, and gone again, while the watch of this one was away: only the protocol's list saw it.
    bed.world.lock().unwrap().add("a", "ghost", false);
    bed.lead();
    bed.until_written("ledger ").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!bed.view.borrow().tenants["acme"].ready);
    bed.world.lock().unwrap().pods.remove("a/ghost");
    bed.list_pods().await;
    bed.until_written("ungate p1").await;
}

#[tokio::test]
async fn pods_of_a_tenant_whose_ledger_is_refused_are_told() {
    let mut world = World { version: 100, ..World::default() };
    world.add("a", "p1", true);
    world.refused.insert("acme".into(), 403);
    let world = Arc::new(Mutex::new(world));
    let bed = Box::pin(house_in(&world, &[quota("acme", &["a"], 2)])).await;
    bed.lead();
    bed.until_written("told p1 ReleaseStalled").await;
    bed.show("a/p1").await;
    assert_eq!(bed.view.borrow().tenants["acme"].reasons["ReleaseStalled"], 1);
    world.lock().unwrap().refused.clear();
    bed.until_written("ungate p1").await;
}

/// A removal is under way (its pod is refused, so that it stays open) when its namespace goes to another tenant.
async fn handed_over(old: &[serde_json::Value]) {
    let mut world = World { version: 100, ..World::default() };
    world.add("b", "moving", true);
    world.refused.insert("b/moving".into(), 500);
    let world = Arc::new(Mutex::new(world));
    let bed = Box::pin(house_in(&world, &[quota("acme", &["a", "b"], 2)])).await;
    bed.lead();
    bed.until_written("500 ungate moving").await;
    let new = quota("globex", &["b"], 1);
    world.lock().unwrap().add("b", "other", true);
    let quotas: Vec<_> = old.iter().cloned().chain([new]).collect();
    Box::pin(bed.list(&quotas)).await;
    bed.until_written("500 touch moving").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bed.count("ungate"), 0, "the old removal may still come true: {:?}", bed.writes());
    // It does: nobody else is let out beside it.
    world.lock().unwrap().change("b/moving", |pod| pod["spec"]["schedulingGates"] = serde_json::json!([]));
    world.lock().unwrap().refused.clear();
    bed.show("b/moving").await;
    bed.until("the stray settled", |_| bed.view.borrow().tenants["globex"].released_pods == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bed.count("ungate"), 0, "{:?}", bed.writes());
    assert_eq!(bed.view.borrow().tenants["globex"].used["pods"], 1);
    if let Some(acme) = bed.view.borrow().tenants.get("acme") {
        assert_eq!(acme.released_pods, 0, "it is not its pod any more");
    }
    world.lock().unwrap().change("b/moving", |pod| pod["status"]["phase"] = "Succeeded".into());
    bed.show("b/moving").await;
    bed.until_written("ungate other").await;
}

#[tokio::test]
async fn a_removal_under_way_is_settled_before_its_namespace_changes_hands() {
    Box::pin(handed_over(&[quota("acme", &["a"], 2)])).await;
}

#[tokio::test]
async fn a_removal_under_way_is_settled_when_its_tenant_is_deleted() {
    Box::pin(handed_over(&[])).await;
}

#[tokio::test]
async fn a_stamp_is_written_once_though_the_watch_lags_and_rarely_where_it_is_refused() {
    let mut world = World { version: 100, ..World::default() };
    for name in ["loose", "odd"] {
        world.add("a", name, false);
        world.change(&format!("a/{name}"), |pod| pod["spec"]["schedulerName"] = "fairlead-scheduler".into());
    }
    world.refused.insert("a/odd".into(), 403);
    let world = Arc::new(Mutex::new(world));
    let bed = Box::pin(house_in(&world, &[quota("acme", &["a"], 5)])).await;
    bed.lead();
    bed.until_written("stamp loose").await;
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    assert_eq!((bed.count("stamp loose"), bed.count("409")), (1, 0), "{:?}", bed.writes());
    assert!(bed.count("403 stamp odd") <= 3, "{:?}", bed.writes());
}
