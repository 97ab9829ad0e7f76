//! A stand-in for the container runtime of a simulated node: agents register with it as with a genuine one, and what a
//! kubelet would ask comes as JSON lines.
//!
//! ```text
//! nri-runtime SOCKET
//! > {"op":"create","pod":{"uid":"u1","namespace":"ns","name":"p","annotations":{}},"container":"c"}
//! < {"op":"create","id":"u1-c-1","cpus":"2-3","mems":"0","quota":-1}
//! > {"op":"update","id":"u1-c-1","cpus":"0-7"}        > {"op":"remove","id":"u1-c-1"}
//! > {"op":"removePod","uid":"u1"}                     > {"op":"state"}
//! < {"event":"registered","plugin":"99-fairlead"}     < {"event":"updated","ids":["u1-c-1"]}
//! ```
//!
//! A line that cannot be carried out is answered with `error`. It ends with its input.
#![allow(clippy::print_stdout, reason = "the answers are the output")]

#[path = "../tests/support/runtime/mod.rs"]
mod runtime;

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime::{News, Pod, Running, Runtime};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
enum Op {
    Create { pod: PodLine, container: String },
    Update { id: String, cpus: String },
    Remove { id: String },
    RemovePod { uid: String },
    State,
}

#[derive(Deserialize)]
struct PodLine {
    uid: String,
    namespace: String,
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let socket =
        std::env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| anyhow::anyhow!("usage: nri-runtime SOCKET"))?;
    let mut runtime = Runtime::listen(&socket)?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => println!("{}", answer(&mut runtime, &line).await),
                None => return Ok(()),
            },
            incoming = runtime.next() => runtime.serve(incoming).await,
        }
        while let Some(news) = runtime.news.pop_front() {
            println!("{}", event(news));
        }
    }
}

async fn answer(runtime: &mut Runtime, line: &str) -> Value {
    match serde_json::from_str(line) {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(Op::Create { pod, container }) => {
            let PodLine { uid, namespace, name, annotations } = pod;
            match runtime.create(&Pod { uid, namespace, name, annotations }, &container).await {
                Ok(id) => shown("create", &id, &runtime.containers[&id]),
                Err(error) => json!({ "op": "create", "error": error }),
            }
        }
        Ok(Op::Update { id, .. }) if !runtime.containers.contains_key(&id) => {
            json!({ "op": "update", "error": format!("there is no container {id}") })
        }
        Ok(Op::Update { id, cpus }) => match runtime.update(&id, &cpus, 0).await {
            Ok(()) => shown("update", &id, &runtime.containers[&id]),
            Err(error) => json!({ "op": "update", "error": error }),
        },
        Ok(Op::Remove { id }) => {
            runtime.remove(&id).await;
            json!({ "op": "remove", "id": id })
        }
        Ok(Op::RemovePod { uid }) => {
            runtime.remove_pod(&uid).await;
            json!({ "op": "removePod", "uid": uid })
        }
        Ok(Op::State) => {
            let containers: Vec<Value> =
                runtime.containers.iter().map(|(id, running)| shown("state", id, running)).collect();
            json!({ "op": "state", "plugins": runtime.plugins(), "containers": containers })
        }
    }
}

fn shown(op: &str, id: &str, running: &Running) -> Value {
    json!({
        "op": op,
        "id": id,
        "podUID": running.pod.uid,
        "container": running.name,
        "cpus": running.cpus,
        "mems": running.mems,
        "quota": running.quota,
        "rlimits": running.rlimits,
    })
}

fn event(news: News) -> Value {
    match news {
        News::Registered { name, index } => json!({ "event": "registered", "plugin": format!("{index}-{name}") }),
        News::Updated(ids) => json!({ "event": "updated", "ids": ids }),
        News::Lost(name) => json!({ "event": "lost", "plugin": name }),
    }
}
