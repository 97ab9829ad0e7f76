//! One task for each pool while this process leads; none otherwise.
use super::pool::{PoolTask, Shared};
use crate::objects::PoolKey;
use crate::view::View;
use fairlead_runtime::Pulse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
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

/// Starts and stops the pools' tasks as the views say, until `shutdown`; then waits for what they have under way.
pub async fn run(shared: Arc<Shared>, mut view: watch::Receiver<Arc<View>>, pulse: Pulse, shutdown: CancellationToken) {
    let mut running: BTreeMap<PoolKey, Running> = BTreeMap::new();
    loop {
        pulse.beat();
        let now = view.borrow_and_update().clone();
        let wanted = |key: &PoolKey, uid: Option<&String>| {
            let active = now.leading && now.synced && now.objects.rivals_known();
            active && now.objects.pools.get(key).is_some_and(|pool| pool.metadata.uid.as_ref() == uid)
        };
        let over: Vec<PoolKey> = running
            .iter()
            .filter(|(key, pool)| !wanted(key, pool.uid.as_ref()) || pool.task.is_finished())
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            if let Some(pool) = running.remove(&key) {
                end(pool).await;
            }
        }
        for (key, pool) in now.objects.pools.iter() {
            if wanted(key, pool.metadata.uid.as_ref()) && !running.contains_key(key) {
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
        end(pool).await;
    }
}

/// A turn that is under way ends by the deadlines of its calls.
async fn end(pool: Running) {
    pool.stop.cancel();
    if let Err(error) = pool.task.await {
        tracing::error!(%error, "A pool's task died");
    }
}
