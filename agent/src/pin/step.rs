//! One event in, requests out.

use super::claim::{admit, claim_in_force, claim_of, claim_of_annotation};
use super::state::Waiting;
use super::{Claim, Container, Cores, Link, Place, Promises, Remembered, Seen, State, Version};

/// Creations that wait at a time; the runtime asks them one after another.
const WAITING_MAX: usize = 64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, made and taken at once")]
pub enum Event {
    /// The machine was read, and is another than before.
    Machine(Cores),
    /// The checkpoint was read. It counts until the API server told.
    Remembered(Remembered),
    /// The NodePlacement, by the watch.
    Promises {
        /// Which state of it.
        version: Version,
        /// What it says.
        promises: Promises,
    },
    /// The NodePlacement, by a read that [`Request::ReadPlacement`] asked for; or why it could not be read.
    Read(Result<(Version, Promises), String>),
    /// The runtime told all it has.
    Synchronized(Vec<Seen>),
    /// The connection to the runtime is lost.
    Lost,
    /// A container is about to be created.
    Create {
        /// Number of the call.
        call: u32,
        /// The container.
        seen: Seen,
        /// Answered by then, ms.
        until_ms: u64,
    },
    /// Resources of a container are about to be changed by somebody else.
    Update {
        /// Number of the call.
        call: u32,
        /// The container.
        seen: Seen,
    },
    /// The container of that id has ended or is gone.
    Gone(String),
    /// The pod of that runtime's id is gone with all its containers.
    PodGone(String),
    /// The runtime answered [`Request::UpdateContainers`]; with words if it refused one or all of them.
    Updated(Option<String>),
    /// Nothing but time.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one or two at a time, made and carried out at once")]
pub enum Request {
    /// Answers [`Event::Create`].
    Adjust {
        /// Number of the call.
        call: u32,
        /// The container.
        seen: Seen,
        /// Where it is to run; none: the agent does not touch it.
        place: Option<Place>,
        /// It may use real-time scheduling.
        real_time: bool,
        /// Containers that move before it is created. Whether they did is not told; so they are updated once more.
        others: Vec<(String, Place)>,
    },
    /// Answers [`Event::Create`]: it must not be created now. The kubelet tries again.
    Refuse {
        /// Number of the call.
        call: u32,
        /// Why.
        message: String,
    },
    /// Answers [`Event::Update`].
    Correct {
        /// Number of the call.
        call: u32,
        /// The container.
        id: String,
        /// Where it is to run; none: the agent does not touch it.
        place: Option<Place>,
    },
    /// Changes containers; answered by [`Event::Updated`]. One at a time.
    UpdateContainers(Vec<(String, Place)>),
    /// Reads the NodePlacement; answered by [`Event::Read`].
    ReadPlacement,
    /// Writes [`State::to_remember`] to the checkpoint.
    Remember,
}

/// The one rule of the agent's pinning: takes what happened at `now_ms` (monotonic, ms) and tells what is to be done.
#[must_use]
pub fn step(mut state: State, now_ms: u64, event: Event) -> (State, Vec<Request>) {
    let mut requests = Vec::new();
    let mut changed = state.take(event, &mut requests, now_ms);
    changed |= state.promote();
    state.answer_waiting(now_ms, &mut requests);
    changed |=
        requests.iter().any(|request| matches!(request, Request::Adjust { place: Some(at), .. } if at.unlimited));
    requests.extend(state.update(now_ms));
    if changed {
        requests.push(Request::Remember);
    }
    (state, requests)
}

impl State {
    /// Takes the event in; true if what is to be remembered changed.
    fn take(&mut self, event: Event, requests: &mut Vec<Request>, now_ms: u64) -> bool {
        match event {
            Event::Machine(cores) => self.cores = cores,
            Event::Remembered(remembered) => self.recall(remembered),
            Event::Promises { version, promises } => return self.learn(version, promises),
            Event::Read(outcome) => return self.read(outcome, requests),
            Event::Synchronized(list) => return self.adopt(list),
            Event::Lost => {
                self.link = Link::Down;
                self.flight.clear();
                self.alone.clear();
                self.waiting.clear();
            }
            Event::Create { call, seen, until_ms } => self.create(call, seen, until_ms, requests),
            Event::Update { call, seen } => self.correct(call, seen, requests),
            Event::Gone(id) => return self.containers.remove(&id).is_some_and(|gone| gone.claim.is_some()),
            Event::PodGone(sandbox) => {
                let before = self.containers.len();
                self.containers.retain(|_, container| container.seen.sandbox != sandbox);
                return self.containers.len() != before;
            }
            Event::Updated(refused) => self.landed(refused.as_deref(), now_ms),
            Event::Tick => {}
        }
        false
    }

