//! A pod behind the gate: the operator's reason, its place in the fair order, its tenant's numbers, what can be done.
use super::model::{Explanation, Inputs, ResourceNumbers, TenantNumbers, Waiting, condition, since};
use crate::amount::{age, amount};
use fairlead_cluster::{PodWish, ResourceVector, Snapshot};
use fairlead_crds::keys;
use fairlead_fairshare::{HARD_PERCENT, PODS, Refusal, ReleaseInput, WaitReason, first_refusal, line, plan};
use std::collections::BTreeSet;

/// The window is the operator's alone. The line hardly depends on it, and what does depend on it is never told as a
/// reason (see `computed`); this is the chart's default.
const WINDOW_PERCENT: u32 = 20;

pub(super) fn for_release(inputs: &Inputs<'_>, wish: &PodWish, explanation: &mut Explanation) {
    if explanation.tenant.is_none() && inputs.snapshot.is_some() {
        explanation.summary = format!("has the gate {}, but its namespace is in no TenantQuota", keys::QUOTA_GATE);
        explanation.next.push(format!("name the namespace {} in a TenantQuota, or delete the pod", wish.id.namespace));
        return;
    }
    // Without a snapshot it may be unknown, and nothing below looks anything up by it.
    let tenant = explanation.tenant.clone().unwrap_or_default();
    let mut waiting = reason(inputs, wish, &tenant);
    if let Some(input) = inputs.snapshot.map(release_input) {
        let line = line(&input);
        waiting.line_length = Some(line.len());
        if let Some(index) = line.iter().position(|release| release.uid == wish.id.uid) {
            waiting.position = Some(index + 1);
            waiting.own_before = Some(line.iter().take(index).filter(|release| release.tenant == tenant).count());
        }
    }
    let asked_since = waiting.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    explanation.summary = format!("waits behind the gate{asked_since}: {}", waiting.message);
    explanation.next = next(inputs, wish, &tenant, &waiting);
    explanation.waiting = Some(waiting);
}

/// What the operator wrote; else what its rules say now, where they do not depend on its window.
fn reason(inputs: &Inputs<'_>, wish: &PodWish, tenant: &str) -> Waiting {
    let blank = Waiting {
        reason: String::new(),
        message: String::new(),
        since: None,
        position: None,
        line_length: None,
        own_before: None,
    };
    if let Some(written) = condition(inputs.pod, keys::condition::RELEASED) {
        return Waiting {
            reason: written.reason.clone().unwrap_or_default(),
            message: written.message.clone().unwrap_or_default(),
            since: since(written, inputs.now),
            ..blank
        };
    }
    let since = inputs.pod.metadata.creation_timestamp.as_ref().map(|time| age(inputs.now, time.0));
    let computed = inputs.snapshot.and_then(|snapshot| computed(snapshot, wish, tenant));
    let (reason, message) = computed.map_or_else(
        || ("NotJudgedYet".to_owned(), "the operator has not looked at the pod yet".to_owned()),
        |reason| (reason.as_str().to_owned(), reason.message()),
    );
    Waiting { reason, message, since, ..blank }
}

fn computed(snapshot: &Snapshot, wish: &PodWish, tenant: &str) -> Option<WaitReason> {
    if let Some(fault) = snapshot.tenants.get(tenant).and_then(|tenant| tenant.error.clone()) {
        return Some(WaitReason::Misconfigured { fault });
    }
    let plan = plan(&release_input(snapshot));
    let reason = plan.waiting.into_iter().find(|waiting| waiting.uid == wish.id.uid)?.reason;
    let of_the_window = matches!(reason, WaitReason::WaitingForCapacity { .. } | WaitReason::WaitingForFairShareTurn);
    (!of_the_window).then_some(reason)
}

/// The input of the order of release, from what the pods show.
fn release_input(snapshot: &Snapshot) -> ReleaseInput {
    ReleaseInput {
        tenants: snapshot.tenants.iter().filter(|tenant| tenant.error.is_none()).map(|tenant| tenant.input()).collect(),
        total: snapshot.total(),
        free: snapshot.free(),
        unbound: snapshot.unbound(),
        window_percent: WINDOW_PERCENT,
        max_releases: usize::MAX,
    }
}

/// Numbers of the resources that the pod asks for or that its tenant limits.
pub(super) fn numbers(inputs: &Inputs<'_>, tenant: &str, wish: &PodWish) -> Option<TenantNumbers> {
    let (view, total, entitled) = match inputs.snapshot {
        Some(snapshot) => {
            let plan = plan(&release_input(snapshot));
            (snapshot.tenants.get(tenant)?.clone(), snapshot.total(), plan.entitled.get(tenant).cloned())
        }
        None => return numbers_of_status(inputs, wish),
    };
    let resources: BTreeSet<&String> = view.hard.keys().chain(wish.request.keys()).collect();
    let rows = resources.into_iter().map(|resource| ResourceNumbers {
        resource: resource.clone(),
        request: value(&wish.request, resource),
        used: value(&view.used, resource),
        hard: view.hard.get(resource).copied(),
        entitled: entitled.as_ref().and_then(|parts| parts.get(resource).copied()),
        total: total.get(resource).copied(),
    });
    Some(TenantNumbers {
        weight: view.weight,
        released_pods: view.released.len() as u64,
        waiting_pods: view.waiting.len() as u64,
        resources: rows.collect(),
    })
}

