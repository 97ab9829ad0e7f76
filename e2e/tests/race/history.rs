//! The whole watch history of the NodePlacements and of the pods that want CPUs of their own, and its judge. Writes to one
//! store have one order, the resourceVersion; so the two watches are laid side by side and every moment is looked at.

use anyhow::{Context as _, Result, bail};
use fairlead_crds::keys::PLACEMENT_ANNOTATION;
use fairlead_crds::placement::Placement;
use fairlead_crds::{NodePlacement, Reservation};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::oneshot;

/// The server answers 410 to a version that it no longer has: the only thing that loses a part of the history.
const GONE: u16 = 410;
const RETRY: Duration = Duration::from_millis(100);

/// One write.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A version of a NodePlacement.
    Promised { node: String, generation: i64, reservations: Vec<Reservation> },
    /// A version of a pod that is bound.
    Bound { uid: String, name: String, node: String, annotation: Option<String> },
    /// A pod is no more.
    Gone { uid: String },
}

/// Everything that the watches told, with the revision of each write.
#[derive(Default)]
pub(crate) struct Recorder {
    changes: Mutex<Vec<(u64, Change)>>,
    awaited: Mutex<Awaited>,
}

/// Who is to be told about a pod, by its name.
#[derive(Default)]
struct Awaited {
    bound: BTreeMap<String, oneshot::Sender<()>>,
    gone: BTreeMap<String, oneshot::Sender<()>>,
    /// Pods that came and went.
    done: usize,
}

impl Recorder {
    /// Tells when the pod is bound, and when it is gone; to be asked before it is created.
    pub(crate) fn await_pod(&self, name: &str) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let ((tell_bound, bound), (tell_gone, gone)) = (oneshot::channel(), oneshot::channel());
        let mut awaited = self.awaited.lock().unwrap();
        awaited.bound.insert(name.to_owned(), tell_bound);
        awaited.gone.insert(name.to_owned(), tell_gone);
        (bound, gone)
    }

    /// Pods that wait for a node, that are there, that came and went.
    pub(crate) fn progress(&self) -> (usize, usize, usize) {
        let awaited = self.awaited.lock().unwrap();
        (awaited.bound.len(), awaited.gone.len(), awaited.done)
    }

    /// Reservations in the last version of each node.
    pub(crate) fn held(&self) -> usize {
        let mut last = BTreeMap::new();
        for (_, change) in self.changes.lock().unwrap().iter() {
            if let Change::Promised { node, reservations, .. } = change {
                last.insert(node.clone(), reservations.len());
            }
        }
        last.values().sum()
    }

    pub(crate) fn history(&self) -> Vec<(u64, Change)> {
        let mut changes = self.changes.lock().unwrap().clone();
        changes.sort_by_key(|(revision, _)| *revision);
        changes
    }

    /// Begins with what there is before the pods; gives the version from which on everything is to be recorded.
    pub(crate) async fn begin(&self, client: &kube::Client) -> Result<String> {
        let listed = Api::<NodePlacement>::all(client.clone()).list(&ListParams::default()).await?;
        for placement in &listed.items {
            self.placement(placement)?;
        }
        listed.metadata.resource_version.context("a list without a version")
    }

    /// Records until a part of the history is lost.
    pub(crate) async fn record(&self, client: &kube::Client, namespace: &str, since: String) -> Result<Infallible> {
        let placements: Api<NodePlacement> = Api::all(client.clone());
        let nodes = follow(placements, since.clone(), |event| match event {
            WatchEvent::Added(placement) | WatchEvent::Modified(placement) => self.placement(&placement),
            _ => bail!("a NodePlacement was deleted"),
        });
        let pods = follow(Api::namespaced(client.clone(), namespace), since, |event| match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.pod(&pod),
            WatchEvent::Deleted(pod) => self.gone(&pod),
            _ => Ok(()),
        });
        tokio::select! { end = nodes => end, end = pods => end }
    }

    fn write(&self, revision: u64, change: Change) {
        self.changes.lock().unwrap().push((revision, change));
    }

    fn placement(&self, placement: &NodePlacement) -> Result<()> {
        let generation = placement.metadata.generation.context("a NodePlacement without generation")?;
        let (node, reservations) = (placement.name_any(), placement.spec.reservations.clone());
        self.write(revision(placement)?, Change::Promised { node, generation, reservations });
        Ok(())
    }

    fn pod(&self, pod: &Pod) -> Result<()> {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return Ok(()) };
        let (uid, name) = (pod.uid().unwrap_or_default(), pod.name_any());
        let annotation = pod.annotations().get(PLACEMENT_ANNOTATION).cloned();
        if let Some(told) = self.awaited.lock().unwrap().bound.remove(&name) {
            // Nobody waits any more when the test is failing already.
            let _ = told.send(());
        }
        self.write(revision(pod)?, Change::Bound { uid, name, node, annotation });
        Ok(())
    }

    fn gone(&self, pod: &Pod) -> Result<()> {
        self.write(revision(pod)?, Change::Gone { uid: pod.uid().unwrap_or_default() });
        let mut awaited = self.awaited.lock().unwrap();
        if let Some(told) = awaited.gone.remove(&pod.name_any()) {
            awaited.done += 1;
            let _ = told.send(());
        }
        Ok(())
    }
}

