//! One bind, case by case: the happy path, and everything that can come between.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_placement::bind::{MAX_ROUNDS, State, step};
use fairlead_placement::{
    Beside, BindError, BindOutcome, BindRequest, Event, PatchOutcome, PlacementFacts, PlacementRead, PodFacts, PodRead,
    Promise, Reason, Request, TouchOutcome,
};
use fairlead_topology::{CpuRequest, Packing, Threads, Wish};
use support::{cpus, held, machine_of, mask, placement, pod, waiting};

const NOW_MS: u64 = 1_000_000;

/// A bind of pod `u1` to node `n1`, driven by hand.
struct Run {
    state: State,
    asked: Vec<Request>,
}

impl Run {
    fn start(pod_seen: Option<PodFacts>) -> Self {
        let request = BindRequest { pod: pod("u1"), node: "n1".into() };
        let mut run = Self { state: State::default(), asked: Vec::new() };
        run.tell(Event::Start { request, pod: pod_seen, now_ms: NOW_MS });
        run
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        let (state, asked) = step(&self.state, &event);
        (self.state, self.asked) = (state, asked);
        self
    }

    fn placement(&mut self, generation: i64, reservations: Vec<fairlead_placement::Reservation>) -> &mut Self {
        self.tell(Event::Placement(PlacementRead::Found(placement(generation, 4, reservations))))
    }

    fn one(&self) -> &Request {
        assert_eq!(self.asked.len(), 1, "{:?}", self.asked);
        &self.asked[0]
    }

    /// Waits so long, and hears that it did.
    fn pauses(&mut self, expected_ms: u64) -> &mut Self {
        assert_eq!(self.one(), &Request::Pause { pause_ms: expected_ms });
        self.tell(Event::Paused)
    }

    fn reads_placement(&self, expected_live: bool) {
        assert_eq!(self.one(), &Request::ReadPlacement { node: "n1".into(), live: expected_live, bound: false });
    }

    fn reads_pod(&self) {
        assert_eq!(self.one(), &Request::ReadPod { pod: pod("u1") });
    }

    fn answers(&self, expected: Result<(), BindError>) {
        assert_eq!(self.one(), &Request::Answer(expected));
        assert!(self.state.is_done());
    }

    fn reserved(&self) -> (i64, Option<usize>, String, u64) {
        let Request::Reserve { node, uid, generation, replaces, reservation, .. } = self.one() else {
            panic!("{:?}", self.asked)
        };
        assert_eq!((node.as_str(), uid.as_str(), &reservation.pod), ("n1", "np", &pod("u1")));
        (*generation, *replaces, reservation.cpus.to_string(), reservation.reserved_at_ms)
    }

    fn binds(&self, expected_version: &str, expected_cpus: Option<&str>) {
        let Request::Bind { pod: bound, node, resource_version, placement, .. } = self.one() else {
            panic!("{:?}", self.asked)
        };
        assert_eq!((bound, node.as_str(), resource_version.as_str()), (&pod("u1"), "n1", expected_version));
        assert_eq!(placement.as_ref().map(|held| held.cpus.clone()), expected_cpus.map(mask));
    }
}

fn found(facts: PodFacts) -> Event {
    Event::Pod(PodRead::Found(facts))
}

fn bound_to(node: &str) -> PodFacts {
    PodFacts { node: Some(node.into()), ..waiting("u1", 2) }
}

#[test]
fn reserves_from_the_watch_then_binds() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.reads_placement(false);
    run.placement(3, vec![held("u9", "0-1")]);
    assert_eq!(run.reserved(), (3, None, "2-3".into(), NOW_MS));
    run.tell(Event::Patched(PatchOutcome::Done { generation: 4 })).binds("7", Some("2-3"));
    run.tell(Event::Bound(BindOutcome::Done)).answers(Ok(()));
    assert!(run.tell(Event::DeadlineNear).asked.is_empty());
    assert_eq!(run.state.conflicts(), 0);
}

#[test]
fn reads_the_pod_when_the_watch_does_not_show_it_bindable() {
    let stale = [
        None,
        Some(waiting("another", 2)),
        Some(PodFacts { gated: true, ..waiting("u1", 2) }),
        Some(bound_to("n2")),
        Some(PodFacts { deleting: true, ..waiting("u1", 2) }),
        Some(PodFacts { terminal: true, ..waiting("u1", 2) }),
    ];
    for seen in stale {
        let mut run = Run::start(seen);
        run.reads_pod();
        run.tell(found(waiting("u1", 2))).reads_placement(false);
    }
}

