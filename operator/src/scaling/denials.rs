//! What the API server did not accept is not asked for again at once, however often the pool takes a turn (I11).
use super::judge::Refusal;
use crate::pause::Pause;

/// Longest pause: whoever repairs the policy or the right waits no longer.
const PAUSE_MS_MAX: u64 = 60_000;

/// The last denial of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials(Option<Denial>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Denial {
    from: u32,
    to: u32,
    refusal: Refusal,
    pause: Pause,
}

impl Denial {
    /// Whether it also speaks about this write: as far in the same direction. A smaller step may be accepted.
    fn covers(&self, from: u32, to: u32) -> bool {
        let (grows, grew) = (to > from, self.to > self.from);
        grows == grew && if grows { to >= self.to } else { to <= self.to }
    }
}

impl Denials {
    /// The API server did not accept a write.
    pub fn denied(&mut self, now_ms: u64, from: u32, to: u32, refusal: Refusal) {
        let pause = Pause::after(self.0.as_ref().map(|last| last.pause), now_ms, PAUSE_MS_MAX);
        self.0 = Some(Denial { from, to, refusal, pause });
    }

    /// It accepted one.
    pub fn accepted(&mut self) {
        self.0 = None;
    }

    /// Why a write is not tried now.
    #[must_use]
    pub fn standing(&self, now_ms: u64, from: u32, to: u32) -> Option<Refusal> {
        let denial = self.0.as_ref().filter(|denial| denial.pause.lasts(now_ms) && denial.covers(from, to));
        denial.map(|denial| denial.refusal.clone())
    }

    /// Whether growth was denied a moment ago: then no room is kept for it within the tenant's quota.
    #[must_use]
    pub fn stop_growth(&self, now_ms: u64) -> bool {
        self.0.as_ref().is_some_and(|denial| denial.pause.lasts(now_ms) && denial.to > denial.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_smaller_step_is_tried() {
        let mut denials = Denials::default();
        assert_eq!(denials.standing(0, 4, 9), None);
        let refusal = Refusal::no("ScaleDenied", "at most 8");
        denials.denied(0, 4, 9, refusal.clone());
        assert_eq!(denials.standing(999, 4, 9), Some(refusal.clone()));
        assert_eq!(denials.standing(999, 4, 12), Some(refusal.clone()));
        assert_eq!(
            (denials.standing(1, 4, 8), denials.standing(1, 4, 2), denials.standing(1_000, 4, 9)),
            (None, None, None)
        );
        assert!(denials.stop_growth(999) && !denials.stop_growth(1_000));
        denials.denied(1_000, 4, 9, refusal.clone());
        assert_eq!((denials.standing(2_999, 4, 9), denials.standing(3_000, 4, 9)), (Some(refusal.clone()), None));
        for _ in 0..20 {
            denials.denied(10_000, 4, 9, refusal.clone());
        }
        assert_eq!(denials.standing(70_000, 4, 9), None);
        denials.denied(70_000, 4, 9, refusal.clone());
        denials.accepted();
        assert_eq!(denials.standing(70_001, 4, 9), None);
        denials.denied(70_001, 9, 4, refusal.clone());
        assert_eq!((denials.standing(70_002, 9, 3), denials.standing(70_002, 9, 5)), (Some(refusal), None));
    }
}
