//! Freeing what is held for nobody, case by case; and what a set of reservations may not say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_placement::reap::{State, candidate, start, step};
use fairlead_placement::{
    Event, Held, PatchOutcome, Phase, PlacementRead, PodFacts, PodRead, Request, Reservation, ReservationFault,
    TouchOutcome, Withdrawal,
};
use support::{held, machine, mask, placement, pod, waiting};

fn begin(even_unbound: bool) -> State {
    let (state, asked) = start("n1".into(), [(pod("u1"), even_unbound)]);
    assert_eq!(asked, [Request::ReadPlacement { node: "n1".into(), live: true, bound: false }]);
    state
}

fn tell(state: &State, event: Event) -> (State, Request) {
    let (state, mut asked) = step(state, &event);
    assert_eq!(asked.len(), 1);
    (state, asked.remove(0))
}

fn reads_pod(state: &State) -> State {
    let listed = placement(5, 4, vec![held("u1", "0-1")]);
    let (state, asked) = tell(state, Event::Placement(PlacementRead::Found(listed)));
    assert_eq!(asked, Request::ReadPod { pod: pod("u1") });
    state
}

/// The next request once a pause, if one is asked for, is over.
fn after_pause(state: State, asked: Request) -> (State, Request) {
    if matches!(asked, Request::Pause { .. }) { tell(&state, Event::Paused) } else { (state, asked) }
}

fn release() -> Request {
    Request::Release { node: "n1".into(), uid: "np".into(), generation: 5, entries: vec![(0, "u1".into())] }
}

fn finished(how: Withdrawal) -> Request {
    Request::Finished(vec![(pod("u1"), how)])
}

fn kept(asked: &Request) -> bool {
    matches!(asked, Request::Finished(told) if matches!(told[..], [(_, Withdrawal::Kept(_))]))
}

#[test]
fn candidates_are_not_at_home_and_unbound_ones_known_for_long_enough() {
    // Stamped by a clock that is far ahead: it says nothing.
    let future = |uid, cpus| Reservation { reserved_at_ms: u64::MAX, ..held(uid, cpus) };
    let of = |held: Reservation, phase, known_ms| {
        candidate("n1", &held, phase, 60_000, |_| known_ms).map(|found| (found.pod.uid, found.even_unbound))
    };
    for phase in [Phase::Bound, Phase::Observed] {
        assert_eq!(of(future("here", "0"), phase, u64::MAX), None);
    }
    assert_eq!(of(future("gone", "1"), Phase::Lapsed, 0), Some(("gone".to_owned(), false)));
    assert_eq!(of(future("waits", "2"), Phase::Reserved, 60_000), Some(("waits".to_owned(), true)));
    assert_eq!(of(future("fresh", "3"), Phase::Reserved, 59_999), None);
}

