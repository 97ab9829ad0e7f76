//! Verdicts that were found before: pods of one kind come by the hundred, and from one to the next few nodes change.
//!
//! A verdict is a function of the pod's wish and of the node's view. It is kept together with the view's stamp, which no
//! other view of the model has, so it counts exactly as long as the view does: nothing has to be told to forget, and what
//! is remembered is what would be found anew. It can be asked from many threads at a time: each verdict is one word.
use crate::around::Neighbourhood;
use crate::pod::PodWish;
use fairlead_placement::Reason;
use fairlead_topology::{HugePageNeed, Role, Score, Wish};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Wishes that are remembered; the one that was not asked for longest makes place. Each costs eight bytes a node.
const WISHES_MAX: usize = 64;

/// All that a verdict on a pod depends on, beside the node, if the pod holds nothing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// CPUs and role; no verdict depends on a name.
    containers: Vec<(u32, Role)>,
    memory_bytes: u64,
    huge_pages: Vec<HugePageNeed>,
    wish: Wish,
    shared_milli: u64,
    neighbourhood: Option<Neighbourhood>,
}

impl Key {
    /// None for a pod without CPUs of its own: what it asks of a node is one number.
    pub(crate) fn of(pod: &PodWish, neighbourhood: Option<Neighbourhood>) -> Option<Self> {
        let wanted = pod.exclusive.as_ref()?;
        Some(Self {
            containers: wanted.containers.iter().map(|container| (container.cpus, container.role)).collect(),
            memory_bytes: wanted.memory_bytes,
            huge_pages: wanted.huge_pages.clone(),
            wish: wanted.wish,
            shared_milli: pod.shared_milli,
            neighbourhood,
        })
    }
}

/// The verdicts for one key, by dense index of the node: a stamp and a verdict in one word; 0: none yet.
#[derive(Debug)]
pub(crate) struct Verdicts(Box<[AtomicU64]>);

/// Bits of a verdict: whether it fits, then two bytes of score or one of reason. The rest is the stamp's: enough for 400
/// years of 10,000 views a second.
const VERDICT_BITS: u32 = 17;
const FITS: u64 = 1 << 16;

fn packed(stamp: u64, verdict: Result<Score, Reason>) -> u64 {
    let bits = match verdict {
        Ok(score) => FITS | u64::from(score.alignment) << 8 | u64::from(score.holes),
        Err(reason) => reason.index() as u64,
    };
    stamp << VERDICT_BITS | bits
}

fn unpacked(word: u64) -> Option<Result<Score, Reason>> {
    let [holes, alignment, ..] = word.to_le_bytes();
    if word & FITS != 0 {
        return Some(Ok(Score { alignment, holes }));
    }
    Reason::ALL.get(usize::from(holes)).map(|reason| Err(*reason))
}

impl Verdicts {
    fn of_nodes(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }

    /// The verdict on the view of that stamp, found by `judge` where none is kept.
    pub(crate) fn get(
        &self,
        index: usize,
        stamp: u64,
        judge: impl FnOnce() -> Result<Score, Reason>,
    ) -> Result<Score, Reason> {
        let Some(slot) = self.0.get(index) else { return judge() };
        let word = slot.load(Ordering::Relaxed);
        if word >> VERDICT_BITS == stamp
            && let Some(kept) = unpacked(word)
        {
            return kept;
        }
        let verdict = judge();
        slot.store(packed(stamp, verdict), Ordering::Relaxed);
        verdict
    }
}

#[derive(Debug)]
struct Kept {
    key: Key,
    verdicts: Arc<Verdicts>,
    /// Number of the last question.
    asked: u64,
}

/// The verdicts for the wishes of late. All snapshots between two changes of the set of nodes share one.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    nodes: usize,
    kept: Mutex<(u64, Vec<Kept>)>,
}

impl Memo {
    pub(crate) fn of_nodes(nodes: usize) -> Self {
        Self { nodes, kept: Mutex::default() }
    }

    /// What is known for that key.
    pub(crate) fn of(&self, key: Key) -> Arc<Verdicts> {
        let mut held = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (questions, kept) = &mut *held;
        *questions += 1;
        if let Some(known) = kept.iter_mut().find(|known| known.key == key) {
            known.asked = *questions;
            return Arc::clone(&known.verdicts);
        }
        if kept.len() >= WISHES_MAX
            && let Some(oldest) = (0..kept.len()).min_by_key(|&at| kept.get(at).map(|known| known.asked))
        {
            kept.swap_remove(oldest);
        }
        let verdicts = Arc::new(Verdicts::of_nodes(self.nodes));
        kept.push(Kept { key, verdicts: Arc::clone(&verdicts), asked: *questions });
        verdicts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn key(cpus: u32) -> Key {
        Key {
            containers: vec![(cpus, Role::App)],
            memory_bytes: 0,
            huge_pages: Vec::new(),
            wish: Wish::default(),
            shared_milli: 0,
            neighbourhood: None,
        }
    }

    #[test]
    fn a_verdict_is_kept_for_its_stamp_alone() {
        let verdicts = Verdicts::of_nodes(2);
        let all = Reason::ALL.iter().map(|reason| Err(*reason));
        let scores = [(0, 0), (100, 7), (255, 255)].map(|(alignment, holes)| Ok(Score { alignment, holes }));
        for (verdict, stamp) in all.chain(scores).zip([1, 2, 3, 1 << 46].into_iter().cycle()) {
            assert_eq!(verdicts.get(1, stamp, || verdict), verdict);
            assert_eq!(verdicts.get(1, stamp, || panic!("asked twice")), verdict);
        }
        assert_eq!(verdicts.get(1, 99, || Err(Reason::NoTopology)), Err(Reason::NoTopology));
        assert_eq!(verdicts.get(7, 1, || Err(Reason::NodeUnknown)), Err(Reason::NodeUnknown), "no place, no harm");
    }

    #[test]
    fn the_wish_that_was_not_asked_for_longest_makes_place() {
        let memo = Memo::of_nodes(1);
        let first = memo.of(key(1));
        for cpus in 2..=64 {
            memo.of(key(cpus));
        }
        assert!(Arc::ptr_eq(&first, &memo.of(key(1))), "all have a place");
        memo.of(key(65));
        assert!(Arc::ptr_eq(&first, &memo.of(key(1))), "asked a moment ago");
        assert_eq!(memo.kept.lock().unwrap().1.len(), WISHES_MAX);
        assert!(!memo.kept.lock().unwrap().1.iter().any(|known| known.key == key(2)));
    }
}
