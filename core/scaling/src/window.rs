//! The memory that keeps replicas from falling too soon, or too often.
use std::collections::VecDeque;

/// What was wanted of late, and the last reduction. One a pool; empty after a restart, and then nothing falls until the
/// window has been seen whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DownWindow {
    /// (time, wanted), times rising and wanted falling: later entries that are larger make earlier ones pointless.
    wanted: VecDeque<(u64, u32)>,
    since_ms: Option<u64>,
    reduction: Option<(u64, u32)>,
}

/// What the window has to say about a smaller number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fall {
    /// Down to this.
    To(u32),
    /// Not before the window has passed.
    Window,
    /// Not so soon after the last reduction.
    Idle,
}

impl DownWindow {
    /// Nothing remembered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn record(&mut self, now_ms: u64, wanted: u32, window_ms: u64) {
        if self.since_ms.is_none_or(|since| since > now_ms) {
            // First use, or the clock was set back: what lies in the future is worth nothing.
            *self = Self { since_ms: Some(now_ms), ..Self::default() };
        }
        while self.wanted.back().is_some_and(|&(at_ms, earlier)| earlier <= wanted || at_ms > now_ms) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now_ms, wanted));
        while self.wanted.len() > 1
            && self.wanted.front().is_some_and(|(at_ms, _)| at_ms.saturating_add(window_ms) < now_ms)
        {
            self.wanted.pop_front();
        }
    }

    /// How far `current` may fall now. The same answer is given until it was carried out or its time has passed, so a
    /// write that failed is repeated and one batch stays one batch.
    pub(crate) fn fall(&mut self, now_ms: u64, current: u32, window_ms: u64, idle_ms: u64) -> Fall {
        let most = self.wanted.iter().map(|&(_, wanted)| wanted).max().unwrap_or(current);
        if self.since_ms.is_none_or(|since| now_ms.saturating_sub(since) < window_ms) || most >= current {
            return Fall::Window;
        }
        match self.reduction {
            Some((at_ms, _)) if at_ms > now_ms => {}
            Some((at_ms, target)) if now_ms - at_ms < idle_ms => {
                return if current > target { Fall::To(target.max(most)) } else { Fall::Idle };
            }
            _ => {}
        }
        self.reduction = Some((now_ms, most));
        Fall::To(most)
    }
}
