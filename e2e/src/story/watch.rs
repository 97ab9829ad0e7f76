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
    for namespace in namespaces {
        tasks.spawn(pods(Api::namespaced(client.clone(), namespace), (*namespace).to_owned(), world.clone()));
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

async fn pods(api: Api<Pod>, namespace: String, world: Shared) {
    let mut listed = BTreeSet::new();
    let mut stream = watch(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        let mut world = world.lock();
        match event {
            Ok(Event::Apply(pod)) => world.pod(&pod),
            Ok(Event::InitApply(pod)) => {
                listed.insert(pod.uid().unwrap_or_default());
                world.pod(&pod);
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitDone) => world.pods.retain(|uid, pod| pod.namespace != namespace || listed.contains(uid)),
            Ok(Event::Delete(pod)) => world.pod_gone(&pod.uid().unwrap_or_default()),
            Err(error) => tracing::debug!(%error, "pod watch interrupted"),
        }
    }
}

async fn objects<K>(api: Api<K>, world: Shared, take: impl Fn(&mut World, Change<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = watch(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => take(&mut world.lock(), Change::Seen(object)),
            Ok(Event::Delete(object)) => take(&mut world.lock(), Change::Gone(object.name_any())),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => tracing::debug!(%error, "watch interrupted"),
        }
    }
}
