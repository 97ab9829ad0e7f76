//! Creations: where a container is to run that the runtime is about to create, or why it must not be.
use super::claim::claim_of;
use super::state::Waiting;
use super::status::NO_CPU_LEFT;
use super::{Container, Request, Seen, State};

/// Creations that wait at a time; the runtime asks them one after another.
const WAITING_MAX: usize = 64;

impl State {
    pub(super) fn is_own(&self, seen: &Seen) -> bool {
        Some(&seen.pod_uid) == self.own_pod.as_ref()
    }

    pub(super) fn create(&mut self, call: u32, seen: Seen, until_ms: u64, requests: &mut Vec<Request>) {
        if self.is_own(&seen) {
            return requests.push(untouched(call, seen));
        }
        self.forget_failed(&seen);
        let foreign = seen.runs.as_ref().map(|set| super::adopt::sign(&seen, set));
        if let Some(rival) = foreign.clone().or_else(|| self.rival().map(str::to_owned)) {
            return requests.push(self.stand_back(call, seen, foreign, &rival));
        }
        if !seen.placed || self.promises.contains_key(&seen.pod_uid) {
            return requests.push(self.decide(call, seen));
        }
        if self.waiting.len() >= WAITING_MAX {
            let message = format!("{}: {WAITING_MAX} containers wait already", seen.title());
            return requests.push(Request::Refuse { call, message });
        }
        self.waiting.insert(call, Waiting { seen, until_ms, asked: !self.reading, read_failed: None });
        self.ask(requests);
    }

    /// Answers where somebody else sets cpusets: what nobody was promised anything runs as the other one wants it.
    fn stand_back(&mut self, call: u32, seen: Seen, foreign: Option<String>, rival: &str) -> Request {
        let promised = seen.placed || self.promised(&seen).is_some();
        let title = seen.title();
        if !promised || foreign.is_some() {
            let container = Container { foreign, ..Container::new(seen.clone(), None, false) };
            self.containers.insert(seen.id.clone(), container);
        }
        if promised {
            return Request::Refuse { call, message: format!("{title}: the agent may not pin here: {rival}") };
        }
        untouched(call, seen)
    }

    /// A kubelet creates a container anew only after the last try came to nothing, whether or not anybody told that.
    fn forget_failed(&mut self, seen: &Seen) {
        self.containers.retain(|_, container| {
            let same = container.seen.pod_uid == seen.pod_uid && container.seen.name == seen.name;
            container.created || !same
        });
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
        let mut container = Container::new(seen.clone(), claim.clone(), false);
        self.containers.insert(seen.id.clone(), container.clone());
        let Some(place) = self.wanted(&container, &self.pool()) else {
            self.containers.remove(&seen.id);
            return Request::Refuse { call, message: format!("{}: {NO_CPU_LEFT}", seen.title()) };
        };
        container.tell(place.clone());
        self.containers.insert(seen.id.clone(), container);
        let others = claim.as_ref().map(|claim| self.in_the_way(claim)).unwrap_or_default();
        self.have_told(&others);
        Request::Adjust { call, seen, place: Some(place), real_time, others }
    }

    pub(super) fn answer_waiting(&mut self, now_ms: u64, requests: &mut Vec<Request>) {
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

const fn untouched(call: u32, seen: Seen) -> Request {
    Request::Adjust { call, seen, place: None, real_time: false, others: Vec::new() }
}
