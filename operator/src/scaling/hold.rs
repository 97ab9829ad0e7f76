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
    /// A term of leadership began since the last look.
    new_term: bool,
}

/// What the pool's status says about the replicas: the word of the leader before, if there was another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Replicas that it knew of.
    pub ordered: Option<u32>,
    /// It held somebody's change of them.
    pub held: bool,
}

impl Hold {
    /// The replicas as read. The first look takes them as they are: nobody can tell who set them. In a new term, what the
    /// leader before knew of is as good as ours, unless it held it itself.
    pub fn see(&mut self, now_ms: u64, replicas: u32, told: Told) {
        let ours = if self.new_term && told.held {
            self.known == Some(replicas)
        } else {
            let by_leader = self.new_term && told.ordered == Some(replicas);
            self.known.is_none_or(|known| known == replicas) || self.attempted == Some(replicas) || by_leader
        };
        if !ours {
            self.until_ms = Some(now_ms.saturating_add(HOLD_MS));
        }
        (self.known, self.attempted, self.new_term) = (Some(replicas), None, false);
    }

    /// A term of leadership begins: somebody else may have led, and written, since the last look. What is held stays held.
    pub fn begin_term(&mut self) {
        self.new_term = true;
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
        hold.see(0, 4, Told::default());
        assert_eq!(hold.held_until(0), None);
        hold.wrote(6);
        hold.see(10, 6, Told::default());
        assert_eq!(hold.held_until(10), None);
        hold.may_have_written(9);
        hold.see(20, 9, Told::default());
        assert_eq!(hold.held_until(20), None);
        hold.may_have_written(12);
        hold.see(30, 9, Told::default());
        assert_eq!(hold.held_until(30), None);
        hold.see(40, 2, Told::default());
        assert_eq!(hold.held_until(40), Some(40 + HOLD_MS));
        hold.see(50, 2, Told::default());
        assert_eq!(hold.held_until(40 + HOLD_MS), None);
    }

    #[test]
    fn a_new_term_believes_the_leader_before_and_forgets_no_human() {
        let by = |ordered, held| Told { ordered: Some(ordered), held };
        let mut hold = Hold::default();
        hold.see(0, 4, Told::default());
        hold.begin_term();
        hold.see(10, 9, by(9, false));
        assert_eq!(hold.held_until(10), None, "another leader's order");
        hold.begin_term();
        hold.see(20, 2, by(9, false));
        assert_eq!(hold.held_until(20), Some(20 + HOLD_MS), "nobody's order");
        hold.begin_term();
        hold.see(30, 2, by(2, true));
        assert_eq!(hold.held_until(30), Some(20 + HOLD_MS), "held on, not anew");
        let mut fresh = Hold::default();
        fresh.begin_term();
        fresh.see(0, 2, by(2, true));
        assert_eq!(fresh.held_until(0), Some(HOLD_MS), "the leader before held it");
        let mut later = Hold::default();
        later.see(0, 4, by(4, false));
        later.see(10, 9, by(9, false));
        assert_eq!(later.held_until(10), Some(10 + HOLD_MS), "within a term the status is our own word");
    }
}