fn revision(object: &impl kube::Resource) -> Result<u64> {
    let text = object.meta().resource_version.as_deref().context("an object without resourceVersion")?;
    text.parse().with_context(|| format!("resourceVersion {text:?}"))
}

/// Tells every event after `version`; a watch that ends is taken up where it ended.
async fn follow<K>(
    api: Api<K>,
    mut version: String,
    mut tell: impl FnMut(WatchEvent<K>) -> Result<()>,
) -> Result<Infallible>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    loop {
        let events = api.watch(&WatchParams::default(), &version).await;
        let mut events = events.with_context(|| format!("watch since {version}"))?.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            match &event {
                WatchEvent::Error(status) if status.code == GONE => bail!("the history has a gap after {version}"),
                WatchEvent::Error(_) => break,
                WatchEvent::Bookmark(mark) => {
                    version.clone_from(&mark.metadata.resource_version);
                    continue;
                }
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    version = object.meta().resource_version.clone().context("an object without resourceVersion")?;
                }
            }
            tell(event)?;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What was found in a history.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Breaches of I1, each with its revision; a history that is not whole is one as well.
    pub(crate) breaches: Vec<String>,
    /// Versions of NodePlacements.
    pub(crate) versions: usize,
    /// Pods that were bound.
    pub(crate) bound: BTreeSet<String>,
    /// Pods that had promises on two nodes at once: waste, for a moment, and no breach.
    pub(crate) promised_on_two: BTreeSet<String>,
}

/// A pod that is bound and not gone.
struct Live {
    name: String,
    node: String,
    placement: Placement,
}

#[derive(Default)]
struct Judge {
    nodes: BTreeMap<String, (i64, Vec<Reservation>)>,
    /// By UID.
    live: BTreeMap<String, Live>,
    verdict: Verdict,
}

/// Looks at every moment of a history in the order of its revisions.
pub(crate) fn judge(history: &[(u64, Change)]) -> Verdict {
    let mut judge = Judge::default();
    for (revision, change) in history {
        for breach in judge.change(change) {
            judge.verdict.breaches.push(format!("revision {revision}: {breach}"));
        }
    }
    judge.verdict
}

impl Judge {
    fn change(&mut self, change: &Change) -> Vec<String> {
        match change {
            Change::Promised { node, generation, reservations } => self.promised(node, *generation, reservations),
            Change::Bound { uid, name, node, annotation } => self.bound(uid, name, node, annotation.as_deref()),
            Change::Gone { uid } => {
                self.live.remove(uid);
                Vec::new()
            }
        }
    }

    fn promised(&mut self, node: &str, generation: i64, reservations: &[Reservation]) -> Vec<String> {
        let mut breaches = Vec::new();
        // Every write of the spec raises it by one.
        if let Some((before, _)) = self.nodes.get(node).filter(|(before, _)| generation - before > 1) {
            breaches.push(format!("the history of {node} jumps from generation {before} to {generation}"));
        }
        let mut holders: BTreeMap<u32, &str> = BTreeMap::new();
        for reservation in reservations {
            for cpu in cpus(&reservation.cpus) {
                if let Some(other) = holders.insert(cpu, &reservation.name) {
                    breaches.push(format!("CPU {cpu} of {node} is promised to {other} and {}", reservation.name));
                }
            }
            let uid = &reservation.pod_uid;
            let elsewhere =
                |(_, (_, held)): (&String, &(i64, Vec<Reservation>))| held.iter().any(|r| r.pod_uid == *uid);
            if self.nodes.iter().filter(|(other, _)| *other != node).any(elsewhere) {
                self.verdict.promised_on_two.insert(uid.clone());
            }
        }
        self.verdict.versions += 1;
        self.nodes.insert(node.to_owned(), (generation, reservations.to_vec()));
        let here = self.live.iter().filter(|(_, pod)| pod.node == node);
        breaches.extend(here.filter_map(|(uid, pod)| self.broken(uid, pod)));
        breaches
    }

