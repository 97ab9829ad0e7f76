//! Watches that fill the [`World`] for as long as the story runs; they outlive restarts of the API server.
use super::world::World;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// The world, shared between the watches, the view and the milestones.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// The world as it is now.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts one watch per kind; dropping the set ends them.
pub fn start(client: &Client, namespaces: &[&str], world: &Shared) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    // One watch for all pods: two would have no order between them, and a pod bound where another just left would look
    // like CPUs held twice.
    let tenants: BTreeSet<String> = namespaces.iter().map(|namespace| (*namespace).to_owned()).collect();
    tasks.spawn(pods(Api::all(client.clone()), tenants, world.clone()));
    for namespace in namespaces {
        let prefix = format!("{namespace}/");
        tasks.spawn(objects(
            Api::namespaced(client.clone(), namespace),
            world.clone(),
            move |world, live| match live {
                Change::Seen(pool) => {
                    world.pools.insert(format!("{prefix}{}", ResourceExt::name_any(&pool)), pool);
                }
                Change::Gone(name) => {
                    world.pools.remove(&format!("{prefix}{name}"));
                }
            },
        ));
        let prefix = format!("{namespace}/");
        tasks.spawn(objects(
            Api::namespaced(client.clone(), namespace),
            world.clone(),
            move |world, live| match live {
                Change::Seen(deployment) => {
                    let deployment: Deployment = deployment;
                    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                    world.replicas.insert(format!("{prefix}{}", ResourceExt::name_any(&deployment)), replicas);
                }
                Change::Gone(name) => {
                    world.replicas.remove(&format!("{prefix}{name}"));
                }
            },
        ));
    }
    tasks.spawn(objects(Api::all(client.clone()), world.clone(), |world, live| match live {
        Change::Seen(quota) => {
            world.quotas.insert(ResourceExt::name_any(&quota), quota);
        }
        Change::Gone(name) => {
            world.quotas.remove(&name);
        }
    }));
    tasks.spawn(objects(Api::all(client.clone()), world.clone(), |world, live| match live {
        Change::Seen(topology) => {
            world.topologies.insert(ResourceExt::name_any(&topology), topology);
        }
        Change::Gone(name) => {
            world.topologies.remove(&name);
        }
    }));
    tasks.spawn(objects(Api::all(client.clone()), world.clone(), |world, live| match live {
        Change::Seen(placement) => world.placement(placement),
        Change::Gone(name) => {
            world.placements.remove(&name);
        }
    }));
    tasks
}

enum Change<K> {
    Seen(K),
    Gone(String),
}

async fn pods(api: Api<Pod>, namespaces: BTreeSet<String>, world: Shared) {
    let mut listed: Vec<Pod> = Vec::new();
    let mut stream = watch(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        let ours = |pod: &Pod| pod.namespace().is_some_and(|namespace| namespaces.contains(&namespace));
        match event {
            Ok(Event::Apply(pod)) if ours(&pod) => world.lock().pod(&pod),
            Ok(Event::Delete(pod)) if ours(&pod) => world.lock().pod_gone(&pod.uid().unwrap_or_default()),
            Ok(Event::InitApply(pod)) if ours(&pod) => listed.push(pod),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitDone) => world.lock().relisted(&std::mem::take(&mut listed)),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "pod watch interrupted"),
        }
    }
}

async fn objects<K>(api: Api<K>, world: Shared, take: impl Fn(&mut World, Change<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (mut known, mut listed) = (BTreeSet::new(), BTreeSet::new());
    let mut stream = watch(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(object)) => {
                known.insert(object.name_any());
                take(&mut world.lock(), Change::Seen(object));
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any());
                take(&mut world.lock(), Change::Seen(object));
            }
            Ok(Event::Delete(object)) => {
                known.remove(&object.name_any());
                take(&mut world.lock(), Change::Gone(object.name_any()));
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitDone) => {
                for name in known.difference(&listed) {
                    take(&mut world.lock(), Change::Gone(name.clone()));
                }
                known = std::mem::take(&mut listed);
            }
            Err(error) => tracing::debug!(%error, "watch interrupted"),
        }
    }
}
