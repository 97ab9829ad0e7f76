//! `generate`: files that are written from a source of truth, and the check that they were.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{Checkout, read, run};
use crate::{charts, install, reference, upstream};

const NOTE: &str = "Written by `cargo xtask generate`; do not edit.";
/// Rooms of the processes that have metrics.
const ROOMS: [&str; 3] = ["extender", "operator", "agent"];

/// Path from the root and text.
type Generated = (PathBuf, String);

/// Writes every generated file, or with `check` fails with the list of those that differ.
pub(crate) fn generate(checkout: &Checkout, check: bool) -> Result<()> {
    install::install()?;
    upstream::build(checkout, &["helm"])?;
    run(checkout.cargo(&["build", "--quiet", "--workspace", "--examples"]).stdout(Stdio::null()))?;
    let mut all = kinds(checkout)?;
    all.push(metrics(checkout)?);
    all.push(values(checkout)?);
    all.push(rbac(checkout)?);
    if !check {
        return write(checkout, &all);
    }
    let differs =
        |(path, text): &&Generated| std::fs::read_to_string(checkout.root.join(path)).ok().as_ref() != Some(text);
    let drifted: Vec<String> = all.iter().filter(differs).map(|(path, _)| path.display().to_string()).collect();
    if !drifted.is_empty() {
        bail!("not what `cargo xtask generate` writes:\n  {}", drifted.join("\n  "));
    }
    Ok(())
}

fn write(checkout: &Checkout, files: &[Generated]) -> Result<()> {
    for (path, text) in files {
        let path = checkout.root.join(path);
        if std::fs::read_to_string(&path).ok().as_ref() == Some(text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// The kinds: one template of the CRD chart each, and their reference page.
fn kinds(checkout: &Checkout) -> Result<Vec<Generated>> {
    let text = read(&mut checkout.command(example(checkout, "crdgen").as_os_str()))?;
    let document: Value = serde_json::from_str(&text).context("crdgen printed no JSON")?;
    let mut out = Vec::new();
    for entry in document["crds"].as_array().context("crdgen printed no crds")? {
        let name = entry["name"].as_str().context("a CRD without name")?;
        let mut crd = entry["crd"].clone();
        // With its kind every object would go: an uninstalled chart leaves both.
        crd["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        let yaml = serde_saphyr::to_string(&crd)?;
        if yaml.contains("{{") {
            bail!("{name}: helm would take {{{{ in a description for a template");
        }
        out.push((format!("charts/fairlead-crds/templates/{name}.yaml").into(), format!("# {NOTE}\n{yaml}")));
    }
    let page = document["reference"].as_str().context("crdgen printed no reference")?;
    out.push(("docs/reference/api.md".into(), page.to_owned()));
    Ok(out)
}

/// The metrics of each process, as its own example prints them.
fn metrics(checkout: &Checkout) -> Result<Generated> {
    let mut page = format!("# Metrics\n\n{NOTE}\n\nEach process serves them as `/metrics` on its admin port.\n");
    for room in ROOMS {
        let name = format!("{room}-metrics");
        let rows = read(&mut checkout.command(example(checkout, &name).as_os_str()))?;
        page.push_str(&format!("\n## fairlead-{room}\n\n| metric | type | meaning |\n|---|---|---|\n{rows}"));
    }
    Ok(("docs/reference/metrics.md".into(), page))
}

/// Where [`generate`] built an example. All are built at once and of the whole workspace, as the tests are: by package,
/// what they depend on would be built anew with fewer features.
fn example(checkout: &Checkout, name: &str) -> PathBuf {
    checkout.target.join("debug/examples").join(name)
}

fn values(checkout: &Checkout) -> Result<Generated> {
    let text = std::fs::read_to_string(checkout.root.join("charts/fairlead/values.yaml"))?;
    let table = reference::values_table(&text)?;
    let page = format!(
        "# Chart fairlead\n\n{NOTE}\n\nScheduler with the extender beside it, operator, and an agent on each node. Install the chart `fairlead-crds` first.\n\n\
         ## Values\n\nFrom `values.yaml`; `values.schema.json` refuses any other.\n\n{table}"
    );
    Ok(("charts/fairlead/README.md".into(), page))
}

fn rbac(checkout: &Checkout) -> Result<Generated> {
    let text = read(&mut charts::template(checkout, "charts/fairlead", &[]))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("the rendered chart is no YAML")?;
    let page = format!(
        "# RBAC\n\n{NOTE}\n\nWhat the chart grants with its default values. The admission policies of the chart narrow some of it further.\n{}",
        reference::rbac_page(&objects)?
    );
    Ok(("docs/reference/rbac.md".into(), page))
}
