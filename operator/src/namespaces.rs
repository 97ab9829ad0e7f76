//! The tenant label of namespaces: on those that a TenantQuota claims, and on no others. The admission policies select by
//! it; nothing is decided by it here.
use crate::objects::NamespaceNote;
use crate::view::View;
use fairlead_crds::keys;
use fairlead_runtime::{API_DEADLINE, ApiError, deadline};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;

/// One label to set (`Some`) or to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Namespace.
    pub namespace: String,
    /// Its UID: one of the same name that is created anew is another.
    pub uid: String,
    /// The tenant.
    pub tenant: Option<String>,
}

/// What differs between the claims and the labels.
#[must_use]
pub fn changes(view: &View) -> Vec<Change> {
    diff(&view.objects.namespaces, |namespace| view.snapshot.tenant_of_namespace(namespace).map(str::to_owned))
}

fn diff(namespaces: &BTreeMap<String, NamespaceNote>, tenant_of: impl Fn(&str) -> Option<String>) -> Vec<Change> {
    let alive = namespaces.iter().filter(|(_, note)| !note.deleting);
    let wrong = alive.filter_map(|(namespace, note)| {
        let tenant = tenant_of(namespace);
        (tenant != note.tenant).then(|| Change { namespace: namespace.clone(), uid: note.uid.clone(), tenant })
    });
    wrong.collect()
}

/// Writes one label.
///
/// # Errors
/// As the API says.
pub async fn write(client: &Client, change: &Change) -> Result<(), ApiError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let manager = Some(keys::manager::NAMESPACE_LABEL.to_owned());
    let Change { namespace, uid, tenant } = change;
    let written = match tenant {
        Some(tenant) => {
            // With a UID an apply never creates: a namespace that is gone stays gone.
            let body = Patch::Apply(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": namespace, "uid": uid, "labels": { keys::TENANT_LABEL: tenant } },
            }));
            let params = PatchParams { force: true, field_manager: manager, ..PatchParams::default() };
            deadline("label Namespace", API_DEADLINE, api.patch(namespace, &params, &body)).await
        }
        None => {
            // Whoever set it: the label says nothing true any more.
            let body = Patch::Merge(json!({
                "metadata": { "uid": uid, "labels": { keys::TENANT_LABEL: null } },
            }));
            let params = PatchParams { field_manager: manager, ..PatchParams::default() };
            deadline("unlabel Namespace", API_DEADLINE, api.patch(namespace, &params, &body)).await
        }
    };
    written.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(tenant: Option<&str>, deleting: bool) -> NamespaceNote {
        NamespaceNote { uid: "u".into(), tenant: tenant.map(str::to_owned), deleting }
    }

    #[test]
    fn only_what_differs_is_written() {
        let namespaces = BTreeMap::from([
            ("claimed".to_owned(), note(None, false)),
            ("right".to_owned(), note(Some("acme"), false)),
            ("left".to_owned(), note(Some("acme"), false)),
            ("going".to_owned(), note(None, true)),
            ("other".to_owned(), note(None, false)),
        ]);
        let of = |name: &str| ["claimed", "right", "going"].contains(&name).then(|| "acme".to_owned());
        let changes = diff(&namespaces, of);
        let brief: Vec<_> = changes.iter().map(|c| (c.namespace.as_str(), c.tenant.as_deref())).collect();
        assert_eq!(brief, [("claimed", Some("acme")), ("left", None)]);
    }
}
