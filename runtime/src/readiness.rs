//! Ready means: everything that was asked for has arrived, and nobody asked us to go.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The list of what must be there before traffic may come. Cheap to clone; all clones are one list.
#[derive(Debug, Clone)]
pub struct Readiness {
    gates: Arc<watch::Sender<BTreeMap<String, bool>>>,
    shutdown: CancellationToken,
}

/// One entry of the list. A handle that is dropped unreleased stays missing: a task that died is not a task that is ready.
#[derive(Debug)]
pub struct ReadinessHandle {
    name: String,
    gates: Arc<watch::Sender<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// An empty list, which is ready, until `shutdown` is cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { gates: Arc::new(watch::Sender::new(BTreeMap::new())), shutdown }
    }

    /// Adds an entry that is missing until its handle says otherwise. Register all before the admin port opens.
    #[must_use]
    pub fn register(&self, name: impl Into<String>) -> ReadinessHandle {
        let name = name.into();
        self.gates.send_modify(|gates| {
            gates.insert(name.clone(), false);
        });
        ReadinessHandle { name, gates: self.gates.clone() }
    }

    /// The names that are not ready, in order; "shutdown" alone once the process drains.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if self.shutdown.is_cancelled() {
            return vec!["shutdown".to_owned()];
        }
        let gates = self.gates.borrow();
        gates.iter().filter(|(_, ready)| !**ready).map(|(name, _)| name.clone()).collect()
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Waits until every entry is ready; does not look at the shutdown.
    pub async fn wait(&self) {
        let mut gates = self.gates.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        drop(gates.wait_for(|gates| gates.values().all(|ready| *ready)).await);
    }
}

impl ReadinessHandle {
    /// It is there.
    pub fn ready(&self) {
        self.set(true);
    }

    /// It is gone again, for instance because a new leadership term has not synced yet.
    pub fn unready(&self) {
        self.set(false);
    }

    fn set(&self, ready: bool) {
        self.gates.send_if_modified(|gates| gates.insert(self.name.clone(), ready) != Some(ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_must_be_there() {
        let readiness = Readiness::new(CancellationToken::new());
        assert!(readiness.is_ready());
        let pods = readiness.register("watch pods");
        let nodes = readiness.register("watch nodes");
        assert_eq!(readiness.missing(), ["watch nodes", "watch pods"]);
        nodes.ready();
        assert_eq!(readiness.missing(), ["watch pods"]);
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        pods.ready();
        waiter.await.unwrap();
        assert!(readiness.is_ready());
        pods.unready();
        assert_eq!(readiness.missing(), ["watch pods"]);
    }

    #[test]
    fn a_handle_that_died_is_not_ready() {
        let readiness = Readiness::new(CancellationToken::new());
        drop(readiness.register("watch pods"));
        assert_eq!(readiness.missing(), ["watch pods"]);
    }

    #[test]
    fn a_process_that_goes_is_not_ready() {
        let token = CancellationToken::new();
        let readiness = Readiness::new(token.clone());
        token.cancel();
        assert_eq!(readiness.missing(), ["shutdown"]);
    }
}
