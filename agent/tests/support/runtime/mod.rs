//! A container runtime as far as its plugins see it: a socket, pods and containers that are only entries, and the calls
//! that a genuine one makes. The messages are written here anew, so that both sides do not share a mistake.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::panic, reason = "test support")]

mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_agent::nri::frame::{Decoder, Message, encode};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Far above containerd's two seconds: what has to be quick is the agent's own limit, and not the machine of the test.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const PLUGIN: u32 = 1;
const RUNTIME: u32 = 2;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub annotations: BTreeMap<String, String>,
}

/// A container as the kernel would have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    pub pod: Pod,
    pub name: String,
    /// Empty: all.
    pub cpus: String,
    /// Empty: all.
    pub mems: String,
    /// −1: none.
    pub quota: i64,
    pub env: Vec<(String, String)>,
    pub rlimits: Vec<(String, u64, u64)>,
    pub annotations: BTreeMap<String, String>,
}

struct Plugin {
    name: String,
    index: String,
    writer: OwnedWriteHalf,
    next_stream: u32,
    events: u32,
    active: bool,
    /// Set by a plugin that serves only the older form of events.
    state_change: bool,
}

/// What happened without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Registered { name: String, index: String },
    Updated(Vec<String>),
    Lost(String),
}

/// Something that came from a plugin.
pub struct Incoming(Came);

enum Came {
    Plugin(UnixStream),
    Message(u32, Option<Message>),
}

/// Which plugin, and its message; none at its end.
type FromPlugin = (u32, Option<Message>);

/// The runtime.
pub struct Runtime {
    listener: UnixListener,
    inbox: (mpsc::Sender<FromPlugin>, mpsc::Receiver<FromPlugin>),
    plugins: BTreeMap<u32, Plugin>,
    backlog: VecDeque<(u32, Message)>,
    next_plugin: u32,
    next_container: u64,
    /// Containers by id.
    pub containers: BTreeMap<String, Running>,
    /// Containers that plugins were asked about and that are not in the store yet: changes to them are skipped and
    /// reported as made, as containerd does.
    asked: BTreeMap<String, Running>,
    /// Ids whose changes fail.
    pub unchangeable: BTreeSet<String>,
    /// Containers in one part of a synchronization.
    pub part: usize,
    /// Sends notifications in the older form first, as runtimes before NRI 0.11.
    pub old_events: bool,
    /// What happened without being asked for, oldest first.
    pub news: VecDeque<News>,
    /// Times from a creation's question to its answer.
    pub answer_times: Vec<Duration>,
}

impl Runtime {
    pub fn listen(socket: &Path) -> std::io::Result<Self> {
        drop(std::fs::remove_file(socket));
        Ok(Self {
            listener: UnixListener::bind(socket)?,
            inbox: mpsc::channel(1024),
            plugins: BTreeMap::new(),
            backlog: VecDeque::new(),
            next_plugin: 1,
            next_container: 1,
            containers: BTreeMap::new(),
            asked: BTreeMap::new(),
            unchangeable: BTreeSet::new(),
            part: 100,
            old_events: false,
            news: VecDeque::new(),
            answer_times: Vec::new(),
        })
    }

    /// How many plugins are registered.
    pub fn plugins(&self) -> usize {
        self.plugins.values().filter(|plugin| plugin.active).count()
    }

    /// Closes every connection, as a restart does. Containers stay.
    pub fn hang_up(&mut self) {
        self.plugins.clear();
        self.backlog.clear();
    }