    fn bound(&mut self, uid: &str, name: &str, node: &str, annotation: Option<&str>) -> Vec<String> {
        self.verdict.bound.insert(uid.to_owned());
        let Some(placement) = annotation.and_then(|text| serde_json::from_str(text).ok()) else {
            return vec![format!("{name} is bound to {node} with the placement {annotation:?}")];
        };
        let pod = Live { name: name.to_owned(), node: node.to_owned(), placement };
        let breach = self.broken(uid, &pod);
        self.live.insert(uid.to_owned(), pod);
        breach.into_iter().collect()
    }

    /// What is wrong with the promise to a pod that is bound and not gone.
    fn broken(&self, uid: &str, pod: &Live) -> Option<String> {
        let Live { name, node, placement } = pod;
        let held = self.nodes.get(node).and_then(|(_, held)| held.iter().find(|held| held.pod_uid == uid));
        let Some(held) = held else {
            return Some(format!("{name} is bound to {node}, which has no reservation for it"));
        };
        let promised: Vec<_> = held.containers.iter().map(|one| (&one.name, cpus(&one.cpus))).collect();
        let carried: Vec<_> = placement.containers.iter().map(|one| (&one.name, cpus(&one.cpus))).collect();
        let same = promised == carried && !carried.is_empty() && cpus(&held.cpus) == cpus(&placement.cpus);
        (!same).then(|| format!("{name} carries {placement:?}, and {node} holds {held:?} for it"))
    }
}

/// CPUs of a text in kernel list format.
fn cpus(list: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
    };
    list.split(',').filter(|part| !part.is_empty()).flat_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn promised(generation: i64, held: &[(&str, &str)]) -> Change {
        let one = |(uid, cpus): &(&str, &str)| {
            json!({ "podUID": uid, "namespace": "race", "name": uid, "reservedAt": "2026-01-01T00:00:00Z", "cpus": cpus,
                "containers": [{ "name": "c", "cpus": cpus }] })
        };
        let reservations = held.iter().map(|held| serde_json::from_value(one(held)).unwrap()).collect();
        Change::Promised { node: "n".to_owned(), generation, reservations }
    }

    fn bound(uid: &str, cpus: &str) -> Change {
        let placement = json!({ "cpus": cpus, "containers": [{ "name": "c", "cpus": cpus, "memoryNodes": "0" }] });
        let (uid, name, node) = (uid.to_owned(), uid.to_owned(), "n".to_owned());
        Change::Bound { uid, name, node, annotation: Some(placement.to_string()) }
    }

    fn breaches(changes: &[Change]) -> String {
        let history: Vec<_> = (1..).zip(changes.iter().cloned()).collect();
        judge(&history).breaches.join("; ")
    }

    #[test]
    fn a_history_without_fault() {
        let gone = Change::Gone { uid: "a".to_owned() };
        let fine = [
            promised(1, &[]),
            promised(2, &[("a", "0-1")]),
            bound("a", "0,1"),
            gone,
            promised(3, &[]),
            promised(4, &[("b", "1-2")]),
        ];
        assert_eq!(breaches(&fine), "");
    }

    #[test]
    fn every_fault_is_seen() {
        let start = [promised(1, &[("a", "0-1")]), bound("a", "0-1")];
        let after = |change: Change| breaches(&[&start[..], &[change]].concat());
        let both = after(promised(2, &[("a", "0-1"), ("b", "1-2")]));
        assert_eq!(both, "revision 3: CPU 1 of n is promised to a and b");
        // Each version for itself is good: the pod lives, and its CPUs are another's.
        assert!(after(promised(2, &[("b", "0-1")])).contains("a is bound to n, which has no reservation"));
        assert!(after(promised(2, &[("a", "2-3")])).contains("n holds"));
        assert!(after(bound("b", "4-5")).contains("b is bound to n, which has no reservation"));
        assert!(after(promised(3, &[("a", "0-1")])).contains("jumps from generation 1 to 3"));
        let bare = Change::Bound { uid: "a".to_owned(), name: "a".to_owned(), node: "n".to_owned(), annotation: None };
        assert!(after(bare).contains("with the placement None"));
    }
}
