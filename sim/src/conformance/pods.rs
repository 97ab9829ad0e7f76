//! Pods: the binding subresource, the touch, deletion with grace.
use super::{Case, Outcome, Session, code, differs, meta, refused, same};
use crate::api::Verb;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    Case { name: "binding-sets-the-node", run: binding },
    Case { name: "binding-carries-annotations", run: annotations },
    Case { name: "binding-of-a-bound-pod-is-409", run: bound },
    Case { name: "binding-of-a-gated-pod-is-409", run: gated },
    Case { name: "binding-of-an-old-version-is-409", run: old_version },
    Case { name: "binding-of-this-version-is-done", run: this_version },
    Case { name: "binding-of-another-uid-is-409", run: other_uid },
    Case { name: "binding-of-nothing-is-404", run: nothing },
    Case { name: "binding-of-a-pod-being-deleted-is-409", run: deleting },
    Case { name: "touch-through-the-status-changes-the-version", run: touch },
    Case { name: "touch-of-an-old-version-is-409", run: touch_old },
    Case { name: "unbound-pod-goes-without-grace", run: unbound_goes },
    Case { name: "bound-pod-gets-its-grace", run: bound_grace },
    Case { name: "pods-are-listed-by-node", run: by_node },
];

fn binding(s: &mut Session<'_>) -> Outcome {
    let made = s.pod(json!({}), false)?;
    code(&s.bind(json!({}), "somewhere"), 201)?;
    let path = s.pod_path();
    let after = s.get(&path).body;
    same("nodeName", &after["spec"]["nodeName"], &json!("somewhere"))?;
    let conditions = after["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let scheduled = conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True");
    same("PodScheduled", &scheduled, &true)?;
    differs("resourceVersion", meta(&after, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn annotations(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({ "annotations": { "own": "kept" } }), false)?;
    let carried = json!({ "annotations": { "fairlead.dev/placement": "{}" } });
    code(&s.bind(carried, "somewhere"), 201)?;
    let path = s.pod_path();
    let after = s.get(&path).body;
    same("carried", &meta(&after, "annotations")["fairlead.dev/placement"], &json!("{}"))?;
    same("own", &meta(&after, "annotations")["own"], &json!("kept"))
}

fn bound(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), false)?;
    code(&s.bind(json!({}), "somewhere"), 201)?;
    refused(&s.bind(json!({}), "elsewhere"), 409, "Conflict")?;
    refused(&s.bind(json!({}), "somewhere"), 409, "Conflict")
}

fn gated(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), true)?;
    refused(&s.bind(json!({}), "somewhere"), 409, "Conflict")
}

fn write_to(s: &mut Session<'_>) -> Outcome {
    let path = s.pod_path();
    code(&s.merge_patch(&path, json!({ "metadata": { "annotations": { "a": "b" } } })), 200)
}

fn old_version(s: &mut Session<'_>) -> Outcome {
    let made = s.pod(json!({}), false)?;
    write_to(s)?;
    let old = json!({ "uid": meta(&made, "uid"), "resourceVersion": meta(&made, "resourceVersion") });
    refused(&s.bind(old, "somewhere"), 409, "Conflict")
}

fn this_version(s: &mut Session<'_>) -> Outcome {
    let made = s.pod(json!({}), false)?;
    let this = json!({ "uid": meta(&made, "uid"), "resourceVersion": meta(&made, "resourceVersion") });
    code(&s.bind(this, "somewhere"), 201)
}

fn other_uid(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), false)?;
    refused(&s.bind(json!({ "uid": "00000000-0000-4000-8000-00000000dead" }), "somewhere"), 409, "Conflict")
}

fn nothing(s: &mut Session<'_>) -> Outcome {
    refused(&s.bind(json!({}), "somewhere"), 404, "NotFound")
}

fn deleting(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({ "finalizers": ["fairlead.dev/test"] }), false)?;
    let path = s.pod_path();
    code(&s.delete(&path, json!({})), 200)?;
    refused(&s.bind(json!({}), "somewhere"), 409, "Conflict")?;
    code(&s.merge_patch(&path, json!({ "metadata": { "finalizers": null } })), 200)
}

fn touched(made: &Value) -> Value {
    json!({ "metadata": {
        "uid": meta(made, "uid"), "resourceVersion": meta(made, "resourceVersion"),
        "annotations": { "fairlead.dev/touched": meta(made, "resourceVersion") },
    }})
}

fn touch(s: &mut Session<'_>) -> Outcome {
    let made = s.pod(json!({}), false)?;
    let path = format!("{}/status", s.pod_path());
    let after = s.merge_patch(&path, touched(&made));
    code(&after, 200)?;
    differs("resourceVersion", meta(&after.body, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn touch_old(s: &mut Session<'_>) -> Outcome {
    let made = s.pod(json!({}), false)?;
    write_to(s)?;
    let path = format!("{}/status", s.pod_path());
    refused(&s.merge_patch(&path, touched(&made)), 409, "Conflict")
}

fn unbound_goes(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), false)?;
    let path = s.pod_path();
    code(&s.delete(&path, json!({ "gracePeriodSeconds": 30 })), 200)?;
    refused(&s.get(&path), 404, "NotFound")
}

fn bound_grace(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), false)?;
    code(&s.bind(json!({}), "somewhere"), 201)?;
    let path = s.pod_path();
    code(&s.delete(&path, json!({ "gracePeriodSeconds": 30 })), 200)?;
    let kept = s.get(&path);
    code(&kept, 200)?;
    differs("deletionTimestamp", meta(&kept.body, "deletionTimestamp"), &Value::Null)?;
    code(&s.delete(&path, json!({ "gracePeriodSeconds": 0 })), 200)?;
    refused(&s.get(&path), 404, "NotFound")
}

fn by_node(s: &mut Session<'_>) -> Outcome {
    s.pod(json!({}), false)?;
    let selected = |s: &mut Session<'_>| {
        let query = format!("fieldSelector=spec.nodeName%3D{}", s.name);
        let list = s.call(Verb::List, "/api/v1/pods", &query, Value::Null);
        list.body["items"].as_array().map_or(0, Vec::len)
    };
    same("before", &selected(s), &0)?;
    code(&s.bind(json!({}), s.name), 201)?;
    same("after", &selected(s), &1)
}
