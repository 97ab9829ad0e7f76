//! Laws of the catch-up policy over random histories.
use fairlead_scaling::{
    Backlog, Decision, DownWindow, Estimator, Hold, Limit, Observation, PoolConfig, UnknownReason, catch_up,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Look {
    after_ms: u64,
    length: u64,
    in_flight: u64,
    added: u64,
    done: u64,
    ready: u32,
    unknown: bool,
}

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let look = (0u64..4_000, 0u64..5_000, 0u64..100, 0u64..2_000, 0u64..2_000, 0u32..80, prop::bool::weighted(0.2));
    let look = look.prop_map(|(after_ms, length, in_flight, added, done, ready, unknown)| Look {
        after_ms,
        length,
        in_flight,
        added,
        done,
        ready,
        unknown,
    });
    prop::collection::vec(look, 1..40)
}

prop_compose! {
    fn configs()(
        min in 0u32..20, spread in 0u32..80, rate in 1u64..50_000, startup_ms in 0u64..5_000, drain_ms in 0u64..30_000,
        utilization_percent in 0u32..120, window in 0u64..20_000, idle_ms in 0u64..5_000,
    ) -> PoolConfig {
        PoolConfig {
            min, max: min + spread, rate_per_second_milli: rate, startup_ms, drain_ms, utilization_percent,
            scale_down_window_ms: window, idle_ms,
        }
    }
}

/// Plays the looks, carrying every decision out at once; `check` sees time, replicas before, and the decision.
fn play(
    config: &PoolConfig,
    looks: &[Look],
    start: u32,
    cap: Option<u32>,
    mut check: impl FnMut(&Look, u64, u32, &Decision),
) {
    let mut estimator = Estimator::new();
    let mut window = DownWindow::new();
    let (mut now_ms, mut current, mut added, mut done) = (1_000_000, start, 0, 0);
    for look in looks {
        now_ms += look.after_ms;
        added += look.added;
        done += look.done;
        let known = Backlog::Known { length: look.length, in_flight: look.in_flight, at_ms: now_ms };
        let backlog = if look.unknown { Backlog::Unknown { why: UnknownReason::Stale } } else { known };
        let observation =
            Observation { backlog: &backlog, added_total: Some(added), done_total: Some(done), ready: look.ready };
        estimator.observe(now_ms, &observation);
        let decision = catch_up(config, &estimator, &mut window, now_ms, current, look.ready, cap);
        check(look, now_ms, current, &decision);
        current = decision.replicas;
    }
}

