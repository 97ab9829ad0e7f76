//! The way to the API server: the user's own kubeconfig and rights, a deadline on every call, and refusals that name
//! the right that is missing.
use crate::args::ClusterArgs;
use crate::error::{Answer, CliError};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Longest wait for one answer; a person is waiting too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Objects per page of a list: bounds what one answer weighs.
const PAGE: u32 = 1000;

/// A client with the user's rights.
pub(crate) struct Access {
    pub(crate) client: Client,
    /// Namespace of the context.
    pub(crate) namespace: String,
}

/// One right, as RBAC spells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    /// A single object, or all of them.
    pub(crate) name: Option<&'static str>,
}

impl Right {
    fn in_words(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = self.name.map(|name| format!(" {name}")).unwrap_or_default();
        let scope = if self.group == "admissionregistration.k8s.io" { "" } else { " in all namespaces" };
        format!("{} {}{group}{name}{scope}", self.verb, self.resource)
    }
}

impl Access {
    pub(crate) async fn new(args: &ClusterArgs) -> Result<Self, CliError> {
        // A second installation means that the first one stands: either way there is a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = config(args).await?;
        config.connect_timeout = Some(DEADLINE);
        config.read_timeout = Some(DEADLINE * 3);
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|source| CliError::Kubeconfig { source: Box::new(source) })?;
        Ok(Self { client, namespace })
    }

    /// All objects of a kind, page by page. `namespace` is that of `api`, empty for all.
    pub(crate) async fn list<K>(&self, api: &Api<K>, namespace: &str, fields: Option<&str>) -> Result<Vec<K>, CliError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let (resource, scope) = (plural::<K>(), within(namespace));
        let mut params = ListParams::default().limit(PAGE);
        if let Some(fields) = fields {
            params = params.fields(fields);
        }
        let mut items = Vec::new();
        loop {
            let page = call(&format!("list {resource}{scope}"), "list", &resource, &scope, api.list(&params)).await?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(items),
            }
        }
    }

    /// One object; `None` when it does not exist.
    pub(crate) async fn get<K>(&self, api: &Api<K>, name: &str, namespace: &str) -> Result<Option<K>, CliError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let (resource, scope) = (plural::<K>(), within(namespace));
        call(&format!("get {resource} {name}{scope}"), "get", &resource, &scope, api.get_opt(name)).await
    }

    /// Asks the API server which of the rights the user lacks, before anything is done halfway.
    pub(crate) async fn require(&self, rights: &[Right]) -> Result<(), CliError> {
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let mut missing = Vec::new();
        for right in rights {
            let attributes = ResourceAttributes {
                verb: Some(right.verb.into()),
                group: Some(right.group.into()),
                resource: Some(right.resource.into()),
                name: right.name.map(Into::into),
                ..ResourceAttributes::default()
            };
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(attributes),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let params = PostParams::default();
            let answer = api.create(&params, &review);
            let answer = call("ask for your rights", "create", "selfsubjectaccessreviews", "", answer).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                missing.push(right.in_words());
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(CliError::Forbidden { rights: missing, hint: "" }) }
    }
}

async fn config(args: &ClusterArgs) -> Result<Config, CliError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| CliError::Kubeconfig { source };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    match (&args.kubeconfig, &args.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|source| broken(source.into()))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|source| broken(source.into()))
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|source| broken(source.into())),
        (None, None) => Config::infer().await.map_err(|source| broken(source.into())),
    }
}

/// `pods`, `tenantquotas.fairlead.dev`.
fn plural<K: Resource<DynamicType = ()>>() -> String {
    let group = K::group(&());
    if group.is_empty() { K::plural(&()).into_owned() } else { format!("{}.{group}", K::plural(&())) }
}

fn within(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") }
}

/// Carries one call out within the deadline. `scope` is empty for all namespaces.
pub(crate) async fn call<T>(
    action: &str,
    verb: &str,
    resource: &str,
    scope: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CliError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Err(_) => Err(CliError::Silent { action: action.into(), seconds: DEADLINE.as_secs() }),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(explained(error, action, verb, resource, scope)),
    }
}

fn explained(error: kube::Error, action: &str, verb: &str, resource: &str, scope: &str) -> CliError {
    match &error {
        kube::Error::Api(status) if status.code == 403 && !is_policy(&status.message) => {
            let scope = if scope.is_empty() { " in all namespaces" } else { scope };
            CliError::Forbidden {
                rights: vec![format!("{verb} {resource}{scope}")],
                hint: ": the ClusterRole fairlead-reader holds what `explain` and `top` read",
            }
        }
        // A kind that is not served answers 404 to a list, and to a get without naming an object.
        kube::Error::Api(status)
            if status.code == 404 && resource.ends_with(fairlead_crds::keys::GROUP) && is_unserved(&status.message) =>
        {
            CliError::KindMissing { resource: resource.into() }
        }
        kube::Error::Api(status) => {
            let answer = Answer { code: status.code, message: status.message.clone() };
            CliError::Call { action: action.into(), source: Box::new(answer) }
        }
        _ => CliError::Call { action: action.into(), source: Box::new(error) },
    }
}

/// Whether a policy refused, rather than RBAC.
fn is_policy(message: &str) -> bool {
    message.contains("ValidatingAdmissionPolicy")
}

fn is_unserved(message: &str) -> bool {
    message.contains("could not find the requested resource") || message.contains("page not found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: message.into(), ..Status::default() }))
    }

    #[test]
    fn a_refusal_names_the_right() {
        let error = explained(refused(403, "pods is forbidden"), "list pods", "list", "pods", "");
        assert!(error.to_string().starts_with("you lack the right to list pods in all namespaces;"), "{error}");
        let error = explained(refused(403, "x"), "get", "get", "pods", " in namespace acme");
        assert!(error.to_string().contains("get pods in namespace acme"), "{error}");
    }

    #[test]
    fn a_policy_is_no_missing_right() {
        let message = "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'fairlead-pods' denied request";
        assert!(matches!(explained(refused(403, message), "patch", "patch", "pods", ""), CliError::Call { .. }));
    }

    #[test]
    fn a_missing_kind_says_what_to_install() {
        let message = "the server could not find the requested resource";
        let error = explained(refused(404, message), "list", "list", "tenantquotas.fairlead.dev", "");
        assert!(error.to_string().contains("fairlead-crds"), "{error}");
    }

    #[test]
    fn rights_in_words() {
        let right = Right { verb: "get", group: "batch", resource: "jobs", name: None };
        assert_eq!(right.in_words(), "get jobs.batch in all namespaces");
    }
}