/// For who may read nothing but the own TenantQuota: what the operator wrote there.
fn numbers_of_status(inputs: &Inputs<'_>, wish: &PodWish) -> Option<TenantNumbers> {
    let quota = inputs.quota?;
    let status = quota.status.clone().unwrap_or_default();
    let read = |resource: &str, quantity: &fairlead_crds::Quantity| {
        if resource == "cpu" { quantity.milli().ok() } else { quantity.units().ok() }
    };
    let mut hard: ResourceVector = quota
        .spec
        .resources
        .iter()
        .flat_map(|resources| &resources.hard)
        .filter_map(|(resource, quantity)| Some((resource.clone(), read(resource, quantity)?)))
        .collect();
    if let Some(concurrency) = &quota.spec.concurrency {
        hard.insert(PODS.to_owned(), u64::try_from(concurrency.hard).unwrap_or(0));
    }
    let released_pods = u64::try_from(status.released_pods).unwrap_or(0);
    let resources: BTreeSet<&String> = hard.keys().chain(wish.request.keys()).collect();
    let rows = resources.into_iter().map(|resource| ResourceNumbers {
        resource: resource.clone(),
        request: value(&wish.request, resource),
        used: match resource.as_str() {
            PODS => released_pods,
            _ => status.used.get(resource).and_then(|quantity| read(resource, quantity)).unwrap_or(0),
        },
        hard: hard.get(resource).copied(),
        entitled: status.entitled.get(resource).and_then(|quantity| read(resource, quantity)),
        total: None,
    });
    Some(TenantNumbers {
        weight: u64::try_from(quota.spec.weight).unwrap_or(1),
        released_pods,
        waiting_pods: u64::try_from(status.waiting_pods).unwrap_or(0),
        resources: rows.collect(),
    })
}

fn value(vector: &ResourceVector, resource: &str) -> u64 {
    vector.get(resource).copied().unwrap_or(0)
}

/// What lets it go, by what is in its way now. Reasons are spelled as [`WaitReason::as_str`] does.
fn next(inputs: &Inputs<'_>, wish: &PodWish, tenant: &str, waiting: &Waiting) -> Vec<String> {
    let view = inputs.snapshot.and_then(|snapshot| snapshot.tenants.get(tenant));
    if let Some(fault) = view.and_then(|view| view.error.as_ref()) {
        return vec![format!("repair TenantQuota {tenant}: {fault}")];
    }
    if let Some(refusal) = view.and_then(|view| first_refusal(&view.hard, &view.used, &wish.request)) {
        return vec![advice(&refusal, tenant)];
    }
    match waiting.reason.as_str() {
        "WaitingForCapacity" => {
            return vec!["no set of nodes is large enough even when empty: add nodes, or ask for less".into()];
        }
        "ReleaseStalled" => {
            return vec![format!(
                "the condition Ready of TenantQuota {tenant} says what is in the way; it goes on by itself once that is repaired"
            )];
        }
        "ReleaseRefused" => {
            return vec![
                "repair what refuses the write, often an admission webhook for pods; it is tried again by itself"
                    .into(),
            ];
        }
        _ => {}
    }
    match (waiting.position, waiting.own_before) {
        (Some(1), _) => vec!["it is next: it goes as soon as the cluster has room for it".into()],
        (Some(position), Some(own)) => vec![format!(
            "{} pods go before it ({own} of {tenant}, {} of others), each as the cluster gets room",
            position - 1,
            position - 1 - own
        )],
        _ if inputs.snapshot.is_some() => vec![format!(
            "pods of {tenant} that stand before it use up the hard limits: it enters the line when some of them end, or when the limits of TenantQuota {tenant} are raised"
        )],
        _ => Vec::new(),
    }
}

fn advice(refusal: &Refusal, tenant: &str) -> String {
    let Refusal { resource, used, hard, requested, never } = refusal;
    let show = |value: u64| amount(resource, value);
    let field =
        if resource == PODS { "spec.concurrency.hard".to_owned() } else { format!("spec.resources.hard.{resource}") };
    if *never {
        return format!(
            "it can never go as it is: it asks for {} {resource} and the limit is {}; ask for less, or raise {field} of TenantQuota {tenant}",
            show(*requested),
            show(*hard)
        );
    }
    let threshold = u64::try_from(u128::from(*hard) * u128::from(HARD_PERCENT) / 100).unwrap_or(*hard);
    let most = threshold.min(hard.saturating_sub(*requested));
    format!(
        "{tenant} uses {} of {} {resource}; it goes when pods end and at most {} are in use, or when {field} of TenantQuota {tenant} is raised",
        show(*used),
        show(*hard),
        show(most)
    )
}
