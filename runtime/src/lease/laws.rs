//! Laws of the election.

use super::step::{Event, Purpose, Record, Request, State, Timing, TimingError, Write, step};
use super::world::{CALM, Faults, World};
use proptest::prelude::*;

fn faults() -> impl Strategy<Value = Faults> {
    (0..300_u64, 0..200_u64, 0..100_u64, 0..30_u64).prop_map(|(lost, late, stall, crash)| Faults {
        lost,
        late,
        stall,
        crash,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Two candidates whose clocks differ by less than duration ÷ renew deadline never lead together, whatever is lost,
    /// late, stalled or crashed; and each begins every leadership with a new, greater term.
    #[test]
    fn never_two_at_once(seed: u64, rates in prop::collection::vec(1000..1490_u64, 2..4), faults in faults()) {
        let seed = seed >> 8;
        let mut world = World::new(seed, &rates, faults);
        world.run_until(600_000);
        prop_assert_eq!(world.together, None);
        for candidate in &world.candidates {
            prop_assert!(candidate.terms.is_sorted_by(|a, b| a < b), "{:?}", candidate.terms);
        }
    }

    /// When the trouble is over, somebody leads before long, and exactly one.
    #[test]
    fn somebody_leads_in_the_end(seed: u64, rates in prop::collection::vec(1000..1490_u64, 1..4), faults in faults()) {
        let seed = seed >> 8;
        let mut world = World::new(seed, &rates, faults);
        world.run_until(120_000);
        world.faults = CALM;
        // What was sent late may arrive 70 s later, and a stall last 40 s.
        world.run_until(120_000 + 70_000 + 40_000 + 20_000);
        prop_assert_eq!(world.leaders(), 1);
    }
}

/// The law above has teeth: a clock far beyond the stated skew takes over from a holder that still believes.
#[test]
fn beyond_the_stated_skew_two_may_lead() {
    let lossy = Faults { lost: 250, ..CALM };
    let broken = (0..200).any(|seed| {
        let mut world = World::new(seed, &[1000, 2200], lossy);
        world.run_until(600_000);
        world.together.is_some()
    });
    assert!(broken);
}

#[test]
fn in_calm_weather_the_first_keeps_the_lease() {
    let mut world = World::new(1, &[1000, 1100, 1200], CALM);
    world.run_until(600_000);
    let terms: Vec<_> = world.candidates.iter().map(|c| c.terms.len()).collect();
    assert_eq!(terms.iter().sum::<usize>(), 1, "{terms:?}");
    assert_eq!(world.lease.map(|lease| lease.transitions), Some(1));
}

fn record(version: &str, holder: &str) -> Record {
    Record { version: version.into(), holder: holder.into(), duration_ms: 15_000, transitions: 4 }
}

fn turn(state: &State, now_ms: u64, event: Event) -> (State, Request) {
    step(&Timing::default(), "me", state, now_ms, event)
}

fn purpose(request: &Request) -> Option<Purpose> {
    match request {
        Request::Write(write) => Some(write.purpose),
        _ => None,
    }
}

/// A state that leads from 1,000 on in term 5.
fn leading() -> State {
    let (state, _) = turn(&State::new(0), 1_000, Event::Read(Some(record("7", ""))));
    let (state, request) = turn(&state, 1_010, Event::Written(record("8", "me").with_transitions(5)));
    assert_eq!(request, Request::Wait { until_ms: 3_010 });
    state
}

impl Record {
    fn with_transitions(mut self, transitions: u64) -> Self {
        self.transitions = transitions;
        self
    }
}

#[test]
fn leadership_counts_from_the_sending() {
    let state = leading();
    assert_eq!(state.term_at(10_999), Some(5));
    assert_eq!(state.term_at(11_000), None);
}

#[test]
fn the_holder_renews_without_reading_and_survives_a_failed_renewal() {
    let (state, request) = turn(&leading(), 3_010, Event::Tick);
    assert_eq!(purpose(&request), Some(Purpose::Renew));
    let (state, request) = turn(&state, 6_000, Event::Failed);
    assert!(matches!(request, Request::Wait { until_ms } if (8_000..=8_400).contains(&until_ms)));
    assert_eq!(state.term_at(6_000), Some(5));
    let (_, request) = turn(&state, 8_400, Event::Tick);
    assert_eq!(purpose(&request), Some(Purpose::Renew));
}

#[test]
fn a_renewal_answered_too_late_does_not_bring_the_old_term_back() {
    let (state, _) = turn(&leading(), 9_000, Event::Tick);
    let (state, request) = turn(&state, 12_000, Event::Written(record("9", "me").with_transitions(5)));
    assert_eq!(state.term_at(12_000), None);
    assert!(matches!(request, Request::Wait { .. }));
    let (state, request) = turn(&state, 14_000, Event::Tick);
    assert_eq!(request, Request::Read);
    let (state, request) = turn(&state, 14_010, Event::Read(Some(record("9", "me").with_transitions(5))));
    assert_eq!(purpose(&request), Some(Purpose::Acquire));
    let (state, _) = turn(&state, 14_020, Event::Written(record("10", "me").with_transitions(6)));
    assert_eq!(state.term_at(14_020), Some(6));
}

#[test]
fn a_conflict_that_shows_another_holder_ends_leadership_at_once() {
    let (state, _) = turn(&leading(), 3_010, Event::Tick);
    let (state, request) = turn(&state, 3_020, Event::Conflict);
    assert_eq!((request, state.term_at(3_020)), (Request::Read, Some(5)));
    let (state, _) = turn(&state, 3_030, Event::Read(Some(record("9", "other"))));
    assert_eq!(state.term_at(3_030), None);
}

#[test]
fn a_lease_of_another_is_taken_only_after_its_duration_without_a_change() {
    let (state, _) = turn(&State::new(0), 0, Event::Read(Some(record("1", "other"))));
    let (state, request) = turn(&state, 14_999, Event::Read(Some(record("1", "other"))));
    assert_eq!(purpose(&request), None);
    let (changed, request) = turn(&state, 15_000, Event::Read(Some(record("2", "other"))));
    assert_eq!(purpose(&request), None);
    let (_, request) = turn(&changed, 29_999, Event::Read(Some(record("2", "other"))));
    assert_eq!(purpose(&request), None);
    let (_, request) = turn(&state, 15_000, Event::Read(Some(record("1", "other"))));
    let expected = Write { expect: Some("1".into()), purpose: Purpose::Acquire, transitions: 5 };
    assert_eq!(request, Request::Write(expected));
}

#[test]
fn a_longer_duration_in_the_record_is_respected_within_reason() {
    for (stated_ms, taken_at_ms) in [(1_000, 15_000), (60_000, 60_000), (u64::MAX, 300_000)] {
        let seen = Record { duration_ms: stated_ms, ..record("1", "other") };
        let (state, _) = turn(&State::new(0), 0, Event::Read(Some(seen.clone())));
        let (_, early) = turn(&state, taken_at_ms - 1, Event::Read(Some(seen.clone())));
        let (_, due) = turn(&state, taken_at_ms, Event::Read(Some(seen)));
        assert_eq!((purpose(&early), purpose(&due)), (None, Some(Purpose::Acquire)), "{stated_ms}");
    }
}

#[test]
fn a_lease_that_was_deleted_under_its_holder_is_not_taken_at_once() {
    let (state, _) = turn(&State::new(0), 0, Event::Read(Some(record("1", "other"))));
    let (state, request) = turn(&state, 2_000, Event::Read(None));
    assert_eq!(purpose(&request), None);
    let (_, request) = turn(&state, 15_000, Event::Read(None));
    assert!(matches!(&request, Request::Write(Write { expect: None, purpose: Purpose::Acquire, .. })), "{request:?}");
}

#[test]
fn stopping_gives_the_lease_back_once() {
    let (state, request) = turn(&leading(), 2_000, Event::Stop);
    assert_eq!(purpose(&request), Some(Purpose::Release));
    assert_eq!((state.term_at(2_000), state.leads_until_ms()), (None, None));
    let (_, request) = turn(&state, 2_010, Event::Written(record("9", "")));
    assert_eq!(request, Request::Done);
    let (_, request) = turn(&state, 2_010, Event::Failed);
    assert_eq!(request, Request::Done);
    let (_, request) = turn(&State::new(0), 0, Event::Stop);
    assert_eq!(request, Request::Done);
}

#[test]
fn a_stop_that_races_reads_again_but_not_for_ever() {
    let (mut state, mut request) = turn(&leading(), 2_000, Event::Stop);
    for _ in 0..2 {
        assert_eq!(purpose(&request), Some(Purpose::Release));
        (state, request) = turn(&state, 2_010, Event::Conflict);
        assert_eq!(request, Request::Read);
        let (_, taken) = turn(&state, 2_020, Event::Read(Some(record("11", "other"))));
        assert_eq!(taken, Request::Done);
        (state, request) = turn(&state, 2_020, Event::Read(Some(record("12", "me"))));
    }
    let (_, request) = turn(&state, 2_030, Event::Conflict);
    assert_eq!(request, Request::Done);
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    let check = |duration_ms, renew_deadline_ms, retry_ms| Timing { duration_ms, renew_deadline_ms, retry_ms }.check();
    assert!(Timing::default().check().is_ok());
    assert!(matches!(check(10_000, 10_000, 2_000), Err(TimingError::Duration { .. })));
    assert!(matches!(check(15_000, 4_000, 2_000), Err(TimingError::Retry { .. })));
    assert!(matches!(check(15_000, 10_000, 0), Err(TimingError::Tiny { .. })));
    assert!(matches!(check(900, 100, 10), Err(TimingError::Tiny { .. })));
}
