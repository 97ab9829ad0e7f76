//! The tasks of the process. One part without the others is no operator: the first that ends unasked ends them all.
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// A task that ended although nobody had asked for the end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It came to its end.
    #[error("the task {task} came to its end while it was needed")]
    Early {
        /// Which.
        task: &'static str,
    },
    /// It died.
    #[error("the task {task} died: {how}")]
    Died {
        /// Which.
        task: &'static str,
        /// Panicked or aborted.
        how: String,
    },
}

/// All tasks, by name.
#[derive(Debug, Default)]
pub struct Crew(JoinSet<(&'static str, Result<(), tokio::task::JoinError>)>);

impl Crew {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes on a task that runs until the shutdown.
    pub fn take_on(&mut self, task: &'static str, handle: JoinHandle<()>) {
        self.0.spawn(async move { (task, handle.await) });
    }

    /// Waits for `shutdown`, or for the first task that ends without it; that one cancels `shutdown` for the others. What
    /// is left is waited for with [`Crew::drained`].
    pub async fn on_duty(&mut self, shutdown: &CancellationToken) -> Option<Ended> {
        let first = tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            first = self.0.join_next() => first?,
        };
        // Whoever ends because it was asked to may be seen before the token is.
        let ended = judge(first, shutdown.is_cancelled())?;
        tracing::error!(error = %ended, "Ending: one part without the others is no operator");
        shutdown.cancel();
        Some(ended)
    }

    /// Waits for all that are left; the first that died while it ended, if one did.
    pub async fn drained(&mut self) -> Option<Ended> {
        let mut first = None;
        while let Some(outcome) = self.0.join_next().await {
            if let Some(ended) = judge(outcome, true) {
                tracing::error!(error = %ended, "A task died while it ended");
                first.get_or_insert(ended);
            }
        }
        first
    }
}

type Outcome = Result<(&'static str, Result<(), tokio::task::JoinError>), tokio::task::JoinError>;

fn judge(outcome: Outcome, asked: bool) -> Option<Ended> {
    match outcome {
        Ok((_, Ok(()))) if asked => None,
        Ok((task, Ok(()))) => Some(Ended::Early { task }),
        Ok((task, Err(error))) => Some(Ended::Died { task, how: error.to_string() }),
        Err(error) => Some(Ended::Died { task: "waiting for a task", how: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lasting(shutdown: &CancellationToken) -> JoinHandle<()> {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { shutdown.cancelled().await })
    }

    #[tokio::test(start_paused = true)]
    async fn whichever_task_dies_ends_all() {
        for name in ["house", "pools", "watch pods"] {
            let shutdown = CancellationToken::new();
            let mut crew = Crew::new();
            for task in ["house", "pools", "watch pods"] {
                let handle =
                    if task == name { tokio::spawn(async { panic!("on purpose") }) } else { lasting(&shutdown) };
                crew.take_on(task, handle);
            }
            let ended = tokio::time::timeout(Duration::from_secs(1), crew.on_duty(&shutdown)).await.unwrap();
            assert!(matches!(ended, Some(Ended::Died { task, .. }) if task == name), "{ended:?}");
            assert!(shutdown.is_cancelled());
            assert_eq!(crew.drained().await, None);
        }
    }

    #[tokio::test]
    async fn an_end_is_an_error_only_before_the_shutdown() {
        let shutdown = CancellationToken::new();
        let mut crew = Crew::new();
        crew.take_on("house", lasting(&shutdown));
        crew.take_on("pools", tokio::spawn(async {}));
        assert_eq!(crew.on_duty(&shutdown).await, Some(Ended::Early { task: "pools" }));

        let (shutdown, mut crew) = (CancellationToken::new(), Crew::new());
        crew.take_on("house", lasting(&shutdown));
        shutdown.cancel();
        assert_eq!(crew.on_duty(&shutdown).await, None);
        assert_eq!(crew.drained().await, None);
    }
}
