//! The explanation as a value: computed from objects alone, printed by `render`, or as JSON.
use super::{judge, waiting};
use crate::amount::age;
use fairlead_cluster::{ClaimedDevice, Detail, PodView, PodWish, Snapshot};
use fairlead_crds::placement::Placement;
use fairlead_crds::{TenantQuota, keys};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde::Serialize;
use std::collections::BTreeMap;

/// All that the explanation depends on.
pub(super) struct Inputs<'a> {
    pub(super) pod: &'a Pod,
    /// Devices allocated to it, if it is bound and the user may read them.
    pub(super) devices: Vec<ClaimedDevice>,
    /// `None` if the user may not read all of the cluster.
    pub(super) snapshot: Option<&'a Snapshot>,
    /// The tenant's TenantQuota, if the pod has a tenant and the user may read it.
    pub(super) quota: Option<&'a TenantQuota>,
    /// Rights that the user lacks.
    pub(super) missing: Vec<String>,
    pub(super) now: Timestamp,
}

/// Where in its life the pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum State {
    /// Behind our gate.
    WaitingForRelease,
    /// Behind somebody else's gate only.
    WaitingForOtherGate,
    /// Released, not bound yet.
    WaitingForNode,
    /// Waits for another scheduler than ours.
    WaitingForOtherScheduler,
    /// Bound.
    Placed,
    /// Succeeded or Failed.
    Ended,
}

/// The whole answer. Absent parts do not concern the pod, or may not be read by the user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) scheduler: String,
    /// Absent: of no tenant, or (with missing rights) not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
    pub(super) state: State,
    /// One sentence.
    pub(super) summary: String,
    /// Effective request by resource: cpu in milli-CPU, memory in bytes.
    pub(super) request: BTreeMap<String, u64>,
    /// Whole CPUs of its own by container; empty: it runs in the shared pool.
    pub(super) exclusive_cpus: Vec<ExclusiveCpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Waiting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) placement: Option<Placed>,
    /// What every (other) node would say to the pod now; best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<NodeAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant_numbers: Option<TenantNumbers>,
    /// What happens next, or what a person can do.
    pub(super) next: Vec<String>,
    /// Rights without which parts of the answer are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing_rights: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct ExclusiveCpus {
    pub(super) container: String,
    pub(super) cpus: u32,
}

/// Why it waits.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// 1 goes next; absent while the limits do not let it into the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<usize>,
    /// Pods in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line_length: Option<usize>,
    /// Of those before it, how many are of its own tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_before: Option<usize>,
}

/// Where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Placed {
    pub(super) node: String,
    /// What the Binding carried.
    pub(super) containers: Vec<PlacedContainer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reservation: Option<Reserved>,
    /// Terms of the choice, and what is amiss, in sentences.
    pub(super) notes: Vec<String>,
    /// The NUMA nodes that the pod has CPUs in; only for people.
    #[serde(skip)]
    pub(super) drawing: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlacedContainer {
    pub(super) name: String,
    pub(super) cpus: String,
    pub(super) memory_nodes: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reserved {
    /// All CPUs, idle siblings included.
    pub(super) cpus: String,
    /// Bytes by NUMA node.
    pub(super) memory: BTreeMap<u32, u64>,
}

/// What a node would say.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeAnswer {
    pub(super) node: String,
    pub(super) fits: bool,
    /// 0 to 100; absent where it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score: Option<u8>,
    /// From the closed list; empty where it fits.
    pub(super) reason: String,
    /// Numbers behind it, in words.
    pub(super) detail: String,
    pub(super) numbers: Detail,
}

/// The tenant's numbers for the resources that matter to the pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TenantNumbers {
    pub(super) weight: u64,
    pub(super) released_pods: u64,
    pub(super) waiting_pods: u64,
    pub(super) resources: Vec<ResourceNumbers>,
}

/// cpu in milli-CPU, memory in bytes.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceNumbers {
    pub(super) resource: String,
    /// Of this pod.
    pub(super) request: u64,
    /// By the tenant's released, live pods.
    pub(super) used: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hard: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entitled: Option<u64>,
    /// What tenants share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<u64>,
}

