//! What is particular about pods: the binding subresource, and how they are deleted.
use super::Refusal;
use serde_json::{Value, json};

/// Seconds that a bound pod is given to end, if nobody says otherwise.
const GRACE_SECONDS: i64 = 30;

/// Binds: node, and the annotations of the Binding.
pub(super) fn bind(pod: &mut Value, binding: &Value) -> Result<(), Refusal> {
    let meta = &binding["metadata"];
    super::store::preconditions(pod, meta)?;
    let conflict = |bad: bool, why: &str| if bad { Err(Refusal::Conflict(why.to_owned())) } else { Ok(()) };
    conflict(!pod["metadata"]["deletionTimestamp"].is_null(), "pod is being deleted, cannot be assigned to a host")?;
    conflict(!pod["spec"]["nodeName"].is_null(), "pod is already assigned to a node")?;
    let gates = pod["spec"]["schedulingGates"].as_array();
    conflict(gates.is_some_and(|gates| !gates.is_empty()), "pod has non-empty .spec.schedulingGates")?;
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(annotations) = meta["annotations"].as_object() {
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key.as_str()] = value.clone();
        }
    }
    let scheduled = json!({ "type": "PodScheduled", "status": "True" });
    match pod["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        None => pod["status"]["conditions"] = json!([scheduled]),
    }
    Ok(())
}

/// So many seconds are left to a pod that is deleted: none to one that no kubelet runs.
pub(super) fn grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = pod["status"]["phase"].as_str();
    if pod["spec"]["nodeName"].is_null() || matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    asked.or(own).unwrap_or(GRACE_SECONDS)
}
