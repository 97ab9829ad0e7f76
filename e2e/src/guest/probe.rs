//! Questions to the guest's kernel, past everything of ours: a shell in the guest reads /proc and cgroup files.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONFINEMENT: &str = include_str!("files/confinement");
const ANSWER_BYTES: u64 = 8 << 20;
const QUESTION_LIMIT: Duration = Duration::from_secs(60);

/// The way in.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub(super) port: u16,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestProcess {
    /// Id in the guest.
    pub pid: u32,
    /// Its name in /proc.
    pub name: String,
    /// VmRSS, bytes.
    pub resident_bytes: u64,
    /// `Cpus_allowed_list`.
    pub cpus: BTreeSet<u32>,
    /// `Mems_allowed_list`.
    pub memory_nodes: BTreeSet<u32>,
}

/// `cpu.stat` of a cgroup, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which something ran under a quota.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled: u64,
    /// How long tasks waited for the next one, microseconds.
    pub throttled_us: u64,
}

/// What the kernel says of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// UID of its pod.
    pub pod_uid: String,
    /// Id at the runtime, without `containerd://`.
    pub container_id: String,
    /// `cpuset.cpus.effective`.
    pub cpus: BTreeSet<u32>,
    /// `cpuset.mems.effective`.
    pub memory_nodes: BTreeSet<u32>,
    /// First word of `cpu.max`: microseconds a period, or `max`.
    pub quota: String,
    /// The same of the pod's cgroup.
    pub pod_quota: String,
    /// Throttling of the container's cgroup.
    pub own: Throttling,
    /// Throttling of the pod's cgroup.
    pub pod: Throttling,
    /// Its processes.
    pub processes: Vec<GuestProcess>,
}

impl Probe {
    /// Host port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a shell script as root in the guest; fails unless it ends with 0.
    pub async fn shell(&self, script: &str) -> Result<String> {
        let answer = tokio::time::timeout(QUESTION_LIMIT, self.post(script));
        let answer =
            answer.await.with_context(|| format!("the guest did not answer within {QUESTION_LIMIT:?}: {script}"))??;
        let (text, status) = answer.trim_end().rsplit_once("exit ").context("the guest's answer has no end")?;
        if status != "0" {
            bail!("in the guest, `{script}` ended with {status}: {text}");
        }
        Ok(text.to_owned())
    }

    /// All containers of pods, in the order of the cgroup tree, sandboxes included.
    pub async fn confinements(&self) -> Result<Vec<Confinement>> {
        self.shell(CONFINEMENT).await?.lines().map(confinement).collect()
    }

    async fn post(&self, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let head = format!(
            "POST /cgi-bin/ask HTTP/1.0\r\nHost: guest\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
            bail!("the guest answers {head}");
        }
        Ok(body.to_owned())
    }
}

fn confinement(line: &str) -> Result<Confinement> {
    let words: Vec<(&str, &str)> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let word = |key: &str| {
        let found = words.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| *value).with_context(|| format!("no {key} in {line:?}"))
    };
    let processes = words.iter().filter(|(key, _)| *key == "process").map(|(_, value)| process(value));
    Ok(Confinement {
        pod_uid: word("pod")?.to_owned(),
        container_id: word("container")?.to_owned(),
        cpus: list(word("cpus")?)?,
        memory_nodes: list(word("mems")?)?,
        quota: word("quota")?.to_owned(),
        pod_quota: word("pod_quota")?.to_owned(),
        own: throttling(word("own")?)?,
        pod: throttling(word("outer")?)?,
        processes: processes.collect::<Result<_>>()?,
    })
}

fn process(text: &str) -> Result<GuestProcess> {
    let parts: Vec<&str> = text.split('/').collect();
    let [pid, name, resident_kib, cpus, memory_nodes] = parts[..] else { bail!("no process: {text:?}") };
    Ok(GuestProcess {
        pid: pid.parse()?,
        name: name.to_owned(),
        resident_bytes: resident_kib.parse::<u64>()? << 10,
        cpus: list(cpus)?,
        memory_nodes: list(memory_nodes)?,
    })
}

fn throttling(text: &str) -> Result<Throttling> {
    let numbers: Vec<u64> = text.split('/').map(str::parse).collect::<Result<_, _>>()?;
    let [periods, throttled, throttled_us] = numbers[..] else { bail!("no cpu.stat: {text:?}") };
    Ok(Throttling { periods, throttled, throttled_us })
}

/// Ids of a kernel list such as `0-3,8`. On purpose not the product's own reader.
pub fn list(text: &str) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().with_context(|| format!("kernel list {text:?}"));
        ids.extend(number(first)?..=number(last)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists() {
        assert_eq!(list("0-2,5\n").unwrap(), BTreeSet::from([0, 1, 2, 5]));
        assert_eq!(list("").unwrap(), BTreeSet::new());
        assert!(list("a").is_err());
    }

    #[test]
    fn a_line_of_the_script_is_read() {
        let line = "pod=u container=c cpus=2-3 mems=0 quota=max pod_quota=200000 own=0/0/0 outer=9/2/1500 process=77/sleep/512/2-3/0";
        let found = confinement(line).unwrap();
        assert_eq!(found.cpus, BTreeSet::from([2, 3]));
        assert_eq!(found.pod, Throttling { periods: 9, throttled: 2, throttled_us: 1500 });
        assert_eq!(found.processes[0].resident_bytes, 512 << 10);
        assert_eq!(found.processes[0].memory_nodes, BTreeSet::from([0]));
        assert!(confinement("pod=u").is_err());
    }
}
