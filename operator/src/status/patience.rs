//! When a write may be made again: what was written and does not show yet, what was refused, and what somebody else undoes
//! each time is not written without pause (I11).
use std::collections::BTreeMap;

/// A write that was accepted shows within this time, or the watch is behind; after it the same may be written again.
const SHOWN_MS: u64 = 5_000;
/// Pause after a write that was refused.
const REFUSED_MS: u64 = 1_000;
/// Longest pause: each repetition doubles it.
const PAUSE_MS_MAX: u64 = 60_000;

struct Write<V> {
    what: V,
    refused: bool,
    at_ms: u64,
    pause_ms: u64,
}

/// The last write of each object.
pub struct Patience<K, V>(BTreeMap<K, Write<V>>);

impl<K, V> Default for Patience<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: PartialEq> Patience<K, V> {
    /// Whether `what` may be written now: another thing than last time at once, the same, or anything after a refusal,
    /// when its pause is over.
    #[must_use]
    pub fn may(&self, key: &K, what: &V, now_ms: u64) -> bool {
        self.0.get(key).is_none_or(|last| {
            let waited = now_ms.saturating_sub(last.at_ms) >= last.pause_ms;
            waited || (!last.refused && last.what != *what)
        })
    }

    /// It was written, or refused.
    pub fn wrote(&mut self, key: K, what: V, refused: bool, now_ms: u64) {
        let least = if refused { REFUSED_MS } else { SHOWN_MS };
        let again = self.0.get(&key).filter(|last| {
            // Long after its pause a repetition is news again.
            let lately = now_ms.saturating_sub(last.at_ms) < PAUSE_MS_MAX.saturating_mul(2);
            last.refused == refused && (refused || last.what == what) && lately
        });
        let pause_ms = again.map_or(least, |last| last.pause_ms.saturating_mul(2).min(PAUSE_MS_MAX));
        self.0.insert(key, Write { what, refused, at_ms: now_ms, pause_ms });
    }

    /// Forgets the objects that are gone.
    pub fn retain(&mut self, there: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often `what` is written within a time, if it is wanted at every moment.
    fn writes(refused: bool, what: impl Fn(u64) -> u64) -> usize {
        let mut patience = Patience::default();
        let mut count = 0;
        for now_ms in (0..600_000).step_by(100) {
            if patience.may(&"n", &what(now_ms), now_ms) {
                patience.wrote("n", what(now_ms), refused, now_ms);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn what_never_shows_is_written_ever_more_rarely() {
        assert_eq!(writes(false, |_| 1), 13, "5, 10, 20, 40, then each 60 s");
        assert_eq!(writes(true, |_| 1), 15, "1, 2, 4 … 32, then each 60 s");
        assert_eq!(writes(true, |now_ms| now_ms), 15, "what was refused is not better for being another");
    }

    #[test]
    fn news_is_written_at_once() {
        let mut patience = Patience::default();
        patience.wrote("n", 1, false, 0);
        assert!(!patience.may(&"n", &1, 4_999) && patience.may(&"n", &2, 1) && patience.may(&"other", &1, 1));
        patience.wrote("n", 1, false, 400_000);
        assert!(patience.may(&"n", &1, 405_000), "a repetition after a long time begins anew");
        patience.retain(|key| *key != "n");
        assert!(patience.may(&"n", &1, 400_001));
    }
}
