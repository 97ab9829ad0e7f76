//! A small world for the election: candidates on skewed clocks, one lease, lost and late messages, stalls and crashes.

use super::step::{Event, Purpose, Record, Request, State, Timing, Write, step};
use crate::seed::Random;
use std::collections::BTreeMap;

const CALL_LIMIT_MS: u64 = 3_300;

/// One candidate; its clock runs at `rate` thousandths of real time from an offset of its own.
pub(super) struct Candidate {
    name: String,
    rate: u64,
    offset_ms: u64,
    state: State,
    /// Answers to an earlier life or an earlier call are not for this one.
    call: u64,
    term: Option<u64>,
    pub(super) terms: Vec<u64>,
}

impl Candidate {
    fn clock(&self, real_ms: u64) -> u64 {
        self.offset_ms + real_ms * self.rate / 1000
    }

    fn real_span(&self, local_ms: u64) -> u64 {
        (local_ms * 1000).div_ceil(self.rate)
    }
}

enum Action {
    Arrive { who: usize, call: u64, request: Request, back_ms: Option<u64> },
    Deliver { who: usize, call: u64, event: Event },
    Crash { who: usize },
}

/// What may go wrong, in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) stall: u64,
    pub(super) crash: u64,
}

pub(super) const CALM: Faults = Faults { lost: 0, late: 0, stall: 0, crash: 0 };

pub(super) struct World {
    timing: Timing,
    real_ms: u64,
    pub(super) lease: Option<Record>,
    writes: u64,
    pub(super) candidates: Vec<Candidate>,
    agenda: BTreeMap<(u64, u64), Action>,
    entries: u64,
    random: Random,
    pub(super) faults: Faults,
    pub(super) together: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64, rates: &[u64], faults: Faults) -> Self {
        let mut world = Self {
            timing: Timing::default(),
            real_ms: 0,
            lease: None,
            writes: 0,
            candidates: Vec::new(),
            agenda: BTreeMap::new(),
            entries: 0,
            random: Random::new(seed),
            faults,
            together: None,
        };
        for (who, rate) in rates.iter().enumerate() {
            let offset_ms = world.random.up_to(1_000_000);
            world.candidates.push(Candidate {
                name: format!("c{who}"),
                rate: *rate,
                offset_ms,
                state: State::new(seed + who as u64),
                call: 0,
                term: None,
                terms: Vec::new(),
            });
            world.plan(0, Action::Deliver { who, call: 0, event: Event::Tick });
        }
        world
    }

    fn plan(&mut self, after_ms: u64, action: Action) {
        self.entries += 1;
        self.agenda.insert((self.real_ms + after_ms, self.entries), action);
    }

    fn happens(&mut self, permille: u64) -> bool {
        self.random.up_to(999) < permille
    }

    pub(super) fn run_until(&mut self, end_ms: u64) {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= end_ms
        {
            let ((real_ms, _), action) = entry.remove_entry();
            self.real_ms = real_ms;
            match action {
                Action::Arrive { who, call, request, back_ms } => self.serve(who, call, request, back_ms),
                Action::Deliver { who, call, event } => self.turn(who, call, event),
                Action::Crash { who } => self.restart(who),
            }
            self.observe();
        }
        self.real_ms = end_ms;
    }

    pub(super) fn leaders(&self) -> usize {
        let leads = |c: &&Candidate| c.state.term_at(c.clock(self.real_ms)).is_some();
        self.candidates.iter().filter(leads).count()
    }

    fn observe(&mut self) {
        if self.leaders() > 1 && self.together.is_none() {
            self.together = Some(self.real_ms);
        }
        for candidate in &mut self.candidates {
            let term = candidate.state.term_at(candidate.clock(self.real_ms));
            if term != candidate.term {
                candidate.term = term;
                candidate.terms.extend(term);
            }
        }
    }

    fn restart(&mut self, who: usize) {
        let seed = self.random.next_u64();
        let candidate = &mut self.candidates[who];
        candidate.name.push('\'');
        candidate.state = State::new(seed);
        candidate.call += 1;
        candidate.term = None;
        candidate.terms.clear();
        let call = candidate.call;
        let pause_ms = self.random.up_to(5_000);
        self.plan(pause_ms, Action::Deliver { who, call, event: Event::Tick });
    }

    fn turn(&mut self, who: usize, call: u64, event: Event) {
        if self.candidates[who].call != call {
            return;
        }
        if self.happens(self.faults.crash) {
            return self.plan(0, Action::Crash { who });
        }
        let candidate = &mut self.candidates[who];
        let now_ms = candidate.clock(self.real_ms);
        let (state, request) = step(&self.timing, &candidate.name, &candidate.state, now_ms, event);
        candidate.state = state;
        candidate.call += 1;
        let call = candidate.call;
        match request {
            Request::Done => {}
            Request::Wait { until_ms } => {
                let span_ms = candidate.real_span(until_ms.saturating_sub(now_ms));
                let stall_ms = if self.happens(self.faults.stall) { self.random.up_to(40_000) } else { 0 };
                self.plan(span_ms + stall_ms, Action::Deliver { who, call, event: Event::Tick });
            }
            request => self.send(who, call, request),
        }
    }

    fn send(&mut self, who: usize, call: u64, request: Request) {
        let limit_ms = self.candidates[who].real_span(CALL_LIMIT_MS);
        self.plan(limit_ms, Action::Deliver { who, call, event: Event::Failed });
        if self.happens(self.faults.lost) {
            return;
        }
        let slow = |world: &mut Self| {
            if world.happens(world.faults.late) { world.random.up_to(30_000) } else { world.random.up_to(20) }
        };
        let there_ms = slow(self);
        let back_ms = (!self.happens(self.faults.lost)).then(|| slow(self));
        self.plan(there_ms, Action::Arrive { who, call, request, back_ms });
    }

    fn serve(&mut self, who: usize, call: u64, request: Request, back_ms: Option<u64>) {
        let event = match request {
            Request::Read => Event::Read(self.lease.clone()),
            Request::Write(write) => self.write(who, &write),
            Request::Wait { .. } | Request::Done => return,
        };
        if let Some(back_ms) = back_ms {
            self.plan(back_ms, Action::Deliver { who, call, event });
        }
    }

    fn write(&mut self, who: usize, write: &Write) -> Event {
        if self.lease.as_ref().map(|lease| &lease.version) != write.expect.as_ref() {
            return Event::Conflict;
        }
        self.writes += 1;
        let holder = match write.purpose {
            Purpose::Release => String::new(),
            Purpose::Acquire | Purpose::Renew => self.candidates[who].name.clone(),
        };
        let record = Record {
            version: self.writes.to_string(),
            holder,
            duration_ms: self.timing.duration_ms,
            transitions: write.transitions,
        };
        self.lease = Some(record.clone());
        Event::Written(record)
    }
}
