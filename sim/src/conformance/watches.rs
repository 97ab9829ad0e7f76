//! Lists and watches.
use super::{Case, Outcome, PLACEMENTS, Session, code, meta, same};
use crate::api::Verb;
use serde_json::{Value, json};

pub(super) const CASES: &[Case] = &[
    Case { name: "list-has-a-version-to-watch-from", run: list },
    Case { name: "watch-tells-every-change-in-order", run: in_order },
    Case { name: "watch-from-a-version-tells-only-what-came-later", run: only_later },
    Case { name: "watch-that-begins-with-a-list-ends-it-with-a-bookmark", run: bookmark },
    Case { name: "watch-from-a-forgotten-version-is-410", run: forgotten },
];

/// Of this case's own object: what happened, and the generation then.
fn own(s: &Session<'_>, events: &Value) -> Vec<(String, i64)> {
    let events = events.as_array().cloned().unwrap_or_default();
    let own = events.iter().filter(|event| *meta(&event["object"], "name") == *s.name);
    let text = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    own.map(|event| (text(event), meta(&event["object"], "generation").as_i64().unwrap_or(0))).collect()
}

fn watch(s: &mut Session<'_>, version: &str) -> Result<Value, String> {
    let answer = s.call(Verb::Watch, PLACEMENTS, &format!("resourceVersion={version}"), Value::Null);
    code(&answer, 200)?;
    Ok(answer.body)
}

fn version_of_list(s: &mut Session<'_>) -> Result<String, String> {
    let list = s.call(Verb::List, PLACEMENTS, "", Value::Null);
    code(&list, 200)?;
    meta(&list.body, "resourceVersion").as_str().map(str::to_owned).ok_or_else(|| "the list has no version".to_owned())
}

fn happened(all: &[(&str, i64)]) -> Vec<(String, i64)> {
    all.iter().map(|&(what, generation)| (what.to_owned(), generation)).collect()
}

fn write_once(s: &mut Session<'_>) -> Outcome {
    let path = s.placement_path();
    let add = json!({ "op": "add", "path": "/spec/reservations/-", "value": super::reservation("u1") });
    code(&s.json_patch(&path, json!([add])), 200)
}

fn list(s: &mut Session<'_>) -> Outcome {
    let version = version_of_list(s)?;
    s.placement(json!({}))?;
    let events = watch(s, &version)?;
    same("events", &own(s, &events), &happened(&[("ADDED", 1)]))
}

fn in_order(s: &mut Session<'_>) -> Outcome {
    let version = version_of_list(s)?;
    s.placement(json!({}))?;
    write_once(s)?;
    let path = s.placement_path();
    code(&s.delete(&path, json!({})), 200)?;
    let events = watch(s, &version)?;
    same("events", &own(s, &events), &happened(&[("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)]))
}

fn only_later(s: &mut Session<'_>) -> Outcome {
    let made = s.placement(json!({}))?;
    write_once(s)?;
    let version = meta(&made, "resourceVersion").as_str().unwrap_or_default().to_owned();
    let events = watch(s, &version)?;
    same("events", &own(s, &events), &happened(&[("MODIFIED", 2)]))
}

fn bookmark(s: &mut Session<'_>) -> Outcome {
    s.placement(json!({}))?;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let answer = s.call(Verb::Watch, PLACEMENTS, query, Value::Null);
    code(&answer, 200)?;
    same("events", &own(s, &answer.body), &happened(&[("ADDED", 1)]))?;
    let events = answer.body.as_array().cloned().unwrap_or_default();
    let ends = |event: &Value| meta(&event["object"], "annotations")["k8s.io/initial-events-end"] == "true";
    let last = events.iter().position(|event| event["type"] == "BOOKMARK" && ends(event));
    let added_after = last.is_none_or(|last| events[last..].iter().any(|event| event["type"] == "ADDED"));
    same("objects after the bookmark, or no bookmark", &added_after, &false)
}

/// The answer, or the one event that a watch begun from there is told.
fn forgotten(s: &mut Session<'_>) -> Outcome {
    let answer = s.call(Verb::Watch, PLACEMENTS, "resourceVersion=1", Value::Null);
    let told = answer.body.as_array().and_then(|events| events.first()).map(|event| event["object"]["code"].clone());
    same("code", &told.unwrap_or_else(|| json!(answer.code)), &json!(410))
}
