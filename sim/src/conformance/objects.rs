//! Objects: versions, patches, preconditions, deletion, owners.
use super::{Case, Outcome, PLACEMENTS, Session, code, created, differs, meta, refused, reservation, same};
use crate::api::Verb;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    Case { name: "create-gives-uid-version-and-generation", run: create },
    Case { name: "create-twice-is-refused", run: create_twice },
    Case { name: "get-of-nothing-is-404", run: get_of_nothing },
    Case { name: "get-returns-what-was-written", run: get_returns },
    Case { name: "spec-change-raises-generation", run: spec_change },
    Case { name: "annotation-raises-no-generation", run: annotation },
    Case { name: "status-change-raises-no-generation", run: status_change },
    Case { name: "status-path-keeps-spec-and-metadata", run: status_path },
    Case { name: "main-path-keeps-status", run: main_path },
    Case { name: "change-of-nothing-raises-no-version", run: change_of_nothing },
    Case { name: "test-that-holds-lets-the-patch-through", run: test_holds },
    Case { name: "test-that-fails-is-422-without-causes", run: test_fails },
    Case { name: "test-of-an-old-generation-fails", run: old_generation },
    Case { name: "test-of-another-uid-fails", run: another_uid },
    Case { name: "replace-beyond-the-list-is-422", run: replace_beyond },
    Case { name: "remove-of-nothing-is-422", run: remove_nothing },
    Case { name: "patch-of-nothing-is-404", run: patch_of_nothing },
    Case { name: "entry-for-one-pod-twice-is-422-with-a-cause", run: entry_twice },
    Case { name: "merge-patch-of-an-old-version-is-409", run: merge_old },
    Case { name: "merge-patch-of-this-version-is-done", run: merge_current },
    Case { name: "deleted-and-made-anew-is-another", run: made_anew },
    Case { name: "delete-of-another-uid-is-409", run: delete_other },
    Case { name: "finalizer-keeps-what-is-deleted", run: finalizer },
    Case { name: "node-deleted-takes-its-placement-along", run: owner },
];

fn create(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    same("generation", meta(&made, "generation"), &json!(1))?;
    let texts = ["uid", "resourceVersion", "creationTimestamp"];
    let empty = texts.into_iter().find(|field| meta(&made, field).as_str().is_none_or(str::is_empty));
    empty.map_or(Ok(()), |field| Err(format!("no metadata.{field}")))
}

fn create_twice(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let mut again = made.clone();
    again["metadata"] = json!({ "name": meta(&made, "name") });
    refused(&s.call(Verb::Create, PLACEMENTS, "", again), 409, "AlreadyExists")
}

fn get_of_nothing(s: &mut Session<'_>) -> Outcome {
    let path = s.placement_path();
    refused(&s.get(&path), 404, "NotFound")
}

fn get_returns(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({ "annotations": { "a": "b" } }))?;
    let path = s.placement_path();
    let got = s.get(&path);
    code(&got, 200)?;
    same("resourceVersion", meta(&got.body, "resourceVersion"), meta(&made, "resourceVersion"))?;
    same("annotation", &meta(&got.body, "annotations")["a"], &json!("b"))
}

fn add(uid: &str) -> Value {
    json!({ "op": "add", "path": "/spec/reservations/-", "value": reservation(uid) })
}

