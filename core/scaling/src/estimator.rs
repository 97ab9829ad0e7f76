//! Rates from counters: arrivals (smoothed, and not falling faster than their window) and the rate of one worker.
use crate::backlog::{Backlog, UnknownReason};
use crate::config::PoolConfig;
use std::collections::VecDeque;

/// Time constant of the smoothed arrival rate.
const ARRIVALS_TAU_MS: u64 = 2_000;
/// Window whose mean rate the arrival rate does not fall below.
const ARRIVALS_WINDOW_MS: u64 = 6_000;
/// Time constant of the measured rate of a worker.
const SERVICE_TAU_MS: u64 = 10_000;
/// Busy time to be seen before the measured rate of a worker replaces the prior.
const SERVICE_ENOUGH_MS: u64 = 3_000;
/// A longer interval says nothing about whether the workers were busy throughout.
const SERVICE_LONGEST_MS: u64 = 5_000;
/// The measured rate stays within prior / this and prior · this: a stuck or miscounted queue must not order the maximum.
const SERVICE_TRUST: u64 = 4;

/// One look at queue and workers.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The work in the queue.
    pub backlog: &'a Backlog,
    /// Items ever added, if the source counts them. For a Redis stream: `entries-added`.
    pub added_total: Option<u64>,
    /// Items ever finished, if known. For a Redis stream: `entries-read` minus the pending entries.
    pub done_total: Option<u64>,
    /// Ready workers.
    pub ready: u32,
}

/// What is known about the rates of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Estimator {
    backlog: Backlog,
    last: Option<Sample>,
    /// Cumulative arrivals by time, oldest first, spanning the window.
    arrivals: VecDeque<(u64, u64)>,
    arrivals_milli: Option<u64>,
    service_milli: Option<u64>,
    service_seen_ms: u64,
}

/// Items ever arrived, by one of two ways of counting that have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Arrived {
    Counted(u64),
    /// What is finished and what is left must have arrived.
    Derived(u64),
}

impl Arrived {
    fn total(self) -> u64 {
        match self {
            Self::Counted(total) | Self::Derived(total) => total,
        }
    }

    /// Arrivals since `before`; `None` where the counter started anew or is another one.
    fn since(self, before: Self) -> Option<u64> {
        match (before, self) {
            (Self::Counted(from), Self::Counted(to)) | (Self::Derived(from), Self::Derived(to)) => to.checked_sub(from),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sample {
    at_ms: u64,
    length: u64,
    arrived: Option<Arrived>,
    done: Option<u64>,
    ready: u32,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            backlog: Backlog::Unknown { why: UnknownReason::NotAskedYet },
            last: None,
            arrivals: VecDeque::new(),
            arrivals_milli: None,
            service_milli: None,
            service_seen_ms: 0,
        }
    }
}

impl Estimator {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what was seen. A sample that is not newer than the last, or that lies in the future of `now_ms`, changes
    /// nothing but the backlog; an unknown backlog changes no rate.
    pub fn observe(&mut self, now_ms: u64, observation: &Observation<'_>) {
        self.backlog = *observation.backlog;
        let Backlog::Known { length, in_flight, at_ms } = *observation.backlog else { return };
        let at_ms = at_ms.min(now_ms);
        if self.last.is_some_and(|last| at_ms <= last.at_ms) {
            return;
        }
        let left = length.saturating_add(in_flight);
        let derived = observation.done_total.map(|done| Arrived::Derived(done.saturating_add(left)));
        let arrived = observation.added_total.map(Arrived::Counted).or(derived);
        let sample = Sample { at_ms, length, arrived, done: observation.done_total, ready: observation.ready };
        match self.last.replace(sample) {
            Some(last) => {
                self.learn_arrivals(&last, &sample);
                self.learn_service(&last, &sample);
            }
            None => self.arrivals.extend(arrived.map(|arrived| (at_ms, arrived.total()))),
        }
    }

