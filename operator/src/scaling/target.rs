//! The workload of a pool: its replicas through the scale subresource, and what one of its pods asks for.
use fairlead_cluster::{Selector, SelectorError};
use fairlead_crds::keys::manager;
use fairlead_crds::worker_pool::ScaleTargetRef;
use fairlead_fairshare::ResourceVector;
use fairlead_runtime::{API_DEADLINE, ApiError, deadline};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The scale of a target as it was read.
#[derive(Clone, Debug)]
pub struct ScaleView {
    /// Of the target: one of the same name that is created anew is another.
    pub uid: Option<String>,
    /// Ordered replicas.
    pub replicas: u32,
    /// Which pods are its.
    pub selector: Option<Selector>,
    /// The same as the API writes it.
    pub selector_text: Option<String>,
}

/// Why a target cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The API server serves no such kind.
    #[error("the API server serves no {api_version} {kind}")]
    NoSuchKind {
        /// apiVersion.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// There is no such object, or it has no scale subresource.
    #[error("there is no {kind} {name} with a scale subresource in the pool's namespace")]
    NotFound {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// The operator may not.
    #[error(
        "the operator may not {operation} of {kind}: whoever installed Fairlead adds it to the chart's operator.extraScaleTargets"
    )]
    Forbidden {
        /// Verb and noun.
        operation: &'static str,
        /// Kind.
        kind: String,
    },
    /// A policy, a webhook or the schema does not want these replicas.
    #[error("the API server does not accept {to} replicas of {kind} {name}: {what}")]
    Denied {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Replicas that were asked for.
        to: u32,
        /// The server's words.
        what: String,
    },
    /// Somebody else changed the replicas in between.
    #[error("the replicas of {kind} {name} were changed by somebody else at the same time")]
    Conflict {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    },
    /// Its selector cannot be read.
    #[error("the scale of {kind} {name} cannot be read")]
    Selector {
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// How.
        #[source]
        source: SelectorError,
    },
    /// The call failed otherwise.
    #[error("{what}")]
    Api {
        /// The error and its causes.
        what: String,
        /// A write may have happened.
        outcome_unknown: bool,
    },
}

/// Reads and writes targets of any kind; remembers how kinds are served.
pub struct Targets {
    client: Client,
    kinds: Mutex<BTreeMap<(String, String), ApiResource>>,
}

impl Targets {
    /// Nothing remembered.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    async fn api(&self, namespace: &str, target: &ScaleTargetRef) -> Result<Api<DynamicObject>, TargetError> {
        let key = (target.api_version.clone(), target.kind.clone());
        let known = self.kinds.lock().get(&key).cloned();
        let resource = match known {
            Some(resource) => resource,
            None => {
                let resource = self.discover(target).await?;
                self.kinds.lock().insert(key, resource.clone());
                resource
            }
        };
        Ok(Api::namespaced_with(self.client.clone(), namespace, &resource))
    }

    async fn discover(&self, target: &ScaleTargetRef) -> Result<ApiResource, TargetError> {
        let missing = || TargetError::NoSuchKind { api_version: target.api_version.clone(), kind: target.kind.clone() };
        let (group, version) = target.api_version.split_once('/').unwrap_or(("", &target.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &target.kind);
        let found = deadline("discover the kind", API_DEADLINE, pinned_kind(&self.client, &gvk)).await;
        match found {
            Ok((resource, capabilities)) if capabilities.scope == Scope::Namespaced => Ok(resource),
            Ok(_) => Err(missing()),
            Err(error) if error.is_not_found() || is_discovery_miss(&error) => Err(missing()),
            Err(error) => Err(failed(&error, target)),
        }
    }

    /// Reads the scale.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn scale(&self, namespace: &str, target: &ScaleTargetRef) -> Result<ScaleView, TargetError> {
        let api = self.api(namespace, target).await?;
        let scale = deadline("read the scale", API_DEADLINE, api.get_scale(&target.name)).await;
        let scale = scale.map_err(|error| failed(&error, target))?;
        // 0 is left out of a Scale.
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        let selector_text = scale.status.and_then(|status| status.selector).filter(|text| !text.is_empty());
        let selector = Selector::parse(selector_text.as_deref().unwrap_or_default())
            .map_err(|source| TargetError::Selector { kind: target.kind.clone(), name: target.name.clone(), source })?;
        let replicas = u32::try_from(replicas).unwrap_or(0);
        Ok(ScaleView { uid: scale.metadata.uid, replicas, selector, selector_text })
    }

    /// What one pod of the target asks for; `None` where the target has no pod template in the usual place.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn pod_request(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
    ) -> Result<Option<ResourceVector>, TargetError> {
        let api = self.api(namespace, target).await?;
        let object = deadline("read the target", API_DEADLINE, api.get(&target.name)).await;
        Ok(template_request(&object.map_err(|error| failed(&error, target))?.data))
    }

    /// Orders `to` replicas if they still are `from`.
    ///
    /// # Errors
    /// [`TargetError::Conflict`] if they are not, [`TargetError::Denied`] if the server does not want `to`; otherwise see
    /// [`TargetError`].
    pub async fn order(&self, namespace: &str, target: &ScaleTargetRef, from: u32, to: u32) -> Result<(), TargetError> {
        let api = self.api(namespace, target).await?;
        let patch = serde_json::from_value(scale_patch(from, to))
            .map_err(|error| TargetError::Api { what: error.to_string(), outcome_unknown: false })?;
        let params = PatchParams { field_manager: Some(manager::SCALE.to_owned()), ..PatchParams::default() };
        let written = deadline(
            "write the scale",
            API_DEADLINE,
            api.patch_scale(&target.name, &params, &Patch::<()>::Json(patch)),
        )
        .await;
        match written {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(conflict(target)),
            // A `test` that does not hold is 422, and so is what a policy denies: only the replicas tell which it was.
            Err(error) if error.is_invalid() => match self.scale(namespace, target).await?.replicas {
                now if now == from => Err(denied(&error, target, to)),
                _ => Err(conflict(target)),
            },
            Err(error) if error.is_forbidden() && !is_rbac(&error) => Err(denied(&error, target, to)),
            Err(error) => Err(failed(&error, target)),
        }
    }

    /// Forgets how a kind is served: it may have been removed or changed.
    pub fn forget(&self, target: &ScaleTargetRef) {
        self.kinds.lock().remove(&(target.api_version.clone(), target.kind.clone()));
    }
}

