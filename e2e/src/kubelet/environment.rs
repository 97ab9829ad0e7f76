//! A container's environment and arguments as the pod spec says them, with the downward API and `$(NAME)` resolved.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fairlead_crds::quantity;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret};
use kube::ResourceExt as _;
use kube::api::Api;

const CALL_LIMIT: Duration = Duration::from_secs(5);

/// What the downward API can tell about a pod.
pub(crate) struct Downward<'a> {
    pub(crate) pod: &'a Pod,
    /// Address where the pod's processes listen.
    pub(crate) pod_ip: &'a str,
    /// Address of its node.
    pub(crate) host_ip: &'a str,
}

impl Downward<'_> {
    pub(crate) fn service_account(&self) -> String {
        let name = self.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        name.unwrap_or_else(|| "default".to_owned())
    }

    /// A `fieldRef` path.
    pub(crate) fn field(&self, path: &str) -> Result<String> {
        let key = |map: &BTreeMap<String, String>, prefix: &str| {
            let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
            Some(map.get(key).cloned().unwrap_or_default())
        };
        let pod = self.pod;
        Ok(match path {
            "metadata.name" => pod.name_any(),
            "metadata.namespace" => pod.namespace().unwrap_or_default(),
            "metadata.uid" => pod.uid().unwrap_or_default(),
            "spec.nodeName" => pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            "spec.serviceAccountName" => self.service_account(),
            "status.podIP" | "status.podIPs" => self.pod_ip.to_owned(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_owned(),
            "metadata.labels" => lines(pod.labels()),
            "metadata.annotations" => lines(pod.annotations()),
            _ => match key(pod.labels(), "metadata.labels['")
                .or_else(|| key(pod.annotations(), "metadata.annotations['"))
            {
                Some(value) => value,
                None => bail!("fieldRef {path} is none that the harness knows"),
            },
        })
    }

    /// A `resourceFieldRef`, of `container` unless it names one.
    pub(crate) fn resource(&self, selector: &ResourceFieldSelector, container: Option<&Container>) -> Result<String> {
        let containers = self.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let named = selector
            .container_name
            .as_ref()
            .and_then(|name| containers.iter().find(|container| container.name == *name));
        let container = named.or(container).context("resourceFieldRef without container")?;
        let (list, resource) = selector.resource.split_once('.').context("resourceFieldRef without resource")?;
        let resources = container.resources.as_ref();
        let map = match list {
            "limits" => resources.and_then(|resources| resources.limits.as_ref()),
            "requests" => resources.and_then(|resources| resources.requests.as_ref()),
            _ => bail!("resourceFieldRef {} is none that the harness knows", selector.resource),
        };
        let Some(amount) = map.and_then(|map| map.get(resource)) else {
            bail!(
                "container {} has no {}, and the harness does not fall back to the node's",
                container.name,
                selector.resource
            );
        };
        let divisor = selector.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
        let divisor = if divisor == "0" { "1" } else { divisor };
        let (amount, divisor) = (quantity::milli(&amount.0)?, quantity::milli(divisor)?);
        Ok(amount.div_ceil(divisor.max(1)).to_string())
    }
}

fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// The environment of a container, in its order, before ports and paths are replaced.
pub(crate) async fn environment(
    client: &kube::Client,
    downward: &Downward<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>> {
    let namespace = downward.pod.namespace().unwrap_or_default();
    let sources = Sources { client, namespace: &namespace };
    let mut out: Vec<(String, String)> = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let data = match (&from.config_map_ref, &from.secret_ref) {
            (Some(source), _) => sources.config_map(&source.name, source.optional).await?,
            (None, Some(source)) => sources.secret(&source.name, source.optional).await?,
            (None, None) => bail!("envFrom without source"),
        };
        out.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(&sources, downward, container, variable, &out).await? {
            out.push((variable.name.clone(), value));
        }
    }
    Ok(out)
}

async fn value_of(
    sources: &Sources<'_>,
    downward: &Downward<'_>,
    container: &Container,
    variable: &EnvVar,
    before: &[(String, String)],
) -> Result<Option<String>> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or(""), before)));
    };
    let EnvVarSource { field_ref, resource_field_ref, config_map_key_ref, secret_key_ref, .. } = source;
    if let Some(field) = field_ref {
        return downward.field(&field.field_path).map(Some);
    }
    if let Some(resource) = resource_field_ref {
        return downward.resource(resource, Some(container)).map(Some);
    }
    let (what, mut data, key, optional) = if let Some(source) = config_map_key_ref {
        (&source.name, sources.config_map(&source.name, source.optional).await?, &source.key, source.optional)
    } else if let Some(source) = secret_key_ref {
        (&source.name, sources.secret(&source.name, source.optional).await?, &source.key, source.optional)
    } else {
        bail!("environment variable {} has a source that the harness does not know", variable.name)
    };
    match data.remove(key) {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None => bail!("{what} has no key {key}"),
    }
}

struct Sources<'a> {
    client: &'a kube::Client,
    namespace: &'a str,
}

impl Sources<'_> {
    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        match tokio::time::timeout(CALL_LIMIT, api.get_opt(name)).await.context("no ConfigMap in time")?? {
            Some(map) => Ok(map.data.unwrap_or_default()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("ConfigMap {name} does not exist"),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        match tokio::time::timeout(CALL_LIMIT, api.get_opt(name)).await.context("no Secret in time")?? {
            Some(secret) => {
                let data = secret.data.unwrap_or_default().into_iter();
                Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
            }
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => bail!("Secret {name} does not exist"),
        }
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a plain `$`, and an unknown name stays as it is written.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let reference = tail.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            match variables.iter().rev().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
        assert_eq!(expand("--x=$(A)/$(B) $$(A) $ $A", &variables), "--x=2/$(B) $(A) $ $A");
    }

    #[test]
    fn the_downward_api_knows_pod_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "a/b": "c" } },
            "spec": { "nodeName": "w", "containers": [{ "name": "x", "resources": { "limits": { "cpu": "1500m", "memory": "1Gi" } } }] },
        }))
        .unwrap();
        let downward = Downward { pod: &pod, pod_ip: "127.0.0.1", host_ip: "10.1.0.1" };
        assert_eq!(downward.field("metadata.labels['a/b']").unwrap(), "c");
        assert_eq!(downward.field("spec.nodeName").unwrap(), "w");
        assert!(downward.field("metadata.nothing").is_err());
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let limit = |resource: &str, divisor: Option<&str>| {
            let selector =
                serde_json::from_value(serde_json::json!({ "resource": resource, "divisor": divisor })).unwrap();
            downward.resource(&selector, Some(container)).unwrap()
        };
        assert_eq!(limit("limits.cpu", None), "2");
        assert_eq!(limit("limits.memory", Some("1Mi")), "1024");
    }
}
