//! `bench`: runs what measures, and shows it as a table for people and a file for machines.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::shell::{Checkout, read, run, words};
use crate::{cluster, install, upstream};

/// What runs.
enum Source {
    /// A criterion bench: its crate, its name.
    Criterion(&'static str, &'static str),
    /// The bench `kubelet` of core/topology, beside the kubelet's own packing.
    BesideKubelet,
    /// `fairlead-e2e bench NAME` on the genuine control plane, with release binaries; it reports by itself.
    ControlPlane,
}

/// Name, source, what it measures.
const BENCHES: [(&str, Source, &str); 9] = [
    ("topology", Source::Criterion("fairlead-topology", "choose"), "choosing exact CPUs on one machine"),
    (
        "choose",
        Source::BesideKubelet,
        "choosing exact CPUs, in-process and in release, beside the kubelet's CPU manager called as a library (its best \
         to our median; rounds take turns)",
    ),
    ("cluster", Source::Criterion("fairlead-cluster", "judge"), "judging the nodes of a snapshot for one pod"),
    ("fairshare", Source::Criterion("fairlead-fairshare", "release"), "planning the release of waiting pods"),
    (
        "extender",
        Source::Criterion("fairlead-extender", "extender"),
        "the extender's own time for a filter and a prioritize, with real topology logic",
    ),
    ("pipeline", Source::ControlPlane, "a surge through gate, release, filter, reserve and bind"),
    ("needle", Source::ControlPlane, "5,000 nodes of which one fits, until the pod is bound: all nodes looked at"),
    ("needle-sampled", Source::ControlPlane, "the same with kube-scheduler's own sampling"),
    ("scheduler", Source::ControlPlane, "kube-scheduler's own time per pod with and without the extender"),
];

/// One measured number. A bench prints it as `bench: {"name":…,"value":…,"unit":…}`, or criterion leaves an estimate.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    value: f64,
    unit: String,
    /// What rivals took for the same, in the same unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Rival>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rival {
    name: String,
    value: f64,
}

/// Runs one bench or all.
pub(crate) fn bench(checkout: &Checkout, name: Option<&str>) -> Result<()> {
    let chosen: Vec<_> = BENCHES.iter().filter(|(known, ..)| name.is_none_or(|name| name == *known)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = BENCHES.iter().map(|(known, ..)| *known).collect();
        bail!("there is no bench {}; there are: {}", name.unwrap_or_default(), known.join(", "));
    }
    install::install()?;
    let machine = machine()?;
    for (name, source, about) in chosen {
        let rows = match source {
            Source::Criterion(package, bench) => criterion(checkout, package, bench)?,
            Source::BesideKubelet => beside_kubelet(checkout)?,
            Source::ControlPlane => {
                control_plane(checkout, name)?;
                continue;
            }
        };
        if rows.is_empty() {
            bail!("bench {name} measured nothing");
        }
        let folder = checkout.target.join("bench");
        std::fs::create_dir_all(&folder)?;
        let report = serde_json::json!({ "bench": name, "about": about, "machine": machine, "rows": rows });
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(&report)?)?;
        show(name, about, &machine, &rows);
    }
    Ok(())
}

fn beside_kubelet(checkout: &Checkout) -> Result<Vec<Row>> {
    upstream::build(checkout, &[upstream::RIVAL])?;
    let mut command = checkout.cargo(&["bench", "--package", "fairlead-topology", "--bench", "kubelet", "--"]);
    command.arg(checkout.upstream_bin().join(upstream::RIVAL));
    rows_of(command)
}

fn criterion(checkout: &Checkout, package: &str, bench: &str) -> Result<Vec<Row>> {
    let began = SystemTime::now();
    let mut rows = rows_of(checkout.cargo(&["bench", "--package", package, "--bench", bench]))?;
    let folder = checkout.target.join("criterion");
    let mut files = Vec::new();
    estimates(&folder, &mut files)?;
    files.sort();
    for file in files {
        if std::fs::metadata(&file)?.modified()? < began {
            continue;
        }
        let estimate: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let value = estimate["median"]["point_estimate"]
            .as_f64()
            .with_context(|| format!("no median in {}", file.display()))?;
        let path = file.strip_prefix(&folder)?.parent().and_then(Path::parent).unwrap_or(Path::new(""));
        rows.push(Row { name: path.display().to_string(), value, unit: "ns".to_owned(), beside: Vec::new() });
    }
    Ok(rows)
}

