//! When the checkpoint is written: after what was told, again where that failed, and a last time at the end.
use std::time::Duration;

use fairlead_runtime::causes;
use tokio::time::Instant;

use super::{CheckpointError, News, Pinner};
use crate::pin::Remembered;

/// Longest pause before one is written again that could not be.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest that the end of the task waits for the last.
const LAST_LIMIT: Duration = Duration::from_secs(5);

impl Pinner {
    pub(super) fn saved(&mut self, outcome: Result<(), CheckpointError>) {
        self.is_saving = false;
        match outcome {
            Ok(()) => self.save_backoff.reset(),
            Err(error) => {
                self.setup.metrics.checkpoint_failures.inc();
                tracing::warn!(error = %causes(&error), "The checkpoint is older than what runs; writing it again");
                self.save_at = Some(Instant::now() + self.save_backoff.next_delay());
                // By the same write.
                self.save_again = false;
            }
        }
        if std::mem::take(&mut self.save_again) {
            self.save();
        }
    }

    /// Waits for what is to be written: what a successor does not find there it doubts.
    pub(super) async fn save_last(mut self) {
        // Nothing more is promised to the runtime.
        self.session = None;
        if self.save_at.is_some() {
            self.save();
        }
        let limit = Instant::now() + LAST_LIMIT;
        while self.is_saving {
            match tokio::time::timeout_at(limit, self.news.1.recv()).await {
                Ok(Some(News::Saved(outcome))) => self.saved(outcome),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return tracing::warn!("Ending without the last checkpoint"),
            }
        }
    }

    /// Writes the checkpoint; one write at a time, the last state wins.
    pub(super) fn save(&mut self) {
        if self.lock.is_none() {
            return;
        }
        if self.is_saving {
            self.save_again = true;
            return;
        }
        (self.is_saving, self.save_at) = (true, None);
        let remembered: Remembered = self.state.lock().to_remember();
        let (checkpoint, sender) = (self.setup.checkpoint.clone(), self.news.0.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = checkpoint.write(&remembered);
            drop(sender.blocking_send(News::Saved(outcome)));
        });
    }
}
