//! The life of a reservation, and what distrusts a node: case by case.
mod support;

use fairlead_placement::{
    Beside, Drift, Due, Observed, ObservedContainer, Phase, Pinning, Seen, as_promised, drift, unforgiven,
};
use support::{held, mask};

fn seen(uid: &str, pinning: Pinning, cpus: &str) -> ObservedContainer {
    ObservedContainer { pod_uid: uid.into(), name: "main".into(), pinning, cpus: mask(cpus), memory_nodes: Vec::new() }
}

fn of(generation: i64, container: ObservedContainer) -> Vec<Drift> {
    let observed = Observed { generation: Some(generation), containers: vec![container] };
    drift(5, &[held("a", "0-1"), held("b", "2")], &Beside::default(), &observed)
}

#[test]
fn what_agrees_or_has_not_come_yet_is_no_drift() {
    assert_eq!(drift(5, &[held("a", "0-1")], &Beside::default(), &Observed::default()), []);
    assert_eq!(of(5, seen("a", Pinning::Pending, "")), []);
    assert_eq!(of(5, seen("a", Pinning::Pinned, "0-1")), []);
    assert_eq!(of(4, seen("a", Pinning::Pinned, "0-1")), []);
    let on_its_memory = ObservedContainer { memory_nodes: vec![0], ..seen("a", Pinning::Pinned, "0-1") };
    assert_eq!(of(5, on_its_memory), []);
}

#[test]
fn what_runs_otherwise_is_drift_whatever_the_agent_calls_it() {
    let elsewhere = |observed: &str| Drift::OtherCpus {
        pod_uid: "a".into(),
        container: "main".into(),
        promised: mask("0-1"),
        observed: mask(observed),
    };
    assert_eq!(of(5, seen("a", Pinning::Drifted, "0-2")), [elsewhere("0-2")]);
    assert_eq!(of(4, seen("a", Pinning::Pinned, "0,2")), [elsewhere("0,2")]);
    // The runtime's word counts, also where the numbers happen to agree.
    assert_eq!(of(5, seen("a", Pinning::Drifted, "0-1")), [elsewhere("0-1")]);
    let loose = Drift::Unpinned { pod_uid: "a".into(), container: "main".into(), promised: mask("0-1") };
    assert_eq!(of(5, seen("a", Pinning::Unpinned, "0-3")), [loose]);
    let far = ObservedContainer { memory_nodes: vec![0, 1], ..seen("b", Pinning::Pinned, "2") };
    let text = of(5, far)[0].to_string();
    assert_eq!(text, "status.containers[podUID=b,name=main]: memory of NUMA nodes [0, 1], promised are [0]");
}

#[test]
fn what_nobody_promised_is_drift_once_the_observation_is_of_this_list() {
    let foreign = || seen("c", Pinning::Pinned, "3");
    assert_eq!(of(4, foreign()), [], "its reservation may have been freed since");
    let unpromised = Drift::Unpromised { pod_uid: "c".into(), container: "main".into(), observed: mask("3") };
    assert_eq!(of(5, foreign()), [unpromised]);
    let sidecar = ObservedContainer { name: "other".into(), ..seen("a", Pinning::Pinned, "0") };
    assert!(matches!(of(5, sidecar).as_slice(), [Drift::Unpromised { container, .. }] if container == "other"));
    // A NodePlacement that was lost and made anew: what the pod carries is its promise.
    let carried = Beside { carried: vec![held("c", "3")], ..Beside::default() };
    let observed = Observed { generation: Some(5), containers: vec![foreign()] };
    assert_eq!(drift(5, &[], &carried, &observed), []);
}

#[test]
fn a_person_bears_the_drift_of_the_pods_named_and_of_no_others() {
    let mut drifts = of(5, seen("a", Pinning::Unpinned, "0-3"));
    drifts.extend(of(5, seen("b", Pinning::Drifted, "3")));
    let left = |borne: &str| unforgiven(&drifts, borne).map(|drift| drift.pod_uid().to_owned()).collect::<Vec<_>>();
    assert_eq!(left(""), ["a", "b"]);
    assert_eq!(left("b"), ["a"]);
    assert_eq!(left(" a, b "), Vec::<String>::new());
    assert_eq!(left("ab"), ["a", "b"]);
}

#[test]
fn a_phase_follows_from_what_is_there() {
    let cases = [
        (true, Seen::Unbound, false, Phase::Reserved, Due::AfterGrace),
        (true, Seen::Here, false, Phase::Bound, Due::Never),
        (true, Seen::Here, true, Phase::Observed, Due::Never),
        (true, Seen::NotHere, false, Phase::Lapsed, Due::AtOnce),
        // The last observation may outlive the pod.
        (true, Seen::NotHere, true, Phase::Lapsed, Due::AtOnce),
        (false, Seen::Unbound, false, Phase::Released, Due::Never),
        (false, Seen::Here, true, Phase::Released, Due::Never),
        (false, Seen::NotHere, false, Phase::Released, Due::Never),
    ];
    for (held, seen, pinned, phase, due) in cases {
        assert_eq!((Phase::of(held, seen, pinned), phase.withdrawal()), (phase, due), "{held} {seen:?} {pinned}");
    }
}

#[test]
fn a_pod_is_observed_once_every_container_runs_on_exactly_its_promise() {
    let both = fairlead_placement::Reservation {
        containers: vec![("main".into(), mask("0")), ("side".into(), mask("1"))],
        ..held("a", "0-1")
    };
    let side = |cpus| ObservedContainer { name: "side".into(), ..seen("a", Pinning::Pinned, cpus) };
    let observed = |containers: Vec<ObservedContainer>| {
        let observed = Observed { generation: None, containers };
        as_promised(&[both.clone(), held("b", "2")], &observed).map(str::to_owned).collect::<Vec<_>>()
    };
    let main = || seen("a", Pinning::Pinned, "0");
    assert_eq!(observed(vec![main(), side("1")]), ["a"]);
    assert_eq!(observed(vec![main()]), [""; 0], "a part of it");
    assert_eq!(observed(vec![main(), side("3")]), [""; 0], "elsewhere");
    assert_eq!(observed(vec![main(), side("1"), seen("b", Pinning::Pending, "2")]), ["a"]);
    assert_eq!(observed(vec![seen("b", Pinning::Drifted, "2"), seen("c", Pinning::Pinned, "3")]), [""; 0]);
}
