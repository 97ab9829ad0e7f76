//! The catch-up policy: serve the arrivals at the set utilization, and work off the backlog in the set time.
use crate::backlog::{Backlog, UnknownReason};
use crate::config::PoolConfig;
use crate::estimator::Estimator;
use crate::window::{DownWindow, Fall};
use serde::{Deserialize, Serialize};

/// What cut the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// The pool's least replicas.
    Min,
    /// The pool's most replicas.
    Max,
    /// The tenant's hard limits.
    Quota,
}

impl Limit {
    /// The name as explain spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Min => "Min",
            Self::Max => "Max",
            Self::Quota => "Quota",
        }
    }
}

/// Why replicas stay although the formula gives another number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hold {
    /// The backlog is unknown.
    Unknown(UnknownReason),
    /// More was wanted within the window, or the window has not been seen whole.
    ScaleDownWindow,
    /// The last reduction is too recent.
    Idle,
}

/// Every term of the formula, for explain. Rates are thousandths of an item per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// λ̂; `None` until it is known, then it counts as 0 and the backlog alone decides.
    pub arrivals_milli: Option<u64>,
    /// μ̂, of one worker.
    pub service_milli: u64,
    /// μ̂ is measured, not the prior.
    pub service_is_measured: bool,
    /// Items not handed out.
    pub length: u64,
    /// Items handed out.
    pub in_flight: u64,
    /// L₀: one item in the hands of each ready worker is no backlog.
    pub tolerated: u64,
    /// λ̂/u, rounded down.
    pub arrivals_term_milli: u64,
    /// max(0, L − L₀)/T, rounded down.
    pub backlog_term_milli: u64,
    /// λ̂·s/T, rounded down: what arrives while ordered workers start; 0 when none is starting.
    pub startup_term_milli: u64,
    /// N before bounds, rounded up.
    pub computed: u32,
}

/// The answer, and all that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// What the queue asks for within the pool's own bounds, before quota and windows; `current` while it is unknown.
    pub wanted: u32,
    /// What to order.
    pub replicas: u32,
    /// What cut the number.
    pub limited_by: Option<Limit>,
    /// Why replicas stay.
    pub hold: Option<Hold>,
    /// The terms; default while the backlog is unknown.
    pub terms: Terms,
}

/// Decides how many replicas to order, given `current` ordered and `ready` ones.
///
/// N = ⌈(λ̂/u + max(0, L − L₀)/T + λ̂·s/T) / μ̂⌉, then the pool's bounds, then `quota_cap`: the most replicas that the
/// tenant's hard limits admit now, which is the pool's released pods and as many more as `max_more` of fairshare says. The
/// quota keeps a pool from growing, it takes nothing away. Up at once; down to the most that was wanted within the window,
/// one reduction per idle time. The pool's bounds hold at once in both directions, also while the backlog is unknown.
///
/// Source of the formula: `N` workers serve `N·μ̂`; of that, `λ̂/u` is needed for the arrivals, `L/T` empties the queue in
/// `T`, and `λ̂·s/T` makes up for what arrives while ordered workers start.
#[must_use]
pub fn catch_up(
    config: &PoolConfig,
    estimator: &Estimator,
    history: &mut DownWindow,
    now_ms: u64,
    current: u32,
    ready: u32,
    quota_cap: Option<u32>,
) -> Decision {
    let (least, most) = (config.min, config.ceiling());
    let (length, in_flight) = match estimator.backlog() {
        Backlog::Known { length, in_flight, .. } => (length, in_flight),
        Backlog::Unknown { why } => {
            // What is held counts as wanted, so that nothing falls as soon as the queue is known again.
            history.record(now_ms, current, config.scale_down_window_ms);
            let held = current.clamp(least, most);
            let (replicas, limited_by) = bounded_by_quota(held, current, quota_cap, bound_of(current, held));
            return Decision {
                wanted: held,
                replicas,
                limited_by,
                hold: Some(Hold::Unknown(why)),
                terms: Terms::default(),
            };
        }
    };
    let terms = terms(config, estimator, length, in_flight, current, ready);
    let wanted = terms.computed.clamp(least, most);
    history.record(now_ms, wanted, config.scale_down_window_ms);
    let floor = current.clamp(least, most);
    let mut hold = None;
    let target = if wanted < floor {
        match history.fall(now_ms, floor, config.scale_down_window_ms, config.idle_ms) {
            Fall::To(target) => target,
            Fall::Window => {
                hold = Some(Hold::ScaleDownWindow);
                floor
            }
            Fall::Idle => {
                hold = Some(Hold::Idle);
                floor
            }
        }
    } else {
        wanted
    };
    let (replicas, limited_by) = bounded_by_quota(target, current, quota_cap, bound_of(terms.computed, wanted));
    Decision { wanted, replicas, limited_by, hold, terms }
}

fn bound_of(asked: u32, bounded: u32) -> Option<Limit> {
    match bounded.cmp(&asked) {
        std::cmp::Ordering::Greater => Some(Limit::Min),
        std::cmp::Ordering::Less => Some(Limit::Max),
        std::cmp::Ordering::Equal => None,
    }
}

fn bounded_by_quota(target: u32, current: u32, quota_cap: Option<u32>, limit: Option<Limit>) -> (u32, Option<Limit>) {
    match quota_cap.map(|cap| cap.max(current)) {
        Some(cap) if cap < target => (cap, Some(Limit::Quota)),
        _ => (target, limit),
    }
}

fn terms(config: &PoolConfig, estimator: &Estimator, length: u64, in_flight: u64, current: u32, ready: u32) -> Terms {
    let arrivals_milli = estimator.arrivals_milli();
    let service_milli = estimator.service_milli(config);
    let tolerated = u64::from(ready);
    let lambda = u128::from(arrivals_milli.unwrap_or(0));
    let utilization = u128::from(config.utilization_percent.clamp(1, 100));
    let drain_ms = u128::from(config.drain_ms.max(1));
    let startup_ms = if current > ready { u128::from(config.startup_ms) } else { 0 };
    let backlog = u128::from(length.saturating_add(in_flight).saturating_sub(tolerated));
    // All three over the common divisor u·T, so that one rounding up at the end is exact. u is in percent, T in ms; a
    // backlog of items over milliseconds is 10⁶ thousandths per second.
    let arrivals_part = lambda.saturating_mul(100 * drain_ms);
    let backlog_part = backlog.saturating_mul(1_000_000 * utilization);
    let startup_part = lambda.saturating_mul(startup_ms * utilization);
    let sum = arrivals_part.saturating_add(backlog_part).saturating_add(startup_part);
    let divisor = utilization.saturating_mul(drain_ms).saturating_mul(u128::from(service_milli.max(1)));
    let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
    Terms {
        arrivals_milli,
        service_milli,
        service_is_measured: estimator.service_is_measured(),
        length,
        in_flight,
        tolerated,
        arrivals_term_milli: narrow(arrivals_part / (utilization * drain_ms)),
        backlog_term_milli: narrow(backlog_part / (utilization * drain_ms)),
        startup_term_milli: narrow(startup_part / (utilization * drain_ms)),
        computed: u32::try_from(sum.div_ceil(divisor)).unwrap_or(u32::MAX),
    }
}
