//! Growing, jittered pauses between tries, a pure function of their seed.

use crate::seed::Random;
use std::time::Duration;

/// Doubles from a floor to a ceiling; each pause is drawn from the upper half of its step, so that the many watches of
/// many replicas do not come back in one wave, and none comes back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    floor_ms: u64,
    ceiling_ms: u64,
    step_ms: u64,
    random: Random,
}

impl Backoff {
    /// 200 ms: a lost connection is usually back at once.
    pub const FLOOR: Duration = Duration::from_millis(200);
    /// 2 s: an API server that comes back after an outage is seen within that time, and twice that where it refuses once
    /// while it starts. A refused connection costs next to nothing, and the jitter keeps replicas from knocking in step;
    /// kube's own 30 s would leave a scheduler blind for half a minute after the server is well.
    pub const CEILING: Duration = Duration::from_secs(2);

    /// The project's usual pauses, [`Self::FLOOR`] to [`Self::CEILING`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::between(Self::FLOOR, Self::CEILING, seed)
    }

    /// Pauses between two bounds. A floor of zero counts as 1 ms, a ceiling below the floor as the floor.
    #[must_use]
    pub fn between(floor: Duration, ceiling: Duration, seed: u64) -> Self {
        let floor_ms = whole_ms(floor).max(1);
        Self { floor_ms, ceiling_ms: whole_ms(ceiling).max(floor_ms), step_ms: floor_ms, random: Random::new(seed) }
    }

    /// The pause before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let half_ms = self.step_ms.div_ceil(2);
        let delay_ms = half_ms + self.random.up_to(self.step_ms - half_ms);
        self.step_ms = self.step_ms.saturating_mul(2).min(self.ceiling_ms);
        Duration::from_millis(delay_ms)
    }

    /// A try succeeded: start again from the floor.
    pub fn reset(&mut self) {
        self.step_ms = self.floor_ms;
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delays(seed: u64, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(seed);
        (0..count).map(|_| backoff.next_delay()).collect()
    }

    proptest! {
        #[test]
        fn the_seed_decides_everything(seed: u64) {
            prop_assert_eq!(delays(seed, 20), delays(seed, 20));
        }

        #[test]
        fn every_pause_is_in_the_upper_half_of_its_step(seed: u64) {
            let mut step_ms = 200_u64;
            for delay in delays(seed, 12) {
                let delay_ms = u64::try_from(delay.as_millis()).unwrap();
                prop_assert!(delay_ms >= step_ms / 2 && delay_ms <= step_ms);
                step_ms = (step_ms * 2).min(2000);
            }
        }
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(delays(1, 8), delays(2, 8));
    }

    #[test]
    fn a_success_starts_again_from_the_floor() {
        let mut backoff = Backoff::new(3);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Backoff::FLOOR);
    }

    #[test]
    fn absurd_bounds_do_not_stop_or_spin() {
        let mut backoff = Backoff::between(Duration::ZERO, Duration::ZERO, 1);
        assert_eq!(backoff.next_delay(), Duration::from_millis(1));
        let mut backoff = Backoff::between(Duration::MAX, Duration::ZERO, 1);
        assert!(backoff.next_delay() > Duration::from_secs(1));
    }
}
