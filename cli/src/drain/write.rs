//! The writes of the drain, each on the version it was decided on.
use super::decide::Step;
use crate::access::{DEADLINE, call};
use crate::error::{Answer, CliError};
use fairlead_crds::keys;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

/// What came of one write.
pub(super) enum Outcome {
    Deleted,
    Ungated,
    /// The pod was gone already.
    Gone,
    /// Not done, for sure, and the next pass looks again: the pod changed since it was judged, the guarding policy is
    /// still in force, or somebody else's admission is in the way.
    Refused(CliError),
}

/// Deletes a policy binding; returns what to say about it.
pub(super) async fn admission_off(client: &Client, kind: &str, name: &str) -> Result<String, CliError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let action = format!("delete {kind} {name}");
    let params = DeleteParams::default();
    let request = async {
        match api.delete(name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    };
    let deleted = call(&action, "delete", &resource.plural, "", request).await?;
    let outcome = if deleted { "deleted" } else { "was gone already" };
    Ok(format!("admission off: {kind} {name} {outcome}"))
}

/// An error where the write may have been done all the same.
pub(super) async fn carry_out(client: &Client, step: Step) -> Result<Outcome, CliError> {
    let (action, done, answer) = match step {
        Step::Delete { namespace, name, uid, resource_version, .. } => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let answer = tokio::time::timeout(DEADLINE, api.delete(&name, &params)).await.map(|r| r.map(|_| ()));
            (format!("delete pod {namespace}/{name}"), Outcome::Deleted, answer)
        }
        Step::Ungate { namespace, name, uid, gate } => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let path = format!("/spec/schedulingGates/{gate}");
            let operations = json!([
                { "op": "test", "path": "/metadata/uid", "value": uid },
                { "op": "test", "path": format!("{path}/name"), "value": keys::QUOTA_GATE },
                { "op": "remove", "path": path },
            ]);
            let action = format!("remove the gate of pod {namespace}/{name}");
            let patch = serde_json::from_value(operations)
                .map_err(|source| CliError::Call { action: action.clone(), source: Box::new(source) })?;
            let params = PatchParams { field_manager: Some(keys::manager::DRAIN.into()), ..PatchParams::default() };
            let patch = Patch::<()>::Json(patch);
            let answer = tokio::time::timeout(DEADLINE, api.patch(&name, &params, &patch)).await.map(|r| r.map(|_| ()));
            (action, Outcome::Ungated, answer)
        }
    };
    match answer {
        Err(_) => Err(CliError::Silent { action, seconds: DEADLINE.as_secs() }),
        Ok(Ok(())) => Ok(done),
        Ok(Err(kube::Error::Api(status))) => {
            let answer = Answer { code: status.code, message: status.message.clone() };
            let error = CliError::Call { action, source: Box::new(answer) };
            match status.code {
                404 => Ok(Outcome::Gone),
                400..500 => Ok(Outcome::Refused(error)),
                _ => Err(error),
            }
        }
        Ok(Err(source)) => Err(CliError::Call { action, source: Box::new(source) }),
    }
}
