//! One task for each pool while this process leads, and for a while after: a lease that was lost because the API server was
//! away comes back, and what a task has seen of its queue meanwhile is worth keeping.
use super::pool::{PoolTask, Shared};
use crate::objects::PoolKey;
use crate::view::View;
use fairlead_runtime::Pulse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Running {
    uid: Option<String>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The loop beats at least this often, or it is stuck.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Time between two beats while there is no new view.
const BEAT: Duration = Duration::from_secs(5);
/// So long tasks stay parked after the lease was lost; then another process leads for good, and one set of looks at the
/// queues is enough.
const PARKED: Duration = Duration::from_secs(300);

/// Starts and stops the pools' tasks as the views say, until `shutdown`; then waits for what they have under way.
pub async fn run(shared: Arc<Shared>, mut view: watch::Receiver<Arc<View>>, pulse: Pulse, shutdown: CancellationToken) {
    let mut running: BTreeMap<PoolKey, Running> = BTreeMap::new();
    let mut led_at = Instant::now();
    loop {
        pulse.beat();
        let now = view.borrow_and_update().clone();
        let leads = now.may_scale();
        if leads {
            led_at = Instant::now();
        }
        stop(&mut running, &now, led_at.elapsed() > PARKED).await;
        for (key, pool) in now.objects.pools.iter().filter(|_| leads) {
            if !running.contains_key(key) {
                let stop = CancellationToken::new();
                let task = PoolTask::new(key.clone(), shared.clone(), view.clone());
                let task = tokio::spawn(task.run(stop.clone()));
                running.insert(key.clone(), Running { uid: pool.metadata.uid.clone(), stop, task });
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            changed = view.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(BEAT) => {}
        }
    }
    for pool in running.values() {
        pool.stop.cancel();
    }
    for (_, pool) in running {
        join(pool).await;
    }
}

/// Asks the tasks of pools that are gone, or all, to stop. Nobody waits for a turn that is under way; a pool that was created
/// anew gets its task when the one of its predecessor has ended.
async fn stop(running: &mut BTreeMap<PoolKey, Running>, now: &View, all: bool) {
    for (key, pool) in running.iter() {
        let there = now.objects.pools.get(key).is_some_and(|shown| shown.metadata.uid == pool.uid);
        if all || !there {
            pool.stop.cancel();
        }
    }
    let ended: Vec<PoolKey> =
        running.iter().filter(|(_, pool)| pool.task.is_finished()).map(|(key, _)| key.clone()).collect();
    for key in ended {
        if let Some(pool) = running.remove(&key) {
            join(pool).await;
        }
    }
}

async fn join(pool: Running) {
    if let Err(error) = pool.task.await {
        tracing::error!(%error, "A pool's task died");
    }
}