    fn recall(&mut self, remembered: Remembered) {
        if !self.listed {
            (self.promises, self.version) = (remembered.promises, remembered.version);
        }
        if self.link == Link::Down {
            self.remembered = remembered.claims;
        }
    }

    fn learn(&mut self, version: Version, promises: Promises) -> bool {
        if self.listed && version.is_before(&self.version) {
            return false;
        }
        let changed = self.promises != promises;
        (self.version, self.promises, self.listed) = (version, promises, true);
        changed
    }

    fn read(&mut self, outcome: Result<(Version, Promises), String>, requests: &mut Vec<Request>) -> bool {
        self.reading = false;
        let (changed, failed) = match outcome {
            Ok((version, promises)) => (self.learn(version, promises), None),
            Err(error) => (false, Some(error)),
        };
        let mut refused = Vec::new();
        for (call, waiting) in &mut self.waiting {
            if self.promises.contains_key(&waiting.seen.pod_uid) {
                continue;
            }
            match &failed {
                Some(error) => waiting.read_failed = Some(error.clone()),
                None if waiting.asked => refused.push(*call),
                None => waiting.asked = !self.reading,
            }
        }
        for call in refused {
            if let Some(waiting) = self.waiting.remove(&call) {
                let message = format!("{}: its pod has no reservation on this node", waiting.seen.title());
                requests.push(Request::Refuse { call, message });
            }
        }
        // Those that came while the read was under way: it may have been answered before their promise was made.
        if failed.is_none() && self.waiting.values().any(|waiting| !self.promises.contains_key(&waiting.seen.pod_uid)) {
            self.reading = true;
            requests.push(Request::ReadPlacement);
        }
        changed
    }

    /// Takes over what runs. What is known to run on its claim keeps it before anything new is claimed.
    fn adopt(&mut self, list: Vec<Seen>) -> bool {
        let mut before = std::mem::take(&mut self.containers);
        let mut remembered = std::mem::take(&mut self.remembered);
        self.link = Link::Synchronized;
        self.rival = None;
        let foreign = |seen: &Seen| Some(&seen.pod_uid) == self.own_pod.as_ref();
        let list: Vec<Seen> = list.into_iter().filter(|seen| !foreign(seen)).collect();
        for seen in list {
            let known = before.remove(&seen.id).and_then(|container| container.claim);
            let known = known.or_else(|| remembered.remove(&seen.id));
            let claim = known.filter(|claim| admit(self, &seen, claim).is_ok());
            self.containers.insert(seen.id.clone(), Container::new(seen, claim));
        }
        for running_as_promised in [true, false] {
            self.adopt_unclaimed(running_as_promised);
        }
        true
    }

