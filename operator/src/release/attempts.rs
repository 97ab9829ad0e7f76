//! Writes on pods that may fail and are repeated: one at a time for each pod, not again before the watch shows the last
//! one, and with growing pauses while the API server refuses.
use crate::book::{PodBook, PodNote};
use fairlead_fairshare::protocol::{Uid, Version};
use std::collections::BTreeMap;

/// Pauses after writes that were refused double from here.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    UnderWay,
    Done(Version),
    Refused { until_ms: u64, pause_ms: u64 },
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The pod has this version now.
    Done(Version),
    /// Refused, or not answered by a server that is there.
    Refused,
    /// The server could not be reached: nothing is known against the pod.
    Away,
}

/// The writes of one kind.
#[derive(Debug, Default)]
pub struct Attempts {
    writes: BTreeMap<Uid, Write>,
    /// The last pause of pods whose write was refused.
    pauses: BTreeMap<Uid, u64>,
}

impl Attempts {
    /// A write on this pod is under way.
    #[must_use]
    pub fn is_under_way(&self, uid: &str) -> bool {
        self.writes.get(uid) == Some(&Write::UnderWay)
    }

    /// Writes under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.writes.values().filter(|write| **write == Write::UnderWay).count()
    }

    /// Whether a write that this note asks for may begin.
    #[must_use]
    pub fn may_begin(&self, note: &PodNote, now_ms: u64) -> bool {
        match self.writes.get(&note.uid) {
            None => true,
            Some(Write::UnderWay) => false,
            Some(Write::Done(version)) => note.view.version >= *version,
            // A clock that was set back does not prolong the pause.
            Some(Write::Refused { until_ms, pause_ms }) => !(1..=*pause_ms).contains(&until_ms.saturating_sub(now_ms)),
        }
    }

    /// A write begins.
    pub fn begin(&mut self, uid: &Uid) {
        self.writes.insert(uid.clone(), Write::UnderWay);
    }

    /// A write ended.
    pub fn ended(&mut self, uid: &Uid, written: Written, now_ms: u64) {
        let refused = |pause_ms| Write::Refused { until_ms: now_ms.saturating_add(pause_ms), pause_ms };
        let write = match written {
            Written::Done(version) => {
                self.pauses.remove(uid);
                Write::Done(version)
            }
            Written::Away => refused(PAUSE_MS),
            Written::Refused => {
                let last = self.pauses.get(uid).map_or(PAUSE_MS, |last| (last * 2).min(PAUSE_MAX_MS));
                self.pauses.insert(uid.clone(), last);
                refused(last)
            }
        };
        self.writes.insert(uid.clone(), write);
    }

    /// Forgets pods that are gone, and writes that the watch has shown.
    pub fn tidy(&mut self, book: &PodBook) {
        self.writes.retain(|uid, write| match write {
            Write::UnderWay => true,
            Write::Done(version) => book.get(uid).is_some_and(|note| note.view.version < *version),
            Write::Refused { .. } => book.get(uid).is_some(),
        });
        self.pauses.retain(|uid, _| book.get(uid).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::pod;

    fn note(version: u64) -> PodNote {
        PodNote::of(&pod("a", "p", version, false)).unwrap()
    }

    #[test]
    fn pauses_grow_after_refusals_and_not_after_an_outage() {
        let pauses = |written: Written, pauses_ms: [u64; 6]| {
            let (mut attempts, note, mut now_ms) = (Attempts::default(), note(2), 0);
            for pause_ms in pauses_ms {
                assert!(attempts.may_begin(&note, now_ms));
                attempts.begin(&note.uid);
                assert!(!attempts.may_begin(&note, now_ms));
                attempts.ended(&note.uid, written, now_ms);
                now_ms += pause_ms;
                assert!(!attempts.may_begin(&note, now_ms - 1));
            }
        };
        pauses(Written::Refused, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
        pauses(Written::Away, [1_000; 6]);
    }

    #[test]
    fn what_is_done_is_not_done_again_while_the_watch_lags() {
        let mut attempts = Attempts::default();
        let mut book = PodBook::default();
        book.put(note(2));
        attempts.begin(&note(2).uid);
        attempts.ended(&note(2).uid, Written::Done(5), 0);
        attempts.tidy(&book);
        assert!(!attempts.may_begin(&note(4), 60_000) && attempts.may_begin(&note(5), 0));
        book.put(note(5));
        attempts.tidy(&book);
        assert!(attempts.writes.is_empty());
    }
}
