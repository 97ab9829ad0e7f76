//! Ending in order: the first signal drains, the second aborts, and draining has a limit.

use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Exit status after a second signal: 128 + SIGINT, what a shell expects of an interrupted program.
const ABORTED: i32 = 130;

/// Why signals cannot be heard.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen for {signal}")]
pub struct ShutdownError {
    signal: &'static str,
    #[source]
    source: std::io::Error,
}

/// How [`Shutdown::run_until`] ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending<T> {
    /// The work came to its end.
    Finished(T),
    /// The work was still going when the grace was over, and was dropped.
    Overran,
}

/// The process's wish to end.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT. Must be called inside the runtime, once.
    ///
    /// The first cancels [`Self::token`]; the second ends the process at once with status 130, so that a drain that
    /// hangs can be ended by a second Ctrl-C.
    ///
    /// # Errors
    /// The operating system refused the handler.
    pub fn install() -> Result<Self, ShutdownError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind, name| signal(kind).map_err(|source| ShutdownError { signal: name, source });
        let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
        let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
        // One place is enough: a signal that comes while one waits says nothing new.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
        let token = CancellationToken::new();
        tokio::spawn(obey(receiver, token.clone(), || std::process::exit(ABORTED)));
        Ok(Self { token })
    }

    /// A shutdown without signals, for tests and for programs inside programs.
    #[must_use]
    pub fn manual(token: CancellationToken) -> Self {
        Self { token }
    }

    /// Cancelled when the process should drain.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `work` to its end, but for no longer than `grace` after the first signal.
    pub async fn run_until<F: Future>(&self, grace: Duration, work: F) -> Ending<F::Output> {
        let limit = async {
            self.token.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            output = work => Ending::Finished(output),
            () = limit => {
                tracing::warn!(grace_ms = grace.as_millis(), "Draining took too long; ending now");
                Ending::Overran
            }
        }
    }
}

async fn obey(mut signals: mpsc::Receiver<&'static str>, token: CancellationToken, abort: impl FnOnce()) {
    let Some(signal) = signals.recv().await else { return };
    tracing::info!(signal, "Draining; a second signal ends at once");
    token.cancel();
    if let Some(signal) = signals.recv().await {
        tracing::warn!(signal, "Ending at once");
        abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_drains_and_the_second_aborts() {
        let (sender, receiver) = mpsc::channel(1);
        let token = CancellationToken::new();
        let aborted = Arc::new(AtomicBool::new(false));
        let flag = aborted.clone();
        let task = tokio::spawn(obey(receiver, token.clone(), move || flag.store(true, Ordering::SeqCst)));
        sender.send("SIGTERM").await.unwrap();
        token.cancelled().await;
        assert!(!aborted.load(Ordering::SeqCst));
        sender.send("SIGINT").await.unwrap();
        task.await.unwrap();
        assert!(aborted.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_time_gives_its_output() {
        let shutdown = Shutdown::manual(CancellationToken::new());
        shutdown.token().cancel();
        let work = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            7
        };
        assert_eq!(shutdown.run_until(Duration::from_secs(2), work).await, Ending::Finished(7));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_dropped_after_the_grace() {
        let shutdown = Shutdown::manual(CancellationToken::new());
        let token = shutdown.token();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            token.cancel();
        });
        let started = tokio::time::Instant::now();
        let ending = shutdown.run_until(Duration::from_secs(3), std::future::pending::<()>()).await;
        assert_eq!(ending, Ending::Overran);
        assert_eq!(started.elapsed().as_secs(), 103);
    }
}