#[test]
fn a_pod_that_asks_for_no_cpu_is_bound_without_any_other_call() {
    let asks_nothing = || PodFacts { exclusive: None, may_hold: false, ..waiting("u1", 1) };
    let mut run = Run::start(Some(asks_nothing()));
    run.binds("7", None);
    run.tell(Event::Bound(BindOutcome::Conflict("gated".into()))).reads_pod();
    run.tell(found(PodFacts { gated: true, ..asks_nothing() })).answers(Err(BindError::PodGated));
}

#[test]
fn a_pod_in_the_shared_pool_is_bound_while_the_pool_has_room() {
    let shared = || Some(PodFacts { exclusive: None, may_hold: false, shared_milli: 1_500, ..waiting("u1", 1) });
    let facts = |shared_milli, promises| {
        let beside = Beside { shared_milli, promises, ..Beside::default() };
        Event::Placement(PlacementRead::Found(PlacementFacts { beside, ..placement(3, 4, vec![held("u2", "0-1")]) }))
    };
    let promise = |uid: &str| Promise { pod_uid: uid.into(), shared_milli: 600, reservation: None };
    let mut run = Run::start(shared());
    run.reads_placement(false);
    run.tell(facts(500, vec![promise("u1")])).binds("7", None);
    assert!(matches!(run.one(), Request::Bind { shared_milli: 1_500, .. }));

    let full = || facts(0, vec![promise("u3")]);
    let mut run = Run::start(shared());
    run.tell(full()).reads_placement(true);
    run.tell(full()).answers(Err(BindError::Node(Reason::SharedPoolTooSmall)));

    // Nothing is promised on such a node, and kube-scheduler's own count holds.
    for reason in [Reason::NoPlacementObject, Reason::NodeDistrusted] {
        Run::start(shared()).tell(Event::Placement(PlacementRead::Refused(reason))).binds("7", None);
    }
}

#[test]
fn a_conflict_is_decided_anew_from_live_state() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new());
    assert_eq!(run.reserved().2, "0-1");
    run.tell(Event::Patched(PatchOutcome::Conflict)).reads_placement(true);
    run.placement(4, vec![held("u2", "0-1")]);
    assert_eq!(run.reserved(), (4, None, "2-3".into(), NOW_MS));
    assert_eq!(run.state.conflicts(), 1);
}

#[test]
fn what_does_not_fit_by_the_watch_is_looked_at_live_before_it_is_refused() {
    let mut run = Run::start(Some(waiting("u1", 3)));
    run.placement(3, vec![held("u2", "0-1")]).reads_placement(true);
    run.placement(4, vec![held("u2", "0-1")]).answers(Err(BindError::Node(Reason::NotEnoughExclusiveCpus)));

    let mut run = Run::start(Some(waiting("u1", 3)));
    run.tell(Event::Placement(PlacementRead::Refused(Reason::NoPlacementObject))).reads_placement(true);
    run.tell(Event::Placement(PlacementRead::Refused(Reason::NoPlacementObject)))
        .answers(Err(BindError::Node(Reason::NoPlacementObject)));

    let mut run = Run::start(Some(waiting("u1", 1)));
    let overlapping = || vec![held("u2", "0-1"), held("u3", "1-2")];
    run.placement(3, overlapping()).reads_placement(true);
    run.placement(3, overlapping()).answers(Err(BindError::Node(Reason::NodeDistrusted)));
}

#[test]
fn a_lost_reply_after_the_reservation_renews_it_with_the_same_cpus() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new());
    run.tell(Event::Patched(PatchOutcome::Lost)).pauses(100).reads_placement(true);
    let written = fairlead_placement::Reservation { reserved_at_ms: NOW_MS, ..held("u1", "2-3") };
    run.placement(4, vec![held("u9", "0"), written]);
    // The write must change something, or the generation would stay: a second later, whatever the clock says.
    assert_eq!(run.reserved(), (4, Some(1), "2-3".into(), NOW_MS + 1_000));
    run.tell(Event::Patched(PatchOutcome::Done { generation: 5 })).binds("7", Some("2-3"));
}

/// Drives the withdrawal of what a former wish left: after it the pod, touched meanwhile, is read again.
fn frees_the_former(run: &mut Run, held_cpus: &str) {
    run.reads_placement(true);
    run.placement(4, vec![held("u1", held_cpus)]).reads_placement(true);
    run.placement(4, vec![held("u1", held_cpus)]).reads_pod();
    run.tell(found(waiting("u1", 3)));
    assert!(matches!(run.one(), Request::Touch { resource_version, .. } if resource_version == "7"));
    run.tell(Event::Touched(TouchOutcome::Done));
    let entries = vec![(0, "u1".to_owned())];
    assert_eq!(run.one(), &Request::Release { node: "n1".into(), uid: "np".into(), generation: 4, entries });
    run.tell(Event::Patched(PatchOutcome::Done { generation: 5 })).reads_pod();
}