proptest! {
    #[test]
    fn bounds_and_quota_hold(config in configs(), looks in looks(), start in 0u32..200, cap in prop::option::of(0u32..100)) {
        play(&config, &looks, start, cap, |_, _, current, decision| {
            assert!(decision.replicas <= config.max);
            assert!((config.min..=config.max).contains(&decision.wanted));
            assert!(decision.replicas >= config.min || decision.limited_by == Some(Limit::Quota));
            if let Some(cap) = cap {
                assert!(decision.replicas <= cap.max(current), "the quota admits no growth beyond {cap}");
                let more = decision.replicas < decision.wanted;
                assert!(!more || decision.limited_by == Some(Limit::Quota));
            }
        });
    }

    #[test]
    fn unknown_holds(config in configs(), looks in looks(), start in 0u32..200) {
        play(&config, &looks, start, None, |look, _, current, decision| {
            if look.unknown {
                assert_eq!(decision.replicas, current.clamp(config.min, config.max));
                assert_eq!(decision.hold, Some(Hold::Unknown(UnknownReason::Stale)));
            }
        });
    }

    #[test]
    fn never_below_what_was_wanted_within_the_window(config in configs(), looks in looks(), start in 0u32..200) {
        let mut wanted: Vec<(u64, u32)> = Vec::new();
        let mut fallen: Option<(u64, u32)> = None;
        play(&config, &looks, start, None, |look, now_ms, current, decision| {
            wanted.push((now_ms, if look.unknown { current } else { decision.wanted }));
            let from = now_ms.saturating_sub(config.scale_down_window_ms);
            let recent = wanted.iter().filter(|(at, _)| *at >= from).map(|(_, n)| *n).max().unwrap_or(0);
            let before = current.min(config.max);
            if decision.replicas < before {
                assert!(decision.replicas >= recent, "{} below {recent}", decision.replicas);
                assert!(now_ms - wanted[0].0 >= config.scale_down_window_ms, "the window was not seen whole");
                if let Some((at, target)) = fallen {
                    assert!(now_ms - at >= config.idle_ms || decision.replicas >= target, "a second batch too soon");
                }
                if fallen.is_none_or(|(at, _)| now_ms - at >= config.idle_ms) {
                    fallen = Some((now_ms, decision.replicas));
                }
            }
        });
    }

    #[test]
    fn more_backlog_never_orders_less(config in configs(), looks in looks(), more in 0u64..10_000, start in 0u32..50) {
        let mut last = looks;
        let Some(look) = last.pop() else { return Ok(()) };
        let decide = |length: u64| {
            let mut all = last.clone();
            all.push(Look { length, unknown: false, ..look.clone() });
            let mut answers = Vec::new();
            // The rate of a worker is learned from a length above 0 only: compare equals.
            play(&config, &all, start, None, |_, _, _, decision| answers.push(*decision));
            answers.pop()
        };
        let (few, many) = (decide(look.length + 1).unwrap(), decide(look.length + 1 + more).unwrap());
        prop_assert!(few.terms.computed <= many.terms.computed);
        prop_assert!(few.wanted <= many.wanted);
        prop_assert!(few.replicas <= many.replicas);
    }

    #[test]
    fn a_surge_shows_in_the_first_observation(quiet in 10u64..200, surge in 2u64..10) {
        let config = PoolConfig {
            min: 0, max: 10_000, rate_per_second_milli: 10_000, startup_ms: 2_000, drain_ms: 10_000, utilization_percent: 85,
            scale_down_window_ms: 60_000, idle_ms: 30_000,
        };
        let look = |added, length| Look { after_ms: 1_000, length, in_flight: 0, added, done: quiet, ready: 100, unknown: false };
        let mut looks = vec![look(quiet, 0); 20];
        looks.push(look(quiet * surge, quiet * (surge - 1) + 200));
        let mut wanted = Vec::new();
        play(&config, &looks, 100, None, |_, _, _, decision| wanted.push(decision.terms.computed));
        prop_assert!(wanted[20] > wanted[19], "{:?}", &wanted[18..]);
    }

    #[test]
    fn extremes_do_not_panic(
        length: u64, in_flight: u64, at_ms: u64, now_ms: u64, added: Option<u64>, done: Option<u64>, ready: u32, current: u32,
        cap: Option<u32>, config in (any::<[u32; 3]>(), any::<[u64; 5]>()),
    ) {
        let ([min, max, utilization_percent], [rate_per_second_milli, startup_ms, drain_ms, scale_down_window_ms, idle_ms]) = config;
        let config =
            PoolConfig { min, max, rate_per_second_milli, startup_ms, drain_ms, utilization_percent, scale_down_window_ms, idle_ms };
        let mut estimator = Estimator::new();
        let mut window = DownWindow::new();
        for (at_ms, now_ms, length) in [(at_ms, now_ms, length), (now_ms, at_ms, in_flight), (u64::MAX, u64::MAX, u64::MAX), (0, 0, 0)] {
            let backlog = Backlog::Known { length, in_flight, at_ms };
            estimator.observe(now_ms, &Observation { backlog: &backlog, added_total: added, done_total: done, ready });
            let decision = catch_up(&config, &estimator, &mut window, now_ms, current, ready, cap);
            prop_assert!(decision.wanted >= min.min(max));
        }
    }
}

#[test]
fn a_pool_at_its_limit_says_so_and_asks_for_no_more() {
    let config = PoolConfig {
        min: 1,
        max: 60,
        rate_per_second_milli: 10_000,
        startup_ms: 0,
        drain_ms: 10_000,
        utilization_percent: 100,
        scale_down_window_ms: 0,
        idle_ms: 0,
    };
    let mut estimator = Estimator::new();
    let backlog = Backlog::Known { length: 4_000, in_flight: 0, at_ms: 1 };
    estimator.observe(1, &Observation { backlog: &backlog, added_total: Some(0), done_total: None, ready: 0 });
    let decide = |current, cap| catch_up(&config, &estimator, &mut DownWindow::new(), 1, current, 0, cap);
    let free = decide(5, None);
    assert_eq!((free.wanted, free.replicas, free.limited_by), (40, 40, None));
    let capped = decide(5, Some(12));
    assert_eq!((capped.wanted, capped.replicas, capped.limited_by), (40, 12, Some(Limit::Quota)));
    let cut = decide(20, Some(12));
    assert_eq!((cut.replicas, cut.limited_by), (20, Some(Limit::Quota)), "a cut takes nothing away");
}
