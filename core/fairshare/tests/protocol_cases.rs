//! The release protocol in ordinary use, and what it does at each kind of failed answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]
use fairlead_fairshare::protocol::{
    Event, Failure, Intent, Ledger, MAX_INTENTS, MAX_SENDS, Operation, PodList, PodView, Request, Standing, State,
    Trouble, Uid, parse_version,
};

fn uid(name: &str) -> Uid {
    Uid::from(name)
}

fn view(version: u64, standing: Standing) -> PodView {
    PodView { version, standing }
}

fn gated(name: &str, version: u64) -> (Uid, PodView) {
    (uid(name), view(version, Standing::Gated))
}

fn intent(name: &str, version: u64) -> Intent {
    Intent { uid: uid(name), version }
}

fn round(requests: &[Request]) -> u64 {
    match requests {
        [Request::ReadLedger { round } | Request::WriteLedger { round, .. } | Request::ListPods { round }] => *round,
        other => panic!("one ledger or list request expected: {other:?}"),
    }
}

fn written(requests: &[Request]) -> (Option<u64>, u64, Vec<Intent>) {
    match requests {
        [Request::WriteLedger { expect, epoch, intents, .. }] => (*expect, *epoch, intents.clone()),
        other => panic!("a ledger write expected: {other:?}"),
    }
}

/// Takes over: the ledger as found, the version its bump gets, and the pods.
fn take_over(
    state: &mut State,
    asked: &[Request],
    ledger: Option<Ledger>,
    version: u64,
    pods: Vec<(Uid, PodView)>,
) -> Vec<Request> {
    let asked = state.apply(&Event::LedgerRead { round: round(asked), result: Ok(ledger) });
    let asked = state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(version) });
    assert!(matches!(asked[..], [Request::ListPods { .. }]), "{asked:?}");
    state.apply(&Event::Listed { round: round(&asked), result: Ok(PodList { version: 100, pods }) })
}

fn ready(pods: Vec<(Uid, PodView)>) -> State {
    let mut state = State::default();
    let asked = state.apply(&Event::Lead);
    let rest = take_over(&mut state, &asked, None, 1, pods);
    assert!(rest.is_empty() && state.is_ready());
    state
}

/// An event after which nothing is to be done.
fn tell(state: &mut State, event: &Event) {
    assert_eq!(state.apply(event), []);
}

fn want(state: &mut State, names: &[&str]) -> Vec<Request> {
    state.apply(&Event::Want { uids: names.iter().map(|name| uid(name)).collect() })
}

/// Wants one pod and has its intent written: its removal is sent.
fn sent(name: &str, version: u64) -> State {
    let mut state = ready(vec![gated(name, version)]);
    let asked = want(&mut state, &[name]);
    let asked = state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(2) });
    assert_eq!(asked, [Request::Ungate { uid: uid(name), version, epoch: 1 }]);
    state
}

fn ungated(state: &mut State, name: &str, result: Result<PodView, Failure>) -> Vec<Request> {
    state.apply(&Event::Ungated { uid: uid(name), result })
}

fn touched(state: &mut State, name: &str, result: Result<PodView, Failure>) -> Vec<Request> {
    state.apply(&Event::Touched { uid: uid(name), result })
}

fn pending(state: &State) -> Vec<&str> {
    state.pending().map(AsRef::as_ref).collect()
}