    /// The backlog as last observed.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// λ̂ in thousandths of an item per second: the larger of the smoothed rate and the mean of the window; `None` until
    /// two samples with a counter were seen.
    #[must_use]
    pub fn arrivals_milli(&self) -> Option<u64> {
        Some(self.arrivals_milli?.max(self.window_milli().unwrap_or(0)))
    }

    /// μ̂ in thousandths of an item per second: what one ready worker takes, the pool's prior until enough was measured.
    #[must_use]
    pub fn service_milli(&self, config: &PoolConfig) -> u64 {
        let prior = config.prior_milli();
        let (least, most) = ((prior / SERVICE_TRUST).max(1), prior.saturating_mul(SERVICE_TRUST));
        self.measured().map_or(prior, |rate| rate.clamp(least, most))
    }

    /// Whether [`Self::service_milli`] is measured.
    #[must_use]
    pub fn service_is_measured(&self) -> bool {
        self.measured().is_some()
    }

    fn measured(&self) -> Option<u64> {
        self.service_milli.filter(|_| self.service_seen_ms >= SERVICE_ENOUGH_MS)
    }

    fn window_milli(&self) -> Option<u64> {
        let (&(from_ms, from), &(to_ms, to)) = (self.arrivals.front()?, self.arrivals.back()?);
        rate_milli(to.checked_sub(from)?, to_ms.checked_sub(from_ms)?)
    }

    fn learn_arrivals(&mut self, last: &Sample, sample: &Sample) {
        let Some(arrived) = sample.arrived else { return };
        let grown = last.arrived.and_then(|before| arrived.since(before));
        if grown.is_none() {
            // The queue was deleted and made again, or the counter was away: nothing is known about the time between.
            self.arrivals.clear();
        }
        self.arrivals.push_back((sample.at_ms, arrived.total()));
        let Some(grown) = grown else { return };
        // One sample at or before the window's start is kept, so that the window is always spanned.
        while self.arrivals.get(1).is_some_and(|(at_ms, _)| at_ms.saturating_add(ARRIVALS_WINDOW_MS) <= sample.at_ms) {
            self.arrivals.pop_front();
        }
        let elapsed_ms = sample.at_ms - last.at_ms;
        if let Some(rate) = rate_milli(grown, elapsed_ms) {
            let smoothed = self.arrivals_milli.map_or(rate, |old| blend(old, rate, elapsed_ms, ARRIVALS_TAU_MS));
            self.arrivals_milli = Some(smoothed);
        }
    }

