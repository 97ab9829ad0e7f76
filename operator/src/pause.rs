//! The pause after a write that was refused: each further refusal doubles it (I11).

/// After the first refusal.
const FIRST_MS: u64 = 1_000;

/// Until when something is left alone. Times are [`crate::clock::Clock::ms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    until_ms: u64,
    length_ms: u64,
}

impl Pause {
    /// One second from now.
    #[must_use]
    pub fn first(now_ms: u64) -> Self {
        Self { until_ms: now_ms.saturating_add(FIRST_MS), length_ms: FIRST_MS }
    }

    /// Twice the last one, or the first; never longer than `max_ms`.
    #[must_use]
    pub fn after(last: Option<Self>, now_ms: u64, max_ms: u64) -> Self {
        let length_ms = last.map_or(FIRST_MS, |last| last.length_ms.saturating_mul(2)).min(max_ms);
        Self { until_ms: now_ms.saturating_add(length_ms), length_ms }
    }

    /// Whether it is not over.
    #[must_use]
    pub fn lasts(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_longest() {
        let (mut last, mut now_ms) = (None, 7);
        for length_ms in [1_000, 2_000, 4_000, 5_000, 5_000] {
            let pause = Pause::after(last, now_ms, 5_000);
            assert!(pause.lasts(now_ms + length_ms - 1) && !pause.lasts(now_ms + length_ms));
            (last, now_ms) = (Some(pause), now_ms + length_ms);
        }
        assert_eq!(Pause::first(3), Pause::after(None, 3, 60_000));
    }
}
