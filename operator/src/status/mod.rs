//! Status of our kinds: computed from the view, compared with what the API server has, and written only when it differs.
pub mod patience;
pub mod quota;
pub mod topology;
pub mod writer;

use fairlead_crds::Quantity;
use fairlead_crds::conditions::{self, Wanted};
use fairlead_crds::keys;
use fairlead_crds::tenant_quota::RESOURCES_MAX;
use fairlead_fairshare::ResourceVector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The conditions of `wanted`, with the times of `current` where their status stays; others' conditions are not ours to
/// apply and are left out.
#[must_use]
pub fn merged(current: &[Condition], wanted: &[Wanted], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let ours = |condition: &Condition| wanted.iter().any(|want| want.type_ == condition.type_);
    let mut merged = conditions::merge(current, wanted, generation, now);
    merged.retain(ours);
    merged
}

/// Of the conditions that the API server shows, those that are ours to apply, as `wanted` has them: what others add to a
/// status is not ours to compare either, or the status would differ for ever.
#[must_use]
pub fn ours(shown: &[Condition], wanted: &[Condition]) -> Vec<Condition> {
    shown.iter().filter(|shown| wanted.iter().any(|want| want.type_ == shown.type_)).cloned().collect()
}

/// Body of a server-side apply on `status`; the UID keeps it from another object of the same name.
#[must_use]
pub fn apply_body(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    uid: Option<&str>,
    status: &impl Serialize,
) -> Value {
    let mut metadata = json!({ "name": name });
    if let (Some(fields), Some(namespace)) = (metadata.as_object_mut(), namespace) {
        fields.insert("namespace".into(), namespace.into());
    }
    if let (Some(fields), Some(uid)) = (metadata.as_object_mut(), uid) {
        fields.insert("uid".into(), uid.into());
    }
    json!({
        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
        "kind": kind,
        "metadata": metadata,
        "status": status,
    })
}

/// Amounts as Kubernetes writes them; resources of which there is nothing are left out unless `of` has some, and so is what
/// the schema has no room for.
#[must_use]
pub fn quantities(vector: &ResourceVector, of: &ResourceVector) -> BTreeMap<String, Quantity> {
    let shown = vector.iter().filter(|(name, amount)| **amount > 0 || of.get(*name).is_some_and(|total| *total > 0));
    shown
        .take(RESOURCES_MAX)
        .map(|(name, amount)| {
            let quantity = if name == "cpu" { Quantity::from_milli(*amount) } else { Quantity::from_units(*amount) };
            (name.clone(), quantity)
        })
        .collect()
}

/// A count for a status field.
#[must_use]
pub fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_name_the_object_and_its_uid() {
        let body = apply_body("WorkerPool", Some("n"), "p", Some("u"), &json!({"orderedReplicas": 3}));
        assert_eq!(body["metadata"], json!({"name": "p", "namespace": "n", "uid": "u"}));
        assert_eq!(body["apiVersion"], "fairlead.dev/v1alpha1");
    }

    #[test]
    fn amounts_are_written_in_their_units() {
        let vector = ResourceVector::from([("cpu".into(), 1500), ("memory".into(), 1 << 30), ("x".into(), 0)]);
        let shown = quantities(&vector, &ResourceVector::from([("memory".into(), 1)]));
        assert_eq!(shown["cpu"].as_str(), "1500m");
        assert_eq!(shown["memory"].as_str(), "1073741824");
        assert!(!shown.contains_key("x"));
        let many: ResourceVector = (0..300_u64).map(|i| (format!("example.com/{i}"), 1)).collect();
        assert_eq!(quantities(&many, &many).len(), RESOURCES_MAX);
    }
}
