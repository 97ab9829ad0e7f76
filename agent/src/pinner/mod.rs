//! Carries out what [`crate::pin`] decides: speaks to the runtime, keeps the checkpoint, tells who pins.
//!
//! One task of its own, so that a creation is answered from memory while the agent's other loop waits for the API
//! server.
mod checkpoint;
mod kubelet;
mod pinning;
mod saving;
mod session;
mod threads;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::node_topology::Pinning;
use fairlead_runtime::{Backoff, Pulse, causes};
use fairlead_topology::CpuMask;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use kubelet::{KubeletFiles, KubeletPolicies};
pub use pinning::{FIRST_PATIENCE, Lock, PATIENCE, Situation, reason};
use session::{Heard, Session};

use crate::metrics::PinMetrics;
use crate::nri::NriError;
use crate::nri::call::{adjustment, updates};
use crate::nri::frame::Message;
use crate::nri::proto::{ContainerUpdates, CreateContainerResponse};
use crate::objects::Objects;
use crate::pin::{Cores, Event, Finding, Findings, Observed, Place, Promises, Request, State, Version, observed, step};

/// The kubelet's files and the lock are looked at this often.
const LOOK_PAUSE: Duration = Duration::from_secs(10);
/// Longest pause before the runtime is called again.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A burst of changes is reported once.
const REPORT_DEBOUNCE: Duration = Duration::from_millis(100);
/// The task beats at least this often.
const BEAT: Duration = Duration::from_secs(5);
/// The longest the task may be busy: a runtime that takes nothing.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// News of own tasks: at most one of each kind is under way.
const NEWS_MAX: usize = 8;

/// What the task is given.
pub struct Setup {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// The checkpoint folder.
    pub checkpoint: Checkpoint,
    /// The kubelet's files.
    pub kubelet: KubeletFiles,
    /// Whether containers on isolated CPUs may use real-time scheduling.
    pub permit_sched_fifo: bool,
    /// UID of the agent's own pod.
    pub own_pod: Option<String>,
    /// The node's objects.
    pub objects: Objects,
    /// The counters.
    pub metrics: PinMetrics,
    /// Beaten by the task.
    pub pulse: Pulse,
    /// Decides the jitter of the pauses.
    pub seed: u64,
}

/// Why the task ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum PinnerError {
    /// The mount of a kubelet's file keeps one that is the kubelet's no more.
    #[error("the kubelet's files are to be mounted anew: {problems}")]
    KubeletReplaced {
        /// The files, and what is wrong with them.
        problems: String,
    },
}

/// What the agent's other loop knows.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The machine; none until it was read.
    pub cores: Option<Cores>,
    /// It is the machine that this process runs on, not a simulated one.
    pub is_live: bool,
    /// How often it was read.
    pub looks: u64,
    /// What the NodePlacement promises; none until it was listed.
    pub promises: Option<(Version, Promises)>,
}

/// What the task tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Who pins; none while it is too early to tell.
    pub pinning: Option<Pinning>,
    /// What runs.
    pub observed: Option<Observed>,
    /// Another agent has this node, in a sentence: this one writes nothing.
    pub second_agent: Option<String>,
    /// What was found amiss of containers that still exist, whether or not it was put right since.
    pub found: Vec<Finding>,
}

enum News {
    Read(Result<(Version, Promises), String>),
    Kubelet(KubeletPolicies),
    Saved(Result<(), CheckpointError>),
}

/// The task's state.
pub struct Pinner {
    setup: Setup,
    state: Arc<Mutex<State>>,
    findings: Findings,
    inputs: watch::Receiver<Inputs>,
    report: watch::Sender<Report>,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    session: Option<Session>,
    situation: Situation,
    lock: Option<File>,
    backoff: Backoff,
    began: Instant,
    away_since: Instant,
    look_at: Instant,
    connect_at: Instant,
    report_at: Option<Instant>,
    is_saving: bool,
    save_again: bool,
    /// The last write failed, and is tried again then.
    save_at: Option<Instant>,
    save_backoff: Backoff,
    is_live: bool,
    /// Why the task is to end.
    end: Option<PinnerError>,
    /// How often the machine had been read when this process was told to keep to `confined_to`.
    looks: u64,
    /// What the NodePlacement was last told to promise.
    told_promises: Option<(Version, Promises)>,
    /// CPUs that this process was last told to keep to; none: that failed, or is to be told once more.
    confined_to: Option<CpuMask>,
    /// Not tried again before.
    confine_at: Instant,
}

