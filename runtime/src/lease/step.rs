//! The election as a value: `step(state, event) → (state, request)`. No clock, no I/O, no randomness but its seed.
//!
//! Every time here is milliseconds of the candidate's own monotonic clock. Times written in the record are for people;
//! they are never compared with anything. A lease is stale when *this* candidate has seen no change of the record for the
//! lease's duration; a holder leads until the renew deadline after it *sent* the last write that is known to have succeeded.
//! So with clocks that run at different rates two candidates never lead together as long as
//! rate(fastest) ÷ rate(slowest) < duration ÷ renew deadline (1.5 with the defaults).
//!
//! Election is not fencing: a holder may be stopped between its look at the clock and its write. Every effect needs a
//! precondition of its own.

use crate::seed::Random;

/// How long things last. Checked by [`Timing::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Without a change of the record for this long, a candidate may take the lease.
    pub duration_ms: u64,
    /// Without a successful renewal for this long, the holder stops leading. Less than the duration.
    pub renew_deadline_ms: u64,
    /// Pause between two looks or renewals. Less than the renew deadline.
    pub retry_ms: u64,
}

/// A [`Timing`] that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The holder would lead when others may take over.
    #[error("lease duration {duration_ms} ms must exceed the renew deadline {renew_deadline_ms} ms")]
    Duration {
        /// As given.
        duration_ms: u64,
        /// As given.
        renew_deadline_ms: u64,
    },
    /// The holder would stop leading before it renews.
    #[error("renew deadline {renew_deadline_ms} ms must exceed twice the retry pause {retry_ms} ms")]
    Retry {
        /// As given.
        renew_deadline_ms: u64,
        /// As given.
        retry_ms: u64,
    },
    /// The lease would be polled without a pause, or its duration is below the second that the record can state.
    #[error("retry pause {retry_ms} ms must be at least 1 ms and the lease duration {duration_ms} ms at least 1000 ms")]
    Tiny {
        /// As given.
        duration_ms: u64,
        /// As given.
        retry_ms: u64,
    },
}

impl Default for Timing {
    /// 15 s, 10 s, 2 s: the defaults of the control plane's own components.
    fn default() -> Self {
        Self { duration_ms: 15_000, renew_deadline_ms: 10_000, retry_ms: 2_000 }
    }
}

impl Timing {
    /// Whether these times can work together.
    ///
    /// # Errors
    /// Names the two times that contradict each other.
    pub fn check(self) -> Result<Self, TimingError> {
        let Self { duration_ms, renew_deadline_ms, retry_ms } = self;
        if duration_ms < 1000 || retry_ms == 0 {
            return Err(TimingError::Tiny { duration_ms, retry_ms });
        }
        if duration_ms <= renew_deadline_ms {
            return Err(TimingError::Duration { duration_ms, renew_deadline_ms });
        }
        if renew_deadline_ms <= retry_ms.saturating_mul(2) {
            return Err(TimingError::Retry { renew_deadline_ms, retry_ms });
        }
        Ok(self)
    }
}

/// The lease as the API server shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// `metadata.resourceVersion`: changes with every write, and every write must name it.
    pub version: String,
    /// Empty: nobody holds it.
    pub holder: String,
    /// The duration its holder counts with; 0 if not stated.
    pub duration_ms: u64,
    /// How often the holder has changed.
    pub transitions: u64,
}

/// What a candidate knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    seen: Option<Seen>,
    held: Option<Held>,
    sent: Option<Sent>,
    last_term: u64,
    stopping: bool,
    conflicts_while_stopping: u8,
    random: Random,
}

/// The last record, and when this candidate first saw it so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    record: Record,
    at_ms: u64,
}

/// Leadership, until its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    term: u64,
    until_ms: u64,
}

