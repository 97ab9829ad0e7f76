//! The objects by path, their versions, and what watches are told.
use super::patch::{json_patch, merge_patch};
use super::{Answer, Fault, Refusal, Request, Verb, pods};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Marks the bookmark that ends the first part of a watch that began with a list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
const STAMP: &str = "2026-01-01T00:00:00Z";

/// A kind it knows: the last part of its collection's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    plural: &'static str,
    name: &'static str,
    version: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind { plural: "pods", name: "Pod", version: "v1" },
    Kind { plural: "nodes", name: "Node", version: "v1" },
    Kind { plural: "nodeplacements", name: "NodePlacement", version: "fairlead.dev/v1alpha1" },
];

/// Where a path leads.
struct Target {
    kind: Kind,
    /// Path of the collection.
    collection: String,
    name: Option<String>,
    subresource: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Happened {
    version: u64,
    what: &'static str,
    /// Path of the object.
    path: String,
    object: Value,
}

/// An API server. Equal values behave equally from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The version of the last write.
    version: u64,
    /// UIDs given out.
    uids: u64,
    /// Objects by path.
    objects: BTreeMap<String, Value>,
    log: Vec<Happened>,
    /// Versions up to this are forgotten.
    compacted: u64,
    fault: Option<Fault>,
}

impl Server {
    /// Forgets what happened up to now: a watch from an older version ends with 410.
    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.log.clear();
    }

    /// The next write goes wrong.
    pub fn fail_next(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Answers a request.
    pub fn call(&mut self, request: &Request) -> Answer {
        let reads = matches!(request.verb, Verb::Get | Verb::List | Verb::Watch);
        let fault = if reads { None } else { self.fault.take() };
        if fault == Some(Fault::Throttled) {
            return Refusal::Throttled.into();
        }
        let answer = self.answer(request);
        if fault == Some(Fault::AnswerLost) {
            return Refusal::AnswerLost.into();
        }
        answer.unwrap_or_else(Answer::from)
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let target = target(&request.path)?;
        match (request.verb, target.subresource.as_deref()) {
            (Verb::Get, None) => self.find(&request.path).map(Answer::ok),
            (Verb::List, None) => Ok(Answer::ok(self.list(&target, &request.query))),
            (Verb::Watch, None) => self.watch(&target, &request.query),
            (Verb::Create, None) => self.create(&target, &request.body),
            (Verb::Create, Some("binding")) => {
                let path = object_path(&target);
                let mut pod = self.find(&path)?;
                pods::bind(&mut pod, &request.body)?;
                self.write(&path, pod);
                Ok(Answer { code: 201, body: json!({ "kind": "Status", "status": "Success", "code": 201 }) })
            }
            (Verb::JsonPatch | Verb::MergePatch, None | Some("status")) => self.patch(&target, request),
            (Verb::Delete, None) => self.delete(&target, &request.body),
            (verb, _) => Err(Refusal::NotOffered(format!("{verb:?} {}", request.path))),
        }
    }

    fn find(&self, path: &str) -> Result<Value, Refusal> {
        self.objects.get(path).cloned().ok_or_else(|| Refusal::NotFound(path.to_owned()))
    }

    fn selected(&self, target: &Target, query: &str) -> impl Iterator<Item = (&String, &Value)> {
        let node = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=spec.nodeName%3D"));
        let node = node.map(str::to_owned);
        let (below, everywhere) = (format!("{}/", target.collection), everywhere(target));
        self.objects.iter().filter(move |(path, object)| {
            belongs(path, &below, everywhere.as_deref())
                && node.as_ref().is_none_or(|node| object["spec"]["nodeName"] == **node)
        })
    }

    fn list(&self, target: &Target, query: &str) -> Value {
        let items: Vec<&Value> = self.selected(target, query).map(|(_, object)| object).collect();
        json!({
            "kind": format!("{}List", target.kind.name), "apiVersion": target.kind.version,
            "metadata": { "resourceVersion": self.version.to_string() }, "items": items,
        })
    }

    fn watch(&self, target: &Target, query: &str) -> Result<Answer, Refusal> {
        let asked = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key));
        let bookmark = |annotations: Value| {
            json!({ "type": "BOOKMARK", "object": {
                "kind": target.kind.name, "apiVersion": target.kind.version,
                "metadata": { "resourceVersion": self.version.to_string(), "annotations": annotations },
            }})
        };
        if asked("sendInitialEvents=") == Some("true") {
            let added = |(_, object): (&String, &Value)| json!({ "type": "ADDED", "object": object });
            let mut events: Vec<Value> = self.selected(target, query).map(added).collect();
            events.push(bookmark(json!({ INITIAL_EVENTS_END: "true" })));
            return Ok(Answer::ok(Value::Array(events)));
        }
        let from: u64 = asked("resourceVersion=").and_then(|text| text.parse().ok()).unwrap_or(0);
        if from < self.compacted {
            return Err(Refusal::Expired);
        }
        let (below, everywhere) = (format!("{}/", target.collection), everywhere(target));
        let later = self.log.iter().filter(|happened| happened.version > from);
        let ours = later.filter(|happened| belongs(&happened.path, &below, everywhere.as_deref()));
        let events = ours.map(|happened| json!({ "type": happened.what, "object": happened.object }));
        Ok(Answer::ok(Value::Array(events.collect())))
    }

    fn create(&mut self, target: &Target, body: &Value) -> Result<Answer, Refusal> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", target.collection);
        if self.objects.contains_key(&path) {
            return Err(Refusal::AlreadyExists(path));
        }
        let mut object = body.clone();
        self.uids += 1;
        object["kind"] = json!(target.kind.name);
        object["apiVersion"] = json!(target.kind.version);
        object["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.uids));
        object["metadata"]["creationTimestamp"] = json!(STAMP);
        object["metadata"]["generation"] = json!(1);
        if let Some((_, rest)) = target.collection.split_once("/namespaces/") {
            object["metadata"]["namespace"] = json!(rest.split('/').next());
        }
        if target.kind.name != "Node" {
            object["status"] = Value::Null;
        }
        if target.kind.name == "Pod" {
            object["status"] = json!({ "phase": "Pending" });
        }
        valid(&object)?;
        without_nulls(&mut object);
        Ok(Answer { code: 201, body: self.write(&path, object) })
    }

    fn patch(&mut self, target: &Target, request: &Request) -> Result<Answer, Refusal> {
        let path = object_path(target);
        let before = self.find(&path)?;
        let mut after = before.clone();
        if request.verb == Verb::JsonPatch {
            json_patch(&mut after, &request.body)?;
        } else {
            preconditions(&before, &request.body["metadata"])?;
            merge_patch(&mut after, &request.body);
        }
        // What the server alone writes, and the part that this path does not.
        for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "name"] {
            after["metadata"][field] = before["metadata"][field].clone();
        }
        let kept = if target.subresource.is_some() { "spec" } else { "status" };
        after[kept] = before[kept].clone();
        if target.subresource.is_some() && target.kind.name == "NodePlacement" {
            after["metadata"] = before["metadata"].clone();
        }
        without_nulls(&mut after);
        valid(&after)?;
        if after == before {
            return Ok(Answer::ok(after));
        }
        if after["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            after["metadata"]["generation"] = json!(generation + 1);
        }
        let finalized = after["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if finalized && !after["metadata"]["deletionTimestamp"].is_null() && target.kind.name != "Pod" {
            self.remove(&path);
            return Ok(Answer::ok(after));
        }
        Ok(Answer::ok(self.write(&path, after)))
    }

    fn delete(&mut self, target: &Target, options: &Value) -> Result<Answer, Refusal> {
        let path = object_path(target);
        let mut object = self.find(&path)?;
        preconditions(&object, &options["preconditions"])?;
        let asked = options["gracePeriodSeconds"].as_i64();
        let grace = if target.kind.name == "Pod" { pods::grace_seconds(&object, asked) } else { 0 };
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if grace > 0 || held {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(STAMP);
                object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
                object = self.write(&path, object);
            }
            return Ok(Answer::ok(object));
        }
        self.remove(&path);
        Ok(Answer::ok(json!({ "kind": "Status", "status": "Success", "code": 200 })))
    }

    /// Lets controllers work: what a gone object owned alone goes too.
    pub fn collect(&mut self) {
        let uids: Vec<&Value> = self.objects.values().map(|object| &object["metadata"]["uid"]).collect();
        let orphaned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&&owner["uid"])))
        };
        let gone: Vec<String> =
            self.objects.iter().filter(|(_, object)| orphaned(object)).map(|(path, _)| path.clone()).collect();
        gone.iter().for_each(|path| self.remove(path));
    }

    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let what = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.log.push(Happened { version: self.version, what, path: path.to_owned(), object: object.clone() });
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn remove(&mut self, path: &str) {
        let Some(mut object) = self.objects.remove(path) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push(Happened { version: self.version, what: "DELETED", path: path.to_owned(), object });
    }
}

