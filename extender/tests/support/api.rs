//! An API server as far as binds and the reaper need one: pods, bindings, NodePlacements, one Lease; with faults on demand.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(missing_docs, clippy::unwrap_used, reason = "test support")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What goes wrong with the next request that fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The binding is made and the answer is a 500.
    BindingAnswerLost,
    /// The reservation is written and the answer is a 500.
    PatchAnswerLost,
    /// Somebody else writes the NodePlacement first.
    OtherWriter,
    /// No answer ever comes to a binding.
    Silence,
    /// No answer ever comes to a write of a reservation.
    PatchSilence,
    /// The binding is refused with 429.
    BindingThrottled,
    /// The write of the reservation is refused with 429.
    PatchThrottled,
    /// No answer ever comes to a read of a ResourceClaim.
    ClaimsSilent,
}

#[derive(Default)]
pub struct Objects {
    /// By path.
    pub all: BTreeMap<String, Value>,
    pub fault: Option<Fault>,
    /// The fault stays.
    pub lasts: bool,
    /// Method and path of every request.
    pub seen: Vec<String>,
}

/// Cheap to clone; all clones are one server.
#[derive(Clone, Default)]
pub struct Api(pub Arc<Mutex<Objects>>);

pub fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/apps/pods/{name}")
}

pub fn placement_path(node: &str) -> String {
    format!("/apis/fairlead.dev/v1alpha1/nodeplacements/{node}")
}

type Answer = Result<Value, (u16, &'static str)>;

impl Api {
    pub fn put(&self, path: String, object: Value) {
        self.0.lock().unwrap().all.insert(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().all.get(path).cloned()
    }

    pub fn fail_next(&self, fault: Fault) {
        self.0.lock().unwrap().fault = Some(fault);
    }

    pub fn fail_always(&self, fault: Fault) {
        self.fail_next(fault);
        self.0.lock().unwrap().lasts = true;
    }

    pub fn seen(&self, text: &str) -> usize {
        self.0.lock().unwrap().seen.iter().filter(|line| line.contains(text)).count()
    }

    pub fn client(&self) -> Client {
        let api = self.clone();
        Client::new(tower::service_fn(move |request| api.clone().serve(request)), "default")
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = parts.uri.path().to_owned();
        let fault = {
            let mut objects = self.0.lock().unwrap();
            objects.seen.push(format!("{} {path}", parts.method));
            objects.take_fault(&parts.method, &path)
        };
        if matches!(fault, Some(Fault::Silence | Fault::PatchSilence | Fault::ClaimsSilent)) {
            std::future::pending::<()>().await;
        }
        if matches!(fault, Some(Fault::BindingThrottled | Fault::PatchThrottled)) {
            let body = Body::from(b"Too many requests, please try again later.".to_vec());
            return Ok(Response::builder().status(429).header("Retry-After", "1").body(body).unwrap());
        }
        let answer = match parts.uri.query().and_then(|query| query.split_once("spec.nodeName%3D")) {
            Some((_, node)) if path == "/api/v1/pods" => Ok(self.0.lock().unwrap().pods_on(node)),
            _ => self.0.lock().unwrap().answer(&parts.method, &path, &body, fault),
        };
        let lost = matches!(fault, Some(Fault::BindingAnswerLost | Fault::PatchAnswerLost));
        let (code, value) = match answer {
            _ if lost => (500, status(500, "connection lost")),
            Ok(value) => (200, value),
            Err((code, message)) => (code, status(code, message)),
        };
        Ok(Response::builder().status(code).body(Body::from(value.to_string().into_bytes())).unwrap())
    }
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code })
}

