//! Alive means: every loop that promised to come round has come round.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The pulses of a process's loops. Cheap to clone; all clones are one set.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    origin: Instant,
    loops: Arc<Mutex<BTreeMap<String, Loop>>>,
}

#[derive(Debug)]
struct Loop {
    beaten_ms: Arc<AtomicU64>,
    silence_ms: u64,
}

/// What a loop beats; its loop counts as stuck when it does not beat for the time it promised.
#[derive(Debug, Clone)]
pub struct Pulse {
    origin: Instant,
    beaten_ms: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { origin: Instant::now(), loops: Arc::default() }
    }
}

impl Heartbeat {
    /// No loops yet, which is alive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A loop that promises to beat at least every `silence`; it counts as beaten now.
    #[must_use]
    pub fn register(&self, name: impl Into<String>, silence: Duration) -> Pulse {
        let pulse = Pulse { origin: self.origin, beaten_ms: Arc::default() };
        pulse.beat();
        let entry = Loop {
            beaten_ms: pulse.beaten_ms.clone(),
            silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
        };
        self.lock().insert(name.into(), entry);
        pulse
    }

    /// The loops that have been silent for too long, in order of name.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let now_ms = since_ms(self.origin);
        self.lock()
            .iter()
            .filter(|(_, entry)| now_ms.saturating_sub(entry.beaten_ms.load(Ordering::Relaxed)) > entry.silence_ms)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Loop>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// The loop came round.
    pub fn beat(&self) {
        self.beaten_ms.store(since_ms(self.origin), Ordering::Relaxed);
    }
}

fn since_ms(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_loop_is_stuck_until_it_beats() {
        let heartbeat = Heartbeat::new();
        let fast = heartbeat.register("fast", Duration::from_secs(1));
        let _slow = heartbeat.register("slow", Duration::from_secs(60));
        assert!(heartbeat.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(heartbeat.stuck(), ["fast"]);
        fast.beat();
        assert!(heartbeat.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(heartbeat.stuck(), ["fast", "slow"]);
    }
}
