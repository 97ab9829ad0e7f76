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

#[test]
fn every_device_that_a_node_publishes_can_be_wished_for() {
    let find = |kind: &str, pointer: &str| {
        let crd = all().into_iter().find(|c| c["spec"]["names"]["kind"] == kind).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].pointer(pointer).cloned().unwrap()
    };
    let wished = find("WorkerPool", "/properties/topology/properties/near/items/maxLength").as_u64().unwrap();
    for part in ["names/items", "address"] {
        let published = format!("/properties/pciDevices/items/properties/{part}/maxLength");
        assert!(find("NodeTopology", &published).as_u64().unwrap() <= wished, "{part}");
    }
}

/// The longest list that a machine can make a placement carry: its CPUs and its NUMA nodes are those of a topology.
#[test]
fn a_placement_can_say_of_every_machine_what_its_topology_can_say() {
    let mut lists = 0;
    let mut nodes = 0;
    for crd in all().iter().filter(|crd| crd["spec"]["names"]["kind"].as_str().unwrap().starts_with("Node")) {
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        visit("", root, &mut |path, schema| {
            let described = schema["description"].as_str().unwrap_or_default();
            if schema["type"] == "string" && described.contains("CPUs") && described.contains("kernel list format") {
                assert_eq!(schema["maxLength"], 49_152, "{path}");
                lists += 1;
            }
            let of_nodes = ["numaNodes", "memory", "distances"].iter().any(|name| path.ends_with(&format!(".{name}")));
            if of_nodes && schema["type"] == "array" {
                let entry = &schema["items"]["properties"];
                let id = ["id", "numaNode", "to"].into_iter().find(|id| entry[*id].is_object()).unwrap();
                assert_eq!((&schema["maxItems"], &entry[id]["maximum"]), (&256.into(), &65_535.0.into()), "{path}");
                nodes += 1;
            }
        });
    }
    assert_eq!((lists, nodes), (13, 3));
}
