//! The container runtime of simulated nodes, as their agents see it: a stand-in process for each node with an agent, told
//! of the containers that a kubelet would create and remove there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::rewrite::relative;
use crate::RELEASE_NAMESPACE;
use crate::parts::Parts;
use crate::processes::{guarded, spawn_guarded};

/// A kubelet tries a refused container again after a while.
const RETRY: Duration = Duration::from_secs(1);
const SOCKET_LIMIT: Duration = Duration::from_secs(5);

/// A container to create: UID of its pod, and the line that asks for it.
type Creation = (String, Value);

/// What a node's stand-in is told.
enum Word {
    Bound(Vec<Creation>),
    Gone { uid: String },
}

/// The stand-ins of a bed, and the pods that they know or will be told of.
#[derive(Default)]
pub(crate) struct Runtimes {
    known: Mutex<Known>,
    /// One is started at a time.
    starting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// By node name.
    nodes: BTreeMap<String, mpsc::UnboundedSender<Word>>,
    /// By UID: node and containers.
    pods: BTreeMap<String, (String, Vec<Creation>)>,
}

impl Runtimes {
    /// Starts the stand-in of `node` unless it runs, and waits for its socket. `bed_dir` is where both ends can name the
    /// socket from.
    pub(crate) async fn ready(&self, parts: &Parts, bed_dir: &Path, node: &str, socket: &Path) -> Result<()> {
        let _alone = self.starting.lock().await;
        if !self.lock(|known| known.nodes.contains_key(node))? {
            let program = parts.binary("examples/nri-runtime")?;
            let log = std::fs::File::create(bed_dir.join("logs").join(format!("nri-runtime_{node}.log")))?;
            let mut command = guarded(&program);
            command.arg(relative(socket, bed_dir)).current_dir(bed_dir);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
            let child = spawn_guarded(command).await.with_context(|| format!("start the runtime of {node}"))?;
            let (sender, words) = mpsc::unbounded_channel();
            self.lock(|known| {
                for (_, containers) in known.pods.values().filter(|(on, _)| on == node) {
                    // Its reader is started below.
                    let _ = sender.send(Word::Bound(containers.clone()));
                }
                known.nodes.insert(node.to_owned(), sender);
            })?;
            tokio::spawn(serve(node.to_owned(), child, words));
        }
        let deadline = Instant::now() + SOCKET_LIMIT;
        while !socket.exists() {
            if Instant::now() > deadline {
                bail!("the runtime of {node} made no socket {}", socket.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Follows the pods of all nodes but those of the release, which are host processes. Never returns.
    pub(crate) async fn follow(&self, client: kube::Client) {
        let own = format!("spec.nodeName!=,metadata.namespace!={RELEASE_NAMESPACE}");
        let config = watcher::Config::default().fields(&own);
        let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client), config).default_backoff());
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            let done = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    Ok(())
                }
                Ok(Event::InitApply(pod)) => {
                    listed.extend(pod.uid());
                    self.seen(&pod)
                }
                Ok(Event::InitDone) => self.keep(&listed),
                Ok(Event::Apply(pod)) => self.seen(&pod),
                Ok(Event::Delete(pod)) => self.gone(&pod.uid().unwrap_or_default()),
                Err(error) => {
                    tracing::debug!(%error, "pods are not being watched, trying again");
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the runtimes of simulated nodes have ended");
                return;
            }
        }
    }

    fn seen(&self, pod: &Pod) -> Result<()> {
        let uid = pod.uid().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.gone(&uid);
        }
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return Ok(()) };
        self.lock(|known| {
            if !known.pods.contains_key(&uid) {
                let containers = creations(pod);
                known.tell(&node, Word::Bound(containers.clone()));
                known.pods.insert(uid, (node, containers));
            }
        })
    }

    fn gone(&self, uid: &str) -> Result<()> {
        self.lock(|known| {
            if let Some((node, _)) = known.pods.remove(uid) {
                known.tell(&node, Word::Gone { uid: uid.to_owned() });
            }
        })
    }

    fn keep(&self, listed: &BTreeSet<String>) -> Result<()> {
        let lost: Vec<String> =
            self.lock(|known| known.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect())?;
        lost.iter().try_for_each(|uid| self.gone(uid))
    }

    fn lock<T>(&self, act: impl FnOnce(&mut Known) -> T) -> Result<T> {
        match self.known.lock() {
            Ok(mut known) => Ok(act(&mut known)),
            Err(_) => bail!("somebody panicked while holding the list of runtimes"),
        }
    }

    /// Ends all stand-ins: each ends with its words.
    pub(crate) fn stop(&self) {
        if let Ok(mut known) = self.known.lock() {
            known.nodes.clear();
        }
    }
}

