//! A human's change of replicas is held, not fought (I10).

/// So long a change that is not ours stands before the pool is driven again.
pub const HOLD_MS: u64 = 60_000;

/// What is known of the replicas of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    known: Option<u32>,
    /// A write whose outcome is not known.
    attempted: Option<u32>,
    until_ms: Option<u64>,
}

impl Hold {
    /// The replicas as read. The first look takes them as they are: nobody can tell who set them.
    pub fn see(&mut self, now_ms: u64, replicas: u32) {
        let ours = self.known.is_none_or(|known| known == replicas) || self.attempted == Some(replicas);
        if !ours {
            self.until_ms = Some(now_ms.saturating_add(HOLD_MS));
        }
        self.known = Some(replicas);
        self.attempted = None;
    }

    /// Our write succeeded.
    pub fn wrote(&mut self, replicas: u32) {
        self.known = Some(replicas);
        self.attempted = None;
    }

    /// Our write may have succeeded.
    pub fn may_have_written(&mut self, replicas: u32) {
        self.attempted = Some(replicas);
    }

    /// Until when a change of somebody else stands.
    #[must_use]
    pub fn held_until(&self, now_ms: u64) -> Option<u64> {
        self.until_ms.filter(|until| now_ms < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_that_is_not_ours_is_held() {
        let mut hold = Hold::default();
        hold.see(0, 4);
        assert_eq!(hold.held_until(0), None);
        hold.wrote(6);
        hold.see(10, 6);
        assert_eq!(hold.held_until(10), None);
        hold.may_have_written(9);
        hold.see(20, 9);
        assert_eq!(hold.held_until(20), None);
        hold.may_have_written(12);
        hold.see(30, 9);
        assert_eq!(hold.held_until(30), None);
        hold.see(40, 2);
        assert_eq!(hold.held_until(40), Some(40 + HOLD_MS));
        hold.see(50, 2);
        assert_eq!(hold.held_until(40 + HOLD_MS), None);
    }
}
