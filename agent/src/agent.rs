//! The agent's loop: look at the machine, publish what changed, keep a NodePlacement there, judge its reservations, and
//! say what the pinning observes.
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::conditions::merge;
use fairlead_crds::node_topology::TopologySource;
use fairlead_crds::{NodePlacement, NodePlacementStatus, NodeTopology, NodeTopologySpec};
use fairlead_runtime::{ApiError, Backoff, Pulse, ReadinessHandle};
use fairlead_topology::Machine;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::judge::judge;
use crate::machine::{Distrust, Known, MachineReader, Reading};
use crate::metrics::AgentMetrics;
use crate::objects::{Objects, owned_by};
use crate::pin::{Cores, Finding, promises_of};
use crate::pinner::{Inputs, Report};
use crate::seen::{Seen, Slot};
use crate::trouble::TurnError;

/// A burst of reservations is judged once.
const STATUS_DEBOUNCE: Duration = Duration::from_secs(1);
/// Somebody who keeps changing our object is answered no faster than this.
const REPUBLISH_PAUSE: Duration = Duration::from_secs(1);
/// The loop beats at least this often.
const BEAT: Duration = Duration::from_secs(5);
/// A loop that is silent for this long is stuck: a turn makes four calls at most.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest pause after an error: thousands of agents knock on one API server, and none of them is in a hurry.
pub const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What the loop is given.
pub struct Setup {
    /// Reads the machine.
    pub reader: MachineReader,
    /// Time between two looks at the machine.
    pub refresh: Duration,
    /// The node's objects.
    pub objects: Objects,
    /// The counters.
    pub metrics: AgentMetrics,
    /// Released when machine and NodePlacement are there.
    pub ready: ReadinessHandle,
    /// Beaten by the loop.
    pub pulse: Pulse,
    /// Decides the jitter of the pauses.
    pub seed: u64,
    /// What `/debug/dump` shows; kept by the loop.
    pub shown: Arc<Mutex<Value>>,
    /// What the pinning is told.
    pub inputs: watch::Sender<Inputs>,
    /// What it tells.
    pub report: watch::Receiver<Report>,
}

struct Looked {
    reading: Reading,
    machine: Result<Machine, Distrust>,
}

/// The loop's state.
pub struct Agent {
    setup: Setup,
    backoff: Backoff,
    looked: Option<Looked>,
    node_uid: Option<String>,
    topology: Slot<NodeTopology>,
    placement: Slot<NodePlacement>,
    look_at: Instant,
    turn_at: Instant,
    status_at: Option<Instant>,
    /// Findings up to this number have been in the status.
    told: u64,
}