    /// Serves plugins for that long.
    pub async fn serve_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.serve_within(until.saturating_duration_since(Instant::now())).await {}
    }

    /// Serves plugins until that holds; false after 90 s.
    pub async fn serve_until(&mut self, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(90);
        while !holds(self) {
            if Instant::now() >= until {
                return false;
            }
            self.serve_within(Duration::from_millis(20)).await;
        }
        true
    }

    /// Serves what comes first, if something comes within that time.
    pub async fn serve_within(&mut self, time: Duration) -> bool {
        match timeout(time, self.next()).await {
            Ok(incoming) => {
                self.serve(incoming).await;
                true
            }
            Err(_) => false,
        }
    }

    /// What comes next. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Incoming {
        if let Some((id, message)) = self.backlog.pop_front() {
            return Incoming(Came::Message(id, Some(message)));
        }
        tokio::select! {
            Ok((stream, _)) = self.listener.accept() => Incoming(Came::Plugin(stream)),
            Some((id, message)) = self.inbox.1.recv() => Incoming(Came::Message(id, message)),
        }
    }

    /// Serves what came; this must not be dropped half-way.
    pub async fn serve(&mut self, incoming: Incoming) {
        match incoming.0 {
            Came::Plugin(stream) => self.accept(stream),
            Came::Message(id, Some(message)) => self.take(id, message).await,
            Came::Message(id, None) => self.lose(id),
        }
    }

    fn accept(&mut self, stream: UnixStream) {
        let id = self.next_plugin;
        self.next_plugin += 1;
        let (reader, writer) = stream.into_split();
        tokio::spawn(forward(id, reader, self.inbox.0.clone()));
        let plugin = Plugin {
            name: String::new(),
            index: String::new(),
            writer,
            next_stream: 1,
            events: 0,
            active: false,
            state_change: self.old_events,
        };
        self.plugins.insert(id, plugin);
    }

    fn lose(&mut self, id: u32) {
        if let Some(plugin) = self.plugins.remove(&id) {
            self.news.push_back(News::Lost(plugin.name));
        }
    }

    async fn take(&mut self, id: u32, message: Message) {
        if message.connection != RUNTIME || message.kind != REQUEST || !self.plugins.contains_key(&id) {
            return;
        }
        let call = wire::Call::decode(message.data).unwrap();
        assert_eq!(call.service, "nri.pkg.api.v1alpha1.Runtime");
        match call.method.as_str() {
            "RegisterPlugin" => {
                let register = wire::Register::decode(call.payload.as_slice()).unwrap();
                assert!(register.index.len() == 2 && register.index.bytes().all(|byte| byte.is_ascii_digit()));
                self.reply(id, message.stream, None, Vec::new()).await;
                self.start(id, register).await;
            }
            "UpdateContainers" => {
                let updates = wire::Updates::decode(call.payload.as_slice()).unwrap().update;
                let ids: Vec<String> = updates.iter().map(|update| update.id.clone()).collect();
                let failed = self.apply(updates);
                let status =
                    failed.then(|| wire::Status { code: 2, text: "NRI update of some containers failed".into() });
                self.reply(id, message.stream, status, Vec::new()).await;
                self.news.push_back(News::Updated(ids));
            }
            other => panic!("{other}"),
        }
    }

    async fn start(&mut self, id: u32, register: wire::Register) {
        let plugin = self.plugins.get_mut(&id).unwrap();
        (plugin.name, plugin.index) = (register.name.clone(), register.index.clone());
        let configure = wire::Configure {
            runtime: "stand-in".into(),
            version: "v0".into(),
            registration_ms: 5_000,
            request_ms: 2_000,
            ..wire::Configure::default()
        };
        let Ok(Ok(configured)) = self.call::<wire::Configured>(id, "Configure", &configure).await else { return };
        if let Some(plugin) = self.plugins.get_mut(&id) {
            plugin.events = configured.events;
        }
        if self.synchronize(id).await
            && let Some(plugin) = self.plugins.get_mut(&id)
        {
            plugin.active = true;
            self.news.push_back(News::Registered { name: register.name, index: register.index });
        }
    }

    async fn synchronize(&mut self, id: u32) -> bool {
        let all: Vec<(String, Running)> = self.containers.clone().into_iter().collect();
        let mut pods: BTreeMap<String, wire::Pod> = BTreeMap::new();
        for (_, container) in &all {
            pods.insert(container.pod.uid.clone(), pod(&container.pod));
        }
        let mut pods: VecDeque<wire::Pod> = pods.into_values().collect();
        let mut containers: VecDeque<wire::Container> = all.iter().map(|(id, one)| container(id, one)).collect();
        loop {
            let part = wire::Sync {
                pods: pods.drain(..pods.len().min(self.part)).collect(),
                containers: containers.drain(..containers.len().min(self.part)).collect(),
                more: !pods.is_empty() || !containers.is_empty(),
            };
            let more = !pods.is_empty() || !containers.is_empty();
            let Ok(Ok(synced)) = self.call::<wire::Synced>(id, "Synchronize", &part).await else { return false };
            assert_eq!(synced.more, more, "a plugin answers `more` as it was asked");
            if !more {
                self.apply(synced.update);
                return true;
            }
            assert!(synced.update.is_empty());
        }
    }

    /// Creates a container. Its id, or why it was not created.
    pub async fn create(&mut self, pod: &Pod, name: &str) -> Result<String, String> {
        self.create_with(pod, name, "").await
    }

    /// As [`Self::create`], with CPUs that somebody set before.
    pub async fn create_with(&mut self, of: &Pod, name: &str, cpus: &str) -> Result<String, String> {
        self.create_from(of, name, &Running { cpus: cpus.into(), ..Running::default() }).await
    }

    /// As [`Self::create`], with CPUs and memory nodes that somebody set before.
    pub async fn create_from(&mut self, of: &Pod, name: &str, set: &Running) -> Result<String, String> {
        let id = self.begin(of, name, set).await?;
        self.finish(&id).await;
        Ok(id)
    }

    /// Asks the plugins about a container; [`Self::finish`] stores and starts it.
    pub async fn begin(&mut self, of: &Pod, name: &str, set: &Running) -> Result<String, String> {
        let id = format!("{}-{name}-{}", of.uid, self.next_container);
        self.next_container += 1;
        let mut running = Running { pod: of.clone(), name: name.into(), quota: 100_000, ..set.clone() };
        let plugins: Vec<u32> = self.plugins.iter().filter(|(_, one)| one.active).map(|(id, _)| *id).collect();
        for plugin in plugins {
            let about = wire::About { pod: Some(pod(of)), container: Some(container(&id, &running)), resources: None };
            let since = Instant::now();
            let answer = self.call::<wire::Created>(plugin, "CreateContainer", &about).await;
            self.answer_times.push(since.elapsed());
            match answer {
                Ok(Ok(created)) => {
                    self.apply(created.update);
                    let adjust = created.adjust.unwrap_or_default();
                    running.annotations = adjust.annotations.into_iter().collect();
                    running.set(adjust.linux.and_then(|linux| linux.resources));
                    running.env = adjust.env.into_iter().map(|pair| (pair.key, pair.value)).collect();
                    running.rlimits = adjust.rlimits.into_iter().map(|one| (one.kind, one.soft, one.hard)).collect();
                }
                Ok(Err(status)) => {
                    self.tell_end(&id, &running).await;
                    return Err(status.text);
                }
                // As NRI does: a plugin that does not answer is dropped, and the container runs without it.
                Err(()) => self.lose(plugin),
            }
        }
        self.asked.insert(id.clone(), running);
        Ok(id)
    }

    /// The container is there from now on, and runs.
    pub async fn finish(&mut self, id: &str) {
        let running = self.asked.remove(id).unwrap();
        self.containers.insert(id.to_owned(), running.clone());
        for (method, event) in [("PostCreateContainer", 5), ("PostStartContainer", 7)] {
            self.notify(method, event, Some(&running.pod), Some(container(id, &running))).await;
        }
    }

    /// Changes resources as a kubelet would.
    pub async fn update(&mut self, id: &str, cpus: &str, quota: i64) -> Result<(), String> {
        let running = self.containers[id].clone();
        let cpu = wire::Cpu { cpus: cpus.into(), quota: Some(wire::Number { value: quota }), ..wire::Cpu::default() };
        let mut wanted = wire::Resources { cpu: Some(cpu), memory: None };
        let plugins: Vec<u32> = self.plugins.iter().filter(|(_, one)| one.active).map(|(id, _)| *id).collect();
        for plugin in plugins {
            let about = wire::About {
                pod: Some(pod(&running.pod)),
                container: Some(container(id, &running)),
                resources: Some(wanted.clone()),
            };
            match self.call::<wire::Updates>(plugin, "UpdateContainer", &about).await {
                Ok(Ok(updates)) => {
                    for update in updates.update {
                        let told = update.linux.and_then(|linux| linux.resources).and_then(|one| one.cpu);
                        let (Some(told), Some(cpu)) = (told, wanted.cpu.as_mut()) else { continue };
                        assert_eq!(update.id, id);
                        (cpu.cpus, cpu.mems) = (told.cpus, told.mems);
                        cpu.quota = told.quota.or(cpu.quota.take());
                    }
                }
                Ok(Err(status)) => return Err(status.text),
                Err(()) => self.lose(plugin),
            }
        }
        if self.unchangeable.contains(id) {
            return Err("failed to update resources".into());
        }
        let running = self.containers.get_mut(id).unwrap();
        running.set(Some(wanted));
        let running = running.clone();
        self.notify("PostUpdateContainer", 9, Some(&running.pod), Some(container(id, &running))).await;
        Ok(())
    }

    /// Ends a container and removes it.
    pub async fn remove(&mut self, id: &str) {
        if let Some(running) = self.containers.remove(id) {
            self.tell_end(id, &running).await;
        }
    }

    /// Removes a pod without telling of its containers.
    pub async fn remove_pod(&mut self, uid: &str) {
        let Some(of) = self.containers.values().find(|one| one.pod.uid == uid).map(|one| one.pod.clone()) else {
            return;
        };
        self.containers.retain(|_, one| one.pod.uid != uid);
        self.notify("RemovePodSandbox", 3, Some(&of), None).await;
    }

    async fn tell_end(&mut self, id: &str, running: &Running) {
        self.notify("StopContainer", 10, Some(&running.pod), Some(container(id, running))).await;
        self.notify("RemoveContainer", 11, Some(&running.pod), Some(container(id, running))).await;
    }

    async fn notify(&mut self, method: &str, event: u32, of: Option<&Pod>, about: Option<wire::Container>) {
        let plugins: Vec<u32> = self.plugins.iter().filter(|(_, one)| one.active).map(|(id, _)| *id).collect();
        for plugin in plugins {
            if self.plugins[&plugin].events & 1 << (event - 1) == 0 {
                continue;
            }
            let old = self.plugins[&plugin].state_change && event != 10;
            let answer = if old {
                let change = wire::StateChange { event, pod: of.map(pod), container: about.clone() };
                self.call::<wire::Updates>(plugin, "StateChange", &change).await
            } else {
                let body = wire::About { pod: of.map(pod), container: about.clone(), resources: None };
                self.call::<wire::Updates>(plugin, method, &body).await
            };
            match answer {
                Ok(Ok(updates)) => drop(self.apply(updates.update)),
                Ok(Err(status)) => panic!("{method}: {}", status.text),
                Err(()) => self.lose(plugin),
            }
        }
    }

    /// True if one was refused.
    fn apply(&mut self, updates: Vec<wire::Update>) -> bool {
        let mut failed = false;
        for update in updates {
            if self.unchangeable.contains(&update.id) {
                failed |= !update.ignore_failure;
            } else if let Some(running) = self.containers.get_mut(&update.id) {
                running.set(update.linux.and_then(|linux| linux.resources));
            }
        }
        failed
    }

    /// Calls a plugin: its answer or its error; nothing if it does not answer in time.
    async fn call<R: prost::Message + Default>(
        &mut self,
        id: u32,
        method: &str,
        body: &impl prost::Message,
    ) -> Result<Result<R, wire::Status>, ()> {
        let Some(plugin) = self.plugins.get_mut(&id) else { return Err(()) };
        let stream = plugin.next_stream;
        plugin.next_stream += 2;
        let call = wire::Call {
            service: "nri.pkg.api.v1alpha1.Plugin".into(),
            method: method.into(),
            payload: body.encode_to_vec(),
            timeout_ns: i64::try_from(REQUEST_LIMIT.as_nanos()).unwrap(),
        };
        self.send(id, PLUGIN, stream, REQUEST, call.encode_to_vec()).await;
        let until = Instant::now() + REQUEST_LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.inbox.1.recv()).await {
                Ok(Some((from, Some(message)))) => {
                    if from == id && message.connection == PLUGIN && message.stream == stream {
                        assert_eq!(message.kind, RESPONSE);
                        let reply = wire::Reply::decode(message.data).unwrap();
                        let failed = reply.status.filter(|status| status.code != 0);
                        return Ok(failed.map_or_else(|| Ok(R::decode(reply.payload.as_slice()).unwrap()), Err));
                    }
                    self.backlog.push_back((from, message));
                }
                Ok(Some((from, None))) => {
                    self.lose(from);
                    if from == id {
                        return Err(());
                    }
                }
                Ok(None) | Err(_) => return Err(()),
            }
        }
    }

    async fn reply(&mut self, id: u32, stream: u32, status: Option<wire::Status>, payload: Vec<u8>) {
        let reply = wire::Reply { status, payload };
        self.send(id, RUNTIME, stream, RESPONSE, reply.encode_to_vec()).await;
    }

    async fn send(&mut self, id: u32, connection: u32, stream: u32, kind: u8, data: Vec<u8>) {
        let mut out = BytesMut::new();
        encode(&Message { connection, stream, kind, data: Bytes::from(data) }, &mut out).unwrap();
        if let Some(plugin) = self.plugins.get_mut(&id) {
            drop(plugin.writer.write_all(&out).await);
        }
    }
}