/// A Binding that carries the former CPUs may be under way, and a change of the WorkerPool's wish does not fence it.
#[test]
fn what_was_reserved_for_another_wish_is_freed_before_anything_else_is_promised() {
    let mut run = Run::start(Some(waiting("u1", 3)));
    run.reads_placement(false);
    run.placement(4, vec![held("u1", "0-1")]);
    frees_the_former(&mut run, "0-1");
    run.tell(found(PodFacts { resource_version: "8".into(), ..waiting("u1", 3) }));
    run.placement(5, Vec::new());
    assert_eq!(run.reserved(), (5, None, "0-2".into(), NOW_MS));
    run.tell(Event::Patched(PatchOutcome::Done { generation: 6 })).binds("8", Some("0-2"));
}

/// By an earlier wish one thread of each of two cores was reserved; what whole cores are is now as the wish says.
#[test]
fn what_the_wish_of_today_forbids_is_freed_and_what_it_only_prefers_otherwise_stays() {
    let wishing = |wish: Wish| {
        let exclusive = CpuRequest { wish, ..cpus(2) };
        PodFacts { exclusive: Some(exclusive), ..waiting("u1", 2) }
    };
    let reserve = |wish: Wish| {
        let mut run = Run::start(Some(wishing(wish)));
        let mut facts = placement(4, 4, vec![held("u1", "1-2")]);
        facts.machine = Ok(machine_of(2, 2));
        run.tell(Event::Placement(PlacementRead::Found(facts)));
        run
    };
    reserve(Wish { threads: Threads::WholeCores, ..Wish::default() }).reads_placement(true);
    let kept = reserve(Wish { threads: Threads::Any, packing: Packing::Spread, ..Wish::default() });
    assert_eq!(kept.reserved().2, "1-2");
}

/// The watch may show a wish that was mended since, and of a pod that it does not show yet the live one tells.
#[test]
fn a_pod_whose_wish_cannot_be_granted_is_judged_live_and_keeps_nothing() {
    let refused = || PodFacts { exclusive: None, refused: Some(Reason::WishInvalid), ..waiting("u1", 2) };
    let mut run = Run::start(Some(refused()));
    run.reads_pod();
    run.tell(found(PodFacts { may_hold: false, ..refused() })).answers(Err(BindError::Node(Reason::WishInvalid)));
    let mut run = Run::start(Some(refused()));
    run.tell(found(refused())).reads_placement(true);
    run.placement(4, Vec::new()).answers(Err(BindError::Node(Reason::WishInvalid)));
    let mut run = Run::start(None);
    run.tell(found(waiting("u1", 2))).reads_placement(false);
}

#[test]
fn a_pod_that_wishes_no_cpus_of_its_own_any_more_holds_none_when_it_is_bound() {
    let shared = || PodFacts { exclusive: None, ..waiting("u1", 2) };
    let mut run = Run::start(Some(shared()));
    frees_the_former(&mut run, "0-1");
    run.tell(found(PodFacts { resource_version: "8".into(), ..shared() })).reads_placement(true);
    run.placement(5, Vec::new()).binds("8", None);

    // In the same attempt: the Binding meets another version of the pod, which wishes otherwise and whose request alone
    // would allow it nothing.
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Done { generation: 4 }));
    run.tell(Event::Bound(BindOutcome::Conflict("version".into()))).reads_pod();
    run.tell(found(PodFacts { may_hold: false, ..shared() }));
    frees_the_former(&mut run, "0-1");
    run.tell(found(PodFacts { deleting: true, may_hold: false, ..shared() })).reads_placement(true);
    run.placement(5, Vec::new()).answers(Err(BindError::PodDeleting));
}

#[test]
fn what_cannot_be_freed_is_said_and_one_that_was_bound_meanwhile_is_seen() {
    let shared = || PodFacts { exclusive: None, ..waiting("u1", 2) };
    let start = || {
        let mut run = Run::start(Some(shared()));
        run.placement(4, vec![held("u1", "0-1")]).placement(4, vec![held("u1", "0-1")]);
        run
    };
    let mut run = start();
    run.tell(Event::Pod(PodRead::Failed("down".into())));
    run.answers(Err(BindError::StillHeld { why: "the pod cannot be read" }));
    let mut run = start();
    run.tell(found(bound_to("n1"))).reads_pod();
    run.tell(found(bound_to("n1"))).answers(Ok(()));
}

