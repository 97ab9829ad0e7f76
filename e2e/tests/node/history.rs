//! Every state of the node's placement that the API server showed, from the first look on.

use std::sync::{Arc, Mutex};

use fairlead_crds::NodePlacement;
use fairlead_crds::node_placement::PinState;
use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::task::JoinHandle;

/// Collects until dropped.
pub struct History {
    seen: Arc<Mutex<Vec<NodePlacement>>>,
    watching: JoinHandle<()>,
}

impl History {
    pub fn begin(api: Api<NodePlacement>, node: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (list, fields) = (seen.clone(), format!("metadata.name={node}"));
        let watching = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default().fields(&fields)));
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
                    list.lock().unwrap().push(object);
                }
            }
        });
        Self { seen, watching }
    }

    /// How a pod's first container was reported, each state once in a row.
    pub fn states(&self, uid: &str) -> Vec<PinState> {
        let mut states = Vec::new();
        for placement in self.seen.lock().unwrap().iter() {
            let containers = placement.status.as_ref().map(|status| &status.containers[..]).unwrap_or_default();
            states
                .extend(containers.iter().find(|container| container.pod_uid == uid).map(|container| container.state));
        }
        states.dedup();
        states
    }

    /// Every state of the object.
    pub fn all(&self) -> Vec<NodePlacement> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