#[test]
fn a_batch_is_one_ledger_write_and_a_removal_a_pod_and_then_rest() {
    let mut state =
        ready(vec![gated("a", 11), gated("b", 12), gated("c", 13), (uid("d"), view(14, Standing::Released))]);
    assert_eq!(state.usage().len(), 1);
    let asked = want(&mut state, &["a", "b", "d", "unknown"]);
    assert_eq!(written(&asked), (Some(1), 1, vec![intent("a", 11), intent("b", 12)]));
    assert_eq!((state.usage().len(), state.in_flight(), pending(&state)), (3, 2, vec!["c"]));
    // What is wanted while the write is under way goes with the next.
    assert!(want(&mut state, &["c"]).is_empty());
    let asked = state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(2) });
    let removal = |name: &str, version| Request::Ungate { uid: uid(name), version, epoch: 1 };
    assert_eq!(asked[..2], [removal("a", 11), removal("b", 12)]);
    assert_eq!(written(&asked[2..]), (Some(2), 1, vec![intent("a", 11), intent("b", 12), intent("c", 13)]));
    let answer = Event::LedgerWritten { round: round(&asked[2..]), result: Ok(3) };
    assert_eq!(state.apply(&answer), [removal("c", 13)]);
    for (name, version) in [("a", 21), ("b", 22), ("c", 23)] {
        assert!(ungated(&mut state, name, Ok(view(version, Standing::Released))).is_empty());
    }
    assert_eq!((state.usage().len(), state.in_flight()), (4, 0));
    // The ledger is emptied once, and then nothing is written any more.
    let asked = state.apply(&Event::Tick);
    assert_eq!(written(&asked), (Some(3), 1, vec![]));
    assert!(state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(4) }).is_empty());
    assert!(state.apply(&Event::Tick).is_empty());
    assert!(state.apply(&Event::Gone { uid: uid("a") }).is_empty());
    assert_eq!(state.usage().len(), 3);
}

#[test]
fn a_late_watch_does_not_bring_a_released_pod_back() {
    let mut state = sent("a", 11);
    ungated(&mut state, "a", Ok(view(21, Standing::Released)));
    tell(&mut state, &Event::Observed { uid: uid("a"), view: view(11, Standing::Gated) });
    assert!(state.counts("a") && pending(&state).is_empty());
    tell(&mut state, &Event::Gone { uid: uid("a") });
    // Nor do events that the list has overtaken, nor an answer after the end.
    tell(&mut state, &Event::Observed { uid: uid("old"), view: view(99, Standing::Gated) });
    ungated(&mut state, "a", Ok(view(21, Standing::Released)));
    assert!(state.usage().is_empty() && pending(&state).is_empty());
}

#[test]
fn a_conflict_is_settled_only_by_seeing_the_pod() {
    let mut state = sent("a", 11);
    assert!(ungated(&mut state, "a", Err(Failure::Conflict)).is_empty());
    assert!(state.counts("a"), "an earlier copy may have removed the gate");
    assert_eq!(state.stuck().count(), 1);
    tell(&mut state, &Event::Observed { uid: uid("a"), view: view(120, Standing::Gated) });
    assert_eq!((state.counts("a"), pending(&state)), (false, vec!["a"]));
    let asked = want(&mut state, &["a"]);
    assert_eq!(written(&asked).2, [intent("a", 120)]);
}

#[test]
fn a_refusal_is_cancelled_by_a_touch() {
    let mut state = sent("a", 11);
    ungated(&mut state, "a", Err(Failure::Forbidden));
    assert_eq!(state.apply(&Event::Tick), [Request::Touch { uid: uid("a") }]);
    assert!(state.apply(&Event::Tick).is_empty(), "one touch at a time");
    touched(&mut state, "a", Err(Failure::Lost));
    assert!(state.counts("a"));
    assert_eq!(state.apply(&Event::Tick), [Request::Touch { uid: uid("a") }]);
    touched(&mut state, "a", Ok(view(130, Standing::Gated)));
    assert_eq!((state.counts("a"), pending(&state)), (false, vec!["a"]));
    assert_eq!(written(&state.apply(&Event::Tick)).2, []);
}

#[test]
fn a_touch_may_find_the_pod_released() {
    let mut state = sent("a", 11);
    assert_eq!(state.apply(&Event::Cancel { uids: vec![uid("a")] }), [Request::Touch { uid: uid("a") }]);
    touched(&mut state, "a", Ok(view(130, Standing::Released)));
    assert!(state.counts("a"));
    assert_eq!(state.in_flight(), 0);
}