/// A NodePlacement that was never written, and what the live pods bound there carry.
fn anew(carried: Vec<fairlead_placement::Reservation>) -> Event {
    let beside = Beside { carried, ..Beside::default() };
    Event::Placement(PlacementRead::Found(PlacementFacts { beside, ..placement(1, 4, Vec::new()) }))
}

#[test]
fn a_placement_made_anew_is_promised_on_after_a_live_list_and_what_runs_there_is_restored() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.tell(anew(Vec::new()));
    assert_eq!(run.one(), &Request::ReadPlacement { node: "n1".into(), live: true, bound: true });
    run.tell(anew(vec![held("runs", "0"), held("overlaps", "0"), held("elsewhere", "9")]));
    let Request::Reserve { reservation, restores, .. } = run.one() else { panic!("{:?}", run.asked) };
    assert_eq!(reservation.cpus, mask("1-2"));
    // What contradicts the rest is only kept free of.
    assert_eq!(restores, &[fairlead_placement::Reservation { reserved_at_ms: NOW_MS, ..held("runs", "0") }]);
}

#[test]
fn a_pod_that_is_bound_there_meanwhile_gets_no_other_cpus_than_it_runs_on() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.tell(anew(Vec::new())).tell(anew(vec![held("u1", "2-3")])).reads_pod();
    run.tell(found(bound_to("n1"))).answers(Ok(()));
}

#[test]
fn a_lost_reply_after_the_binding_is_settled_by_the_live_pod() {
    let start = || {
        let mut run = Run::start(Some(waiting("u1", 2)));
        run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Done { generation: 4 }));
        run.tell(Event::Bound(BindOutcome::Lost)).pauses(100).reads_pod();
        run
    };
    start().tell(found(bound_to("n1"))).answers(Ok(()));
    let mut run = start();
    run.tell(found(waiting("u1", 2))).reads_placement(true);
    run.placement(4, vec![held("u1", "0-1")]);
    assert_eq!(run.reserved().2, "0-1");
}

#[test]
fn already_bound_to_this_node_is_success() {
    let mut run = Run::start(None);
    run.tell(found(bound_to("n1"))).answers(Ok(()));
}

/// Drives the withdrawal that follows a failure: what is held here is freed after the live pod was read.
fn withdraws(run: &mut Run, live: PodRead, expected_touch: bool, expected: BindError) {
    run.reads_placement(true);
    run.placement(9, vec![held("u0", "3"), held("u1", "0-1")]).reads_pod();
    run.tell(Event::Pod(live));
    if expected_touch {
        assert!(matches!(run.one(), Request::Touch { resource_version, .. } if resource_version == "7"));
        run.tell(Event::Touched(TouchOutcome::Done));
    }
    let entries = vec![(1, "u1".to_owned())];
    let expected_release = Request::Release { node: "n1".into(), uid: "np".into(), generation: 9, entries };
    assert_eq!(run.one(), &expected_release);
    run.tell(Event::Patched(PatchOutcome::Done { generation: 10 })).answers(Err(expected));
}

#[test]
fn bound_elsewhere_gone_deleted_or_ended_frees_what_is_held_here() {
    let elsewhere = bound_to("n2");
    let mut run = Run::start(None);
    run.tell(found(elsewhere.clone()));
    withdraws(&mut run, PodRead::Found(elsewhere), false, BindError::BoundElsewhere { node: "n2".into() });

    let mut run = Run::start(None);
    run.tell(Event::Pod(PodRead::Missing));
    withdraws(&mut run, PodRead::Missing, false, BindError::PodGone);

    let mut run = Run::start(None);
    run.tell(found(waiting("other", 2)));
    withdraws(&mut run, PodRead::Found(waiting("other", 2)), false, BindError::PodReplaced);

    let deleting = PodFacts { deleting: true, ..waiting("u1", 2) };
    let mut run = Run::start(None);
    run.tell(found(deleting.clone()));
    withdraws(&mut run, PodRead::Found(deleting), false, BindError::PodDeleting);

    let terminal = PodFacts { terminal: true, ..bound_to("n1") };
    let mut run = Run::start(None);
    run.tell(found(terminal.clone()));
    withdraws(&mut run, PodRead::Found(terminal), false, BindError::PodTerminal);
}

