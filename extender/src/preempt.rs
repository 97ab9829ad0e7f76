//! Preempt: from the bytes of a request to the bytes of its reply, as a pure function of the snapshot.
//!
//! The reply of `ExtenderPreemptionResult` has no place for an error, so everything without an answer is a 4xx or 503,
//! which ends kube-scheduler's preemption for this attempt: nobody is evicted on a guess. Victims are named by UID, also
//! where full pods came in.
use std::collections::BTreeMap;

use fairlead_cluster::{Preemptor, Snapshot};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::answer::{self, Reply, RequestError, Tally};
use crate::json;
use crate::wire::PodPart;

/// Body of `/preempt` (`ExtenderPreemptionArgs`). The scheduler sets one of the two maps, by `nodeCacheCapable`.
#[derive(Debug, Deserialize)]
struct PreemptionArgs<'a> {
    #[serde(rename = "Pod", default, borrow)]
    pod: Option<&'a RawValue>,
    #[serde(rename = "NodeNameToMetaVictims", default)]
    meta: Option<BTreeMap<String, Option<Proposal<MetaPod>>>>,
    #[serde(rename = "NodeNameToVictims", default)]
    full: Option<BTreeMap<String, Option<Proposal<FullPod>>>>,
}

/// `Victims` and `MetaVictims`.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
struct Proposal<P> {
    #[serde(rename = "Pods", default)]
    pods: Option<Vec<P>>,
    #[serde(rename = "NumPDBViolations", default)]
    pdb_violations: i64,
}

#[derive(Debug, Deserialize)]
struct MetaPod {
    #[serde(rename = "UID")]
    uid: String,
}

#[derive(Debug, Deserialize)]
struct FullPod {
    metadata: FullPodMetadata,
}

#[derive(Debug, Deserialize)]
struct FullPodMetadata {
    uid: String,
}

