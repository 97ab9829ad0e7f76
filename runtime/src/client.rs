//! The client of the API server: found like kubectl finds it, without hidden retries, with bounded silence.

use crate::args::ClientArgs;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{Config, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::PathBuf;
use std::time::Duration;

/// An API server that does not take a connection within this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence on one connection. It must exceed the longest quiet watch, [`crate::pump::WATCH_TIMEOUT_MAX`], which
/// the server ends by itself; what is silent for longer is a dead connection.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// A request that cannot be written within this time goes nowhere.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of `--kubeconfig` cannot be read or parsed.
    #[error("failed to read the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No kubeconfig was found and the process does not run in a pod.
    #[error("failed to find an API server: give --kubeconfig, set KUBECONFIG, or run in a pod")]
    Infer(#[source] Box<InferConfigError>),
    /// The component's name cannot stand in an HTTP header.
    #[error("failed to build the user agent {given:?}: only visible ASCII is allowed")]
    UserAgent {
        /// The text that was refused.
        given: String,
    },
    /// Certificates, keys or the proxy of the configuration are unusable.
    #[error("failed to build the client for {url}")]
    Build {
        /// Address of the API server.
        url: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Makes ring the process's TLS provider. [`client`] calls it; whoever opens TLS without a client calls it first.
pub fn install_tls_provider() {
    // An error means that a provider is installed already, which is all that is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A client as `component`, with the user agent `fairlead-<component>/<version>`.
///
/// It never retries by itself: a retried Binding or patch is a decision, which the caller takes. Put
/// [`crate::deadline`] around every call.
///
/// # Errors
/// One variant per step; see [`ClientError`].
pub async fn client(args: &ClientArgs, component: &'static str) -> Result<kube::Client, ClientError> {
    install_tls_provider();
    let config = configure(find(args).await?, component)?;
    let url = config.cluster_url.to_string();
    kube::Client::try_from(config).map_err(|source| ClientError::Build { url, source: Box::new(source) })
}

async fn find(args: &ClientArgs) -> Result<Config, ClientError> {
    let Some(path) = &args.kubeconfig else {
        return Config::infer().await.map_err(|source| ClientError::Infer(Box::new(source)));
    };
    let named = |source| ClientError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(named)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(named)
}

fn configure(mut config: Config, component: &str) -> Result<Config, ClientError> {
    let agent = format!("fairlead-{component}/{}", env!("CARGO_PKG_VERSION"));
    let header = HeaderValue::from_str(&agent).map_err(|_| ClientError::UserAgent { given: agent })?;
    config.headers.push((USER_AGENT, header));
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // Otherwise the idle time of a pooled connection counts as silence of the next answer.
    config.reset_reader_on_write = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pump::WATCH_TIMEOUT_MAX;

    #[test]
    fn nothing_is_retried_and_nothing_waits_for_ever() {
        let config = configure(Config::new(http::Uri::from_static("https://127.0.0.1:1")), "test").unwrap();
        assert!(!config.default_retry);
        assert!(config.connect_timeout.is_some() && config.write_timeout.is_some());
        assert!(config.read_timeout.unwrap() > WATCH_TIMEOUT_MAX + Duration::from_secs(5));
        let (name, value) = &config.headers[0];
        assert_eq!(name, USER_AGENT);
        assert!(value.to_str().unwrap().starts_with("fairlead-test/0."));
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let args = ClientArgs { kubeconfig: Some("/nowhere/kubeconfig".into()) };
        let error = client(&args, "test").await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/kubeconfig"), "{error}");
    }

    #[test]
    fn a_component_that_cannot_stand_in_a_header_is_refused() {
        let config = Config::new(http::Uri::from_static("https://127.0.0.1:1"));
        assert!(matches!(configure(config, "a\nb"), Err(ClientError::UserAgent { .. })));
    }
}
