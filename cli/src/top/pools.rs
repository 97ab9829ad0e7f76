//! Each WorkerPool: backlog, what it wants, what it got.
use crate::table::Table;
use fairlead_crds::{WorkerPool, keys};

pub(super) fn text(pools: &[WorkerPool]) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "POOL",
        "TARGET",
        "BACKLOG",
        "IN FLIGHT",
        "WANTED",
        "ORDERED",
        "READY",
        "BOUNDS",
        "QUOTA",
        "STATE",
    ]);
    for pool in pools {
        let status = pool.status.clone().unwrap_or_default();
        let backlog = status.backlog.as_ref();
        let number = |value: Option<i32>| value.map_or("-".to_owned(), |value| value.to_string());
        table.row([
            pool.metadata.namespace.clone().unwrap_or_default(),
            pool.metadata.name.clone().unwrap_or_default(),
            format!("{}/{}", pool.spec.scale_target_ref.kind, pool.spec.scale_target_ref.name),
            backlog.map_or("unknown".to_owned(), |backlog| backlog.length.to_string()),
            backlog.map_or("-".to_owned(), |backlog| backlog.in_flight.to_string()),
            number(status.wanted_replicas),
            status.ordered_replicas.to_string(),
            status.ready_replicas.to_string(),
            format!("{}-{}", pool.spec.min_replicas, pool.spec.max_replicas),
            number(status.quota_replicas),
            state(pool),
        ]);
    }
    if table.is_empty() { "No WorkerPool.\n".to_owned() } else { table.render(0) }
}

/// The first condition that is not as one would wish, by its reason.
fn state(pool: &WorkerPool) -> String {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    let is = |type_: &str, wanted: &str| {
        conditions.clone().find(|condition| condition.type_ == type_ && condition.status != wanted)
    };
    let amiss = is(keys::condition::SCALING_ACTIVE, "True")
        .or_else(|| is(keys::condition::QUEUE_KNOWN, "True"))
        .or_else(|| is(keys::condition::LIMITED_BY_QUOTA, "False"));
    match amiss {
        Some(condition) => condition.reason.clone(),
        None if pool.status.is_none() => "not looked at yet".to_owned(),
        None => "ok".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pool(status: &Value) -> WorkerPool {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": { "name": "picker", "namespace": "acme" },
            "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "picker" },
                "minReplicas": 2, "maxReplicas": 80,
                "queueSources": [ { "type": "RedisStream", "redisStream": { "address": "r:6379", "stream": "s", "group": "g" } } ] },
            "status": status,
        }))
        .unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn the_first_trouble_is_the_state() {
        let good = [condition("ScalingActive", "True", "AsExpected"), condition("QueueKnown", "True", "AsExpected")];
        assert_eq!(state(&pool(&json!({ "conditions": good }))), "ok");
        let limited = [good[0].clone(), condition("LimitedByQuota", "True", "HardLimitReached")];
        assert_eq!(state(&pool(&json!({ "conditions": limited }))), "HardLimitReached");
        let unknown = [condition("QueueKnown", "Unknown", "Unreachable"), limited[1].clone()];
        assert_eq!(state(&pool(&json!({ "conditions": unknown }))), "Unreachable");
    }

    #[test]
    fn an_unknown_backlog_is_not_zero() {
        let text = text(&[pool(&json!({ "orderedReplicas": 3 }))]);
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains("unknown") && row.contains("2-80"), "{text}");
    }
}