/// The write that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sent {
    purpose: Purpose,
    at_ms: u64,
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first event, and the end of a wait.
    Tick,
    /// A read was answered; `None`: there is no such lease.
    Read(Option<Record>),
    /// A write succeeded and left this record.
    Written(Record),
    /// A write was refused because the record is not what was expected.
    Conflict,
    /// A read or write failed, or got no answer; a write may have happened.
    Failed,
    /// Give the lease back and end. Never while a read or write is under way.
    Stop,
}

/// What to do next; its outcome is the next event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read the lease.
    Read,
    /// Write the lease, if it still is what `expect` says.
    Write(Write),
    /// [`Event::Tick`] at this time, [`Event::Stop`] at any time.
    Wait {
        /// On the candidate's clock.
        until_ms: u64,
    },
    /// Nothing more.
    Done,
}

/// A compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Write {
    /// The version to replace; `None`: create it.
    pub expect: Option<String>,
    /// Why.
    pub purpose: Purpose,
    /// Goes into the record.
    pub transitions: u64,
}

/// Why a lease is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Become its holder.
    Acquire,
    /// Stay its holder.
    Renew,
    /// Leave it to others.
    Release,
}

/// A damaged record must not keep the lease from everybody for ever: no stated duration counts for more.
const STATED_DURATION_MS_MAX: u64 = 300_000;
/// A lease that could not be given back is found stale by the others; ending must not wait for it.
const RELEASE_RETRIES: u8 = 2;

impl State {
    /// A candidate that knows nothing; `seed` decides its jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seen: None,
            held: None,
            sent: None,
            last_term: 0,
            stopping: false,
            conflicts_while_stopping: 0,
            random: Random::new(seed),
        }
    }

    /// The term in which this candidate leads at `now_ms`; `None`: it does not.
    #[must_use]
    pub fn term_at(&self, now_ms: u64) -> Option<u64> {
        let held = self.held.as_ref().filter(|held| now_ms < held.until_ms && !self.stopping)?;
        Some(held.term)
    }

    /// When it stops leading unless a renewal succeeds before.
    #[must_use]
    pub fn leads_until_ms(&self) -> Option<u64> {
        self.held.as_ref().filter(|_| !self.stopping).map(|held| held.until_ms)
    }

    /// Whether [`Event::Stop`] was taken.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    fn see(&mut self, record: Record, now_ms: u64) {
        if self.seen.as_ref().is_none_or(|seen| seen.record.version != record.version) {
            self.seen = Some(Seen { record, at_ms: now_ms });
        }
    }
}

/// One turn of `identity`'s candidature at `now_ms` of its own clock, which never goes back.
#[must_use]
pub fn step(timing: &Timing, identity: &str, state: &State, now_ms: u64, event: Event) -> (State, Request) {
    let mut turn = Turn { timing, identity, now_ms, state: state.clone() };
    // Leadership that has lapsed is over, whatever the event says; coming back is a new term.
    turn.state.held.take_if(|held| now_ms >= held.until_ms);
    let request = turn.take(event);
    if let Request::Write(write) = &request {
        let purpose = write.purpose;
        turn.state.sent = Some(Sent { purpose, at_ms: now_ms });
    }
    (turn.state, request)
}

struct Turn<'a> {
    timing: &'a Timing,
    identity: &'a str,
    now_ms: u64,
    state: State,
}