impl Pinner {
    /// A task that has not begun.
    #[must_use]
    pub fn new(setup: Setup, inputs: watch::Receiver<Inputs>, report: watch::Sender<Report>) -> Self {
        let now = Instant::now();
        let state = State::new(setup.permit_sched_fifo, setup.own_pod.clone());
        let situation = Situation {
            kubelet: None,
            lock: Lock::Untried,
            socket: setup.socket.display().to_string(),
            socket_found: false,
            synchronized: false,
            away: None,
            was_there: false,
            runtime: None,
            last_error: None,
            rival: None,
        };
        Self {
            backoff: Backoff::between(Backoff::FLOOR, CONNECT_PAUSE_MAX, setup.seed),
            save_backoff: Backoff::between(Backoff::FLOOR, saving::PAUSE_MAX, setup.seed),
            setup,
            state: Arc::new(Mutex::new(state)),
            findings: Findings::default(),
            inputs,
            report,
            news: mpsc::channel(NEWS_MAX),
            session: None,
            situation,
            lock: None,
            began: now,
            away_since: now,
            look_at: now,
            connect_at: now,
            report_at: Some(now),
            is_saving: false,
            save_again: false,
            save_at: None,
            is_live: false,
            end: None,
            looks: 0,
            told_promises: None,
            confined_to: None,
            confine_at: now,
        }
    }

