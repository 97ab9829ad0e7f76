//! What the API server makes of a write: the fake one that the conformance cases hold to the genuine one, asked once for
//! each distinct situation.
//!
//! A situation is one object and one request. The object is made on an empty server in the state that the world has it in,
//! by requests alone; then the write is sent as it goes over the wire, and what the server has then is read back.
use super::steps::Outcome;
use super::world::{Entry, NODES, NONE, Placement, Pod, Write, WriteKind};
use crate::api::{Answer, Request, Server, Verb};
use foldhash::HashMap;
use serde_json::{Value, json};

const PLACEMENTS: &str = "/apis/fairlead.dev/v1alpha1/nodeplacements";
const PODS_PATH: &str = "/api/v1/namespaces/ns/pods";
const ANNOTATION: &str = "fairlead.dev/placement";
/// Of nobody: what names it is behind.
const FORMER: &str = "former";

/// What a write names, held against what is there. `None`: it does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The UID is the object's.
    pub uid: Option<bool>,
    /// The generation (of a NodePlacement) or the resourceVersion (of a pod) is the current one.
    pub version: Option<bool>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Came<T> {
    /// The answer.
    pub outcome: Outcome,
    /// The object is another version now.
    pub changed: bool,
    /// As it is now.
    pub after: T,
}

/// The calls one thread has made.
#[derive(Debug, Default)]
pub struct Calls {
    placements: HashMap<(Placement, Write, Fence), Came<Placement>>,
    pods: HashMap<(Pod, Write, Fence), Came<Pod>>,
}

impl Calls {
    /// A patch of a NodePlacement.
    pub fn patch(&mut self, placement: &Placement, write: &Write, fence: Fence) -> Came<Placement> {
        let write = Write { current: false, former: false, generation: 0, ..*write };
        let key = (*placement, write, fence);
        *self.placements.entry(key).or_insert_with(|| patch(placement, &write, fence))
    }

    /// A touch of a pod, or its Binding.
    pub fn pod(&mut self, pod: &Pod, write: &Write, fence: Fence) -> Came<Pod> {
        let write = Write { current: false, former: false, generation: 0, ..*write };
        *self.pods.entry((*pod, write, fence)).or_insert_with(|| pod_write(pod, &write, fence))
    }
}

fn ask(server: &mut Server, verb: Verb, path: &str, body: Value) -> Answer {
    server.call(&Request { verb, path: path.to_owned(), query: String::new(), body })
}

fn outcome(answer: &Answer) -> Outcome {
    match answer.code {
        200 | 201 => Outcome::Done,
        404 => Outcome::Gone,
        409 => Outcome::Conflict,
        // A failed test has no causes; an object that breaks its schema has.
        422 if answer.body["details"]["causes"].is_null() => Outcome::Conflict,
        _ => Outcome::Refused,
    }
}

fn entry(held: Entry, stamp: &str) -> Value {
    json!({ "podUID": held.pod.to_string(), "cpus": held.cpus.to_string(), "reservedAt": stamp })
}

fn patch(before: &Placement, write: &Write, fence: Fence) -> Came<Placement> {
    let (mut server, path) = (Server::default(), format!("{PLACEMENTS}/n"));
    if before.exists {
        let listed: Vec<Value> = before.listed().map(|held| entry(held, "before")).collect();
        let object = json!({ "metadata": { "name": "n" }, "spec": { "reservations": listed } });
        ask(&mut server, Verb::Create, PLACEMENTS, object);
    }
    let there = ask(&mut server, Verb::Get, &path, Value::Null).body;
    let operations = operations(write, fence, &there["metadata"]);
    let answer = ask(&mut server, Verb::JsonPatch, &path, Value::Array(operations));
    let now = ask(&mut server, Verb::Get, &path, Value::Null).body;
    let changed = now["metadata"]["generation"] != there["metadata"]["generation"];
    let mut after = Placement { is_new: before.is_new && !changed, entries: [Entry::NONE; _], ..*before };
    for (slot, held) in after.entries.iter_mut().zip(now["spec"]["reservations"].as_array().into_iter().flatten()) {
        *slot = Entry { pod: number(&held["podUID"]), cpus: number(&held["cpus"]) };
    }
    Came { outcome: outcome(&answer), changed, after }
}

/// As the courier sends them.
fn operations(write: &Write, fence: Fence, there: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    if let Some(same) = fence.uid {
        let uid = if same { there["uid"].clone() } else { json!(FORMER) };
        all.push(json!({ "op": "test", "path": "/metadata/uid", "value": uid }));
    }
    if let Some(same) = fence.version {
        let generation = there["generation"].as_i64().unwrap_or(0) - i64::from(!same);
        all.push(json!({ "op": "test", "path": "/metadata/generation", "value": generation }));
    }
    let path = |index: u8| format!("/spec/reservations/{index}");
    match write.kind {
        WriteKind::Reserve { replaces, cpus, renewed, restored } => {
            let held = entry(Entry { pod: write.pod, cpus }, if renewed { "now" } else { "before" });
            let (op, at) =
                if replaces == NONE { ("add", "/spec/reservations/-".to_owned()) } else { ("replace", path(replaces)) };
            all.push(json!({ "op": op, "path": at, "value": held }));
            let lost = restored.into_iter().filter(|held| held.pod != NONE);
            all.extend(
                lost.map(|held| json!({ "op": "add", "path": "/spec/reservations/-", "value": entry(held, "now") })),
            );
        }
        WriteKind::Release { entries } => {
            let mut entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.pod != NONE).collect();
            let uid = |entry: &Entry| entry.pod.to_string();
            let test = |entry: &Entry| json!({ "op": "test", "path": format!("{}/podUID", path(entry.cpus)), "value": uid(entry) });
            all.extend(entries.iter().map(test));
            entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.cpus));
            all.extend(entries.iter().map(|entry| json!({ "op": "remove", "path": path(entry.cpus) })));
        }
        WriteKind::None | WriteKind::Touch | WriteKind::Bind { .. } => {}
    }
    all
}