impl Turn<'_> {
    fn take(&mut self, event: Event) -> Request {
        let sent = self.state.sent.take();
        match event {
            Event::Stop => self.stop(),
            Event::Read(record) if self.state.stopping => self.release(record),
            Event::Conflict if self.state.stopping && self.state.conflicts_while_stopping < RELEASE_RETRIES => {
                self.state.conflicts_while_stopping += 1;
                Request::Read
            }
            Event::Tick | Event::Written(_) | Event::Conflict | Event::Failed if self.state.stopping => Request::Done,
            Event::Tick => match (&self.state.held, &self.state.seen) {
                // The holder knows the version that it wrote last: no need to read.
                (Some(_), Some(_)) => self.write(Purpose::Renew),
                _ => Request::Read,
            },
            Event::Read(Some(record)) => self.judge(record),
            Event::Read(None) => self.judge_absent(),
            Event::Written(record) => self.written(record, sent),
            Event::Conflict if self.state.held.is_some() => Request::Read,
            Event::Conflict | Event::Failed => self.pause(),
        }
    }

    fn judge(&mut self, record: Record) -> Request {
        let holder = record.holder.clone();
        self.state.see(record, self.now_ms);
        if holder == self.identity {
            let purpose = if self.state.held.is_some() { Purpose::Renew } else { Purpose::Acquire };
            return self.write(purpose);
        }
        self.state.held = None;
        if holder.is_empty() || self.is_stale() { self.write(Purpose::Acquire) } else { self.pause() }
    }

    fn judge_absent(&mut self) -> Request {
        self.state.held = None;
        // A lease that was deleted under its holder is still believed in by that holder.
        let believed = self
            .state
            .seen
            .as_ref()
            .is_some_and(|seen| !seen.record.holder.is_empty() && seen.record.holder != self.identity);
        if believed && !self.is_stale() {
            return self.pause();
        }
        self.state.seen = None;
        self.write(Purpose::Acquire)
    }

    fn is_stale(&self) -> bool {
        self.state.seen.as_ref().is_none_or(|seen| {
            let stated_ms = seen.record.duration_ms.min(STATED_DURATION_MS_MAX);
            self.now_ms >= seen.at_ms.saturating_add(stated_ms.max(self.timing.duration_ms))
        })
    }

    fn written(&mut self, record: Record, sent: Option<Sent>) -> Request {
        let version_is_ours = record.holder == self.identity;
        let record_transitions = record.transitions;
        self.state.see(record, self.now_ms);
        let Some(sent) = sent.filter(|_| version_is_ours) else {
            return self.pause();
        };
        let until_ms = sent.at_ms.saturating_add(self.timing.renew_deadline_ms);
        let term = match (sent.purpose, &self.state.held) {
            (Purpose::Renew, Some(held)) => Some(held.term),
            // The answer to the renewal came after the deadline: that term is over.
            (Purpose::Renew, None) | (Purpose::Release, _) => None,
            (Purpose::Acquire, _) => Some(record_transitions.max(self.state.last_term + 1)),
        };
        self.state.held = term.filter(|_| self.now_ms < until_ms).map(|term| Held { term, until_ms });
        match &self.state.held {
            Some(held) => {
                self.state.last_term = held.term;
                Request::Wait { until_ms: self.now_ms.saturating_add(self.timing.retry_ms).min(until_ms) }
            }
            None => self.pause(),
        }
    }

    fn stop(&mut self) -> Request {
        self.state.stopping = true;
        self.state.held = None;
        match &self.state.seen {
            Some(seen) if seen.record.holder == self.identity => self.write(Purpose::Release),
            _ => Request::Done,
        }
    }

    /// A write raced with the stop: give back what is ours by now.
    fn release(&mut self, record: Option<Record>) -> Request {
        match record.filter(|record| record.holder == self.identity) {
            Some(record) => {
                self.state.see(record, self.now_ms);
                self.write(Purpose::Release)
            }
            None => Request::Done,
        }
    }

    fn write(&self, purpose: Purpose) -> Request {
        let record = self.state.seen.as_ref().map(|seen| &seen.record);
        let transitions = record.map_or(0, |record| record.transitions);
        Request::Write(Write {
            expect: record.map(|record| record.version.clone()),
            purpose,
            transitions: match purpose {
                Purpose::Acquire => transitions.saturating_add(1),
                Purpose::Renew | Purpose::Release => transitions,
            },
        })
    }

    /// Up to a fifth longer than the retry pause, so that candidates do not meet at every turn.
    fn pause(&mut self) -> Request {
        let jitter_ms = self.state.random.up_to(self.timing.retry_ms / 5);
        Request::Wait { until_ms: self.now_ms.saturating_add(self.timing.retry_ms + jitter_ms) }
    }
}