/// `…/new/estimates.json` of every criterion bench.
fn estimates(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            estimates(&path, found)?;
        } else if path.ends_with("new/estimates.json") {
            found.push(path);
        }
    }
    Ok(())
}

fn control_plane(checkout: &Checkout, name: &str) -> Result<()> {
    upstream::build(checkout, &upstream::ALL)?;
    eprintln!("building Fairlead for release");
    run(&mut checkout.cargo(&["build", "--release", "--workspace", "--bins", "--example", "nri-runtime"]))?;
    run(cluster::e2e(checkout, "release").args(["bench", name]))
}

#[allow(clippy::print_stdout, reason = "the bench's own output")]
fn rows_of(mut command: Command) -> Result<Vec<Row>> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{}`", words(&command)))?;
    let mut rows = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output of the bench")?).lines() {
        let line = line?;
        match line.strip_prefix("bench: ") {
            Some(row) => rows.push(serde_json::from_str(row).with_context(|| format!("row {row}"))?),
            None => println!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(&command));
    }
    Ok(rows)
}

/// What the numbers were measured on.
fn machine() -> Result<Value> {
    let first = |file: &str, key: &str| -> Result<String> {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        Ok(line.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    Ok(serde_json::json!({
        "cpus": std::thread::available_parallelism()?.get(),
        "model": first("/proc/cpuinfo", "model name")?,
        "memory": first("/proc/meminfo", "MemTotal:")?,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "rustc": read(Command::new("rustc").arg("--version"))?.trim(),
    }))
}

#[allow(clippy::print_stdout, reason = "the table")]
fn show(name: &str, about: &str, machine: &Value, rows: &[Row]) {
    let text = |key: &str| machine[key].as_str().unwrap_or_default().to_owned();
    println!(
        "\n{name}: {about}\n{} × {}, {}, Linux {}, {}",
        machine["cpus"],
        text("model"),
        text("memory"),
        text("kernel"),
        text("rustc")
    );
    print!("{}", table(rows));
}

/// What rivals took stands beside with the ratio to ours, under a line that names them.
fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    if let Some(first) = rows.iter().find(|row| !row.beside.is_empty()) {
        let names = first.beside.iter().map(|rival| format!("  {:>21}", rival.name)).collect::<String>();
        let _ = writeln!(out, "  {:width$}  {:>13}{names}", "", "ours");
    }
    for row in rows {
        let _ = write!(out, "  {:width$}  {}", row.name, readable(row.value, &row.unit));
        for rival in &row.beside {
            let _ = write!(out, "  {} {:>6.0}×", readable(rival.value, &row.unit), rival.value / row.value);
        }
        out.push('\n');
    }
    out
}

/// In its natural unit; counts without decimals.
fn readable(value: f64, unit: &str) -> String {
    let steps: &[(f64, &str)] = match unit {
        "ns" => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs")],
        "bytes" => &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")],
        _ => &[],
    };
    let (value, unit) =
        steps.iter().find(|(size, _)| value >= *size).map_or((value, unit), |(size, name)| (value / size, name));
    let decimals = if value.fract() == 0.0 && steps.is_empty() { 0 } else { 2 };
    format!("{value:>10.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_in_their_natural_unit() {
        let row = |name: &str, value: f64, unit: &str| Row {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            beside: Vec::new(),
        };
        let rows = [row("a", 1_500.0, "ns"), row("long", 2.0 * 1_048_576.0, "bytes"), row("b", 250.0, "pods/s")];
        assert_eq!(table(&rows), "  a           1.50 µs\n  long        2.00 MiB\n  b            250 pods/s\n");
        let beside = vec![Rival { name: "other".to_owned(), value: 3e6 }];
        let beside = Row { beside, ..row("a", 1_500.0, "ns") };
        let header = "              ours                  other";
        assert_eq!(table(&[beside]), format!("{header}\n  a        1.50 µs        3.00 ms   2000×\n"));
    }
}