/// A pod in that state, by requests alone; its path.
fn made(server: &mut Server, pod: &Pod) -> String {
    let path = format!("{PODS_PATH}/p");
    if !pod.exists {
        return path;
    }
    // What is being deleted is kept for a while.
    let object = json!({ "metadata": { "name": "p", "finalizers": ["example.com/kept"] }, "spec": {} });
    ask(server, Verb::Create, PODS_PATH, object);
    if pod.node != NONE {
        ask(server, Verb::Create, &format!("{path}/binding"), binding(json!({}), pod.node, pod.cpus));
    }
    if pod.terminal {
        ask(server, Verb::MergePatch, &format!("{path}/status"), json!({ "status": { "phase": "Failed" } }));
    }
    if pod.deleting {
        ask(server, Verb::Delete, &path, Value::Null);
    }
    path
}

fn binding(mut metadata: Value, node: u8, cpus: u8) -> Value {
    if cpus != 0 {
        metadata["annotations"] = json!({ ANNOTATION: cpus.to_string() });
    }
    json!({ "metadata": metadata, "target": { "kind": "Node", "name": node.to_string() } })
}

fn pod_write(before: &Pod, write: &Write, fence: Fence) -> Came<Pod> {
    let mut server = Server::default();
    let path = made(&mut server, before);
    let there = ask(&mut server, Verb::Get, &path, Value::Null).body;
    let mut metadata = json!({});
    if let Some(same) = fence.uid {
        metadata["uid"] = if same { there["metadata"]["uid"].clone() } else { json!(FORMER) };
    }
    if let Some(same) = fence.version {
        metadata["resourceVersion"] = if same { there["metadata"]["resourceVersion"].clone() } else { json!(FORMER) };
    }
    let answer = match write.kind {
        WriteKind::Bind { cpus } => {
            ask(&mut server, Verb::Create, &format!("{path}/binding"), binding(metadata, write.node, cpus))
        }
        _ => {
            metadata["annotations"] = json!({ "fairlead.dev/touched": there["metadata"]["resourceVersion"] });
            ask(&mut server, Verb::MergePatch, &format!("{path}/status"), json!({ "metadata": metadata }))
        }
    };
    let now = ask(&mut server, Verb::Get, &path, Value::Null).body;
    let after = Pod {
        exists: now["spec"].is_object(),
        deleting: !now["metadata"]["deletionTimestamp"].is_null(),
        terminal: matches!(now["status"]["phase"].as_str(), Some("Succeeded" | "Failed")),
        node: now["spec"]["nodeName"].as_str().map_or(NONE, |_| number(&now["spec"]["nodeName"])),
        cpus: now["metadata"]["annotations"][ANNOTATION]
            .as_str()
            .map_or(0, |_| number(&now["metadata"]["annotations"][ANNOTATION])),
        wish: before.wish,
    };
    let changed = now["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"];
    Came { outcome: outcome(&answer), changed, after }
}

/// A number as it was written into a text.
fn number(text: &Value) -> u8 {
    text.as_str().and_then(|text| text.parse().ok()).unwrap_or(NONE)
}

const _: () = assert!(NODES < NONE as usize, "a node's number is none");

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state of a pod that the world knows can be made by requests and is read back as it was.
    #[test]
    fn a_pod_is_made_and_read_back_as_it_was() {
        for (node, cpus) in [(NONE, 0), (0, 0), (1, 3)] {
            for (deleting, terminal) in [(false, false), (true, false), (false, true), (true, true)] {
                let pod = Pod { exists: true, deleting, terminal, node, cpus, wish: 1 };
                let behind = Fence { uid: Some(true), version: Some(false) };
                let touch = Write { kind: WriteKind::Touch, pod: 0, ..Write::NONE };
                let came = Calls::default().pod(&pod, &touch, behind);
                assert_eq!((came.outcome, came.changed, came.after), (Outcome::Conflict, false, pod));
                let current = Fence { version: Some(true), ..behind };
                let came = Calls::default().pod(&pod, &touch, current);
                assert_eq!((came.outcome, came.changed, came.after), (Outcome::Done, true, pod));
            }
        }
        let gone = Pod { exists: false, ..Pod::WAITING };
        let write = Write { kind: WriteKind::Bind { cpus: 1 }, pod: 0, node: 0, ..Write::NONE };
        let came = Calls::default().pod(&gone, &write, Fence { uid: Some(true), version: Some(true) });
        assert_eq!((came.outcome, came.after.exists), (Outcome::Gone, false));
    }
}
