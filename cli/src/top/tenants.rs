//! Each tenant: weight, what it uses of its limits, its share, who waits.
use crate::amount::{age, amount};
use crate::table::Table;
use fairlead_cluster::{Snapshot, TenantView};
use fairlead_crds::{TenantQuota, keys};
use fairlead_fairshare::{PODS, dominant};
use jiff::Timestamp;

pub(super) fn text(snapshot: &Snapshot, quotas: &[TenantQuota], now: Timestamp) -> String {
    let total = snapshot.total();
    let mut table =
        Table::new(&["TENANT", "WEIGHT", "PODS", "CPU", "MEMORY", "SHARE", "ENTITLED", "WAITING", "OLDEST", "READY"]);
    for tenant in snapshot.tenants.iter() {
        let status = quotas
            .iter()
            .find(|quota| quota.metadata.name.as_deref() == Some(tenant.name.as_str()))
            .and_then(|quota| quota.status.as_ref());
        let ready = status
            .and_then(|status| status.conditions.iter().find(|condition| condition.type_ == keys::condition::READY));
        table.row([
            tenant.name.clone(),
            tenant.weight.to_string(),
            of_limit(tenant, PODS),
            of_limit(tenant, "cpu"),
            of_limit(tenant, "memory"),
            dominant(&total, &tenant.used)
                .map_or("0%".to_owned(), |share| format!("{}% {}", share.percent(), share.resource)),
            status.map_or("-".to_owned(), |status| format!("{}%", status.entitled_share_percent)),
            tenant.waiting.len().to_string(),
            oldest(tenant, now),
            ready.map_or("-".to_owned(), |ready| match ready.status.as_str() {
                "True" => "yes".to_owned(),
                _ => ready.reason.clone(),
            }),
        ]);
    }
    if table.is_empty() { "No TenantQuota.\n".to_owned() } else { table.render(0) }
}

/// `12 of 100`, or `12` without a limit.
fn of_limit(tenant: &TenantView, resource: &str) -> String {
    let used = amount(resource, tenant.used.get(resource).copied().unwrap_or(0));
    match tenant.hard.get(resource) {
        Some(hard) => format!("{used} of {}", amount(resource, *hard)),
        None => used,
    }
}

fn oldest(tenant: &TenantView, now: Timestamp) -> String {
    let created = tenant.oldest_waiting_ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    created.map_or("-".to_owned(), |created| age(now, created))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::snapshot;
    use fairlead_cluster::{Change, Event};
    use serde_json::{from_value, json};

    #[test]
    fn a_tenant_in_one_line() {
        let quota = |status: serde_json::Value| -> TenantQuota {
            from_value(json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota",
                "metadata": { "name": "acme", "uid": "q" }, "status": status,
                "spec": { "namespaces": ["acme"], "weight": 3, "concurrency": { "hard": 10 } } }))
            .unwrap()
        };
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "acme", "uid": "u",
                "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "schedulingGates": [ { "name": "fairlead.dev/quota" } ], "containers": [] } });
        let snapshot = snapshot([
            Event::Quotas(Change::Reset(vec![quota(json!({}))])),
            Event::Pods(Change::Reset(vec![from_value(pod).unwrap()])),
        ]);
        let clash = json!({ "entitledSharePercent": 75, "conditions": [ { "type": "Ready", "status": "False",
            "reason": "NamespaceClaimedByOther", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" } ] });
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let line = text(&snapshot, &[quota(clash)], now);
        let cells: Vec<&str> =
            line.lines().nth(1).unwrap().split("   ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells, ["acme", "3", "0 of 10", "0", "0", "0%", "75%", "1", "60s", "NamespaceClaimedByOther"]);
        assert_eq!(text(&fairlead_cluster::Snapshot::default(), &[], now), "No TenantQuota.\n");
    }
}