    /// What `/debug/dump` shows; locked for the moment of a decision only.
    #[must_use]
    pub fn state(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// Only a new process can go on.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), PinnerError> {
        self.inputs.mark_changed();
        loop {
            self.setup.pulse.beat();
            let due = self.due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.save_last().await;
                    return Ok(());
                }
                // Before the runtime's questions: what the watch has told is known when the next one is answered.
                changed = self.inputs.changed() => match changed {
                    Ok(()) => self.take_inputs().await,
                    Err(_) => return Ok(()),
                },
                received = receive(&mut self.session) => self.received(received).await,
                Some(news) = self.news.1.recv() => self.hear(news).await,
                () = tokio::time::sleep_until(due) => self.advance(Event::Tick).await,
            }
            self.tend().await;
            if let Some(error) = self.end.take() {
                self.save_last().await;
                return Err(error);
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn due(&self) -> Instant {
        // The next whole millisecond: what is due then is due by the decisions' clock too.
        let decided = self.state.lock().due_ms().map(|at_ms| self.began + Duration::from_millis(at_ms + 1));
        let connect = (self.session.is_none() && self.may_connect()).then_some(self.connect_at);
        let session = self.session.as_ref().and_then(Session::limit);
        let soonest = [decided, connect, session, self.report_at, self.save_at, Some(self.look_at)];
        soonest.into_iter().flatten().fold(Instant::now() + BEAT, Instant::min)
    }

    fn may_connect(&self) -> bool {
        // Nothing can be answered before the machine is known.
        self.situation.may_connect() && !self.state.lock().cores.usable.is_empty()
    }

    async fn take_inputs(&mut self) {
        let inputs = self.inputs.borrow_and_update().clone();
        self.is_live = inputs.is_live;
        if self.looks != inputs.looks {
            // Whoever reads a machine may have bound his thread, and started others.
            (self.looks, self.confined_to) = (inputs.looks, None);
        }
        if let Some(cores) = inputs.cores
            && self.state.lock().cores != cores
        {
            self.advance(Event::Machine(cores)).await;
        }
        if self.told_promises != inputs.promises
            && let Some((version, promises)) = inputs.promises
        {
            self.told_promises = Some((version.clone(), promises.clone()));
            self.advance(Event::Promises { version, promises }).await;
        }
    }

    async fn received(&mut self, received: Result<Message, NriError>) {
        let Some(session) = &mut self.session else { return };
        let heard = match received {
            Ok(message) => session.take(message).await,
            Err(error) => Err(error),
        };
        match heard {
            Ok(heard) => self.take(heard).await,
            Err(error) => self.lose(&error),
        }
    }

    async fn take(&mut self, heard: Heard) {
        let event = match heard {
            Heard::Nothing => return,
            Heard::Synchronized { call, containers } => {
                if let Some(session) = &mut self.session
                    && let Err(error) = session.synchronized(call).await
                {
                    return self.lose(&error);
                }
                self.arrived(containers.len());
                Event::Synchronized(containers)
            }
            Heard::Create { call, seen, until } => {
                let until_ms = u64::try_from((until - self.began).as_millis()).unwrap_or(u64::MAX);
                Event::Create { call, seen, until_ms }
            }
            Heard::Created(seen) => Event::Created(seen),
            Heard::Started(id) => Event::Started(id),
            Heard::Update { call, seen, asked } => Event::Update { call, seen, asked },
            Heard::Changed(seen) => Event::Changed(seen),
            Heard::Gone(id) => Event::Gone(id),
            Heard::PodGone(id) => Event::PodGone(id),
            Heard::Updated(refused) => Event::Updated(refused),
        };
        self.advance(event).await;
    }

    fn arrived(&mut self, containers: usize) {
        self.backoff.reset();
        self.setup.metrics.connections.inc();
        self.situation.runtime = self.session.as_ref().and_then(|session| session.runtime.clone());
        (self.situation.synchronized, self.situation.was_there, self.situation.last_error) = (true, true, None);
        let runtime = self.situation.runtime.as_deref().unwrap_or_default();
        tracing::info!(runtime, containers, "The container runtime asks this agent where containers run");
    }

    fn lose(&mut self, error: &dyn std::error::Error) {
        let why = causes(error);
        if self.situation.last_error.as_ref() != Some(&why) {
            tracing::warn!(error = %why, "No connection to the container runtime");
        }
        self.situation.last_error = Some(why);
        if self.situation.synchronized {
            self.away_since = Instant::now();
        }
        (self.situation.synchronized, self.session) = (false, None);
        self.connect_at = Instant::now() + self.backoff.next_delay();
        for request in self.decide(Event::Lost) {
            if request == Request::Remember {
                self.save();
            }
        }
    }

    fn report_soon(&mut self) {
        let soon = Instant::now() + REPORT_DEBOUNCE;
        self.report_at = Some(self.report_at.map_or(soon, |at| at.min(soon)));
    }

    fn decide(&mut self, event: Event) -> Vec<Request> {
        let now_ms = self.now_ms();
        let mut state = self.state.lock();
        let (next, requests) = step(std::mem::take(&mut *state), now_ms, event);
        *state = next;
        drop(state);
        self.report_soon();
        requests
    }

    async fn advance(&mut self, event: Event) {
        for request in self.decide(event) {
            if let Err(error) = self.act(request).await {
                self.lose(&error);
                break;
            }
        }
        // After the answers, which the runtime waits for.
        self.findings.note(&self.state.lock());
    }

    async fn act(&mut self, request: Request) -> Result<(), NriError> {
        match request {
            Request::Remember => self.save(),
            Request::ReadPlacement => self.read_placement(),
            Request::Adjust { call, seen, place, real_time, others } => {
                let adjust = adjustment(&seen, place.as_ref(), real_time);
                let update = updates(&others, true).update;
                self.answer("CreateContainer", call, &CreateContainerResponse { adjust, update }).await?;
                tracing::debug!(container = %seen.title(), place = ?place, others = others.len(), "Creation answered");
            }
            Request::Refuse { call, message } => {
                tracing::warn!(reason = %message, "A container is not created");
                self.setup.metrics.refusals.inc();
                let Some(session) = &mut self.session else { return Ok(()) };
                let took = session.refuse(call, format!("fairlead: {message}")).await?;
                self.setup.metrics.answered("CreateContainer", took);
            }
            Request::Correct { call, id, place } => {
                let own: Vec<(String, Place)> = place.map(|place| (id, place)).into_iter().collect();
                self.answer::<ContainerUpdates>("UpdateContainer", call, &updates(&own, false)).await?;
            }
            Request::UpdateContainers(places) => {
                let Some(session) = &mut self.session else { return Ok(()) };
                session.update(&places).await?;
                self.setup.metrics.updates.inc_by(places.len() as u64);
            }
        }
        Ok(())
    }

    async fn answer<M: prost::Message>(&mut self, name: &'static str, call: u32, body: &M) -> Result<(), NriError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let took = session.answer(call, body).await?;
        self.setup.metrics.answered(name, took);
        Ok(())
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Read(outcome) => self.advance(Event::Read(outcome)).await,
            News::Kubelet(policies) => {
                if policies.want_remount(self.situation.kubelet.as_ref(), self.began.elapsed()) {
                    self.end = Some(PinnerError::KubeletReplaced { problems: policies.problems.join("; ") });
                }
                self.situation.kubelet = Some(policies);
                self.report_soon();
            }
            News::Saved(outcome) => self.saved(outcome),
        }
    }