    /// Only an interval in which the same workers were ready and had work throughout tells what a worker can do.
    fn learn_service(&mut self, last: &Sample, sample: &Sample) {
        let elapsed_ms = sample.at_ms - last.at_ms;
        let starved = last.length == 0 || sample.length == 0;
        if starved || last.ready != sample.ready || sample.ready == 0 || elapsed_ms > SERVICE_LONGEST_MS {
            return;
        }
        let finished = last.done.zip(sample.done).and_then(|(before, after)| after.checked_sub(before));
        let Some(rate) = finished.and_then(|items| rate_milli(items, elapsed_ms)) else { return };
        let rate = rate / u64::from(sample.ready);
        self.service_milli = Some(self.service_milli.map_or(rate, |old| blend(old, rate, elapsed_ms, SERVICE_TAU_MS)));
        self.service_seen_ms = self.service_seen_ms.saturating_add(elapsed_ms);
    }
}

/// Items in a time as thousandths per second; `None` for no time.
fn rate_milli(items: u64, elapsed_ms: u64) -> Option<u64> {
    let milli = (u128::from(items) * 1_000_000).checked_div(u128::from(elapsed_ms))?;
    Some(u64::try_from(milli).unwrap_or(u64::MAX))
}

/// Exponential smoothing by its implicit step, old + (new − old) · t / (t + τ): stable for any t. Rounded towards the new
/// value, so that a steady rate is reached exactly and not missed by a thousandth for ever.
fn blend(old: u64, new: u64, elapsed_ms: u64, tau_ms: u64) -> u64 {
    let (elapsed, tau) = (u128::from(elapsed_ms), u128::from(tau_ms));
    let (sum, all) = (u128::from(old) * tau + u128::from(new) * elapsed, elapsed + tau);
    let blended = if new < old { sum / all } else { sum.div_ceil(all) };
    u64::try_from(blended).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: PoolConfig = PoolConfig {
        min: 0,
        max: 100,
        rate_per_second_milli: 10_000,
        startup_ms: 2_000,
        drain_ms: 10_000,
        utilization_percent: 85,
        scale_down_window_ms: 120_000,
        idle_ms: 30_000,
    };

    /// Ten samples, one a second: `added` and `done` items a second, `length` waiting.
    fn after_ten_seconds(added: u64, done: u64, length: u64, ready: u32) -> Estimator {
        let mut estimator = Estimator::new();
        for second in 0..=10 {
            let at_ms = second * 1000;
            let backlog = Backlog::Known { length, in_flight: 0, at_ms };
            let (added_total, done_total) = (Some(added * second), Some(done * second));
            estimator.observe(at_ms, &Observation { backlog: &backlog, added_total, done_total, ready });
        }
        estimator
    }

    #[test]
    fn rates_are_measured_when_the_workers_are_busy() {
        let estimator = after_ten_seconds(102, 96, 50, 12);
        assert_eq!(estimator.arrivals_milli(), Some(102_000));
        assert_eq!((estimator.service_milli(&CONFIG), estimator.service_is_measured()), (8_000, true));
    }

    #[test]
    fn nothing_is_learned_about_workers_that_starve() {
        let estimator = after_ten_seconds(24, 24, 0, 12);
        assert_eq!((estimator.service_milli(&CONFIG), estimator.service_is_measured()), (10_000, false));
    }

    #[test]
    fn a_stuck_queue_does_not_order_the_maximum() {
        let estimator = after_ten_seconds(0, 0, 500, 12);
        assert_eq!((estimator.service_milli(&CONFIG), estimator.service_is_measured()), (2_500, true));
    }

    #[test]
    fn the_rate_falls_no_faster_than_its_window() {
        let mut estimator = after_ten_seconds(100, 100, 0, 10);
        let backlog = Backlog::Known { length: 0, in_flight: 0, at_ms: 13_000 };
        estimator
            .observe(13_000, &Observation { backlog: &backlog, added_total: Some(1000), done_total: None, ready: 10 });
        assert_eq!(estimator.arrivals_milli(), Some(300 * 1_000_000 / 6_000));
    }

    #[test]
    fn a_counter_that_starts_anew_is_no_rate() {
        let mut estimator = after_ten_seconds(100, 100, 0, 10);
        let backlog = Backlog::Known { length: 3, in_flight: 0, at_ms: 11_000 };
        estimator
            .observe(11_000, &Observation { backlog: &backlog, added_total: Some(3), done_total: Some(0), ready: 10 });
        assert_eq!(estimator.arrivals_milli(), Some(100_000));
        let derived = Backlog::Known { length: 9_000, in_flight: 0, at_ms: 12_000 };
        estimator
            .observe(12_000, &Observation { backlog: &derived, added_total: None, done_total: Some(0), ready: 10 });
        assert_eq!(estimator.arrivals_milli(), Some(100_000));
    }

    #[test]
    fn an_unknown_backlog_and_an_old_sample_change_no_rate() {
        let before = after_ten_seconds(100, 100, 5, 10);
        let mut after = before.clone();
        let unknown = Backlog::Unknown { why: UnknownReason::Unreachable };
        after.observe(11_000, &Observation { backlog: &unknown, added_total: None, done_total: None, ready: 0 });
        assert_eq!(after.backlog(), unknown);
        let old = Backlog::Known { length: 5, in_flight: 0, at_ms: 10_000 };
        after.observe(12_000, &Observation { backlog: &old, added_total: Some(9_999), done_total: Some(0), ready: 1 });
        assert_eq!(after, before);
    }
}