fn spec_change(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = s.placement_path();
    let after = s.json_patch(&path, json!([add("u1")]));
    code(&after, 200)?;
    same("generation", meta(&after.body, "generation"), &json!(2))?;
    same("podUID", &after.body["spec"]["reservations"][0]["podUID"], &json!("u1"))?;
    same("uid", meta(&after.body, "uid"), meta(&made, "uid"))?;
    differs("resourceVersion", meta(&after.body, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn annotation(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = s.placement_path();
    let after = s.merge_patch(&path, json!({ "metadata": { "annotations": { "fairlead.dev/trust": "u1" } } }));
    code(&after, 200)?;
    same("generation", meta(&after.body, "generation"), &json!(1))?;
    differs("resourceVersion", meta(&after.body, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn status_change(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = format!("{}/status", s.placement_path());
    let after = s.merge_patch(&path, json!({ "status": { "pods": 3 } }));
    code(&after, 200)?;
    same("status.pods", &after.body["status"]["pods"], &json!(3))?;
    same("generation", meta(&after.body, "generation"), &json!(1))?;
    differs("resourceVersion", meta(&after.body, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn status_path(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let path = format!("{}/status", s.placement_path());
    let patch = json!({
        "metadata": { "annotations": { "a": "b" } },
        "spec": { "reservations": [reservation("u1")] }, "status": { "pods": 1 },
    });
    let after = s.merge_patch(&path, patch);
    code(&after, 200)?;
    same("spec", &after.body["spec"]["reservations"], &json!([]))?;
    same("annotations", meta(&after.body, "annotations"), &Value::Null)
}

fn main_path(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let path = s.placement_path();
    let after = s.merge_patch(&path, json!({ "status": { "pods": 3 } }));
    code(&after, 200)?;
    differs("status.pods", &after.body["status"]["pods"], &json!(3))
}

fn change_of_nothing(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({ "annotations": { "a": "b" } }))?;
    let path = s.placement_path();
    let after = s.merge_patch(&path, json!({ "metadata": { "annotations": { "a": "b" } } }));
    code(&after, 200)?;
    same("resourceVersion", meta(&after.body, "resourceVersion"), meta(&made, "resourceVersion"))
}

fn tests(uid: &Value, generation: i64) -> [Value; 2] {
    [
        json!({ "op": "test", "path": "/metadata/uid", "value": uid }),
        json!({ "op": "test", "path": "/metadata/generation", "value": generation }),
    ]
}

fn test_holds(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = s.placement_path();
    let [uid, generation] = tests(meta(&made, "uid"), 1);
    let after = s.json_patch(&path, json!([uid, generation, add("u1")]));
    code(&after, 200)?;
    let owner = json!({ "op": "test", "path": "/spec/reservations/0/podUID", "value": "u1" });
    let remove = json!({ "op": "remove", "path": "/spec/reservations/0" });
    let [uid, generation] = tests(meta(&made, "uid"), 2);
    let after = s.json_patch(&path, json!([uid, generation, owner, remove]));
    code(&after, 200)?;
    same("generation", meta(&after.body, "generation"), &json!(3))?;
    same("spec", &after.body["spec"]["reservations"], &json!([]))
}

/// Nothing was written, and nothing says which field was wrong: that is how a failed test is told from a bad object.
fn unprocessable(s: &mut Session<'_>, operations: Value, made: &Value) -> Outcome {
    let path = s.placement_path();
    let answer = s.json_patch(&path, operations);
    refused(&answer, 422, "Invalid")?;
    let causes = answer.body["details"]["causes"].as_array().map_or(0, Vec::len);
    same("causes", &causes, &0)?;
    let now = s.get(&path);
    same("resourceVersion", meta(&now.body, "resourceVersion"), meta(made, "resourceVersion"))
}

fn test_fails(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let wrong = json!({ "op": "test", "path": "/metadata/name", "value": "another" });
    unprocessable(s, json!([add("u1"), wrong]), &made)
}

fn old_generation(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let path = s.placement_path();
    let now = s.json_patch(&path, json!([add("u1")]));
    code(&now, 200)?;
    let [uid, generation] = tests(meta(&now.body, "uid"), 1);
    unprocessable(s, json!([uid, generation, add("u2")]), &now.body)
}

fn another_uid(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let [uid, generation] = tests(&json!("00000000-0000-4000-8000-00000000dead"), 1);
    unprocessable(s, json!([uid, generation, add("u1")]), &made)
}

fn replace_beyond(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let replace = json!({ "op": "replace", "path": "/spec/reservations/0", "value": reservation("u1") });
    unprocessable(s, json!([replace]), &made)
}

fn remove_nothing(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    unprocessable(s, json!([{ "op": "remove", "path": "/spec/reservations/0" }]), &made)
}

fn patch_of_nothing(s: &mut Session<'_>) -> Outcome {
    let path = s.placement_path();
    refused(&s.json_patch(&path, json!([add("u1")])), 404, "NotFound")
}

fn entry_twice(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let path = s.placement_path();
    let answer = s.json_patch(&path, json!([add("u1"), add("u1")]));
    refused(&answer, 422, "Invalid")?;
    let causes = answer.body["details"]["causes"].as_array().map_or(0, Vec::len);
    differs("causes", &causes, &0)
}

fn merge_old(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = s.placement_path();
    code(&s.merge_patch(&path, json!({ "metadata": { "annotations": { "a": "1" } } })), 200)?;
    let old = json!({ "metadata": { "resourceVersion": meta(&made, "resourceVersion"), "annotations": { "a": "2" } } });
    refused(&s.merge_patch(&path, old), 409, "Conflict")
}

fn merge_current(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    let path = s.placement_path();
    let patch = json!({ "metadata": {
        "uid": meta(&made, "uid"), "resourceVersion": meta(&made, "resourceVersion"), "annotations": { "a": "2" },
    }});
    code(&s.merge_patch(&path, patch), 200)
}

fn made_anew(s: &mut Session<'_>) -> Outcome {
    let former = s.placement(json!({}))?;
    let path = s.placement_path();
    code(&s.json_patch(&path, json!([add("u1")])), 200)?;
    code(&s.delete(&path, json!({})), 200)?;
    refused(&s.get(&path), 404, "NotFound")?;
    let anew = s.placement(json!({}))?;
    same("generation", meta(&anew, "generation"), &json!(1))?;
    differs("uid", meta(&anew, "uid"), meta(&former, "uid"))
}

fn delete_other(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let path = s.placement_path();
    let options = json!({ "preconditions": { "uid": "00000000-0000-4000-8000-00000000dead" } });
    refused(&s.delete(&path, options), 409, "Conflict")?;
    code(&s.get(&path), 200)
}

fn finalizer(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({ "finalizers": ["fairlead.dev/test"] }))?;
    let path = s.placement_path();
    code(&s.delete(&path, json!({})), 200)?;
    let kept = s.get(&path);
    code(&kept, 200)?;
    differs("deletionTimestamp", meta(&kept.body, "deletionTimestamp"), &Value::Null)?;
    code(&s.merge_patch(&path, json!({ "metadata": { "finalizers": null } })), 200)?;
    refused(&s.get(&path), 404, "NotFound")
}

fn owner(s: &mut Session<'_>) -> Outcome {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": s.name } });
    let node = created(s.call(Verb::Create, "/api/v1/nodes", "", node))?;
    let reference = json!({ "apiVersion": "v1", "kind": "Node", "name": s.name, "uid": meta(&node, "uid") });
    s.placement(json!({ "ownerReferences": [reference] }))?;
    let path = s.placement_path();
    code(&s.get(&path), 200)?;
    let node_path = format!("/api/v1/nodes/{}", s.name);
    code(&s.delete(&node_path, json!({})), 200)?;
    s.eventually("the NodePlacement is collected", |s| s.get(&path).code == 404)
}