#[test]
fn a_refused_binding_frees_only_after_the_pod_was_touched() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Done { generation: 4 }));
    run.tell(Event::Bound(BindOutcome::Refused("webhook".into())));
    let expected = BindError::Refused { what: "binding", message: "webhook".into() };
    withdraws(&mut run, PodRead::Found(waiting("u1", 2)), true, expected);
}

#[test]
fn nothing_is_freed_from_under_a_pod_that_runs_here() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Done { generation: 4 }));
    run.tell(Event::Bound(BindOutcome::Refused("timeout of a webhook".into())));
    run.placement(9, vec![held("u1", "0-1")]).tell(found(bound_to("n1")));
    run.answers(Err(BindError::Refused { what: "binding", message: "timeout of a webhook".into() }));
}

#[test]
fn a_gated_pod_is_refused_and_nothing_is_touched() {
    let mut run = Run::start(None);
    run.tell(found(PodFacts { gated: true, ..waiting("u1", 2) })).answers(Err(BindError::PodGated));
}

#[test]
fn what_cannot_be_read_or_written_is_said() {
    let mut run = Run::start(None);
    run.tell(Event::Pod(PodRead::Failed("down".into())));
    run.answers(Err(BindError::Unreadable { what: "pod", message: "down".into() }));

    let mut run = Run::start(Some(waiting("u1", 2)));
    run.tell(Event::Placement(PlacementRead::Failed("down".into())));
    run.answers(Err(BindError::Unreadable { what: "NodePlacement", message: "down".into() }));

    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Gone));
    run.answers(Err(BindError::Node(Reason::NoPlacementObject)));

    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Refused("forbidden".into()))).reads_placement(true);
    run.placement(3, Vec::new());
    run.answers(Err(BindError::Refused { what: "reservation", message: "forbidden".into() }));
}

#[test]
fn the_deadline_ends_every_phase_and_frees_nothing() {
    let reading_pod = || Run::start(None);
    let reading = || Run::start(Some(waiting("u1", 2)));
    let reserving = || {
        let mut run = reading();
        run.placement(3, Vec::new());
        run
    };
    let binding = || {
        let mut run = reserving();
        run.tell(Event::Patched(PatchOutcome::Done { generation: 4 }));
        run
    };
    for mut run in [reading_pod(), reading(), reserving(), binding()] {
        run.tell(Event::DeadlineNear).answers(Err(BindError::Deadline));
        assert!(run.tell(Event::Bound(BindOutcome::Done)).asked.is_empty());
    }
    let mut run = Run::start(None);
    run.tell(Event::Pod(PodRead::Missing));
    run.tell(Event::DeadlineNear).answers(Err(BindError::PodGone));
}

#[test]
fn endless_conflicts_end() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    for generation in 2..2 + i64::from(MAX_ROUNDS) {
        run.placement(generation, Vec::new()).tell(Event::Patched(PatchOutcome::Conflict));
    }
    run.reads_placement(true);
    run.placement(99, Vec::new()).answers(Err(BindError::Contended { rounds: MAX_ROUNDS }));
    assert_eq!(run.state.conflicts(), MAX_ROUNDS);
}

#[test]
fn an_api_server_that_asks_to_wait_is_given_the_time_and_the_reservation_stays() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Throttled { after_ms: 700 }));
    run.pauses(700).reads_placement(false);
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Done { generation: 4 })).binds("7", Some("0-1"));
    for _ in 1..MAX_ROUNDS - 1 {
        run.tell(Event::Bound(BindOutcome::Throttled { after_ms: 1_000 })).pauses(1_000).binds("7", Some("0-1"));
    }
    run.tell(Event::Bound(BindOutcome::Throttled { after_ms: 1_000 })).answers(Err(BindError::Throttled));
}

#[test]
fn an_api_server_that_never_answers_is_asked_ever_more_slowly_and_said_so() {
    let mut run = Run::start(Some(waiting("u1", 2)));
    for pause_ms in [100, 200, 400, 800, 800, 800, 800] {
        run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Lost)).pauses(pause_ms);
    }
    run.placement(3, Vec::new()).tell(Event::Patched(PatchOutcome::Lost)).reads_placement(true);
    run.placement(3, Vec::new()).answers(Err(BindError::Unanswered { rounds: MAX_ROUNDS }));
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let run = Run::start(Some(waiting("u1", 2)));
    for stray in
        [Event::Bound(BindOutcome::Done), Event::Patched(PatchOutcome::Done { generation: 1 }), found(waiting("u1", 2))]
    {
        assert_eq!(step(&run.state, &stray), (run.state.clone(), Vec::new()));
    }
}