/// Explains one pod.
pub(super) fn explain(inputs: &Inputs<'_>) -> Explanation {
    let pod = inputs.pod;
    let wish = inputs.snapshot.map_or_else(|| PodWish::of(pod), |snapshot| snapshot.wish_of(pod));
    let view = PodView::of(pod);
    let tenant = match inputs.snapshot {
        Some(snapshot) => snapshot.tenant_of_namespace(&wish.id.namespace),
        None => labelled_tenant(pod),
    };
    let tenant = tenant.map(str::to_owned);
    let state = state(view.as_ref());
    let mut explanation = Explanation {
        namespace: wish.id.namespace.clone(),
        name: wish.id.name.clone(),
        uid: wish.id.uid.clone(),
        scheduler: view.as_ref().map(|view| view.scheduler.clone()).unwrap_or_default(),
        state,
        summary: String::new(),
        request: wish.request.clone(),
        exclusive_cpus: exclusive(&wish),
        waiting: None,
        placement: None,
        nodes: Vec::new(),
        tenant_numbers: tenant.as_deref().and_then(|tenant| waiting::numbers(inputs, tenant, &wish)),
        tenant,
        next: Vec::new(),
        missing_rights: inputs.missing.clone(),
    };
    match state {
        State::WaitingForRelease => waiting::for_release(inputs, &wish, &mut explanation),
        State::WaitingForNode => judge::for_node(inputs, &wish, &mut explanation),
        State::Placed => judge::placed(inputs, &wish, view.as_ref(), &mut explanation),
        State::WaitingForOtherGate => {
            let gates: Vec<&str> =
                pod.spec.iter().flat_map(|s| s.scheduling_gates.iter().flatten()).map(|g| g.name.as_str()).collect();
            explanation.summary = format!("waits behind gates that are not Fairlead's: {}", gates.join(", "));
            explanation.next.push("whoever set these gates removes them; Fairlead does not".into());
        }
        State::WaitingForOtherScheduler => {
            explanation.summary =
                format!("waits for the scheduler {}, not for {}", explanation.scheduler, keys::SCHEDULER_NAME);
            explanation.next.push(format!(
                "`kubectl describe pod -n {} {}` shows what that scheduler says",
                explanation.namespace, explanation.name
            ));
        }
        State::Ended => judge::ended(inputs, &wish, view.as_ref(), &mut explanation),
    }
    explanation
}

fn state(view: Option<&PodView>) -> State {
    match view {
        Some(view) if view.terminal => State::Ended,
        Some(view) if view.node.is_some() => State::Placed,
        Some(view) if view.quota_gated => State::WaitingForRelease,
        Some(view) if view.otherwise_gated => State::WaitingForOtherGate,
        Some(view) if view.scheduler == keys::SCHEDULER_NAME => State::WaitingForNode,
        _ => State::WaitingForOtherScheduler,
    }
}

fn exclusive(wish: &PodWish) -> Vec<ExclusiveCpus> {
    let containers = wish.exclusive.iter().flat_map(|wanted| &wanted.containers);
    containers.map(|wanted| ExclusiveCpus { container: wanted.name.clone(), cpus: wanted.cpus }).collect()
}

/// The tenant that the pod was created for: as near as who sees the pod alone can come.
pub(super) fn labelled_tenant(pod: &Pod) -> Option<&str> {
    let label = pod.metadata.labels.as_ref()?.get(keys::TENANT_LABEL)?;
    Some(label.as_str()).filter(|tenant| !tenant.is_empty())
}

/// A condition of the pod.
pub(super) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == type_)
}

/// Age of a condition's last transition.
pub(super) fn since(condition: &PodCondition, now: Timestamp) -> Option<String> {
    condition.last_transition_time.as_ref().map(|time| age(now, time.0))
}

/// What the Binding carried; `None` if there is nothing, or nothing that can be read.
pub(super) fn carried(pod: &Pod) -> Option<Placement> {
    let text = pod.metadata.annotations.as_ref()?.get(keys::PLACEMENT_ANNOTATION)?;
    serde_json::from_str(text).ok()
}