    fn adopt_unclaimed(&mut self, running_as_promised: bool) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let Some(container) = self.containers.get(&id).filter(|container| container.claim.is_none()) else {
                continue;
            };
            let seen = &container.seen;
            let claim = match self.promised(seen) {
                Some((promise, cpus)) if running_as_promised => claim_in_force(self, seen, promise, cpus),
                None if !running_as_promised => claim_of_annotation(self, seen),
                _ => None,
            };
            if let (Some(claim), Some(container)) = (claim, self.containers.get_mut(&id)) {
                container.claim = Some(claim);
            }
        }
    }

    fn create(&mut self, call: u32, seen: Seen, until_ms: u64, requests: &mut Vec<Request>) {
        if Some(&seen.pod_uid) == self.own_pod.as_ref() {
            return requests.push(Request::Adjust { call, seen, place: None, real_time: false, others: Vec::new() });
        }
        if let Some(runs) = seen.runs.as_ref().filter(|runs| !runs.cpus.is_empty()) {
            let message = format!("{} was given CPUs {} by another plugin or by the kubelet", seen.title(), runs.cpus);
            self.rival.get_or_insert(message);
        }
        if let Some(rival) = &self.rival {
            requests.push(if seen.placed {
                let message = format!("{}: the agent may not pin here: {rival}", seen.title());
                Request::Refuse { call, message }
            } else {
                Request::Adjust { call, seen, place: None, real_time: false, others: Vec::new() }
            });
            return;
        }
        if !seen.placed || self.promises.contains_key(&seen.pod_uid) {
            return requests.push(self.decide(call, seen));
        }
        if self.waiting.len() >= WAITING_MAX {
            let message = format!("{}: {WAITING_MAX} containers wait already", seen.title());
            return requests.push(Request::Refuse { call, message });
        }
        self.waiting.insert(call, Waiting { seen, until_ms, asked: !self.reading, read_failed: None });
        if !self.reading {
            self.reading = true;
            requests.push(Request::ReadPlacement);
        }
    }

    /// Answers the creation of a container whose promise is known, or that has none.
    fn decide(&mut self, call: u32, seen: Seen) -> Request {
        let claim = match self.promised(&seen) {
            None => None,
            Some((promise, cpus)) => match claim_of(self, &seen, promise, cpus) {
                Ok(claim) => Some(claim),
                Err(reason) => return Request::Refuse { call, message: format!("{}: {reason}", seen.title()) },
            },
        };
        let real_time = self.permit_sched_fifo && claim.as_ref().is_some_and(|claim| claim.isolated);
        let mut container = Container::new(seen.clone(), claim.clone());
        container.runs = None;
        self.containers.insert(seen.id.clone(), container);
        let Some(place) = self.tell(&seen.id) else {
            self.containers.remove(&seen.id);
            return Request::Refuse { call, message: format!("{}: no CPU is left to the shared pool", seen.title()) };
        };
        let others = claim.as_ref().map(|claim| self.in_the_way(claim)).unwrap_or_default();
        Request::Adjust { call, seen, place: Some(place), real_time, others }
    }

    /// Where the container is to run, taken for done: the runtime does it or fails what it was about to do.
    fn tell(&mut self, id: &str) -> Option<Place> {
        let pool = self.pool();
        let place = self.wanted(self.containers.get(id)?, &pool)?;
        self.containers.get_mut(id)?.runs = Some(place.clone());
        Some(place)
    }

    fn correct(&mut self, call: u32, seen: Seen, requests: &mut Vec<Request>) {
        let id = seen.id.clone();
        let ours = Some(&seen.pod_uid) != self.own_pod.as_ref() && self.rival.is_none();
        if ours && !self.containers.contains_key(&id) {
            self.containers.insert(id.clone(), Container::new(seen, None));
            self.promote();
        }
        // An update under way is carried out after this one: to say something newer now would be undone by it.
        let under_way = self.flight.iter().find(|(flying, _)| *flying == id).map(|(_, place)| place.clone());
        let place = if ours { under_way.or_else(|| self.tell(&id)) } else { None };
        requests.push(Request::Correct { call, id, place });
    }

    fn answer_waiting(&mut self, now_ms: u64, requests: &mut Vec<Request>) {
        let known = |waiting: &Waiting| self.promises.contains_key(&waiting.seen.pod_uid);
        let ready: Vec<u32> =
            self.waiting.iter().filter(|(_, waiting)| known(waiting)).map(|(call, _)| *call).collect();
        for call in ready {
            if let Some(waiting) = self.waiting.remove(&call) {
                requests.push(self.decide(call, waiting.seen));
            }
        }
        let late: Vec<u32> =
            self.waiting.iter().filter(|(_, waiting)| now_ms >= waiting.until_ms).map(|(call, _)| *call).collect();
        for call in late {
            if let Some(waiting) = self.waiting.remove(&call) {
                let why = waiting.read_failed.as_deref().unwrap_or("the API server did not answer in time");
                let message = format!("{}: its reservation is not seen: {why}", waiting.seen.title());
                requests.push(Request::Refuse { call, message });
            }
        }
    }
}

impl Container {
    fn new(seen: Seen, claim: Option<Claim>) -> Self {
        let runs = seen.runs.clone();
        Self { seen, claim, runs, blocked: None, refused: None, refusals: 0, retry_at_ms: 0 }
    }
}