#[test]
fn a_lost_answer_is_sent_again_behind_a_guard_and_then_cancelled() {
    let mut state = sent("a", 11);
    let ledger = Ledger { version: 2, epoch: 1, intents: vec![intent("a", 11)] };
    for _ in 1..MAX_SENDS {
        assert!(ungated(&mut state, "a", Err(Failure::Lost)).is_empty());
        let asked = state.apply(&Event::Tick);
        assert!(matches!(asked[..], [Request::ReadLedger { .. }]), "{asked:?}");
        let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(Some(ledger.clone())) });
        assert_eq!(asked, [Request::Ungate { uid: uid("a"), version: 11, epoch: 1 }]);
    }
    ungated(&mut state, "a", Err(Failure::Lost));
    assert_eq!(state.apply(&Event::Tick), [Request::Touch { uid: uid("a") }]);
}

#[test]
fn a_guard_that_finds_another_epoch_sends_nothing() {
    let mut state = sent("a", 11);
    ungated(&mut state, "a", Err(Failure::Lost));
    let asked = state.apply(&Event::Tick);
    let other = Ledger { version: 9, epoch: 2, intents: vec![] };
    assert!(state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(Some(other)) }).is_empty());
    assert!(!state.is_ready());
    assert_eq!(state.trouble(), Some(Trouble { operation: Operation::ReadLedger, failure: Failure::Conflict }));
}

#[test]
fn a_pod_that_is_gone_frees_its_place() {
    let mut state = sent("a", 11);
    ungated(&mut state, "a", Err(Failure::NotFound));
    assert!(state.usage().is_empty() && pending(&state).is_empty());
}

#[test]
fn a_lost_ledger_write_is_read_again_and_its_intents_are_found() {
    let mut state = ready(vec![gated("a", 11), gated("b", 12)]);
    let asked = want(&mut state, &["a"]);
    let write = round(&asked);
    assert!(state.apply(&Event::LedgerWritten { round: write, result: Err(Failure::Lost) }).is_empty());
    assert!(!state.is_ready());
    let asked = state.apply(&Event::Tick);
    // The answer that was given up comes after all: it is about the round before.
    assert!(state.apply(&Event::LedgerWritten { round: write, result: Ok(2) }).is_empty());
    let found = Ledger { version: 2, epoch: 1, intents: vec![intent("a", 11)] };
    let asked = take_over(&mut state, &asked, Some(found), 3, vec![gated("a", 11), gated("b", 12)]);
    assert!(state.is_ready() && state.counts("a") && state.trouble().is_none());
    let ours = Ledger { version: 3, epoch: 2, intents: vec![intent("a", 11)] };
    let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(Some(ours)) });
    assert_eq!(asked, [Request::Ungate { uid: uid("a"), version: 11, epoch: 2 }]);
}

#[test]
fn a_new_leader_settles_what_it_finds() {
    let mut state = State::default();
    let asked = state.apply(&Event::Lead);
    let names = ["changed", "gone", "open", "released"];
    let found = Ledger { version: 7, epoch: 4, intents: names.map(|name| intent(name, 11)).into() };
    let pods = vec![gated("changed", 50), gated("open", 11), (uid("released"), view(51, Standing::Released))];
    let asked = take_over(&mut state, &asked, Some(found), 8, pods);
    assert_eq!(state.epoch(), 5);
    let usage: Vec<Uid> = state.usage().into_iter().collect();
    assert_eq!(usage, [uid("open"), uid("released")]);
    assert_eq!(pending(&state), ["changed"]);
    assert!(matches!(asked[..], [Request::ReadLedger { .. }]), "{asked:?}");
    // A write of ours guards as well as a read.
    want(&mut state, &["changed"]);
    let ours = Ledger { version: 8, epoch: 5, intents: vec![] };
    let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(Some(ours)) });
    assert_eq!(asked[0], Request::Ungate { uid: uid("open"), version: 11, epoch: 5 });
    assert_eq!(written(&asked[1..]), (Some(8), 5, vec![intent("changed", 50), intent("open", 11)]));
}