/// Of a burst that ends on one node, each in one of the ways there are.
#[test]
fn all_that_may_go_goes_in_one_write() {
    let pods = ["gone", "runs", "waits", "open", "absent"].map(|uid| (pod(uid), uid == "waits"));
    let (state, _) = start("n1".into(), pods);
    let listed = || vec![held("open", "4"), held("runs", "3"), held("waits", "2"), held("x", "1"), held("gone", "0")];
    let list = |generation| Event::Placement(PlacementRead::Found(placement(generation, 8, listed())));
    let (state, asked) = tell(&state, list(5));
    assert_eq!(asked, Request::ReadPod { pod: pod("gone") });
    let (state, _) = tell(&state, Event::Pod(PodRead::Missing));
    let (state, asked) =
        tell(&state, Event::Pod(PodRead::Found(PodFacts { node: Some("n1".into()), ..waiting("runs", 1) })));
    assert_eq!(asked, Request::ReadPod { pod: pod("waits") });
    let touched = |state: &State| {
        let (state, asked) = tell(state, Event::Pod(PodRead::Found(waiting("waits", 1))));
        assert_eq!(asked, Request::Touch { pod: pod("waits"), resource_version: "7".into() });
        tell(&state, Event::Touched(TouchOutcome::Done))
    };
    let (state, asked) = touched(&state);
    assert_eq!(asked, Request::ReadPod { pod: pod("open") });
    let (state, asked) = tell(&state, Event::Pod(PodRead::Found(waiting("open", 1))));
    let entries = || vec![(4, "gone".to_owned()), (2, "waits".to_owned())];
    assert_eq!(asked, Request::Release { node: "n1".into(), uid: "np".into(), generation: 5, entries: entries() });

    // Another list: who was touched before it was read may be on its way by now. Who is gone stays gone.
    let (state, asked) = tell(&state, Event::Patched(PatchOutcome::Conflict));
    assert!(matches!(asked, Request::ReadPlacement { live: true, .. }));
    let (state, asked) = tell(&state, list(6));
    assert_eq!(asked, Request::ReadPod { pod: pod("waits") });
    let (state, asked) = touched(&state);
    assert_eq!(asked, Request::Release { node: "n1".into(), uid: "np".into(), generation: 6, entries: entries() });
    let (_, asked) = tell(&state, Event::Patched(PatchOutcome::Done { generation: 7 }));
    let Request::Finished(told) = asked else { panic!("{asked:?}") };
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(pod, how)| match how {
            Withdrawal::Released => (pod.uid.as_str(), "released"),
            Withdrawal::NothingHeld => (pod.uid.as_str(), "nothing held"),
            Withdrawal::Kept(why) => (pod.uid.as_str(), *why),
        })
        .collect();
    let expected = [
        ("gone", "released"),
        ("runs", "the pod runs there"),
        ("waits", "released"),
        ("open", "the pod may yet be bound"),
        ("absent", "nothing held"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_pod_that_cannot_come_here_any_more_is_freed() {
    let elsewhere = PodFacts { node: Some("n2".into()), ..waiting("u1", 2) };
    let ended = PodFacts { node: Some("n1".into()), terminal: true, ..waiting("u1", 2) };
    for read in [
        PodRead::Missing,
        PodRead::Found(waiting("other", 1)),
        PodRead::Found(elsewhere),
        PodRead::Found(ended),
        PodRead::Found(PodFacts { deleting: true, ..waiting("u1", 2) }),
    ] {
        let (state, asked) = tell(&reads_pod(&begin(false)), Event::Pod(read));
        assert_eq!(asked, release());
        let (_, asked) = tell(&state, Event::Patched(PatchOutcome::Done { generation: 6 }));
        assert_eq!(asked, finished(Withdrawal::Released));
    }
}

#[test]
fn a_pod_that_runs_here_or_may_come_keeps_it() {
    let here = PodFacts { node: Some("n1".into()), deleting: true, ..waiting("u1", 2) };
    for read in [PodRead::Found(here), PodRead::Found(waiting("u1", 2)), PodRead::Failed("down".into())] {
        let (_, asked) = tell(&reads_pod(&begin(false)), Event::Pod(read));
        assert!(kept(&asked), "{asked:?}");
    }
}

#[test]
fn an_unbound_pod_is_touched_first_and_looked_at_again_when_that_fails() {
    let (state, asked) = tell(&reads_pod(&begin(true)), Event::Pod(PodRead::Found(waiting("u1", 2))));
    assert_eq!(asked, Request::Touch { pod: pod("u1"), resource_version: "7".into() });
    let (_, freed) = tell(&state, Event::Touched(TouchOutcome::Done));
    assert_eq!(freed, release());
    for outcome in [TouchOutcome::Conflict, TouchOutcome::Lost, TouchOutcome::Throttled { after_ms: 1_000 }] {
        let (state, asked) = tell(&state, Event::Touched(outcome));
        let (state, asked) = after_pause(state, asked);
        assert_eq!(asked, Request::ReadPod { pod: pod("u1") });
        let bound = PodFacts { node: Some("n1".into()), ..waiting("u1", 2) };
        let (_, asked) = tell(&state, Event::Pod(PodRead::Found(bound)));
        assert!(kept(&asked), "{asked:?}");
    }
}

#[test]
fn a_conflict_starts_over_and_an_absent_reservation_ends_it() {
    let (state, _) = tell(&reads_pod(&begin(false)), Event::Pod(PodRead::Missing));
    for outcome in [PatchOutcome::Conflict, PatchOutcome::Lost, PatchOutcome::Throttled { after_ms: 1_000 }] {
        let (state, asked) = tell(&state, Event::Patched(outcome));
        let (state, asked) = after_pause(state, asked);
        assert_eq!(asked, Request::ReadPlacement { node: "n1".into(), live: true, bound: false });
        let (_, asked) = tell(&state, Event::Placement(PlacementRead::Found(placement(6, 4, Vec::new()))));
        assert_eq!(asked, finished(Withdrawal::NothingHeld));
    }
}

#[test]
fn a_reservation_is_read_from_its_parts_or_the_field_is_named() {
    let parse = |cpus, of_container, numa_node, bytes| {
        Reservation::parse(pod("a"), -1, cpus, [("main", of_container)], [(numa_node, bytes)])
    };
    let read = Reservation { reserved_at_ms: 0, containers: vec![("main".into(), mask("0"))], ..held("a", "0-1") };
    assert_eq!(parse("0-1", "0", 0, 100), Ok(read));
    for (fault, expected) in [
        (parse("x", "0", 0, 1), "cpus"),
        (parse("0", "1-", 0, 1), "containers.cpus"),
        (parse("0", "0", -1, 1), "memory.numaNode"),
        (parse("0", "0", 0, -1), "memory.bytes"),
    ] {
        let Err(ReservationFault::Malformed { pod_uid, field, .. }) = fault else { panic!("{fault:?}") };
        assert_eq!((pod_uid.as_str(), field), ("a", expected));
    }
}

#[test]
fn contradictions_are_named() {
    let machine = machine(4);
    let fault = |reservations: &[Reservation]| Held::of(&machine, reservations).unwrap_err();
    let overlap = fault(&[held("a", "0-1"), held("b", "1-2")]);
    assert_eq!(overlap, ReservationFault::Overlap { first: "a".into(), second: "b".into(), cpus: mask("1") });
    assert_eq!(overlap.to_string(), "spec.reservations: pods a and b both hold CPUs 1");
    assert_eq!(fault(&[held("a", "3-4")]), ReservationFault::OutOfRange { pod_uid: "a".into(), cpus: mask("4") });
    assert_eq!(fault(&[held("a", "0"), held("a", "1")]), ReservationFault::Twice { pod_uid: "a".into() });
    assert_eq!(fault(&[held("a", "")]), ReservationFault::Empty { pod_uid: "a".into() });
    let far = Reservation { memory: vec![(7, 1)], ..held("a", "0") };
    assert_eq!(fault(&[far]), ReservationFault::UnknownNumaNode { pod_uid: "a".into(), numa_node: 7 });
    let greedy = Reservation { memory: vec![(0, 901)], ..held("b", "1") };
    assert_eq!(
        fault(&[held("a", "0"), greedy]),
        ReservationFault::MemoryOvercommitted { numa_node: 0, held_bytes: 1_001, memory_bytes: 1_000 }
    );
    let foreign = Reservation { containers: vec![("main".into(), mask("2"))], ..held("a", "0") };
    assert_eq!(fault(&[foreign]), ReservationFault::Container { pod_uid: "a".into(), container: "main".into() });
    let held = Held::of(&machine, &[held("a", "0"), held("b", "2")]).unwrap();
    assert_eq!(held.free_cpus(&machine), mask("1,3"));
    assert_eq!(held.free_memory_bytes(&machine), [800]);
}

/// A slow API server: what is known when the time is up is written, or the same would be looked at for ever.
#[test]
fn what_is_known_when_the_time_is_up_is_freed() {
    let (state, _) = start("n1".into(), [(pod("u1"), false), (pod("u2"), false)]);
    let listed = placement(5, 4, vec![held("u1", "0-1"), held("u2", "2-3")]);
    let (state, asked) = tell(&state, Event::Placement(PlacementRead::Found(listed)));
    assert_eq!(asked, Request::ReadPod { pod: pod("u1") });
    let (state, asked) = tell(&state, Event::Pod(PodRead::Missing));
    assert_eq!(asked, Request::ReadPod { pod: pod("u2") });
    let (state, asked) = tell(&state, Event::DeadlineNear);
    assert_eq!(asked, release());
    let (_, asked) = tell(&state, Event::Patched(PatchOutcome::Done { generation: 6 }));
    let told = vec![(pod("u1"), Withdrawal::Released), (pod("u2"), Withdrawal::Kept("the time ran out"))];
    assert_eq!(asked, Request::Finished(told));
}
