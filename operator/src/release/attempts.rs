//! Writes on pods that may fail and are repeated: one at a time for each pod, not again before the watch shows the last
//! one, and with growing pauses while the API server refuses.
use crate::book::{PodBook, PodNote};
use crate::pause::Pause;
use fairlead_fairshare::protocol::{Uid, Version};
use std::collections::BTreeMap;

/// Longest pause after writes that were refused.
const PAUSE_MAX_MS: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    UnderWay,
    Done(Version),
    Refused(Pause),
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
    pauses: BTreeMap<Uid, Pause>,
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
            Some(Write::Refused(pause)) => !pause.lasts(now_ms),
        }
    }

    /// A write begins.
    pub fn begin(&mut self, uid: &Uid) {
        self.writes.insert(uid.clone(), Write::UnderWay);
    }

    /// A write ended.
    pub fn ended(&mut self, uid: &Uid, written: Written, now_ms: u64) {
        let write = match written {
            Written::Done(version) => {
                self.pauses.remove(uid);
                Write::Done(version)
            }
            Written::Away => Write::Refused(Pause::first(now_ms)),
            Written::Refused => {
                let pause = Pause::after(self.pauses.get(uid).copied(), now_ms, PAUSE_MAX_MS);
                self.pauses.insert(uid.clone(), pause);
                Write::Refused(pause)
            }
        };
        self.writes.insert(uid.clone(), write);
    }

    /// Forgets pods that are gone, and writes that the watch has shown.
    pub fn tidy(&mut self, book: &PodBook) {
        self.writes.retain(|uid, write| match write {
            Write::UnderWay => true,
            Write::Done(version) => book.get(uid).is_some_and(|note| note.view.version < *version),
            Write::Refused(_) => book.get(uid).is_some(),
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
