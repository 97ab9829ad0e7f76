//! The password of a queue: one GET of one Secret, which the owner of the namespace has to grant.
use super::SourceError;
use fairlead_crds::worker_pool::SecretKeyRef;
use fairlead_runtime::{API_DEADLINE, deadline};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

/// The operator's own ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The commands with which an owner of `namespace` lets the operator read that one Secret.
#[must_use]
pub fn grant_command(namespace: &str, secret: &str, account: &Account) -> String {
    let Account { namespace: own, name } = account;
    format!(
        "kubectl create role fairlead-read-{secret} -n {namespace} --verb=get --resource=secrets \
         --resource-name={secret} && kubectl create rolebinding fairlead-read-{secret} -n {namespace} \
         --role=fairlead-read-{secret} --serviceaccount={own}:{name}"
    )
}

/// Reads the password.
///
/// # Errors
/// It is not there, not granted, or could not be read; see [`SourceError`].
pub async fn password(
    client: &Client,
    namespace: &str,
    wanted: &SecretKeyRef,
    account: &Account,
) -> Result<String, SourceError> {
    let SecretKeyRef { name, key } = wanted;
    let (owned, secret) = (|| namespace.to_owned(), || name.clone());
    let missing = |what: String| SourceError::SecretMissing { namespace: owned(), name: secret(), what };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = deadline("read Secret", API_DEADLINE, api.get(name)).await.map_err(|error| {
        if error.is_forbidden() {
            let command = grant_command(namespace, name, account);
            SourceError::SecretNotGranted { namespace: owned(), name: secret(), command }
        } else if error.is_not_found() {
            missing("does not exist".to_owned())
        } else {
            SourceError::SecretUnread { namespace: owned(), name: secret(), what: error.to_string() }
        }
    })?;
    let bytes =
        found.data.and_then(|mut data| data.remove(key)).ok_or_else(|| missing(format!("has no key {key:?}")))?;
    String::from_utf8(bytes.0).map_err(|_| missing(format!("has no text under key {key:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_grants_one_secret_to_one_account() {
        let account = Account { namespace: "fairlead-system".into(), name: "fairlead-operator".into() };
        assert_eq!(
            grant_command("acme-prod", "redis", &account),
            "kubectl create role fairlead-read-redis -n acme-prod --verb=get --resource=secrets --resource-name=redis && \
             kubectl create rolebinding fairlead-read-redis -n acme-prod --role=fairlead-read-redis \
             --serviceaccount=fairlead-system:fairlead-operator"
        );
    }
}
