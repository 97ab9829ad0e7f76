//! Binds to one node take turns in the order they came; whoever runs out of time can tell how many were ahead.
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Mutex as Turn, MutexGuard as TurnGuard};

/// Lines to stand in; nodes that share one only wait a little longer than they must.
const LINES: usize = 256;

/// A line for each node.
pub struct Turns(Vec<Line>);

#[derive(Default)]
struct Line {
    turn: Turn<()>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeSet<u64>,
}

/// A place in a line; left when dropped.
pub struct Place<'a> {
    line: &'a Line,
    number: u64,
    turn: Option<TurnGuard<'a, ()>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self((0..LINES).map(|_| Line::default()).collect())
    }
}

impl Turns {
    /// The end of a node's line.
    #[must_use]
    pub fn stand(&self, node: &str) -> Option<Place<'_>> {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % LINES as u64).ok()?;
        let line = self.0.get(index)?;
        let mut places = line.places.lock().unwrap_or_else(PoisonError::into_inner);
        let number = places.next;
        places.next += 1;
        places.taken.insert(number);
        Some(Place { line, number, turn: None })
    }
}

impl Place<'_> {
    /// Waits until all that came before have left.
    pub async fn first(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(self.line.turn.lock().await);
        }
    }

    /// How many are still ahead; none: it is this one's turn.
    #[must_use]
    pub fn ahead(&self) -> usize {
        if self.turn.is_some() {
            return 0;
        }
        let places = self.line.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken.range(..self.number).count()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.line.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn each_knows_how_many_are_ahead_and_who_leaves_makes_room() {
        let turns = Turns::default();
        let [mut first, mut second, mut third] = [(); 3].map(|()| turns.stand("n").unwrap());
        first.first().await;
        assert_eq!((first.ahead(), second.ahead(), third.ahead()), (0, 1, 2));
        assert!(tokio::time::timeout(Duration::from_secs(1), third.first()).await.is_err(), "its turn has not come");
        drop(second);
        assert_eq!(third.ahead(), 1);
        drop(first);
        third.first().await;
        assert_eq!(third.ahead(), 0);
        second = turns.stand("n").unwrap();
        assert_eq!(second.ahead(), 1);
    }
}
