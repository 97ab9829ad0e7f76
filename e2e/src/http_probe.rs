//! One GET with a deadline, as a kubelet probes: any certificate is accepted, 200 to 399 is success.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::client::Body;

/// Asks one server again and again.
#[derive(Clone)]
pub struct HttpProbe {
    client: kube::Client,
    path: String,
    headers: Vec<(String, String)>,
}

impl HttpProbe {
    /// `base` is like `https://127.0.0.1:10259`.
    pub fn new(base: &str, path: &str, headers: Vec<(String, String)>) -> Result<Self> {
        let mut config = kube::Config::new(base.parse().with_context(|| format!("probe address {base}"))?);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        let client = kube::Client::try_from(config)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { client, path, headers })
    }

    /// Ok when the answer came within `limit` and its status is from 200 to 399.
    pub async fn check(&self, limit: Duration) -> Result<()> {
        let mut request = http::Request::get(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::empty())?;
        let answer = tokio::time::timeout(limit, self.client.send(request)).await.context("no answer in time")??;
        let status = answer.status().as_u16();
        if !(200..400).contains(&status) {
            bail!("status {status}");
        }
        Ok(())
    }
}
