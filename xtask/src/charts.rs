//! Checks of both charts with the genuine helm: lint, render, and values that the schema must refuse.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{Checkout, read, words};
use crate::tiers::Tally;

const CHARTS: [&str; 2] = ["charts/fairlead-crds", "charts/fairlead"];
/// Values that change what can be changed.
const OTHER_VALUES: &str = "xtask/charts/other-values.yaml";
/// An image that they name by its digest, which wins over the tag.
const OTHER_IMAGE: &str = "\"fairlead/fairlead-operator@sha256:0123456789abcdef";
/// Each must be refused, naming what is wrong.
const REFUSED: [(&str, &str); 12] = [
    ("operator.replicas=many", "replicas"),
    ("operator.replicas=0", "replicas"),
    ("operator.releaseWindowPercent=-1", "releaseWindowPercent"),
    ("noSuchValue=1", "noSuchValue"),
    ("scheduler.image.tag=", "tag"),
    ("operator.image.digest=latest", "digest"),
    ("networkPolicy.dns.ports={0}", "ports"),
    ("agent.nriSocket=nri.sock", "nriSocket"),
    ("agent.kubelet.configFile=/", "configFile"),
    ("extender.mode=Both", "mode"),
    ("extender.service.clientName=No_Name", "clientName"),
    ("scheduler.percentageOfNodesToScore=101", "percentageOfNodesToScore"),
];
/// Who makes the certificates in Service mode, and how many Secrets and Certificates are rendered for it.
const CERTIFICATES: [(&str, usize); 3] = [("Operator", 3), ("CertManager", 2), ("Secret", 0)];

/// Counts one check for each chart and each refusal.
pub(crate) fn check(checkout: &Checkout, tally: &mut Tally) -> Result<()> {
    for chart in CHARTS {
        tally.check(&format!("helm lint {chart}"), || {
            read(&mut checkout.part("helm", &["lint", "--strict", chart])).map(drop)
        });
        tally.check(&format!("helm template {chart}"), || rendered(&read(&mut template(checkout, chart, &[]))?));
    }
    let chart = CHARTS[1];
    tally.check("helm template with other values", || {
        let text = read(&mut template(checkout, chart, &["--values", OTHER_VALUES]))?;
        if !text.contains(OTHER_IMAGE) {
            bail!("no container has the image {OTHER_IMAGE}");
        }
        rendered(&text)
    });
    for (who, wanted) in CERTIFICATES {
        tally.check(&format!("helm template in Service mode, certificates by {who}"), || {
            let values = format!("extender.mode=Service,extender.service.certificates={who}");
            let issuer = "extender.service.certManagerIssuer.name=issuer";
            let text = read(&mut template(checkout, chart, &["--set", &values, "--set", issuer]))?;
            let made = text.matches("\nkind: Secret\n").count() + text.matches("\nkind: Certificate\n").count();
            if text.contains("name: fairlead-scheduler\n") || made != wanted {
                bail!("{made} Secrets and Certificates instead of {wanted}, or a scheduler of ours");
            }
            rendered(&text)
        });
    }
    for (value, named) in REFUSED {
        tally.check(&format!("helm template refuses {value}"), || {
            refuses(&mut template(checkout, chart, &["--set", value]), named)
        });
    }
    Ok(())
}

/// The whole chart as it would be installed.
pub(crate) fn template(checkout: &Checkout, chart: &str, more: &[&str]) -> Command {
    let mut command = checkout.part("helm", &["template", "fairlead", chart, "--namespace", "fairlead-system"]);
    command.args(more);
    command
}

/// Every document must be an object of some kind.
fn rendered(text: &str) -> Result<()> {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).context("the rendered chart is no YAML")?;
    let whole =
        |document: &&serde_json::Value| document["kind"].is_string() && document["metadata"]["name"].is_string();
    let good = documents.iter().filter(whole).count();
    if good == 0 || good < documents.iter().filter(|document| !document.is_null()).count() {
        bail!("{} documents, {good} of them with kind and name", documents.len());
    }
    Ok(())
}

fn refuses(command: &mut Command, named: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("start `{}`", words(command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        bail!("it was accepted");
    }
    if !said.contains(named) {
        bail!("the refusal does not name {named}: {said}");
    }
    Ok(())
}