/// Holds `uid` and `resourceVersion`, where they are named, against an object.
pub(super) fn preconditions(object: &Value, named: &Value) -> Result<(), Refusal> {
    for field in ["uid", "resourceVersion"] {
        if !named[field].is_null() && named[field] != object["metadata"][field] {
            return Err(Refusal::Conflict(format!("{field} is {}, not {}", object["metadata"][field], named[field])));
        }
    }
    Ok(())
}

/// The rules of the schemas that anything here relies on.
fn valid(object: &Value) -> Result<(), Refusal> {
    let Some(reservations) = object["spec"]["reservations"].as_array() else { return Ok(()) };
    for (index, held) in reservations.iter().enumerate() {
        if reservations[..index].iter().any(|other| other["podUID"] == held["podUID"]) {
            let message = format!("duplicate value: {}", held["podUID"]);
            return Err(Refusal::Invalid { field: "spec.reservations", message });
        }
    }
    Ok(())
}

fn without_nulls(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.retain(|_, value| !value.is_null());
    }
}

fn target(path: &str) -> Result<Target, Refusal> {
    let not_found = || Refusal::NotFound(path.to_owned());
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| KINDS.iter().any(|kind| kind.plural == *part)).ok_or_else(not_found)?;
    // The namespace may have the name of a kind.
    let at = if at >= 2 && parts[at - 1] == "namespaces" { at + 1 } else { at };
    let kind = KINDS.iter().find(|kind| parts.get(at) == Some(&kind.plural)).ok_or_else(not_found)?;
    let text = |index: usize| parts.get(index).map(|part| (*part).to_owned());
    Ok(Target { kind: *kind, collection: parts[..=at].join("/"), name: text(at + 1), subresource: text(at + 2) })
}

fn object_path(target: &Target) -> String {
    format!("{}/{}", target.collection, target.name.as_deref().unwrap_or_default())
}

/// The end of a collection's path, if it is one of all namespaces.
fn everywhere(target: &Target) -> Option<String> {
    (target.collection == "/api/v1/pods").then(|| "/pods/".to_owned())
}

fn belongs(path: &str, below: &str, everywhere: Option<&str>) -> bool {
    path.starts_with(below) || everywhere.is_some_and(|part| path.contains(part))
}