/// JSON patch of a Scale. The API leaves a 0 out, so there `test` finds null, and the member has to be added.
#[must_use]
pub fn scale_patch(from: u32, to: u32) -> Value {
    let (seen, operation) = if from == 0 { (Value::Null, "add") } else { (json!(from), "replace") };
    json!([
        { "op": "test", "path": "/spec/replicas", "value": seen },
        { "op": operation, "path": "/spec/replicas", "value": to },
    ])
}

/// Effective request of a pod of the template in `spec.template`.
#[must_use]
pub fn template_request(object: &Value) -> Option<ResourceVector> {
    let template: PodTemplateSpec = serde_json::from_value(object.pointer("/spec/template")?.clone()).ok()?;
    let pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: Some(template.spec?), status: None };
    Some(fairlead_cluster::request::effective(&pod))
}

fn conflict(target: &ScaleTargetRef) -> TargetError {
    TargetError::Conflict { kind: target.kind.clone(), name: target.name.clone() }
}

fn denied(error: &ApiError, target: &ScaleTargetRef, to: u32) -> TargetError {
    let what = error.status().map(|status| status.message.clone()).unwrap_or_default();
    TargetError::Denied { kind: target.kind.clone(), name: target.name.clone(), to, what }
}

/// A right is missing, as the API server's authorizer says it; admission says 403 in words of its own.
fn is_rbac(error: &ApiError) -> bool {
    error.status().is_some_and(|status| status.message.contains("\" cannot patch resource \""))
}

fn is_discovery_miss(error: &ApiError) -> bool {
    matches!(error, ApiError::Failed { source, .. } if matches!(source.as_ref(), kube::Error::Discovery(_)))
}

fn failed(error: &ApiError, target: &ScaleTargetRef) -> TargetError {
    let (kind, name) = (target.kind.clone(), target.name.clone());
    if error.is_not_found() {
        TargetError::NotFound { kind, name }
    } else if error.is_forbidden() {
        TargetError::Forbidden { operation: error.operation(), kind }
    } else {
        TargetError::Api { what: error.chain(), outcome_unknown: error.outcome_unknown() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_absent_in_a_scale() {
        assert_eq!(
            scale_patch(0, 4),
            json!([{"op": "test", "path": "/spec/replicas", "value": null},
                   {"op": "add", "path": "/spec/replicas", "value": 4}])
        );
        let down = scale_patch(4, 0);
        assert_eq!((&down[0]["value"], &down[1]["op"], &down[1]["value"]), (&json!(4), &json!("replace"), &json!(0)));
        let parsed: Result<kube::api::Patch<()>, _> = serde_json::from_value(scale_patch(0, 4)).map(Patch::Json);
        assert!(parsed.is_ok());
    }

    #[test]
    fn a_template_is_what_one_pod_asks_for() {
        let object = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}]}}}});
        let request = template_request(&object).unwrap();
        assert_eq!((request["cpu"], request["memory"], request["pods"]), (3000, 1 << 30, 1));
        assert_eq!(template_request(&json!({"spec": {}})), None);
    }
}
