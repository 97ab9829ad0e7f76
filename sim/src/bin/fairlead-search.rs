//! The exhaustive search of placement, as `cargo xtask search placement` starts it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that people and CI read")]

use clap::Parser;
use fairlead_sim::search::{Guard, Scope, Setting, search};
use std::process::ExitCode;
use std::time::Instant;

/// New states of one level that are worth a line of progress.
const MANY: usize = 500_000;

#[derive(Parser)]
#[command(name = "cargo xtask search placement")]
struct Arguments {
    /// Small.
    #[arg(long, conflicts_with = "long")]
    bounded: bool,
    /// Large.
    #[arg(long)]
    long: bool,
    /// Switch a rule off.
    #[arg(long, value_name = "GUARD", value_parser = guard)]
    without: Option<Guard>,
    /// Name the rules.
    #[arg(long)]
    list: bool,
}

fn guard(name: &str) -> Result<Guard, String> {
    let names: Vec<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
    Guard::named(name).ok_or_else(|| format!("there is no such guard; there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        Guard::ALL.iter().for_each(|guard| println!("{:27} {}", guard.name(), guard.sentence()));
        return ExitCode::SUCCESS;
    }
    let scope = match arguments {
        Arguments { bounded: true, .. } => Scope::Bounded,
        Arguments { long: true, .. } => Scope::Long,
        _ => Scope::Complete,
    };
    let settings = match arguments.without {
        Some(guard) => vec![guard.setting()],
        None => scope.settings(),
    };
    let (mut states, mut violations) = (0, 0);
    for setting in settings {
        match report(&setting) {
            Ok((more_states, more_violations)) => {
                states += more_states;
                violations += more_violations;
            }
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("search placement: {states} states, {violations} violations");
    ExitCode::from(u8::from(violations > 0))
}

fn report(setting: &Setting) -> Result<(usize, usize), fairlead_topology::MachineError> {
    let began = Instant::now();
    println!("{setting}");
    let found = search(setting, |states, new| {
        if new > MANY {
            eprintln!("  {states} states, {new} of them new, {} s", began.elapsed().as_secs());
        }
    })?;
    println!(
        "  {} states, {} moves ({} more left out for want of room), at most {} from the first; {} states of a step; at most {} \
         pods bound; {:.1} s",
        found.states,
        found.moves,
        found.pruned,
        found.depth,
        found.steps,
        found.most_bound,
        began.elapsed().as_secs_f32()
    );
    if !found.path.is_empty() {
        println!("the shortest way to a violation:");
    }
    for (number, line) in (1..).zip(&found.path) {
        println!("{number:3}. {line}");
    }
    Ok((found.states, found.violations))
}
