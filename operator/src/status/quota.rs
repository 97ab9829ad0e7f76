//! Status of a TenantQuota.
use super::{int, merged, quantities};
use crate::clock::time_of;
use crate::view::{TenantFacts, View};
use fairlead_cluster::{Conflict, ConflictKind, TenantView};
use fairlead_crds::conditions::Wanted;
use fairlead_crds::keys::{condition, reason};
use fairlead_crds::{TenantQuota, TenantQuotaStatus};
use fairlead_fairshare::dominant;
use fairlead_fairshare::protocol::{Failure, Operation, Trouble};

/// Reason while a field of the TenantQuota cannot be read.
pub const INVALID: &str = "InvalidSpec";
/// Reason while the release protocol cannot proceed.
pub const STALLED: &str = "ReleaseStalled";
/// Reason while the operator takes over.
pub const TAKING_OVER: &str = "TakingOver";

/// The status as it should be now; `None` while too little is known to say anything.
#[must_use]
pub fn wanted(view: &View, quota: &TenantQuota, now_ms: u64) -> Option<TenantQuotaStatus> {
    let name = quota.metadata.name.as_deref()?;
    let (tenant, facts) = (view.snapshot.tenants.get(name)?, view.tenants.get(name)?);
    // The view may be about an earlier generation: the next one is not.
    if tenant.generation != quota.metadata.generation.unwrap_or(0) || tenant.uid != *quota.metadata.uid.as_ref()? {
        return None;
    }
    let current = quota.status.clone().unwrap_or_default();
    let ready = ready(tenant, facts);
    let generation = quota.metadata.generation;
    let conditions = merged(&current.conditions, &[ready], generation, &time_of(now_ms));
    if !facts.ready && facts.trouble.is_some() {
        // Numbers of before the trouble are better than half of them.
        return Some(TenantQuotaStatus { observed_generation: generation, conditions, ..current });
    }
    let top = dominant(&view.total, &facts.used);
    let resource = top.as_ref().map(|top| top.resource.clone());
    let entitled_share = resource.as_ref().map_or(0, |name| {
        let of = |vector: &fairlead_fairshare::ResourceVector| vector.get(name).copied().unwrap_or(0);
        percent(of(&facts.entitled), of(&view.total))
    });
    Some(TenantQuotaStatus {
        observed_generation: generation,
        namespaces: tenant.namespaces.clone(),
        released_pods: int(facts.released_pods),
        waiting_pods: int(facts.waiting),
        oldest_waiting: facts.oldest_waiting_ms.map(time_of),
        used: quantities(&facts.used, &view.total),
        base: quantities(&facts.base, &view.total),
        entitled: quantities(&facts.entitled, &view.total),
        dominant_resource: resource,
        dominant_share_percent: top.map_or(0, |top| i32::try_from(top.percent()).unwrap_or(i32::MAX)),
        entitled_share_percent: entitled_share,
        conditions,
    })
}

fn percent(part: u64, whole: u64) -> i32 {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(0);
    i32::try_from(percent).unwrap_or(i32::MAX)
}

/// The condition Ready: the first thing that is wrong, the worst first.
#[must_use]
pub fn ready(tenant: &TenantView, facts: &TenantFacts) -> Wanted {
    let (status, reason, message) = if let Some(error) = &tenant.error {
        (Some(false), INVALID, format!("{error}; nothing is released until it is repaired"))
    } else if let Some(conflict) = tenant.conflicts.first() {
        let (reason, message) = conflict_text(conflict, tenant.conflicts.len() - 1);
        (Some(false), reason, message)
    } else if let Some(trouble) = facts.trouble {
        (Some(false), STALLED, trouble_text(trouble))
    } else if !facts.ready {
        (None, TAKING_OVER, "the operator is reading the tenant's ledger and pods".to_owned())
    } else {
        let namespaces = tenant.namespaces.len();
        let plural = if namespaces == 1 { "namespace is" } else { "namespaces are" };
        (
            Some(true),
            reason::AS_EXPECTED,
            format!("{namespaces} {plural} the tenant's; pods are released in fair order"),
        )
    };
    Wanted { type_: condition::READY, status, reason: reason.to_owned(), message }
}

fn conflict_text(conflict: &Conflict, more: usize) -> (&'static str, String) {
    let namespace = &conflict.namespace;
    let others = if more == 0 { String::new() } else { format!("; so with {more} more") };
    match &conflict.kind {
        ConflictKind::ClaimedBy(owner) => (
            reason::NAMESPACE_CLAIMED,
            format!(
                "namespace {namespace} belongs to the older TenantQuota {owner}: name it in one of them only{others}"
            ),
        ),
        ConflictKind::Forbidden => (
            reason::NAMESPACE_FORBIDDEN,
            format!("namespace {namespace} may not be managed: take it out of spec.namespaces{others}"),
        ),
    }
}

fn trouble_text(trouble: Trouble) -> String {
    let operation = match trouble.operation {
        Operation::ReadLedger => "reading the TenantLedger",
        Operation::WriteLedger => "writing the TenantLedger",
        Operation::ListPods => "listing the tenant's pods",
    };
    let failure = match trouble.failure {
        Failure::Conflict => "another operator wrote first",
        Failure::NotFound => "it is gone",
        Failure::Forbidden => "the API server refused it; see the operator's log",
        Failure::Lost => "no answer from the API server",
    };
    format!("nothing is released: {operation}: {failure}; tried again every second")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantView {
        TenantView {
            name: "acme".into(),
            uid: "u".into(),
            generation: 1,
            weight: 3,
            hard: std::collections::BTreeMap::new(),
            namespaces: vec!["a".into()],
            conflicts: Vec::new(),
            demand: std::collections::BTreeMap::new(),
            used: std::collections::BTreeMap::new(),
            unbound: std::collections::BTreeMap::new(),
            released: Vec::new(),
            waiting: Vec::new(),
            oldest_waiting_ms: None,
            error: None,
        }
    }

    #[test]
    fn the_worst_comes_first_and_says_what_to_do() {
        let facts = TenantFacts { ready: true, ..TenantFacts::default() };
        assert_eq!(ready(&tenant(), &facts).status, Some(true));
        let mut bad = tenant();
        let kind = ConflictKind::ClaimedBy("globex".into());
        bad.conflicts = vec![
            Conflict { namespace: "b".into(), kind },
            Conflict { namespace: "kube-system".into(), kind: ConflictKind::Forbidden },
        ];
        let claimed = ready(&bad, &facts);
        assert_eq!((claimed.status, claimed.reason.as_str()), (Some(false), "NamespaceClaimedByOther"));
        assert!(claimed.message.contains("globex") && claimed.message.contains("1 more"), "{}", claimed.message);
        bad.conflicts.remove(0);
        assert_eq!(ready(&bad, &facts).reason, "NamespaceForbidden");
        bad.error = Some("spec.resources.hard[cpu]: quantity \"x\"".into());
        assert_eq!(ready(&bad, &facts).reason, INVALID);
    }

    #[test]
    fn trouble_is_told_and_a_takeover_is_unknown() {
        let trouble = Some(Trouble { operation: Operation::WriteLedger, failure: Failure::Forbidden });
        let stalled = ready(&tenant(), &TenantFacts { trouble, ..TenantFacts::default() });
        assert_eq!(stalled.reason, STALLED);
        assert!(stalled.message.contains("writing the TenantLedger"));
        assert_eq!(ready(&tenant(), &TenantFacts::default()).status, None);
    }
}