#[test]
fn a_ledger_deleted_under_way_is_made_again_with_what_is_known() {
    let mut state = sent("a", 11);
    tell(&mut state, &Event::Observed { uid: uid("b"), view: view(101, Standing::Gated) });
    let asked = want(&mut state, &["b"]);
    tell(&mut state, &Event::LedgerWritten { round: round(&asked), result: Err(Failure::NotFound) });
    let asked = state.apply(&Event::Tick);
    let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(None) });
    assert_eq!(written(&asked), (None, 2, vec![intent("a", 11)]));
}

#[test]
fn a_pod_that_ended_while_an_older_list_was_under_way_stays_gone() {
    let mut state = State::default();
    let asked = state.apply(&Event::Lead);
    let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(None) });
    let asked = state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(1) });
    tell(&mut state, &Event::Observed { uid: uid("new"), view: view(103, Standing::Gated) });
    tell(&mut state, &Event::Observed { uid: uid("old"), view: view(99, Standing::Gated) });
    tell(&mut state, &Event::Gone { uid: uid("a") });
    let pods = vec![(uid("a"), view(90, Standing::Released))];
    tell(&mut state, &Event::Listed { round: round(&asked), result: Ok(PodList { version: 100, pods }) });
    assert!(state.usage().is_empty());
    assert_eq!(pending(&state), ["new"], "what the list does not show and is older than it does not exist");
}

#[test]
fn failures_of_the_takeover_wait_for_the_tick() {
    let mut state = State::default();
    let asked = state.apply(&Event::Lead);
    assert!(state.apply(&Event::LedgerRead { round: round(&asked), result: Err(Failure::Forbidden) }).is_empty());
    assert_eq!(state.trouble(), Some(Trouble { operation: Operation::ReadLedger, failure: Failure::Forbidden }));
    assert!(want(&mut state, &["a"]).is_empty());
    let asked = state.apply(&Event::Tick);
    assert!(state.apply(&Event::Tick).is_empty(), "one request at a time");
    let asked = state.apply(&Event::LedgerRead { round: round(&asked), result: Ok(None) });
    assert!(state.apply(&Event::LedgerWritten { round: round(&asked), result: Err(Failure::Conflict) }).is_empty());
    assert!(matches!(state.apply(&Event::Tick)[..], [Request::ReadLedger { .. }]));
    assert!(state.apply(&Event::StepDown).is_empty() && !state.is_leading());
    assert!(state.apply(&Event::Tick).is_empty());
}

#[test]
fn a_ledger_holds_no_more_than_its_schema_admits() {
    let names: Vec<String> = (0..MAX_INTENTS + 10).map(|i| format!("p{i:05}")).collect();
    let mut state = ready(names.iter().map(|name| gated(name, 5)).collect());
    let asked = want(&mut state, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(written(&asked).2.len(), MAX_INTENTS);
    assert_eq!(state.usage().len(), MAX_INTENTS + 10);
    let sent = state.apply(&Event::LedgerWritten { round: round(&asked), result: Ok(2) });
    assert_eq!(sent.len(), MAX_INTENTS, "no second write without room");
    let mut writes = Vec::new();
    for name in &names[..10] {
        writes.extend(ungated(&mut state, name, Ok(view(200, Standing::Released))));
    }
    assert_eq!(written(&writes).2.len(), MAX_INTENTS, "room for the rest: one write");
}

#[test]
fn versions_are_numbers() {
    assert_eq!(parse_version("4711").unwrap(), 4711);
    assert!(parse_version("abc").unwrap_err().to_string().contains("\"abc\""));
}

#[test]
fn touches_that_fail_are_repeated_ever_more_rarely() {
    let mut state = sent("a", 11);
    ungated(&mut state, "a", Err(Failure::Forbidden));
    let mut touched_at = Vec::new();
    for tick in 0..100 {
        if state.apply(&Event::Tick) == [Request::Touch { uid: uid("a") }] {
            touched_at.push(tick);
            touched(&mut state, "a", Err(Failure::Lost));
        }
    }
    assert_eq!(touched_at, [0, 1, 3, 7, 15, 31, 63, 95]);
    assert!(state.counts("a"), "an earlier removal may still be under way");
}
