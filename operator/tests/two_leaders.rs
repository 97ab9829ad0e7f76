//! Two operators that both believe they lead, on one API server: whatever each of them sees and when, the hard limit holds.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod fake;

use fake::bed::{Bed, World, house_in, quota};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HARD: usize = 3;

fn live(world: &World) -> Vec<String> {
    let live = |key: &&String| !world.gated(key) && world.pods[*key]["status"]["phase"] == "Pending";
    world.pods.keys().filter(live).cloned().collect()
}

/// What one operator's watch brings: every pod as it is now.
async fn catch_up(bed: &Bed, keys: &[String]) {
    for key in keys {
        bed.show(key).await;
    }
}

#[tokio::test]
async fn the_hard_limit_holds_while_both_release() {
    let mut world = World { version: 100, ..World::default() };
    for i in 0..12 {
        world.add("a", &format!("p{i:02}"), true);
    }
    let keys: Vec<String> = world.pods.keys().cloned().collect();
    let world = Arc::new(Mutex::new(world));
    let quotas = [quota("acme", &["a"], u32::try_from(HARD).unwrap())];
    let beds = [Box::pin(house_in(&world, &quotas)).await, Box::pin(house_in(&world, &quotas)).await];
    beds.iter().for_each(Bed::lead);
    let mut ended = 0;
    for round in 0..600 {
        // Each sees the world at its own pace; now and then a pod ends and makes room for which both compete.
        if round % 3 == 0 {
            catch_up(&beds[0], &keys).await;
        }
        if round % 5 == 0 {
            catch_up(&beds[1], &keys).await;
        }
        let live = live(&world.lock().unwrap());
        assert!(live.len() <= HARD, "{live:?} {:?}", beds[0].writes());
        if let (0, Some(key)) = (round % 4, live.first()) {
            world.lock().unwrap().change(key, |pod| pod["status"]["phase"] = "Succeeded".into());
            ended += 1;
        }
        if ended == keys.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        ended,
        keys.len(),
        "two leaders slow each other down and still let everybody out: {:?}",
        beds[0].writes()
    );
    assert_eq!(beds[0].count("ungate"), keys.len());
    let epochs = world.lock().unwrap().ledgers["acme"]["spec"]["epoch"].as_u64().unwrap();
    assert!(epochs >= 2, "both took over");
}
