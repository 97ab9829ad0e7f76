//! A second kube-scheduler, configured as the chart configures its own, but without the extender: what the other one is
//! compared with.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::{Value, json};

use crate::RELEASE_NAMESPACE;
use crate::bed::Bed;
use crate::control_plane::base_env;
use crate::http_probe::HttpProbe;
use crate::ports;
use crate::processes::{Command, Process};

/// `schedulerName` of pods that are scheduled without the extender.
pub(super) const NAME: &str = "without-extender";
/// ConfigMap of the chart, and the file in it.
const CONFIG: (&str, &str) = ("fairlead-scheduler", "config.yaml");
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The running scheduler; dropping it ends it.
pub(super) struct Plain {
    /// Its port for metrics.
    pub(super) port: u16,
    process: Process,
}

impl Plain {
    /// Name and id, for measuring.
    pub(super) fn process(&self) -> (String, i32) {
        (self.process.name().to_owned(), self.process.pid())
    }

    /// Starts it and waits until it is ready.
    pub(super) async fn start(bed: &Bed) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), RELEASE_NAMESPACE);
        let data: BTreeMap<String, String> = maps.get(CONFIG.0).await?.data.unwrap_or_default();
        let text = data.get(CONFIG.1).with_context(|| format!("no {} in ConfigMap {}", CONFIG.1, CONFIG.0))?;
        // The identity of an ordinary kube-scheduler.
        let kubeconfig = bed.dir.join("kubeconfig/kube-scheduler");
        let config = bed.dir.join("without-extender.json");
        std::fs::write(&config, without_extender(text, &json!(kubeconfig))?.to_string())?;
        let port = ports::free()?;
        let command = Command {
            name: "kube-scheduler without extender".to_owned(),
            program: bed.parts.upstream("kube-scheduler")?,
            args: vec![
                format!("--config={}", config.display()),
                format!("--authentication-kubeconfig={}", kubeconfig.display()),
                format!("--authorization-kubeconfig={}", kubeconfig.display()),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                "--v=2".to_owned(),
            ],
            env: base_env(&bed.dir.join("home")),
            dir: bed.dir.clone(),
            log: bed.dir.join("logs/kube-scheduler-without-extender.log"),
        };
        let process = Process::start(&command).await?;
        let probe = HttpProbe::new(&format!("https://127.0.0.1:{port}"), "/readyz", Vec::new())?;
        process.wait_ready(READY_LIMIT, || async { probe.check(Duration::from_secs(2)).await.is_ok() }).await?;
        Ok(Self { port, process })
    }
}

fn without_extender(text: &str, kubeconfig: &Value) -> Result<Value> {
    let mut config: Value = serde_saphyr::from_str(text).context("the chart's KubeSchedulerConfiguration")?;
    let fields = config.as_object_mut().context("the chart's KubeSchedulerConfiguration is no object")?;
    fields.remove("extenders").context("the chart's scheduler has no extender")?;
    config["leaderElection"] = json!({ "leaderElect": false });
    config["clientConnection"]["kubeconfig"] = kubeconfig.clone();
    config["profiles"][0]["schedulerName"] = json!(NAME);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_extender_stays() {
        let text =
            "clientConnection: {qps: 5}\nprofiles: [{schedulerName: a, plugins: {}}]\nextenders: [{weight: 1}]\n";
        let wanted = json!({
            "clientConnection": { "qps": 5, "kubeconfig": "/k" },
            "leaderElection": { "leaderElect": false },
            "profiles": [{ "schedulerName": NAME, "plugins": {} }],
        });
        assert_eq!(without_extender(text, &json!("/k")).unwrap(), wanted);
    }
}
