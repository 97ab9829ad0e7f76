//! Bodies of the writes on pods and ledgers. All carry what the object must be for the write to hold.
use fairlead_crds::keys;
use fairlead_crds::tenant_ledger::Intent;
use fairlead_fairshare::protocol::Version;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// Strategic merge patch that removes our gate, and no other, if the pod has this UID and this version; the released
/// annotation comes in the same write.
#[must_use]
pub fn ungate(uid: &str, version: Version, epoch: u64, now_ms: u64) -> Value {
    json!({
        "metadata": {
            "uid": uid,
            "resourceVersion": version.to_string(),
            "annotations": { keys::RELEASED_ANNOTATION: released(epoch, now_ms) },
        },
        "spec": { "schedulingGates": [{ "$patch": "delete", "name": keys::QUOTA_GATE }] },
    })
}

/// Strategic merge patch that changes the pod's version if it still is this UID (rule 5).
#[must_use]
pub fn touch(uid: &str, epoch: u64, now_ms: u64) -> Value {
    json!({ "metadata": { "uid": uid, "annotations": { keys::TOUCHED_ANNOTATION: released(epoch, now_ms) } } })
}

/// Strategic merge patch that gives a pod that came past the gate the released annotation.
#[must_use]
pub fn stamp(uid: &str, version: Version, epoch: u64, now_ms: u64) -> Value {
    json!({ "metadata": {
        "uid": uid,
        "resourceVersion": version.to_string(),
        "annotations": { keys::RELEASED_ANNOTATION: released(epoch, now_ms) },
    } })
}

/// Strategic merge patch of `pods/status` with our condition; others are left alone.
#[must_use]
pub fn condition(uid: &str, released: bool, reason: &str, message: &str, since: &Time) -> Value {
    json!({
        "metadata": { "uid": uid },
        "status": { "conditions": [{
            "type": keys::condition::RELEASED,
            "status": if released { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }] },
    })
}

/// Value of the released annotation.
fn released(epoch: u64, now_ms: u64) -> String {
    format!("{epoch}:{now_ms}")
}

/// Owner of a ledger, so that it goes with the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOwner {
    /// Tenant.
    pub name: String,
    /// UID of its TenantQuota.
    pub uid: String,
}

/// A new ledger.
#[must_use]
pub fn new_ledger(owner: &LedgerOwner, epoch: u64, holder: &str, intents: &[Intent]) -> Value {
    json!({
        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
        "kind": "TenantLedger",
        "metadata": {
            "name": owner.name,
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
                "kind": "TenantQuota",
                "name": owner.name,
                "uid": owner.uid,
            }],
        },
        "spec": { "epoch": epoch, "holder": holder, "intents": intents },
    })
}

/// Merge patch that replaces epoch and intents if the ledger has the version `expect`.
#[must_use]
pub fn ledger(expect: Version, epoch: u64, holder: &str, intents: &[Intent]) -> Value {
    json!({
        "metadata": { "resourceVersion": expect.to_string() },
        "spec": { "epoch": epoch, "holder": holder, "intents": intents },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_goes_with_precondition_and_annotation_in_one_write() {
        let body = ungate("u", 7, 3, 99);
        assert_eq!(body["metadata"]["uid"], "u");
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["metadata"]["annotations"]["fairlead.dev/released"], "3:99");
        let gates = body["spec"]["schedulingGates"].as_array().unwrap();
        assert_eq!(gates.as_slice(), [json!({"$patch": "delete", "name": "fairlead.dev/quota"})]);
    }

    #[test]
    fn a_touch_has_no_version_and_a_stamp_has_one() {
        assert!(touch("u", 1, 2)["metadata"].get("resourceVersion").is_none());
        assert_eq!(stamp("u", 5, 1, 2)["metadata"]["resourceVersion"], "5");
        assert!(stamp("u", 5, 1, 2).get("spec").is_none());
    }

    #[test]
    fn ledgers_are_compared_and_swapped() {
        let intent =
            Intent { pod_uid: "u".into(), namespace: "n".into(), name: "p".into(), resource_version: "4".into() };
        let body = ledger(12, 3, "op-0", &[intent]);
        assert_eq!(body["metadata"]["resourceVersion"], "12");
        assert_eq!(body["spec"]["intents"][0]["podUID"], "u");
        let owner = LedgerOwner { name: "acme".into(), uid: "q".into() };
        let new = new_ledger(&owner, 1, "op-0", &[]);
        assert_eq!(new["metadata"]["ownerReferences"][0]["uid"], "q");
        assert!(new["metadata"].get("resourceVersion").is_none());
    }
}