impl Objects {
    fn take_fault(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let fits = match self.fault? {
            Fault::BindingAnswerLost | Fault::BindingThrottled | Fault::Silence => path.ends_with("/binding"),
            Fault::ClaimsSilent => path.contains("/resourceclaims/"),
            Fault::PatchAnswerLost | Fault::PatchSilence | Fault::PatchThrottled | Fault::OtherWriter => {
                method == Method::PATCH && path.contains("nodeplacements")
            }
        };
        match fits {
            true if self.lasts => self.fault,
            true => self.fault.take(),
            false => None,
        }
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value, fault: Option<Fault>) -> Answer {
        match *method {
            Method::GET => self.all.get(path).cloned().ok_or((404, "not found")),
            Method::POST if path.ends_with("/binding") => self.bind(path.trim_end_matches("/binding"), body),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap();
                let mut object = body.clone();
                object["metadata"]["resourceVersion"] = json!("1");
                self.all.insert(format!("{path}/{name}"), object.clone());
                Ok(object)
            }
            Method::PATCH => {
                let object = self.all.get_mut(path.trim_end_matches("/status")).ok_or((404, "not found"))?;
                if fault == Some(Fault::OtherWriter) {
                    let next = object["metadata"]["generation"].as_i64().unwrap() + 1;
                    object["metadata"]["generation"] = json!(next);
                }
                match body {
                    Value::Array(operations) => json_patch(object, operations),
                    _ => merge_patch(object, body),
                }
            }
            _ => Err((405, "not offered")),
        }
    }

    fn pods_on(&self, node: &str) -> Value {
        let pods = self.all.values().filter(|object| object["spec"]["nodeName"] == *node);
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.collect::<Vec<_>>() })
    }

    fn bind(&mut self, path: &str, binding: &Value) -> Answer {
        let pod = self.all.get_mut(path).ok_or((404, "not found"))?;
        let meta = &binding["metadata"];
        let conflict = |bad: bool, message| if bad { Err((409, message)) } else { Ok(()) };
        conflict(meta["uid"] != pod["metadata"]["uid"], "uid differs")?;
        let version = &meta["resourceVersion"];
        conflict(!version.is_null() && *version != pod["metadata"]["resourceVersion"], "version differs")?;
        conflict(!pod["metadata"]["deletionTimestamp"].is_null(), "pod is being deleted")?;
        conflict(pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()), "pod is gated")?;
        conflict(!pod["spec"]["nodeName"].is_null(), "pod is already assigned to a node")?;
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        if let Some(annotations) = meta["annotations"].as_object() {
            for (key, value) in annotations {
                pod["metadata"]["annotations"][key.as_str()] = value.clone();
            }
        }
        pod["metadata"]["resourceVersion"] = json!("8");
        Ok(json!({ "kind": "Status", "status": "Success" }))
    }
}

fn merge_patch(object: &mut Value, patch: &Value) -> Answer {
    let uid = &patch["metadata"]["uid"];
    if !uid.is_null() && *uid != object["metadata"]["uid"] {
        return Err((409, "another object of that name"));
    }
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
        return Err((409, "the object has been modified"));
    }
    for (field, value) in patch.as_object().unwrap() {
        if field != "metadata" {
            object[field] = value.clone();
        }
    }
    if let Some(annotations) = patch["metadata"]["annotations"].as_object() {
        for (key, value) in annotations {
            object["metadata"]["annotations"][key.as_str()] = value.clone();
        }
    }
    let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    Ok(object.clone())
}

fn json_patch(object: &mut Value, operations: &[Value]) -> Answer {
    let refused = (422, "the server rejected our request due to an error in our request");
    let mut next = object.clone();
    for operation in operations {
        let (op, path) = (operation["op"].as_str().unwrap(), operation["path"].as_str().unwrap());
        let (parent, last) = path.rsplit_once('/').unwrap();
        match op {
            "test" if next.pointer(path) != Some(&operation["value"]) => return Err(refused),
            "test" => {}
            "replace" => *next.pointer_mut(path).ok_or(refused)? = operation["value"].clone(),
            "add" => next.pointer_mut(parent).ok_or(refused)?.as_array_mut().unwrap().push(operation["value"].clone()),
            "remove" => {
                let list = next.pointer_mut(parent).ok_or(refused)?.as_array_mut().unwrap();
                let index: usize = last.parse().unwrap();
                if index >= list.len() {
                    return Err(refused);
                }
                list.remove(index);
            }
            other => unreachable!("{other}"),
        }
    }
    if next["spec"] != object["spec"] {
        next["metadata"]["generation"] = json!(next["metadata"]["generation"].as_i64().unwrap() + 1);
    }
    *object = next;
    Ok(object.clone())
}
