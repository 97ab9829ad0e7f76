//! What a bench leaves: rows, notes, and the machine that they were measured on.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::usage;
use crate::bed::Bed;
use crate::parts::Parts;

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// Lowest and highest of several rounds, where `value` is their median.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<[f64; 2]>,
    /// How many values it was made of.
    samples: usize,
}

/// All numbers of a bench.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    about: &'static str,
    began: Instant,
    /// CPU time of other programs before the bench.
    others_ms: f64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, began: Instant::now(), others_ms: others_ms(), rows: Vec::new(), notes: Vec::new() }
    }

    /// A single number made of `samples` values.
    pub(super) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, samples: usize) {
        self.rows.push(Row { name: name.into(), value, unit, range: None, samples });
    }

    /// The median of rounds with its range; nothing when there was no round.
    pub(super) fn add_rounds(&mut self, name: impl Into<String>, rounds: &[f64], unit: &'static str) {
        let sorted = sorted(rounds);
        let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else { return };
        let value = median(rounds);
        self.rows.push(Row { name: name.into(), value, unit, range: Some([low, high]), samples: rounds.len() });
    }

    /// How a number came about.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Writes `target/bench/NAME.json` and prints the table.
    #[allow(clippy::print_stdout, reason = "the table")]
    pub(super) async fn show(mut self, bed: &Bed) -> Result<()> {
        let machine = machine(&bed.parts)?;
        // Whoever reads the numbers should know how quiet the machine was.
        let others = (others_ms() - self.others_ms) / (self.began.elapsed().as_secs_f64() * 10.0);
        self.add("CPU taken by other programs meanwhile (100 is one CPU)", others.max(0.0), "%", 1);
        let kubernetes = bed.client.apiserver_version().await?.git_version;
        let report = json!({
            "bench": self.name,
            "about": self.about,
            "machine": machine,
            "kubernetes": kubernetes,
            "rows": self.rows,
            "notes": self.notes,
        });
        let folder = bed.parts.target.join("bench");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.json", self.name)), serde_json::to_string_pretty(&report)?)?;
        println!("\n{}: {}\n{}, Kubernetes {kubernetes}\n", self.name, self.about, machine_text(&machine));
        print!("{}", self.table());
        Ok(())
    }

    fn table(&self) -> String {
        let cells: Vec<[String; 3]> = self.rows.iter().map(cells).collect();
        let head = ["what", "value", "lowest – highest"].map(str::to_owned);
        let width = |column: usize| {
            cells.iter().chain([&head]).map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [width(0), width(1), width(2)];
        let mut out = String::new();
        let line = |out: &mut String, [what, value, range]: &[String; 3]| {
            let [a, b, c] = widths;
            let _ = writeln!(out, "| {what:a$} | {value:>b$} | {range:>c$} |");
        };
        line(&mut out, &head);
        let [a, b, c] = widths.map(|width| "-".repeat(width));
        let _ = writeln!(out, "| {a} | {}: | {}: |", &b[1..], &c[1..]);
        cells.iter().for_each(|row| line(&mut out, row));
        for note in &self.notes {
            let _ = writeln!(out, "\n{note}");
        }
        out
    }
}

fn others_ms() -> f64 {
    usage::machine_and_own_ms().map_or(0.0, |(machine, own)| machine - own)
}

fn cells(row: &Row) -> [String; 3] {
    let (factor, unit) = match row.unit {
        "bytes" => (1.0 / f64::from(1 << 20), "MiB"),
        unit => (1.0, unit),
    };
    let number = |value: f64| {
        let value = value * factor;
        let digits = if value.abs() >= 100.0 { 0 } else { 1 + usize::from(value.abs() < 10.0) };
        format!("{value:.digits$}")
    };
    let range = row.range.map(|[low, high]| format!("{} – {}", number(low), number(high)));
    [row.name.clone(), format!("{} {unit}", number(row.value)).trim_end().to_owned(), range.unwrap_or_default()]
}

/// The same keys as `cargo xtask bench` writes for the other benches.
fn machine(parts: &Parts) -> Result<Value> {
    let first = |file: &str, key: &str| -> Result<String> {
        let text = std::fs::read_to_string(file)?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        Ok(line.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let profile = parts.binaries.file_name().map(Path::new).unwrap_or(Path::new("unknown"));
    Ok(json!({
        "cpus": std::thread::available_parallelism()?.get(),
        "model": first("/proc/cpuinfo", "model name")?,
        "memory": first("/proc/meminfo", "MemTotal:")?,
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "profile": profile,
    }))
}

fn machine_text(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or_default().to_owned();
    format!(
        "{} × {}, {}, Linux {}, our binaries: {} build",
        machine["cpus"],
        text("model"),
        text("memory"),
        text("kernel"),
        text("profile")
    )
}

/// The middle one; of an even number the mean of the two in the middle; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|before| sorted.get(before))) {
        (Some(value), Some(before)) if sorted.len().is_multiple_of(2) => f64::midpoint(*value, *before),
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

/// The smallest value that `percent` of all do not exceed (nearest rank); 0 of none.
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 95), 95.0);
        assert_eq!(percentile(&[7.0], 50), 7.0);
    }

    #[test]
    fn the_table_is_markdown() {
        let mut report = Report::new("b", "about");
        report.add("memory", f64::from(3 << 20), "bytes", 1);
        report.add_rounds("speed", &[10.0, 30.0, 20.0], "pods/s");
        let wanted = "\
| what   |       value | lowest – highest |
| ------ | ----------: | ---------------: |
| memory |    3.00 MiB |                  |
| speed  | 20.0 pods/s |      10.0 – 30.0 |
";
        assert_eq!(report.table(), wanted);
    }
}
