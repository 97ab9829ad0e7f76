//! A pod's volumes as folders of the host, filled from ConfigMaps, Secrets, the pod itself and the TokenRequest API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume,
};
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::environment::Downward;
use super::host;
use super::rewrite::{PortMap, Rewrite};
use crate::control_plane::kubeconfig_json;

const CALL_LIMIT: Duration = Duration::from_secs(5);
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Makes the volumes of one pod.
pub(crate) struct Volumes<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    /// The pod's folder.
    pub(crate) dir: &'a Path,
    /// The bed's folder: `nodes/NODE/PATH` in it stands for the node's own files, where a test put some.
    pub(crate) bed_dir: &'a Path,
    pub(crate) node: &'a str,
    pub(crate) downward: &'a Downward<'a>,
    pub(crate) api_url: &'a str,
}

/// The mounts of one container, ready to be used.
pub(crate) struct Mounts {
    pub(crate) rewrite: Rewrite,
    /// Absent when the pod does not mount its ServiceAccount's token.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Tokens to renew while the container runs.
    pub(crate) tokens: Vec<TokenFile>,
}

/// A token in a file, to be written anew before it expires.
#[derive(Clone)]
pub(crate) struct TokenFile {
    path: PathBuf,
    projection: ServiceAccountTokenProjection,
}

/// Text files by their path inside a volume.
type Files = BTreeMap<String, Vec<u8>>;