/// What of a pod's spec can keep it from a node beside resources.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Obstacles {
    spec: Option<ObstacleSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObstacleSpec {
    priority: Option<i32>,
    affinity: Option<AffinityPart>,
    topology_spread_constraints: Option<Vec<IgnoredAny>>,
    resource_claims: Option<Vec<IgnoredAny>>,
    scheduling_group: Option<IgnoredAny>,
    volumes: Option<Vec<BTreeMap<String, IgnoredAny>>>,
    host_network: Option<bool>,
    containers: Option<Vec<ContainerPorts>>,
    init_containers: Option<Vec<ContainerPorts>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityPart {
    pod_affinity: Option<IgnoredAny>,
    pod_anti_affinity: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerPorts {
    ports: Option<Vec<PortPart>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortPart {
    host_port: Option<i32>,
}

/// Volumes that no node runs out of.
const FREE_VOLUMES: [&str; 6] = ["name", "configMap", "secret", "emptyDir", "projected", "downwardAPI"];

impl ObstacleSpec {
    fn resources_alone(&self) -> bool {
        let some = |list: &Option<Vec<IgnoredAny>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let near = self.affinity.as_ref();
        let near = near.is_some_and(|part| part.pod_affinity.is_some() || part.pod_anti_affinity.is_some());
        let counted = |volume: &BTreeMap<String, IgnoredAny>| volume.keys().any(|key| !FREE_VOLUMES.contains(&&**key));
        let mut containers = self.containers.iter().chain(&self.init_containers).flatten();
        let on_host = |part: &ContainerPorts| part.ports.iter().flatten().any(|port| port.host_port.unwrap_or(0) != 0);
        !(near
            || some(&self.topology_spread_constraints)
            || some(&self.resource_claims)
            || self.scheduling_group.is_some()
            || self.volumes.iter().flatten().any(counted)
            || self.host_network == Some(true)
            || containers.any(on_host))
    }
}

/// A proposal in the form common to both maps.
struct Candidate {
    uids: Vec<String>,
    pdb_violations: i64,
}

trait HasUid {
    fn into_uid(self) -> String;
}

impl HasUid for MetaPod {
    fn into_uid(self) -> String {
        self.uid
    }
}

impl HasUid for FullPod {
    fn into_uid(self) -> String {
        self.metadata.uid
    }
}

fn candidates<P: HasUid>(map: BTreeMap<String, Option<Proposal<P>>>) -> BTreeMap<String, Candidate> {
    let candidate = |proposal: Option<Proposal<P>>| {
        let (pods, pdb_violations) = proposal.map_or((None, 0), |given| (given.pods, given.pdb_violations));
        let uids = pods.into_iter().flatten().map(HasUid::into_uid).collect();
        Candidate { uids, pdb_violations }
    };
    map.into_iter().map(|(node, proposal)| (node, candidate(proposal))).collect()
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum PreemptError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("NodeNameToMetaVictims and NodeNameToVictims are both missing: send one of them")]
    NoCandidates,
}

impl PreemptError {
    fn status(&self) -> u16 {
        match self {
            Self::Request(error) => error.status(),
            Self::NoCandidates => 422,
        }
    }
}

/// Answers `/preempt`.
#[must_use]
pub fn preempt(snapshot: &Snapshot, body: &[u8]) -> Reply {
    match question(snapshot, body) {
        Ok((preemptor, candidates)) => reply(snapshot, &preemptor, &candidates),
        Err(error) => answer::refuse(error.status(), &error),
    }
}

fn question(snapshot: &Snapshot, body: &[u8]) -> Result<(Preemptor, BTreeMap<String, Candidate>), PreemptError> {
    let args: PreemptionArgs<'_> = answer::object(body)?;
    let candidates = match (args.meta, args.full) {
        (Some(meta), _) => candidates(meta),
        (None, Some(full)) => candidates(full),
        (None, None) => return Err(PreemptError::NoCandidates),
    };
    let text = args.pod.filter(|pod| pod.get() != "null").ok_or(RequestError::NoPod)?.get();
    let part: PodPart = answer::object(text.as_bytes())?;
    let obstacles: Obstacles = answer::object(text.as_bytes())?;
    let wish = snapshot.wish_of(&Pod::from(part));
    if wish.id.uid.is_empty() {
        return Err(RequestError::NoUid.into());
    }
    if !snapshot.synced {
        return Err(RequestError::NotSynced.into());
    }
    let spec = obstacles.spec.unwrap_or_default();
    let resources_alone = spec.resources_alone();
    Ok((snapshot.preemptor(wish, spec.priority.unwrap_or(0), resources_alone), candidates))
}

fn reply(snapshot: &Snapshot, preemptor: &Preemptor, candidates: &BTreeMap<String, Candidate>) -> Reply {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(b"{\"NodeNameToMetaVictims\":{");
    let mut first = true;
    for (node, candidate) in candidates {
        let uids: Vec<&str> = candidate.uids.iter().map(String::as_str).collect();
        let Some(victims) = snapshot.victims(preemptor, node, &uids) else { continue };
        let kept: Vec<&str> = victims.kept.iter().filter_map(|&index| uids.get(index).copied()).collect();
        note_unknown(node, &uids, &victims.unknown);
        if !std::mem::take(&mut first) {
            body.push(b',');
        }
        json::string(&mut body, node);
        victims_of(&mut body, &kept, candidate.pdb_violations);
    }
    body.extend_from_slice(b"}}");
    Reply { status: 200, body, tally: Tally::default() }
}

/// Which of the victims a budget protects only the scheduler knows: of fewer victims at most as many can be.
fn victims_of(body: &mut Vec<u8>, kept: &[&str], pdb_violations: i64) {
    body.extend_from_slice(b":{\"Pods\":[");
    for (index, uid) in kept.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"{\"UID\":" } else { b",{\"UID\":" });
        json::string(body, uid);
        body.push(b'}');
    }
    let most = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    let violations = pdb_violations.clamp(0, most);
    body.extend_from_slice(format!("],\"NumPDBViolations\":{violations}}}").as_bytes());
}

fn note_unknown(node: &str, uids: &[&str], unknown: &[usize]) {
    if unknown.is_empty() {
        return;
    }
    let named: Vec<&str> = unknown.iter().filter_map(|&index| uids.get(index).copied()).collect();
    tracing::info!(node, uids = ?named, "Victims that the watch does not show on the node; they stay victims");
}
