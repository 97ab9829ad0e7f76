//! A fluid queue driven by the shipped policy: the surge of the design, the way back down, and rest in between.
use fairlead_scaling::{Backlog, DownWindow, Estimator, Observation, PoolConfig, UnknownReason, catch_up};

const STEP_MS: u64 = 50;
const TICK_MS: u64 = 500;

fn config() -> PoolConfig {
    PoolConfig {
        min: 4,
        max: 60,
        rate_per_second_milli: 10_000,
        startup_ms: 2_000,
        drain_ms: 10_000,
        utilization_percent: 85,
        scale_down_window_ms: 120_000,
        idle_ms: 30_000,
    }
}

/// Items in thousandths; a worker takes 10 a second and is ready 2 s after it was ordered.
struct Queue {
    config: PoolConfig,
    now_ms: u64,
    backlog_milli: u64,
    added_milli: u64,
    done_milli: u64,
    ordered: u32,
    /// (ready from, count), rising.
    starting: Vec<(u64, u32)>,
    ready: u32,
    estimator: Estimator,
    window: DownWindow,
    writes: u32,
    outage: bool,
}

impl Queue {
    fn new(config: PoolConfig, ordered: u32) -> Self {
        Self {
            config,
            now_ms: 1_000_000,
            backlog_milli: 0,
            added_milli: 0,
            done_milli: 0,
            ordered,
            starting: Vec::new(),
            ready: ordered,
            estimator: Estimator::new(),
            window: DownWindow::new(),
            writes: 0,
            outage: false,
        }
    }

    fn order(&mut self, replicas: u32) {
        if replicas == self.ordered {
            return;
        }
        self.writes += 1;
        if replicas > self.ordered {
            self.starting.push((self.now_ms + 2_000, replicas - self.ordered));
        } else {
            let mut surplus = self.ordered - replicas;
            while let Some((_, count)) = self.starting.last_mut() {
                let cut = surplus.min(*count);
                *count -= cut;
                surplus -= cut;
                if *count > 0 {
                    break;
                }
                self.starting.pop();
            }
            self.ready -= surplus;
        }
        self.ordered = replicas;
    }

    fn decide(&mut self) {
        let total = self.backlog_milli / 1000;
        let in_flight = total.min(u64::from(self.ready));
        let known = Backlog::Known { length: total - in_flight, in_flight, at_ms: self.now_ms };
        let backlog = if self.outage { Backlog::Unknown { why: UnknownReason::Unreachable } } else { known };
        let (added_total, done_total) = (Some(self.added_milli / 1000), Some(self.done_milli / 1000));
        self.estimator
            .observe(self.now_ms, &Observation { backlog: &backlog, added_total, done_total, ready: self.ready });
        let decision =
            catch_up(&self.config, &self.estimator, &mut self.window, self.now_ms, self.ordered, self.ready, None);
        self.order(decision.replicas);
    }

    /// Runs for a time at `rate` items a second; `watch` is called after every decision.
    fn run(&mut self, duration_ms: u64, rate: u64, mut watch: impl FnMut(&Self)) {
        let end = self.now_ms + duration_ms;
        while self.now_ms < end {
            self.now_ms += STEP_MS;
            self.backlog_milli += rate * STEP_MS;
            self.added_milli += rate * STEP_MS;
            let now_ms = self.now_ms;
            self.ready += self.starting.iter().filter(|(at, _)| *at <= now_ms).map(|(_, count)| count).sum::<u32>();
            self.starting.retain(|(at, _)| *at > now_ms);
            let done = self.backlog_milli.min(u64::from(self.ready) * 10 * STEP_MS);
            self.backlog_milli -= done;
            self.done_milli += done;
            if self.now_ms.is_multiple_of(TICK_MS) {
                self.decide();
                watch(self);
            }
        }
    }
}

#[test]
fn the_surge_of_the_design() {
    let mut queue = Queue::new(config(), 12);
    queue.run(30_000, 102, |_| ());
    assert_eq!((queue.ordered, queue.writes), (12, 0), "12 workers serve 102/s at 85 %");
    let start = queue.now_ms;
    let (mut first, mut spec, mut peak, mut worst, mut drained) = (None, None, 0, 0, None);
    queue.run(60_000, 238, |q| {
        let since = q.now_ms - start;
        if q.ordered > 12 {
            first.get_or_insert(since);
        }
        if q.ordered >= 28 {
            spec.get_or_insert(since);
        }
        peak = peak.max(q.ordered);
        worst = worst.max(q.backlog_milli / 1000);
        if spec.is_some() && q.backlog_milli / 1000 <= u64::from(q.ready) {
            drained.get_or_insert(since);
        }
    });
    assert_eq!(first, Some(TICK_MS), "reacts to the first observation");
    assert!(spec.is_some_and(|ms| ms <= 4_000), "28 at spec after {spec:?}");
    assert!((28..=40).contains(&peak), "peak {peak}");
    assert!(worst <= 500, "peak backlog {worst}");
    assert!(drained.is_some_and(|ms| ms <= 15_000), "drained after {drained:?}");
    assert!(queue.writes <= 12, "{} writes", queue.writes);
}

#[test]
fn comes_down_in_batches_and_rests() {
    let mut queue = Queue::new(config(), 12);
    queue.run(30_000, 102, |_| ());
    queue.run(60_000, 238, |_| ());
    let (mut last, mut reductions) = (queue.ordered, Vec::new());
    queue.run(400_000, 102, |q| {
        assert!(q.ordered <= last, "{last} to {} while the load is steady", q.ordered);
        if q.ordered < last {
            reductions.push(q.now_ms);
        }
        last = q.ordered;
    });
    assert_eq!(queue.ordered, 12);
    assert!(reductions.windows(2).all(|pair| pair[1] - pair[0] >= config().idle_ms), "{reductions:?}");
    let settled = queue.writes;
    queue.run(300_000, 102, |_| ());
    assert_eq!(queue.writes, settled, "a steady load needs no write");
}

#[test]
fn an_outage_of_the_queue_moves_nothing() {
    let mut queue = Queue::new(config(), 12);
    queue.run(30_000, 102, |_| ());
    queue.run(20_000, 238, |_| ());
    let (before, writes) = (queue.ordered, queue.writes);
    queue.outage = true;
    queue.run(600_000, 0, |q| assert_eq!(q.ordered, before));
    queue.outage = false;
    queue.run(config().scale_down_window_ms - TICK_MS, 0, |q| assert_eq!(q.ordered, before, "the window starts anew"));
    queue.run(60_000, 0, |_| ());
    assert_eq!((queue.ordered, queue.writes), (config().min, writes + 1));
}