impl Known {
    /// A node without agent has no stand-in.
    fn tell(&self, node: &str, word: Word) {
        if let Some(words) = self.nodes.get(node)
            && words.send(word).is_err()
        {
            tracing::warn!(node, "the runtime of a simulated node has ended");
        }
    }
}

/// Speaks with one stand-in until nobody tells it anything any more; dropping the child kills it.
async fn serve(node: String, mut child: Child, mut words: mpsc::UnboundedReceiver<Word>) {
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return };
    let mut talk = Talk { input, output: BufReader::new(output).lines() };
    let mut waiting: VecDeque<Creation> = VecDeque::new();
    let mut next_try = Instant::now();
    loop {
        let word = tokio::select! {
            biased;
            word = words.recv() => match word {
                Some(word) => Some(word),
                None => return,
            },
            () = tokio::time::sleep_until(next_try), if !waiting.is_empty() => None,
            // Nobody reads them, but a full pipe would stop it.
            event = talk.output.next_line() => match event {
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return tracing::warn!(node, "the runtime of a simulated node has ended"),
            },
        };
        let done = match word {
            Some(Word::Bound(containers)) => {
                waiting.extend(containers);
                next_try = Instant::now();
                Ok(())
            }
            Some(Word::Gone { uid }) => {
                waiting.retain(|(of, _)| *of != uid);
                talk.ask(&json!({ "op": "removePod", "uid": uid })).await.map(drop)
            }
            None => {
                next_try = Instant::now() + RETRY;
                create(&mut talk, &mut waiting).await
            }
        };
        if let Err(error) = done {
            return tracing::warn!(node, %error, "the runtime of a simulated node does not answer");
        }
    }
}

/// Tries each container once; those that the agent refuses wait on.
async fn create(talk: &mut Talk, waiting: &mut VecDeque<Creation>) -> Result<()> {
    for _ in 0..waiting.len() {
        let Some((uid, line)) = waiting.pop_front() else { break };
        let answer = talk.ask(&line).await?;
        if let Some(error) = answer.get("error") {
            tracing::debug!(%uid, %error, "container refused, trying again");
            waiting.push_back((uid, line));
        }
    }
    Ok(())
}

fn creations(pod: &Pod) -> Vec<Creation> {
    let uid = pod.uid().unwrap_or_default();
    let told =
        json!({ "uid": uid, "namespace": pod.namespace(), "name": pod.name_any(), "annotations": pod.annotations() });
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| (uid.clone(), json!({ "op": "create", "pod": told, "container": container.name })))
        .collect()
}

struct Talk {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Talk {
    /// Sends a line and gives the answer to it, passing over events.
    async fn ask(&mut self, line: &Value) -> Result<Value> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        loop {
            let text = self.output.next_line().await?.context("it has ended")?;
            let answer: Value = serde_json::from_str(&text).with_context(|| format!("its line {text}"))?;
            if answer.get("event").is_none() {
                return Ok(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_container_by_container_with_its_annotations() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "uid": "u", "namespace": "n", "name": "p", "annotations": { "a": "b" } },
            "spec": { "containers": [{ "name": "x" }, { "name": "y" }] },
        }))
        .unwrap();
        let told = json!({ "uid": "u", "namespace": "n", "name": "p", "annotations": { "a": "b" } });
        let line = |container: &str| ("u".to_owned(), json!({ "op": "create", "pod": told, "container": container }));
        assert_eq!(creations(&pod), [line("x"), line("y")]);
    }
}