    fn read_placement(&self) {
        let (objects, sender) = (self.setup.objects.clone(), self.news.0.clone());
        tokio::spawn(async move {
            let read = objects.read_promises().await.map_err(|error| error.chain());
            drop(sender.send(News::Read(read)).await);
        });
    }

    /// What is due by time.
    async fn tend(&mut self) {
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_PAUSE;
            self.look().await;
        }
        if self.session.as_ref().is_some_and(|_| !self.situation.may_connect()) {
            tracing::warn!("This agent may not pin here any more; leaving the container runtime");
            self.session = None;
            self.lose(&NriError::Shutdown);
        }
        if let Some(session) = self.session.as_ref().filter(|session| session.limit().is_some_and(|limit| now >= limit))
        {
            let error = session.silent();
            self.lose(&error);
        }
        if self.session.is_none() && now >= self.connect_at && self.may_connect() {
            match Session::open(&self.setup.socket).await {
                Ok(session) => self.session = Some(session),
                Err(error) => self.lose(&error),
            }
        }
        if self.save_at.is_some_and(|at| now >= at) {
            self.save();
        }
        self.keep_off();
        if self.report_at.is_some_and(|at| Instant::now() >= at) {
            self.report_at = None;
            self.tell();
        }
    }

    /// This process is a container of nobody's too, though no cgroup tells it: see [`threads`].
    fn keep_off(&mut self) {
        let cpus = {
            let state = self.state.lock();
            let pool = state.pool();
            if self.situation.was_there && !pool.is_empty() { pool } else { state.cores.usable.clone() }
        };
        let now = Instant::now();
        if !self.is_live || cpus.is_empty() || self.confined_to.as_ref() == Some(&cpus) || now < self.confine_at {
            return;
        }
        match threads::confine(&cpus) {
            Ok(()) => self.confined_to = Some(cpus),
            Err(error) => {
                tracing::warn!(%error, %cpus, "The agent itself runs on CPUs that are not its own; trying again");
                (self.confined_to, self.confine_at) = (None, now + LOOK_PAUSE);
            }
        }
    }

    async fn look(&mut self) {
        let (files, sender) = (self.setup.kubelet.clone(), self.news.0.clone());
        tokio::task::spawn_blocking(move || drop(sender.blocking_send(News::Kubelet(KubeletPolicies::read(&files)))));
        self.situation.socket_found = tokio::fs::try_exists(&self.setup.socket).await.unwrap_or(false);
        if self.lock.is_none() && self.situation.socket_found {
            self.take_lock().await;
        }
        self.report_soon();
    }

    async fn take_lock(&mut self) {
        match self.setup.checkpoint.lock() {
            Ok(file) => {
                (self.lock, self.situation.lock) = (Some(file), Lock::Held);
                match self.setup.checkpoint.read() {
                    Ok(Some(remembered)) => self.advance(Event::Remembered(remembered)).await,
                    Ok(None) => {}
                    Err(error) => {
                        self.setup.metrics.checkpoint_failures.inc();
                        tracing::warn!(error = %causes(&error), "Starting without the checkpoint");
                    }
                }
            }
            Err(error) => {
                let why = causes(&error);
                self.situation.lock = match error {
                    CheckpointError::Taken { .. } => Lock::Taken(why),
                    _ => Lock::Unusable(why),
                };
            }
        }
    }

    fn tell(&mut self) {
        let observed = {
            let state = self.state.lock();
            self.situation.rival = state.rival().map(str::to_owned);
            (!state.cores.usable.is_empty()).then(|| observed(&state))
        };
        let away = self.away_since.elapsed();
        self.situation.away = (!self.situation.synchronized).then_some(away);
        // What is not said for lack of patience is said when the patience is over.
        for patience in [FIRST_PATIENCE, PATIENCE] {
            if self.situation.away.is_some_and(|away| away < patience) {
                self.report_at = Some(self.away_since + patience);
                break;
            }
        }
        let report = Report {
            pinning: self.situation.pinning(),
            observed,
            second_agent: self.situation.second_agent().map(str::to_owned),
            found: self.findings.list(),
        };
        self.setup.metrics.show(&report);
        self.report.send_if_modified(|before| {
            let changed = *before != report;
            if changed {
                *before = report;
            }
            changed
        });
    }
}

async fn receive(session: &mut Option<Session>) -> Result<Message, NriError> {
    match session {
        Some(session) => session.receive().await,
        None => std::future::pending().await,
    }
}
