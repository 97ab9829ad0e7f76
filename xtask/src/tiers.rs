//! `test`: everything that CI runs, in tiers, counted.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::shell::{Checkout, run, words};
use crate::{charts, cluster, generate, install, node, search, tidy, upstream};

/// A part of the tests with needs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Format, lints, unit and property tests, drift of generated files, charts. Starts nothing.
    Hermetic,
    /// The exhaustive searches, bounded.
    Search,
    /// Against etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, Redis and helm.
    ControlPlane,
    /// A genuine node joined to that: QEMU guest with several NUMA nodes, kubelet, containerd, runc, and our agent's image.
    Node,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Hermetic => "hermetic",
            Self::Search => "search",
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
        }
    }

    fn run(self, checkout: &Checkout, tally: &mut Tally) -> Result<()> {
        match self {
            Self::Hermetic => hermetic(checkout, tally),
            Self::Search => {
                tally.check("search placement --bounded", || search::bounded(checkout));
                Ok(())
            }
            Self::ControlPlane => control_plane(checkout, tally),
            Self::Node => genuine_node(checkout, tally),
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// A check that is no test counts as one.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        eprintln!("check: {name}");
        match check() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                eprintln!("FAILED {name}: {error:#}");
            }
        }
    }

    /// Counts a line `test result: ok. 3 passed; 0 failed; 1 ignored; …` of libtest.
    fn count_line(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Runs the chosen tiers; the last line is the whole count.
#[allow(clippy::print_stdout, reason = "the lines that people and CI read")]
pub(crate) fn test(checkout: &Checkout, only: &[Tier], without: &[Tier]) -> Result<ExitCode> {
    if let Some(both) = only.iter().find(|tier| without.contains(tier)) {
        bail!("tier {} is both asked for and left out", both.name());
    }
    let chosen = Tier::value_variants().iter().filter(|tier| only.is_empty() || only.contains(tier));
    let mut whole = Tally::default();
    for tier in chosen {
        let began = Instant::now();
        let mut tally = Tally::default();
        if without.contains(tier) {
            tally.skipped += 1;
        } else if let Err(error) = tier.run(checkout, &mut tally) {
            tally.failed += 1;
            eprintln!("FAILED tier {} could not run: {error:#}", tier.name());
        }
        println!("tier {}: {tally}, {} s", tier.name(), began.elapsed().as_secs());
        whole.add(tally);
    }
    println!("{whole}");
    Ok(if whole.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hermetic(checkout: &Checkout, tally: &mut Tally) -> Result<()> {
    install::install()?;
    upstream::build(checkout, &["helm"])?;
    tally.check("cargo fmt --check", || run(&mut checkout.cargo(&["fmt", "--all", "--check"])));
    tally.check("tidy", || tidy::tidy(checkout));
    tally.check("cargo clippy", || {
        // The features show clippy the tests of the other tiers too.
        let features = ["--workspace", "--all-targets", "--features", "fairlead-e2e/control-plane,fairlead-e2e/node"];
        run(checkout.cargo(&["clippy"]).args(features).args(["--", "-D", "warnings"]))
    });
    tests(checkout.cargo(&["test", "--workspace", "--no-fail-fast"]), tally)?;
    tally.check("generated files", || generate::generate(checkout, true));
    charts::check(checkout, tally)
}

fn control_plane(checkout: &Checkout, tally: &mut Tally) -> Result<()> {
    cluster::ready(checkout, &["--bins", "--tests"])?;
    // By name, of the whole workspace: asking for the package alone would build its dependencies anew with fewer features.
    let mut command =
        checkout.cargo(&["test", "--workspace", "--features", "fairlead-e2e/control-plane", "--no-fail-fast"]);
    for entry in std::fs::read_dir(checkout.root.join("e2e/tests"))? {
        let path = entry?.path();
        if let (Some(name), Some("rs")) =
            (path.file_stem().and_then(OsStr::to_str), path.extension().and_then(OsStr::to_str))
        {
            command.args(["--test", name]);
        }
    }
    // One bed at a time: two cores hold one cluster well.
    command.args(["--", "--test-threads=1", "--nocapture"]);
    cluster::environment(checkout, "debug", &mut command);
    tests(command, tally)
}

fn genuine_node(checkout: &Checkout, tally: &mut Tally) -> Result<()> {
    node::ready(checkout)?;
    cluster::ready(checkout, &["--bins", "--tests"])?;
    let mut command = checkout.cargo(&["test", "--workspace", "--features", "fairlead-e2e/node", "--test", "node"]);
    command.args(["--", "--test-threads=1", "--nocapture"]);
    cluster::environment(checkout, "debug", &mut command);
    tests(command, tally)
}

/// Streams the output through and counts; a run that fails without a failed test (it did not compile, it crashed) counts as one.
#[allow(clippy::print_stdout, reason = "the tests' own output")]
fn tests(mut command: Command, tally: &mut Tally) -> Result<()> {
    eprintln!("check: {}", words(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{}`", words(&command)))?;
    let mut counted = Tally::default();
    for line in BufReader::new(child.stdout.take().context("no output of the tests")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counted.count_line(&line);
    }
    let status = child.wait()?;
    if !status.success() && counted.failed == 0 {
        counted.failed = 1;
        eprintln!("FAILED `{}`: {status}", words(&command));
    }
    tally.add(counted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted_and_others_are_not() {
        let mut tally = Tally::default();
        tally.count_line(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
        );
        tally.count_line(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.count_line("9 passed");
        assert_eq!(tally, Tally { passed: 4, failed: 2, skipped: 1 });
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_check_counts_as_one() {
        let mut tally = Tally::default();
        tally.check("good", || Ok(()));
        tally.check("bad", || bail!("no"));
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }
}
