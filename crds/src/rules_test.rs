//! Each CEL rule accepts one object and refuses another.
use crate::tenant_ledger::{TenantLedger, TenantLedgerSpec};
use crate::tenant_quota::{ResourceLimits, TenantQuota, TenantQuotaSpec};
use crate::worker_pool::{QueueSource, WorkerPool, WorkerPoolSpec};
use serde_json::{Value, json};

fn quota(name: &str, namespaces: &[&str]) -> TenantQuota {
    let spec: TenantQuotaSpec = serde_json::from_value(json!({ "namespaces": namespaces })).unwrap();
    TenantQuota::new(name, spec)
}

fn pool(min: i32, max: i32) -> WorkerPool {
    let spec: WorkerPoolSpec = serde_json::from_value(json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "picker" },
        "minReplicas": min, "maxReplicas": max,
        "queueSources": [source()],
    }))
    .unwrap();
    WorkerPool::new("picker", spec)
}

fn source() -> Value {
    json!({ "type": "RedisStream", "redisStream": { "address": "redis:6379", "stream": "orders", "group": "picker" } })
}

fn refusal(result: Result<(), impl std::fmt::Display>) -> String {
    result.expect_err("the rule must refuse this").to_string()
}

#[test]
fn tenant_name_fits_a_label() {
    quota(&"a".repeat(63), &["shop"]).validate_cel().unwrap();
    assert!(refusal(quota(&"a".repeat(64), &["shop"]).validate_cel()).contains("63 characters"));
}

#[test]
fn system_namespaces_cannot_be_managed() {
    quota("acme", &["acme-prod"]).validate_cel().unwrap();
    assert!(refusal(quota("acme", &["acme-prod", "kube-system"]).validate_cel()).contains("cannot be managed"));
}

#[test]
fn pods_are_limited_by_concurrency() {
    ResourceLimits::validate_cel(&json!({ "hard": { "cpu": "4" } }), None).unwrap();
    let refused = ResourceLimits::validate_cel(&json!({ "hard": { "pods": "4" } }), None);
    assert!(refusal(refused).contains("spec.concurrency.hard"));
}

#[test]
fn bounds_are_ordered() {
    pool(4, 4).validate_cel().unwrap();
    assert!(refusal(pool(5, 4).validate_cel()).contains("minReplicas"));
}

#[test]
fn a_redis_stream_source_says_which() {
    QueueSource::validate_cel(&source(), None).unwrap();
    assert!(refusal(QueueSource::validate_cel(&json!({ "type": "RedisStream" }), None)).contains("needs redisStream"));
}

#[test]
fn the_epoch_never_goes_back() {
    let at = |epoch| TenantLedger::new("acme", TenantLedgerSpec { epoch, ..TenantLedgerSpec::default() });
    at(3).validate_cel_update(&at(2)).unwrap();
    assert!(refusal(at(2).validate_cel_update(&at(3))).contains("never goes back"));
}
