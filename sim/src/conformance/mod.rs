//! What an API server does, as cases that run against the fake one and against the genuine one.
//!
//! Each case makes objects of its own, named as the case, and says what it expected and what came.
mod objects;
mod pods;
mod watches;

use crate::api::{Answer, Request, Server, Verb};
use serde_json::{Value, json};

/// The namespace of all pods; it is there before the first case.
pub const NAMESPACE: &str = "conformance";
/// Times a case looks before it gives up waiting for a controller.
const LOOKS: usize = 150;

/// An API server, fake or genuine.
pub trait Api {
    /// Answers one request.
    fn call(&mut self, request: &Request) -> Answer;
    /// Lets controllers work for a moment.
    fn pass_time(&mut self);
}

impl Api for Server {
    fn call(&mut self, request: &Request) -> Answer {
        Server::call(self, request)
    }

    fn pass_time(&mut self) {
        self.collect();
    }
}

/// How a case ends: what was not as expected.
pub type Outcome = Result<(), String>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it shows, and how its objects are named.
    pub name: &'static str,
    run: fn(&mut Session<'_>) -> Outcome,
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [objects::CASES, pods::CASES, watches::CASES].concat()
}

/// Runs all of them; what failed, by name.
pub fn run(api: &mut dyn Api) -> Vec<(&'static str, String)> {
    let failed = |case: Case| {
        let outcome = (case.run)(&mut Session { api, name: case.name });
        outcome.err().map(|why| (case.name, why))
    };
    cases().into_iter().filter_map(failed).collect()
}

/// What a case works with.
pub(crate) struct Session<'a> {
    api: &'a mut dyn Api,
    name: &'static str,
}

impl Session<'_> {
    fn call(&mut self, verb: Verb, path: &str, query: &str, body: Value) -> Answer {
        self.api.call(&Request { verb, path: path.to_owned(), query: query.to_owned(), body })
    }

    fn get(&mut self, path: &str) -> Answer {
        self.call(Verb::Get, path, "", Value::Null)
    }

    fn json_patch(&mut self, path: &str, operations: Value) -> Answer {
        self.call(Verb::JsonPatch, path, "", operations)
    }

    fn merge_patch(&mut self, path: &str, patch: Value) -> Answer {
        self.call(Verb::MergePatch, path, "", patch)
    }

    fn delete(&mut self, path: &str, options: Value) -> Answer {
        self.call(Verb::Delete, path, "", options)
    }

    /// The path of this case's NodePlacement.
    fn placement_path(&self) -> String {
        format!("{PLACEMENTS}/{}", self.name)
    }

    /// Makes it, empty, with more metadata if wanted.
    fn placement(&mut self, metadata: Value) -> Result<Value, String> {
        let mut metadata = metadata;
        metadata["name"] = json!(self.name);
        let object = json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodePlacement",
            "metadata": metadata, "spec": { "reservations": [] },
        });
        created(self.call(Verb::Create, PLACEMENTS, "", object))
    }

    /// The path of this case's pod.
    fn pod_path(&self) -> String {
        format!("{}/{}", pods_path(), self.name)
    }

    /// Makes it; nobody schedules it.
    fn pod(&mut self, metadata: Value, gated: bool) -> Result<Value, String> {
        let mut metadata = metadata;
        metadata["name"] = json!(self.name);
        let mut spec = json!({
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": "example.com/none:1" }],
        });
        if gated {
            spec["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
        }
        let object = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        created(self.call(Verb::Create, &pods_path(), "", object))
    }

    /// Binds this case's pod to a node of that name, which need not be there.
    fn bind(&mut self, metadata: Value, node: &str) -> Answer {
        let mut metadata = metadata;
        metadata["name"] = json!(self.name);
        metadata["namespace"] = json!(NAMESPACE);
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let path = format!("{}/binding", self.pod_path());
        self.call(Verb::Create, &path, "", binding)
    }

    fn eventually(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) -> Outcome {
        for _ in 0..LOOKS {
            if holds(self) {
                return Ok(());
            }
            self.api.pass_time();
        }
        Err(format!("in vain waited for: {what}"))
    }
}

/// The collection of NodePlacements.
const PLACEMENTS: &str = "/apis/fairlead.dev/v1alpha1/nodeplacements";

fn pods_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

fn created(answer: Answer) -> Result<Value, String> {
    code(&answer, 201)?;
    Ok(answer.body)
}

fn code(answer: &Answer, expected: u16) -> Outcome {
    same("code", &answer.code, &expected).map_err(|why| format!("{why}: {}", answer.body))
}

/// The answer's code, and the reason of its Status.
fn refused(answer: &Answer, expected: u16, reason: &str) -> Outcome {
    code(answer, expected)?;
    same("reason", &answer.body["reason"], &json!(reason))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, came: &T, expected: &T) -> Outcome {
    if came == expected { Ok(()) } else { Err(format!("{what} is {came:?}, expected {expected:?}")) }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, came: &T, from: &T) -> Outcome {
    if came == from { Err(format!("{what} is still {from:?}")) } else { Ok(()) }
}

/// `metadata.FIELD`.
fn meta<'a>(object: &'a Value, field: &str) -> &'a Value {
    &object["metadata"][field]
}

fn reservation(pod_uid: &str) -> Value {
    json!({
        "podUID": pod_uid, "namespace": NAMESPACE, "name": "holder", "reservedAt": "2026-01-01T00:00:00Z",
        "cpus": "0-1", "containers": [{ "name": "main", "cpus": "0-1" }], "memory": [],
    })
}
