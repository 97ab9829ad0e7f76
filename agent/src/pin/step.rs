//! One event in, requests out.

use super::{Cores, Link, Place, Promises, Remembered, Seen, State, Version};

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
    /// The runtime has the container now, and can change it.
    Created(Seen),
    /// The container of that id runs.
    Started(String),
    /// Resources of a container are about to be changed by somebody else.
    Update {
        /// Number of the call.
        call: u32,
        /// The container, as it is before.
        seen: Seen,
        /// CPUs and memory nodes that it is to get, where any are named; as in [`Seen::runs`].
        asked: Option<Place>,
    },
    /// That is done; not told where it failed.
    Changed(Seen),
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

impl Request {
    /// Whether it tells the runtime where a container is to run.
    const fn tells(&self) -> bool {
        matches!(
            self,
            Self::Adjust { place: Some(_), .. } | Self::Correct { place: Some(_), .. } | Self::UpdateContainers(_)
        )
    }
}

/// The one rule of the agent's pinning: takes what happened at `now_ms` (monotonic, ms) and tells what is to be done.
#[must_use]
pub fn step(mut state: State, now_ms: u64, event: Event) -> (State, Vec<Request>) {
    let mut requests = Vec::new();
    state.lapse(now_ms);
    let mut changed = state.take(event, &mut requests, now_ms);
    state.name_rival();
    changed |= state.promote();
    state.answer_waiting(now_ms, &mut requests);
    requests.extend(state.update(now_ms));
    changed |= requests.iter().any(Request::tells);
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
            Event::Promises { version, promises } => return self.watched(version, promises, requests),
            Event::Read(outcome) => return self.read(outcome, requests),
            Event::Synchronized(list) => return self.adopt(list),
            Event::Lost => {
                self.link = Link::Down;
                self.flight.clear();
                self.alone.clear();
                self.waiting.clear();
            }
            Event::Create { call, seen, until_ms } => self.create(call, seen, until_ms, requests),
            Event::Created(seen) => self.created(seen),
            Event::Started(id) => self.started(&id, now_ms),
            Event::Update { call, seen, asked } => self.correct(call, seen, asked, requests, now_ms),
            Event::Changed(seen) => self.done(&seen, now_ms),
            Event::Gone(id) => return self.gone(&id),
            Event::PodGone(sandbox) => {
                let before = self.containers.len();
                self.containers.retain(|_, container| container.seen.sandbox != sandbox);
                self.alone.retain(|id| self.containers.contains_key(id));
                return self.containers.len() != before;
            }
            Event::Updated(refused) => self.landed(refused.as_deref(), now_ms),
            Event::Tick => {}
        }
        false
    }

    /// A container that is not created because of another writer tells of that one as long as its pod is there: the kubelet
    /// tries again and again.
    fn gone(&mut self, id: &str) -> bool {
        if self.containers.get(id).is_some_and(|container| !container.created && container.foreign.is_some()) {
            return false;
        }
        self.alone.remove(id);
        self.containers.remove(id).is_some_and(|gone| gone.claim.is_some())
    }

    fn recall(&mut self, remembered: Remembered) {
        if !self.listed {
            (self.promises, self.version) = (remembered.promises, remembered.version);
        }
        if self.link == Link::Down {
            (self.remembered, self.remembered_told) = (remembered.claims, remembered.told);
            self.remembered_doubtful = remembered.doubtful;
        }
    }

    fn learn(&mut self, version: Version, promises: Promises) -> bool {
        if self.listed && version.is_before(&self.version) {
            return false;
        }
        let changed = self.promises != promises;
        (self.version, self.promises, self.listed) = (version, promises, true);
        self.acquit();
        changed
    }

    /// Asks for a read, unless one is under way.
    pub(super) fn ask(&mut self, requests: &mut Vec<Request>) {
        if !self.reading {
            (self.reading, self.overtaken) = (true, false);
            requests.push(Request::ReadPlacement);
        }
    }

    /// What the watch tells. Generations tell nothing of two objects: where a read was ahead of the watch, this may be
    /// the end of an object before the one that is known.
    fn watched(&mut self, version: Version, promises: Promises, requests: &mut Vec<Request>) -> bool {
        self.overtaken = self.reading;
        if self.listed && self.ahead && version.uid != self.version.uid {
            self.unconfirmed = Some((version, promises));
            self.ask(requests);
            return false;
        }
        (self.ahead, self.unconfirmed) = (false, None);
        self.learn(version, promises)
    }

    fn read(&mut self, outcome: Result<(Version, Promises), String>, requests: &mut Vec<Request>) -> bool {
        self.reading = false;
        let is_other = |version: &Version| !self.listed || version.uid != self.version.uid;
        // Another object, and which of the two is older nobody can tell.
        let past = matches!(&outcome, Ok((version, _)) if self.overtaken && self.listed && is_other(version));
        let (changed, failed) = match outcome {
            Ok(_) if past => (false, None),
            Ok((version, promises)) => {
                self.ahead |= is_other(&version);
                if !self.overtaken {
                    // Watch and read agree.
                    self.ahead &= self.unconfirmed.take().is_none_or(|(told, _)| told.uid != version.uid);
                }
                (self.learn(version, promises), None)
            }
            // The watch comes to the truth in the end.
            Err(error) => {
                let told = self.unconfirmed.take();
                self.ahead &= told.is_none();
                (told.is_some_and(|(version, promises)| self.learn(version, promises)), Some(error))
            }
        };
        let mut refused = Vec::new();
        for (call, waiting) in &mut self.waiting {
            if self.promises.contains_key(&waiting.seen.pod_uid) {
                continue;
            }
            match &failed {
                Some(error) => waiting.read_failed = Some(error.clone()),
                None if waiting.asked && !past => refused.push(*call),
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
        let unseen = self.waiting.values().any(|waiting| !self.promises.contains_key(&waiting.seen.pod_uid));
        if failed.is_none() && (unseen || past || self.unconfirmed.is_some()) {
            self.ask(requests);
        }
        changed
    }
}