impl Agent {
    /// An agent that has not looked yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let now = Instant::now();
        Self {
            backoff: Backoff::between(Backoff::FLOOR, PAUSE_MAX, setup.seed),
            setup,
            looked: None,
            node_uid: None,
            topology: Slot::new(),
            placement: Slot::new(),
            look_at: now,
            turn_at: now,
            status_at: None,
            told: 0,
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Seen>, shutdown: CancellationToken) {
        loop {
            self.setup.pulse.beat();
            let next = self.next_turn();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                seen = inbox.recv() => match seen {
                    Some(seen) => self.see(seen),
                    None => return,
                },
                Ok(()) = self.setup.report.changed() => self.hear(),
                () = tokio::time::sleep_until(next) => {}
            }
            // A turn is not broken off: each call of it has its own limit.
            self.turn_if_due().await;
            self.show();
        }
    }

    fn next_turn(&self) -> Instant {
        let beat = Instant::now() + BEAT;
        let work = if self.may_turn() { self.turn_at } else { beat };
        beat.min(work).min(self.status_at.unwrap_or(beat))
    }

    fn listed(&self) -> bool {
        self.topology.listed && self.placement.listed
    }

    /// Nothing is written before both lists came. The machine is read at once: the pinning needs it, also while the API
    /// server is away.
    fn may_turn(&self) -> bool {
        self.listed() || self.looked.is_none()
    }

    fn see(&mut self, seen: Seen) {
        let missing = match seen {
            Seen::Topology(event) => self.topology.take(event),
            Seen::Placement(event) => {
                self.status_at.get_or_insert(Instant::now() + STATUS_DEBOUNCE);
                let missing = self.placement.take(event);
                self.tell_promises();
                missing
            }
        };
        if missing {
            // Gone with its Node, perhaps: another Node may have the name by now.
            self.node_uid = None;
        }
        if missing || !self.published() {
            self.turn_at = self.turn_at.min(Instant::now() + REPUBLISH_PAUSE);
        }
    }

    /// The pinning sees the NodePlacement no later than this loop.
    fn tell_promises(&self) {
        let promises = promises_of(self.placement.object.as_ref());
        self.setup.inputs.send_if_modified(|inputs| {
            let changed = inputs.promises.as_ref() != Some(&promises);
            inputs.promises = Some(promises);
            changed
        });
    }

    fn hear(&mut self) {
        self.setup.report.mark_unchanged();
        self.status_at.get_or_insert(Instant::now() + STATUS_DEBOUNCE);
        if !self.published() {
            self.turn_at = self.turn_at.min(Instant::now());
        }
    }

    /// What is to be published. While it is too early to tell who pins, what an earlier agent said stays.
    fn wanted_spec(&self) -> Option<NodeTopologySpec> {
        let mut spec = self.looked.as_ref()?.reading.spec.clone();
        let earlier = || self.topology.object.as_ref().and_then(|seen| seen.spec.pinning.clone());
        spec.pinning = self.setup.report.borrow().pinning.clone().or_else(earlier);
        Some(spec)
    }

    /// Another agent has the node: both objects are its own to write, or the two overwrite each other for ever.
    fn second_agent(&self) -> Option<String> {
        self.setup.report.borrow().second_agent.clone()
    }

    fn published(&self) -> bool {
        let (Some(spec), Some(uid)) = (self.wanted_spec(), &self.node_uid) else { return false };
        if self.second_agent().is_some() {
            return false;
        }
        self.topology.object.as_ref().is_some_and(|seen| seen.spec == spec && owned_by(seen.meta(), uid))
            && self.placement.object.as_ref().is_some_and(|seen| owned_by(seen.meta(), uid))
    }

    async fn turn_if_due(&mut self) {
        let now = Instant::now();
        if self.may_turn() && now >= self.turn_at {
            match self.publish(now).await {
                Ok(()) if !self.listed() => {}
                Ok(()) => {
                    self.backoff.reset();
                    self.setup.ready.ready();
                    self.turn_at = self.look_at;
                }
                Err(error) => self.failed(&error, now),
            }
        }
        if self.status_at.is_some_and(|at| now >= at) {
            self.status_at = None;
            if let Err(error) = self.write_status().await {
                self.status_at = Some(Instant::now() + STATUS_DEBOUNCE);
                self.note(&error.into());
            }
        }
    }

    fn failed(&mut self, error: &TurnError, now: Instant) {
        self.note(error);
        self.turn_at = now + self.backoff.next_delay();
    }

    fn note(&self, error: &TurnError) {
        self.setup.metrics.failed(error.operation());
        tracing::warn!(error = %error.chain(), "Trying again");
    }

    async fn publish(&mut self, now: Instant) -> Result<(), TurnError> {
        if self.looked.is_none() || now >= self.look_at {
            self.look().await?;
            self.look_at = now + self.setup.refresh;
        }
        let Some(spec) = self.wanted_spec().filter(|_| self.listed()) else { return Ok(()) };
        if let Some(first) = self.second_agent() {
            // Whoever relies on this agent relies on the other.
            self.setup.ready.unready();
            return Err(TurnError::SecondAgent(first));
        }
        let uid = match &self.node_uid {
            Some(uid) => uid.clone(),
            None => {
                let missing = || TurnError::NoNode(self.setup.reader.node_name.clone());
                self.setup.objects.node_uid().await?.ok_or_else(missing)?
            }
        };
        self.node_uid = Some(uid.clone());
        let seen = self.topology.object.as_ref();
        if !seen.is_some_and(|seen| seen.spec == spec && owned_by(seen.meta(), &uid)) {
            let applied = self.setup.objects.apply_topology(&uid, &spec).await?;
            self.setup.metrics.topology_writes.inc();
            tracing::info!(cores = spec.cores.len(), numa_nodes = spec.numa_nodes.len(), "Published the NodeTopology");
            self.topology.object = Some(applied);
        }
        self.ensure_placement(&uid).await
    }

    async fn ensure_placement(&mut self, uid: &str) -> Result<(), TurnError> {
        match &self.placement.object {
            Some(seen) if owned_by(seen.meta(), uid) => Ok(()),
            Some(_) => {
                // The next turn reads the Node again: ours may be the UID that is old.
                self.node_uid = None;
                Err(TurnError::EarlierNode)
            }
            None => {
                if let Some(created) = self.setup.objects.create_placement(uid).await? {
                    self.setup.metrics.placements_created.inc();
                    tracing::info!("Created the NodePlacement");
                    self.placement.object = Some(created);
                    self.status_at.get_or_insert(Instant::now());
                }
                Ok(())
            }
        }
    }

    async fn look(&mut self) -> Result<(), TurnError> {
        let reader = self.setup.reader.clone();
        let before = self.looked.as_ref().map(|looked| looked.reading.description.disallowed.clone());
        let known = Known { disallowed: before.unwrap_or_default() };
        let reading = tokio::task::spawn_blocking(move || reader.read(&known)).await.map_err(TurnError::Reader)??;
        self.setup.inputs.send_modify(|inputs| inputs.looks += 1);
        if self.looked.as_ref().is_some_and(|before| before.reading == reading) {
            return Ok(());
        }
        for gap in &reading.gaps {
            tracing::info!(gap = %gap, "The machine does not tell everything");
        }
        let machine = reading.machine();
        if let Err(distrust) = &machine {
            tracing::warn!(reason = %distrust, "The machine is published and not trusted with exclusive CPUs");
        }
        let cpus = reading.description.cores.iter().map(|core| i64::from(core.cpus.len())).sum();
        self.setup.metrics.cpus.set(cpus);
        self.setup.metrics.disagreements.set(i64::try_from(reading.spec.disagreements.len()).unwrap_or(i64::MAX));
        let cores = Cores::of(&reading.description);
        let is_live = reading.spec.source == TopologySource::Hwloc;
        self.setup.inputs.send_modify(|inputs| (inputs.cores, inputs.is_live) = (Some(cores), is_live));
        self.looked = Some(Looked { reading, machine });
        self.status_at.get_or_insert(Instant::now());
        Ok(())
    }

    async fn write_status(&mut self) -> Result<(), ApiError> {
        let report = self.setup.report.borrow().clone();
        if report.second_agent.is_some() {
            return Ok(());
        }
        let found = &report.found;
        let Some(wanted) = self.wanted_status(&report) else { return Ok(()) };
        let Some(placement) = &self.placement.object else { return Ok(()) };
        let Some(uid) = placement.metadata.uid.clone() else { return Ok(()) };
        if placement.status.as_ref() == Some(&wanted) {
            self.have_told(found);
            return Ok(());
        }
        match self.setup.objects.write_status(&uid, &wanted).await {
            Ok(written) => {
                self.setup.metrics.status_writes.inc();
                self.placement.object = Some(written);
                self.have_told(found);
                Ok(())
            }
            // Deleted, or another of the name: the watch tells.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What was put right meanwhile is for a later write.
    fn have_told(&mut self, found: &[Finding]) {
        let last = found.iter().map(|finding| finding.number).max().unwrap_or_default();
        if last > self.told {
            self.told = last;
            self.status_at.get_or_insert(Instant::now() + STATUS_DEBOUNCE);
        }
    }

    fn wanted_status(&self, report: &Report) -> Option<NodePlacementStatus> {
        let (looked, placement) = (self.looked.as_ref()?, self.placement.object.as_ref()?);
        let judgement = judge(&looked.machine, &placement.spec);
        let metrics = &self.setup.metrics;
        metrics.reservations.set(i64::from(judgement.pods));
        metrics.reserved_cpus.set(i64::from(judgement.reserved_cpus));
        metrics.consistent.set(i64::from(judgement.consistent.status == Some(true)));
        let current = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let generation = placement.metadata.generation;
        let observed = report.observed.clone().map(|observed| observed.with_untold(&report.found, self.told));
        let mut wanted = vec![judgement.consistent];
        wanted.extend(observed.as_ref().map(|observed| observed.pinned.clone()));
        let conditions = merge(current, &wanted, generation, &Time(Timestamp::now()));
        Some(NodePlacementStatus {
            observed_generation: generation,
            pods: judgement.pods,
            reserved_cpus: judgement.reserved_cpus,
            shared_cpus: observed.as_ref().map(|observed| observed.shared_cpus.clone()).unwrap_or_default(),
            containers: observed.map(|observed| observed.containers).unwrap_or_default(),
            conditions,
        })
    }

    fn show(&self) {
        *self.setup.shown.lock() = json!({
            "node": self.setup.reader.node_name,
            "nodeUID": self.node_uid,
            "machine": self.looked.as_ref().map(|looked| &looked.reading.spec),
            "distrust": self.looked.as_ref().and_then(|looked| looked.machine.as_ref().err()).map(ToString::to_string),
            "placement": self.placement.object.as_ref().map(|seen| &seen.spec),
            "placementStatus": self.placement.object.as_ref().and_then(|seen| seen.status.as_ref()),
        });
    }
}