impl Running {
    fn set(&mut self, resources: Option<wire::Resources>) {
        let Some(cpu) = resources.and_then(|resources| resources.cpu) else { return };
        if !cpu.cpus.is_empty() {
            self.cpus = cpu.cpus;
        }
        if !cpu.mems.is_empty() {
            self.mems = cpu.mems;
        }
        if let Some(quota) = cpu.quota {
            self.quota = quota.value;
        }
    }
}

async fn forward(id: u32, mut reader: OwnedReadHalf, inbox: mpsc::Sender<FromPlugin>) {
    let mut decoder = Decoder::default();
    loop {
        while let Ok(Some(message)) = decoder.take() {
            if inbox.send((id, Some(message))).await.is_err() {
                return;
            }
        }
        let space = decoder.space();
        space.reserve(4096);
        if !matches!(reader.read_buf(space).await, Ok(bytes) if bytes > 0) {
            drop(inbox.send((id, None)).await);
            return;
        }
    }
}

fn pod(pod: &Pod) -> wire::Pod {
    let annotations: HashMap<String, String> = pod.annotations.clone().into_iter().collect();
    wire::Pod {
        id: format!("sandbox-{}", pod.uid),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        annotations,
        ..wire::Pod::default()
    }
}

fn container(id: &str, running: &Running) -> wire::Container {
    let cpu = wire::Cpu {
        quota: (running.quota != 0).then_some(wire::Number { value: running.quota }),
        cpus: running.cpus.clone(),
        mems: running.mems.clone(),
        ..wire::Cpu::default()
    };
    let resources = wire::Resources { cpu: Some(cpu), memory: None };
    wire::Container {
        id: id.into(),
        pod: format!("sandbox-{}", running.pod.uid),
        name: running.name.clone(),
        state: 3,
        annotations: running.annotations.clone().into_iter().collect(),
        args: vec!["sleep".into(), "inf".into()],
        linux: Some(wire::Linux { resources: Some(resources), cgroup: format!("/kubepods/{id}") }),
        ..wire::Container::default()
    }
}
