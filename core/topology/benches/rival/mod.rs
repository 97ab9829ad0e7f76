//! The kubelet's packing as a process that is asked over its standard input, one line a question.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use fairlead_topology::{CpuMask, Machine};
use serde::Deserialize;
use serde_json::json;

/// It ends when its standard input does.
pub struct Rival {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    cpus: String,
    nanoseconds: Vec<f64>,
}

impl Rival {
    pub fn start(program: &str, machine: &Machine) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut rival = Self { child, questions, answers };
        let index_of = |parts: &[CpuMask], cpus: &CpuMask| parts.iter().position(|part| part.intersects(cpus)).unwrap();
        let cores = (0..machine.core_count()).map(|core| {
            let cpus = machine.core_cpus(core).unwrap();
            json!({
                "numaNode": machine.numa_nodes_of(cpus).next().unwrap(),
                "socket": index_of(machine.package_cpus(), cpus),
                "l3": index_of(machine.l3_cpus(), cpus),
                "threads": cpus.iter().collect::<Vec<_>>(),
            })
        });
        rival.say(&json!({ "cores": cores.collect::<Vec<_>>() }));
        rival
    }

    /// The CPUs given, and the nanoseconds of each repetition.
    pub fn ask(&mut self, way: &str, free: &CpuMask, cpus: u32, repeat: usize) -> (CpuMask, Vec<f64>) {
        self.say(&json!({ "way": way, "free": free.to_string(), "cpus": cpus, "repeat": repeat }));
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Answer = serde_json::from_str(&line).unwrap();
        (CpuMask::parse_list(&answer.cpus).unwrap(), answer.nanoseconds)
    }

    fn say(&mut self, line: &serde_json::Value) {
        writeln!(self.questions.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.child.wait();
    }
}
