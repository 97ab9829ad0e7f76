//! Which pods are told why they wait: on change only, not before the reason has stood for a moment, and never while a
//! release of the same pod is under way, because a write to its status would change the version that the release needs.
use super::attempts::{Attempts, Written};
use crate::book::{PodBook, PodNote, Told};
use fairlead_fairshare::protocol::{Standing, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// A reason is told when it has stood this long: most pods are released before.
pub const SETTLED_MS: u64 = 1_000;
/// Reason and message of a pod that was told to wait, and then released.
pub const RELEASED_REASON: &str = "Released";
const RELEASED_MESSAGE: &str = "the gate was removed; the scheduler places the pod";

/// One condition to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToTell {
    /// Pod.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What to say.
    pub told: Told,
    /// Since when the status is what it says; `None`: from now on.
    pub since: Option<Time>,
}

/// What was told, and what is about to be.
#[derive(Debug, Default)]
pub struct Telling {
    since: BTreeMap<Uid, (Told, u64)>,
    writes: Attempts,
}

impl Telling {
    /// A write on this pod is under way: do not release it now.
    #[must_use]
    pub fn is_writing(&self, uid: &str) -> bool {
        self.writes.is_under_way(uid)
    }

    /// Writes under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.writes.under_way()
    }

    /// Chooses at most `most` conditions to write, the oldest pods first, and counts them as under way.
    /// `verdicts` says why pods wait; `in_release` tells pods that are being released.
    pub fn choose(
        &mut self,
        now_ms: u64,
        book: &PodBook,
        verdicts: &BTreeMap<Uid, Told>,
        in_release: impl Fn(&PodNote) -> bool,
        most: usize,
    ) -> Vec<ToTell> {
        self.forget_the_gone(book, verdicts);
        let mut found: Vec<(u64, ToTell)> = Vec::new();
        for note in book.iter().filter(|note| !note.deleting) {
            let Some(told) = self.news_for(note, now_ms, verdicts) else { continue };
            if self.writes.may_begin(note, now_ms) && !in_release(note) {
                let stays = note.told.as_ref().is_some_and(|last| last.released == told.released);
                let since = note.told_since.clone().filter(|_| stays);
                let (uid, namespace, name) = (note.uid.clone(), note.namespace.clone(), note.name.clone());
                let to_tell = ToTell { uid, namespace, name, told, since };
                found.push((note.created_ms, to_tell));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1.uid).cmp(&(b.0, &b.1.uid)));
        let chosen: Vec<ToTell> = found.into_iter().take(most).map(|(_, to_tell)| to_tell).collect();
        for to_tell in &chosen {
            self.writes.begin(&to_tell.uid);
        }
        chosen
    }

    /// A write ended.
    pub fn answered(&mut self, uid: &Uid, written: Written, now_ms: u64) {
        self.writes.ended(uid, written, now_ms);
    }

    /// What the pod should be told and is not.
    fn news_for(&mut self, note: &PodNote, now_ms: u64, verdicts: &BTreeMap<Uid, Told>) -> Option<Told> {
        match note.view.standing {
            Standing::Gated => {
                let verdict = verdicts.get(&note.uid)?;
                if note.told.as_ref() == Some(verdict) {
                    self.since.remove(&note.uid);
                    return None;
                }
                match self.since.get(&note.uid) {
                    Some((told, since)) if told == verdict => {
                        (now_ms.saturating_sub(*since) >= SETTLED_MS).then(|| verdict.clone())
                    }
                    _ => {
                        self.since.insert(note.uid.clone(), (verdict.clone(), now_ms));
                        None
                    }
                }
            }
            // Only who was told to wait is told that it is over.
            Standing::Released => note.told.as_ref().filter(|told| !told.released).map(|_| Told {
                released: true,
                reason: RELEASED_REASON.to_owned(),
                message: RELEASED_MESSAGE.to_owned(),
            }),
            Standing::Ended => None,
        }
    }

    fn forget_the_gone(&mut self, book: &PodBook, verdicts: &BTreeMap<Uid, Told>) {
        self.since.retain(|uid, _| verdicts.contains_key(uid));
        self.writes.tidy(book);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::tests::pod;

    fn verdict(reason: &str) -> Told {
        Told { released: false, reason: reason.into(), message: "m".into() }
    }

    fn book(version: u64, gated: bool, told: Option<Told>) -> PodBook {
        let mut book = PodBook::default();
        let mut note = PodNote::of(&pod("a", "p", version, gated)).unwrap();
        note.told = told;
        book.put(note);
        book
    }

    fn choose(telling: &mut Telling, now_ms: u64, book: &PodBook, reason: &str) -> Vec<ToTell> {
        let verdicts = BTreeMap::from([("uid-p".into(), verdict(reason))]);
        telling.choose(now_ms, book, &verdicts, |_| false, 10)
    }

    #[test]
    fn a_reason_is_told_once_when_it_has_settled() {
        let (mut telling, book_1) = (Telling::default(), book(1, true, None));
        assert!(choose(&mut telling, 0, &book_1, "A").is_empty());
        assert!(choose(&mut telling, 900, &book_1, "A").is_empty());
        assert_eq!(choose(&mut telling, 1_000, &book_1, "A").len(), 1);
        assert!(telling.is_writing("uid-p"));
        telling.answered(&"uid-p".into(), Written::Done(5), 1_010);
        // The watch has not shown it yet: not a second time.
        assert!(choose(&mut telling, 5_000, &book_1, "A").is_empty());
        let book_5 = book(5, true, Some(verdict("A")));
        assert!(choose(&mut telling, 9_000, &book_5, "A").is_empty());
    }

    #[test]
    fn a_reason_that_flickers_is_not_told() {
        let (mut telling, book) = (Telling::default(), book(1, true, None));
        for (i, reason) in ["A", "B", "A", "B", "A"].iter().enumerate() {
            assert!(choose(&mut telling, 700 * i as u64, &book, reason).is_empty());
        }
    }

    #[test]
    fn a_pod_in_release_is_left_alone_and_one_that_was_told_to_wait_hears_the_end() {
        let mut telling = Telling::default();
        let waiting = book(1, true, Some(verdict("A")));
        let verdicts = BTreeMap::from([("uid-p".into(), verdict("B"))]);
        telling.choose(0, &waiting, &verdicts, |_| false, 10);
        assert!(telling.choose(2_000, &waiting, &verdicts, |_| true, 10).is_empty());
        let released = book(2, false, Some(verdict("A")));
        let told = telling.choose(3_000, &released, &BTreeMap::new(), |_| false, 10);
        assert_eq!((told[0].told.released, told[0].told.reason.as_str()), (true, "Released"));
        let silent = book(2, false, None);
        assert!(Telling::default().choose(3_000, &silent, &BTreeMap::new(), |_| false, 10).is_empty());
    }

    #[test]
    fn the_time_of_the_transition_stays_with_the_status() {
        let mut telling = Telling::default();
        let mut note = PodNote::of(&pod("a", "p", 1, true)).unwrap();
        note.told = Some(verdict("A"));
        note.told_since = Some(crate::clock::time_of(7_000));
        let mut book = PodBook::default();
        book.put(note.clone());
        assert!(choose(&mut telling, 0, &book, "B").is_empty());
        assert_eq!(choose(&mut telling, 9_000, &book, "B")[0].since, Some(crate::clock::time_of(7_000)));
        note.view.standing = Standing::Released;
        book.put(note);
        let released = Telling::default().choose(9_000, &book, &BTreeMap::new(), |_| false, 10);
        assert_eq!(released[0].since, None);
    }
}
