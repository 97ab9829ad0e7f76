//! The generated definitions: structural, bounded, explained, and readable in `kubectl get`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
use fairlead_crds::{NodePlacement, NodeTopology, TenantLedger, TenantQuota, WorkerPool};
use kube::CustomResourceExt;
use serde_json::Value;

fn all() -> Vec<Value> {
    [TenantQuota::crd(), WorkerPool::crd(), NodeTopology::crd(), NodePlacement::crd(), TenantLedger::crd()]
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect()
}

fn visit(path: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        visit(&format!("{path}.{name}"), child, check);
    }
    if schema["items"].is_object() {
        visit(&format!("{path}[]"), &schema["items"], check);
    }
    if schema["additionalProperties"].is_object() {
        visit(&format!("{path}{{}}"), &schema["additionalProperties"], check);
    }
}

#[test]
fn every_field_is_explained_and_bounded() {
    for crd in all() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        visit(&kind, &root["properties"]["spec"], &mut |path, schema| {
            let leaf = path.rsplit('.').next().unwrap();
            if leaf != "spec" && !leaf.ends_with("[]") && !leaf.ends_with("{}") {
                assert!(schema["description"].is_string(), "{path} has no description");
            }
            if schema["type"] == "string" && schema["enum"].is_null() && schema["format"].is_null() {
                assert!(schema["maxLength"].is_number(), "{path} has no maxLength");
            }
        });
        for part in ["spec", "status"] {
            visit(&kind, &root["properties"][part], &mut |path, schema| {
                if schema["type"] == "array" {
                    assert!(schema["maxItems"].is_number(), "{part} of {path} has no maxItems");
                }
                if !schema["additionalProperties"].is_null() {
                    assert!(schema["maxProperties"].is_number(), "{part} of {path} has no maxProperties");
                }
                assert!(schema["type"] != "number", "{part} of {path} is a float");
            });
        }
    }
}

#[test]
fn people_can_list_them() {
    for crd in all() {
        let names = &crd["spec"]["names"];
        assert_eq!(names["categories"], serde_json::json!(["fairlead"]), "{names}");
        assert_eq!(names["shortNames"].as_array().unwrap().len(), 1);
        assert!(crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().len() >= 3);
    }
}

#[test]
fn lists_merge_by_key() {
    let find = |kind: &str, pointer: &str| {
        let crd = all().into_iter().find(|c| c["spec"]["names"]["kind"] == kind).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].pointer(pointer).cloned().unwrap()
    };
    assert_eq!(
        find("NodePlacement", "/properties/spec/properties/reservations/x-kubernetes-list-map-keys/0"),
        "podUID"
    );
    assert_eq!(find("TenantLedger", "/properties/spec/properties/intents/x-kubernetes-list-map-keys/0"), "podUID");
    assert_eq!(find("TenantQuota", "/properties/spec/properties/namespaces/x-kubernetes-list-type"), "set");
    assert_eq!(find("WorkerPool", "/properties/status/properties/conditions/x-kubernetes-list-map-keys/0"), "type");
}