impl Volumes<'_> {
    /// Makes what `container` mounts and says how its paths and ports change.
    pub(crate) async fn mount(&self, container: &Container, ports: &PortMap) -> Result<Mounts> {
        let mut paths = Vec::new();
        let mut tokens = Vec::new();
        let mut texts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = self.volume(&mount.name)?;
            let copy = self.dir.join("containers").join(&container.name).join(&mount.name);
            let mut root = match self.own_folder(volume)? {
                Some(folder) => folder,
                None => {
                    texts.extend(self.fill(volume, &copy, &mut tokens).await?);
                    copy
                }
            };
            if let Some(sub) = mount.sub_path.as_ref().filter(|sub| !sub.is_empty()) {
                root.push(sub);
            }
            paths.push((mount.mount_path.trim_end_matches('/').to_owned(), root));
        }
        let rewrite = Rewrite::new(ports.clone(), paths);
        for file in texts {
            if let Ok(text) = std::fs::read_to_string(&file) {
                std::fs::write(&file, rewrite.text(&text))?;
            }
        }
        let kubeconfig = self.kubeconfig(container, &rewrite)?;
        Ok(Mounts { rewrite, kubeconfig, tokens })
    }

    fn volume(&self, name: &str) -> Result<&Volume> {
        let volumes = self.pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        volumes.iter().find(|volume| volume.name == name).with_context(|| format!("no volume {name}"))
    }

    /// The folder of a volume that containers share; none for those whose files are rewritten per container.
    fn own_folder(&self, volume: &Volume) -> Result<Option<PathBuf>> {
        if volume.empty_dir.is_some() {
            let folder = self.dir.join("volumes").join(&volume.name);
            std::fs::create_dir_all(&folder)?;
            return Ok(Some(folder));
        }
        let Some(host_path) = &volume.host_path else { return Ok(None) };
        let root = self.bed_dir.join("nodes").join(self.node);
        host::lay_out(&root)?;
        let simulated = root.join(host_path.path.trim_start_matches('/'));
        let kind = host_path.type_.as_deref().unwrap_or("");
        if kind.ends_with("OrCreate") && !simulated.exists() {
            std::fs::create_dir_all(if kind == "FileOrCreate" {
                simulated.parent().unwrap_or(&simulated)
            } else {
                &simulated
            })?;
        }
        let genuine = Path::new(&host_path.path);
        match (simulated.exists(), genuine.exists() || kind.is_empty()) {
            (true, _) => Ok(Some(simulated)),
            (false, true) => Ok(Some(genuine.to_owned())),
            (false, false) => bail!("hostPath {} of volume {} does not exist", host_path.path, volume.name),
        }
    }

    async fn fill(&self, volume: &Volume, folder: &Path, tokens: &mut Vec<TokenFile>) -> Result<Vec<PathBuf>> {
        let mut files = Files::new();
        if let Some(source) = &volume.config_map {
            files.extend(self.config_map(&source.name, source.items.as_deref(), source.optional).await?);
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            files.extend(self.secret(name, source.items.as_deref(), source.optional).await?);
        } else if let Some(source) = &volume.downward_api {
            files.extend(self.downward_files(source.items.as_deref().unwrap_or_default())?);
        } else if let Some(source) = &volume.projected {
            for projection in source.sources.iter().flatten() {
                if let Some(source) = &projection.config_map {
                    files.extend(self.config_map(&source.name, source.items.as_deref(), source.optional).await?);
                } else if let Some(source) = &projection.secret {
                    files.extend(self.secret(&source.name, source.items.as_deref(), source.optional).await?);
                } else if let Some(source) = &projection.downward_api {
                    files.extend(self.downward_files(source.items.as_deref().unwrap_or_default())?);
                } else if let Some(source) = &projection.service_account_token {
                    let token = TokenFile { path: folder.join(&source.path), projection: source.clone() };
                    self.write_token(&token).await?;
                    tokens.push(token);
                } else {
                    bail!("volume {} has a projection that the harness does not know", volume.name);
                }
            }
        } else {
            bail!("volume {} is of a type that the harness does not know", volume.name);
        }
        write_files(folder, files)
    }

    /// Writes a fresh token over the old one, never leaving half of it to a reader.
    pub(crate) async fn write_token(&self, token: &TokenFile) -> Result<()> {
        let (namespace, account) = (self.pod.namespace().unwrap_or_default(), self.downward.service_account());
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: token.projection.audience.iter().cloned().collect(),
                expiration_seconds: token.projection.expiration_seconds,
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(self.pod.name_any()),
                    uid: self.pod.uid(),
                }),
            },
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let call = api.create_token_request(&account, &params, &request);
        let answer = tokio::time::timeout(CALL_LIMIT, call).await.context("no token in time")?;
        let text =
            answer.with_context(|| format!("token of {account}"))?.status.context("a token without status")?.token;
        let folder = token.path.parent().context("a token path without folder")?;
        std::fs::create_dir_all(folder)?;
        let fresh = token.path.with_extension("fresh");
        std::fs::write(&fresh, text)?;
        std::fs::rename(&fresh, &token.path)?;
        Ok(())
    }

    async fn config_map(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        let found = tokio::time::timeout(CALL_LIMIT, api.get_opt(name)).await.context("no ConfigMap in time")??;
        let data = found.map(|map| {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))).collect()
        });
        select(&format!("ConfigMap {name}"), data, items, optional)
    }

    async fn secret(&self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.pod.namespace().unwrap_or_default());
        let found = tokio::time::timeout(CALL_LIMIT, api.get_opt(name)).await.context("no Secret in time")??;
        let data = found
            .map(|secret| secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect());
        select(&format!("Secret {name}"), data, items, optional)
    }

    fn downward_files(&self, items: &[DownwardAPIVolumeFile]) -> Result<Files> {
        let text = |item: &DownwardAPIVolumeFile| match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => self.downward.field(&field.field_path),
            (None, Some(resource)) => self.downward.resource(resource, None),
            (None, None) => Err(anyhow!("downward API item {} has no source", item.path)),
        };
        items.iter().map(|item| Ok((item.path.clone(), text(item)?.into_bytes()))).collect()
    }

    fn kubeconfig(&self, container: &Container, rewrite: &Rewrite) -> Result<Option<PathBuf>> {
        let Some(folder) = rewrite.path(TOKEN_MOUNT) else { return Ok(None) };
        let user = serde_json::json!({ "tokenFile": folder.join("token") });
        let namespace = self.pod.namespace().unwrap_or_default();
        let text = kubeconfig_json(self.api_url, &folder.join("ca.crt"), &namespace, &user);
        let path = self.dir.join("containers").join(&container.name).join("kubeconfig");
        std::fs::write(&path, text)?;
        Ok(Some(path))
    }
}

fn select(what: &str, data: Option<Files>, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<Files> {
    let optional = optional.unwrap_or(false);
    let Some(mut data) = data else {
        if optional {
            return Ok(Files::new());
        }
        bail!("{what} does not exist");
    };
    let Some(items) = items else { return Ok(data) };
    let mut out = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(value) => drop(out.insert(item.path.clone(), value)),
            None if optional => {}
            None => bail!("{what} has no key {}", item.key),
        }
    }
    Ok(out)
}

fn write_files(folder: &Path, files: Files) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, bytes)?;
        written.push(path);
    }
    Ok(written)
}
