//! What is free on a node, whom it is trusted with, and what the verdicts say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_cluster::{
    Change, Event, Model, PodWish, Reason, Score, Snapshot, TopologyError, annotation_of, from_wire, machine_of,
    to_wire,
};
use fairlead_placement::{Phase, PlacementRead, PodRef, Promise, Reservation, Room};
use fairlead_topology::{CpuMask, NumaHugePages};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use support::{
    Like, OWN, add_pod, bound, bound_on, model, node, node_with, observed, one_node, placement, pod, topology, wish,
};

fn mask(list: &str) -> CpuMask {
    CpuMask::parse_list(list).unwrap()
}

fn verdict(snapshot: &Snapshot, cpu: &'static str) -> Result<Score, Reason> {
    snapshot.judge(snapshot.index_of("n1").unwrap_or(99), &wish("new", cpu))
}

fn promise(uid: &str, cpus: &str) -> Promise {
    Promise { pod_uid: uid.into(), shared_milli: 0, reservation: Some(reservation(uid, cpus)) }
}

fn reservation(uid: &str, cpus: &str) -> Reservation {
    Reservation {
        pod: PodRef { namespace: "shop".into(), name: uid.into(), uid: uid.into() },
        reserved_at_ms: 1_767_225_600_000,
        cpus: mask(cpus),
        containers: vec![("main".into(), mask(cpus))],
        memory: vec![(0, 1 << 30)],
        huge_pages: Vec::new(),
        isolated: false,
    }
}

#[test]
fn free_is_the_machine_without_what_is_held() {
    let mut model = one_node(&[("a", "0-1")]);
    let snapshot = model.snapshot();
    let view = snapshot.node_named("n1").unwrap();
    assert_eq!((view.free.clone(), view.distrust.clone()), (mask("2-7"), None));
    assert_eq!(view.memory_free_bytes, [7 << 30, 8 << 30]);
    let choice = snapshot.choose(0, &wish("new", "2")).unwrap();
    assert_eq!(choice.cpus, mask("2-3"), "the fuller NUMA node first");
    assert_eq!(verdict(&snapshot, "2"), Ok(choice.score));
    assert_eq!(verdict(&snapshot, "7"), Err(Reason::NotEnoughExclusiveCpus));
    assert_eq!(verdict(&snapshot, "9"), Err(Reason::MachineTooSmall));
    assert_eq!(snapshot.judge(1, &wish("new", "2")), Err(Reason::NodeUnknown));
}

#[test]
fn nothing_is_answered_before_everything_was_listed() {
    let mut model = Model::new(OWN);
    model.apply(Event::Nodes(Change::Reset(vec![node("n1")])));
    let snapshot = model.snapshot();
    assert!(!snapshot.synced);
    assert_eq!(snapshot.judge(0, &wish("new", "2")), Err(Reason::NotSynced));
    assert_eq!(snapshot.choose(0, &wish("new", "500m")).unwrap_err(), Reason::NotSynced);
    assert_eq!(snapshot.survey(0, |_, _| 0), fairlead_cluster::Survey::default());
}

#[test]
fn a_node_is_trusted_only_with_a_consistent_story() {
    let mut lying = topology("n1");
    lying.spec.cores[1].cpus = "1-3".into();
    let mut disputed = topology("n1");
    disputed.spec.disagreements =
        serde_json::from_value(serde_json::json!([{"field": "cores", "hwloc": "4", "sysfs": "5"}])).unwrap();
    let mut foreign = topology("n1");
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-of-a-former-n1".into();
    let mut nobodys = topology("n1");
    nobodys.metadata.owner_references = None;
    let mut of_two = topology("n1");
    let owners = of_two.metadata.owner_references.as_mut().unwrap();
    owners.push(OwnerReference { uid: "uid-of-a-former-n1".into(), ..owners[0].clone() });
    let mut unowned = placement("n1", 1, &[]);
    unowned.metadata.owner_references = None;
    let mut former = placement("n1", 1, &[]);
    former.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-of-a-former-n1".into();
    let good = || vec![placement("n1", 1, &[])];
    let held = |reservations: &[(&str, &str)]| vec![placement("n1", 1, reservations)];
    for (topologies, placements, expected, said) in [
        (vec![], good(), Reason::NoTopology, "no NodeTopology"),
        (vec![foreign], good(), Reason::NoTopology, "former node"),
        (vec![lying], good(), Reason::TopologyRejected, "cores: ids 0 and 1 both claim CPUs 1"),
        (vec![nobodys], good(), Reason::TopologyRejected, "not owned by one Node"),
        (vec![of_two], good(), Reason::TopologyRejected, "not owned by one Node"),
        (vec![topology("n1")], vec![unowned], Reason::NoPlacementObject, "not owned by one Node"),
        (vec![disputed], good(), Reason::TopologyRejected, "hwloc and sysfs differ"),
        (vec![topology("n1")], vec![], Reason::NoPlacementObject, "no NodePlacement"),
        (vec![topology("n1")], vec![former], Reason::NoPlacementObject, "former node"),
        (vec![topology("n1")], held(&[("a", "0-1"), ("b", "1-2")]), Reason::NodeDistrusted, "both hold CPUs 1"),
        (vec![topology("n1")], held(&[("a", "8")]), Reason::NodeDistrusted, "the machine has no CPUs 8"),
        (vec![topology("n1")], held(&[("a", "x")]), Reason::NodeDistrusted, "podUID=a"),
    ] {
        let snapshot = model(vec![node("n1")], topologies, placements).snapshot();
        assert_eq!(verdict(&snapshot, "2"), Err(expected));
        assert_eq!(snapshot.choose(0, &wish("new", "2")).unwrap_err(), expected);
        let detail = snapshot.why_not("n1", &wish("new", "2")).unwrap();
        assert!(detail.message.contains(said), "{} does not say {said:?}", detail.message);
        assert_eq!(detail.reason, Some(expected.name()));
        // Pods without CPUs of their own go there all the same.
        assert_eq!(verdict(&snapshot, "500m"), Ok(Score::default()));
    }
}

#[test]
fn a_machine_with_cpus_that_the_kubelet_does_not_count_is_rejected() {
    for (capacity, accepted) in [("8", true), ("9", true), ("7", false), ("0", false)] {
        let nodes = vec![node_with("n1", capacity, capacity)];
        let snapshot = model(nodes, vec![topology("n1")], vec![placement("n1", 1, &[])]).snapshot();
        let expected = if accepted { Ok(()) } else { Err(Reason::TopologyRejected) };
        assert_eq!(verdict(&snapshot, "2").map(|_| ()), expected, "{capacity}");
        assert_eq!(bound(&snapshot, "new", "2").map(|_| ()), expected, "{capacity}");
        let said = format!("has 8 CPUs, the kubelet counts {capacity}");
        let detail = snapshot.why_not("n1", &wish("new", "2")).unwrap();
        assert_eq!(detail.message.contains(&said), !accepted, "{}", detail.message);
    }
}

#[test]
fn every_lie_of_a_topology_names_its_field() {
    let broken = |change: fn(&mut fairlead_crds::NodeTopologySpec)| {
        let mut spec = topology("n1").spec;
        change(&mut spec);
        machine_of(&spec).unwrap_err()
    };
    assert_eq!(
        broken(|spec| spec.numa_nodes[1].memory_bytes = -1),
        TopologyError::Number { field: "numaNodes[id=1].memoryBytes".into(), value: -1, max: i64::MAX }
    );
    let text = broken(|spec| spec.cores[2].cpus = "4-".into()).to_string();
    assert!(text.starts_with("spec.cores[id=2].cpus: "), "{text}");
    let text = broken(|spec| spec.packages.clear()).to_string();
    assert_eq!(text, "spec.packages: empty; a machine has at least one");
    let text = broken(|spec| spec.cores[0].cpus = "16384".into()).to_string();
    assert!(text.contains("spec.cores[id=0].cpus"), "{text}");
}

#[test]
fn the_shared_pool_keeps_what_the_system_and_its_pods_need() {
    let mut model =
        model(vec![node_with("n1", "8", "7500m")], vec![topology("n1")], vec![placement("n1", 1, &[("own", "0-1")])]);
    let bound = |cpu| Like { cpu, node: Some("n1"), phase: "Running", ..Like::default() };
    add_pod(&mut model, "own", &bound("2"));
    add_pod(&mut model, "shared", &bound("1200m"));
    add_pod(&mut model, "ended", &Like { phase: "Succeeded", ..bound("4") });
    let snapshot = add_pod(&mut model, "whole-but-not-reserved", &bound("1"));
    let view = snapshot.node_named("n1").unwrap();
    assert_eq!((view.beside.system_reserve, view.beside.shared_milli, view.shared_reserve), (1, 2_200, 4));
    assert_eq!(verdict(&snapshot, "2").map(|_| ()), Ok(()));
    assert_eq!(verdict(&snapshot, "3"), Err(Reason::SharedPoolTooSmall), "4 CPUs in whole cores of 6, 4 must stay");
    assert_eq!(verdict(&snapshot, "2800m"), Ok(Score::default()));
    assert_eq!(verdict(&snapshot, "2801m"), Err(Reason::SharedPoolTooSmall), "1 + 5.001 of 6");
    let detail = snapshot.why_not("n1", &wish("new", "3")).unwrap();
    assert_eq!((detail.needed_cpus, detail.shared_reserve, detail.free_cpus.as_str()), (4, 4, "2-7"));
    assert_eq!((detail.numa[0].cores, detail.numa[0].free_cores, detail.numa[0].free_cpus.as_str()), (2, 1, "2-3"));
    assert!(detail.message.contains("the shared pool can spare 2"), "{}", detail.message);
}

#[test]
fn memory_that_the_node_does_not_offer_is_promised_to_nobody() {
    let mut small = node("n1");
    let allocatable = small.status.as_mut().unwrap().allocatable.as_mut().unwrap();
    allocatable.insert("memory".into(), Quantity("13Gi".into()));
    let mut model = model(vec![small], vec![topology("n1")], vec![placement("n1", 1, &[("a", "0-1")])]);
    let shared = Like { cpu: "500m", node: Some("n1"), phase: "Running", ..Like::default() };
    let snapshot = add_pod(&mut model, "shared", &shared);
    let half = (3 << 30) / 2;
    assert_eq!(snapshot.node_named("n1").unwrap().memory_free_bytes, [(7 << 30) - half, (8 << 30) - half]);
    let asks = |bytes: u64| {
        let mut pod = pod("new", &Like { cpu: "4", ..Like::default() });
        let resources = pod.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap();
        for list in [&mut resources.requests, &mut resources.limits] {
            list.as_mut().unwrap().insert("memory".into(), Quantity(bytes.to_string()));
        }
        let reserved = bound_on(&snapshot, "n1", &pod).map(|_| ());
        assert_eq!(snapshot.judge(0, &PodWish::of(&pod)).map(|_| ()), reserved);
        reserved
    };
    assert_eq!((asks(12 << 30), asks((12 << 30) + 1)), (Ok(()), Err(Reason::NotEnoughNumaMemory)));
    let detail = snapshot.why_not("n1", &wish("new", "2")).unwrap();
    assert_eq!((detail.system_memory_bytes, detail.shared_memory_bytes), (3 << 30, 1 << 30), "said, not subtracted");
}

#[test]
fn a_pod_with_cpus_of_its_own_leaves_room_for_its_own_fraction() {
    let mixed = |cpu, beside| pod("new", &Like { cpu, beside: Some(beside), ..Like::default() });
    let bound_there = |model: &mut Model, cpu| {
        let like = Like { cpu, node: Some("n1"), phase: "Running", ..Like::default() };
        add_pod(model, "shared", &like)
    };
    for (used, expected) in [("1500m", Ok(())), ("3600m", Err(Reason::SharedPoolTooSmall))] {
        let snapshot = bound_there(&mut one_node(&[]), used);
        let wish = PodWish::of(&mixed("4", "500m"));
        assert_eq!(bound_on(&snapshot, "n1", &mixed("4", "500m")).map(|cpus| cpus.len()), expected.map(|()| 4));
        assert_eq!(snapshot.judge(0, &wish).map(|_| ()), expected);
    }
    // A retry that finds its reservation looks at the pool too.
    let snapshot = bound_there(&mut one_node(&[("new", "0-3")]), "3600m");
    assert_eq!(bound_on(&snapshot, "n1", &mixed("4", "400m")), Ok(mask("0-3")));
    assert_eq!(bound_on(&snapshot, "n1", &mixed("4", "500m")), Err(Reason::SharedPoolTooSmall));
}

#[test]
fn a_promise_counts_until_the_watch_shows_the_pod_bound() {
    let mut model = one_node(&[]);
    let free = |model: &mut Model| model.snapshot().node_named("n1").unwrap().free.clone();
    model.assume("n1", promise("p", "0-3"));
    let snapshot = model.snapshot();
    assert_eq!(free(&mut model), mask("4-7"));
    assert_eq!(verdict(&snapshot, "6"), Err(Reason::NotEnoughExclusiveCpus));
    assert_eq!(bound(&snapshot, "new", "6"), Err(Reason::NotEnoughExclusiveCpus));
    assert_eq!(snapshot.judge(0, &wish("p", "6")).map(|_| ()), Ok(()), "it does not stand in its own way");
    model.forget("p");
    assert_eq!(free(&mut model), mask("0-7"));

    model.assume("n1", promise("p", "0-3"));
    model.apply(Event::Placements(Change::Apply(placement("n1", 2, &[("p", "0-3")]))));
    assert_eq!(model.snapshot().node_named("n1").unwrap().memory_free_bytes, [7 << 30, 8 << 30], "counted once");
    model.apply(Event::Placements(Change::Delete(placement("n1", 2, &[]))));
    model.apply(Event::Placements(Change::Apply(placement("n1", 1, &[]))));
    assert_eq!(free(&mut model), mask("4-7"), "the Binding is under way");
    let runs = Like { node: Some("n1"), carries: Some("0-3"), cpu: "4", ..Like::default() };
    add_pod(&mut model, "p", &runs);
    assert_eq!(free(&mut model), mask("4-7"), "now by what the pod carries");
    model.assume("n1", promise("p", "4-5"));
    assert_eq!(free(&mut model), mask("4-7"), "too late: it is bound");

    model.assume("n1", promise("q", "4-7"));
    add_pod(&mut model, "q", &Like { node: Some("n2"), ..Like::default() });
    assert_eq!(free(&mut model), mask("4-7"), "bound elsewhere");
}

#[test]
fn a_pod_promised_to_the_shared_pool_counts_until_it_is_bound() {
    let mut model = one_node(&[("a", "0-5")]);
    model.assume("n1", Promise { pod_uid: "p".into(), shared_milli: 1_500, reservation: None });
    let snapshot = model.snapshot();
    assert_eq!(verdict(&snapshot, "500m"), Ok(Score::default()));
    assert_eq!(verdict(&snapshot, "501m"), Err(Reason::SharedPoolTooSmall));
    assert_eq!(bound(&snapshot, "new", "501m"), Err(Reason::SharedPoolTooSmall));
    assert_eq!(snapshot.judge(0, &wish("p", "1500m")), Ok(Score::default()), "it does not stand in its own way");
    let snapshot = add_pod(&mut model, "p", &Like { cpu: "1500m", node: Some("n1"), ..Like::default() });
    assert_eq!(
        (verdict(&snapshot, "500m"), verdict(&snapshot, "501m")),
        (Ok(Score::default()), Err(Reason::SharedPoolTooSmall))
    );
    model.apply(Event::Pods(Change::Delete(pod("p", &Like::default()))));
    assert_eq!(verdict(&model.snapshot(), "2").map(|_| ()), Ok(()));
}

#[test]
fn running_pods_keep_their_cpus_when_the_placement_is_lost() {
    let mut model = one_node(&[("a", "0-1")]);
    let runs =
        |cpu, carries| Like { cpu, carries: Some(carries), node: Some("n1"), phase: "Running", ..Like::default() };
    add_pod(&mut model, "a", &runs("2", "0-1"));
    add_pod(&mut model, "half", &runs("1", "4"));
    add_pod(&mut model, "ended", &Like { phase: "Succeeded", ..runs("2", "2-3") });
    model.apply(Event::Placements(Change::Delete(placement("n1", 1, &[]))));
    let mut anew = placement("n1", 1, &[]);
    anew.metadata.uid = Some("np-another".into());
    model.apply(Event::Placements(Change::Apply(anew)));
    let snapshot = model.snapshot();
    let view = snapshot.node_named("n1").unwrap();
    assert_eq!(view.free, mask("2-3,6-7"), "whole cores, idle siblings included");
    assert_eq!(view.memory_free_bytes, [6 << 30, 8 << 30]);
    assert_eq!(view.shared_reserve, 0, "they are not in the shared pool");
    assert_eq!(verdict(&snapshot, "5"), Err(Reason::NotEnoughExclusiveCpus));
    assert_eq!(bound(&snapshot, "new", "4"), Ok(mask("2-3,6-7")));
    assert_eq!(bound(&snapshot, "new", "5"), Err(Reason::NotEnoughExclusiveCpus));

    let mut overlapping = placement("n1", 2, &[("b", "0-1")]);
    overlapping.metadata.uid = Some("np-another".into());
    model.apply(Event::Placements(Change::Apply(overlapping)));
    let snapshot = model.snapshot();
    assert_eq!(snapshot.node_named("n1").unwrap().free, mask("2-3,6-7"), "of both, once");
    assert_eq!(bound(&snapshot, "b", "2"), Ok(mask("2-3")), "what another runs on is given back, others are promised");
}

#[test]
fn a_pod_that_asks_for_a_fraction_by_now_keeps_the_memory_it_was_promised() {
    let mut model = one_node(&[]);
    let resized = Like { cpu: "1500m", carries: Some("0-3"), node: Some("n1"), phase: "Running", ..Like::default() };
    let snapshot = add_pod(&mut model, "resized", &resized);
    let view = snapshot.node_named("n1").unwrap();
    assert_eq!((&view.free, &view.memory_free_bytes), (&mask("4-7"), &vec![7 << 30, 8 << 30]));
}

/// The CPUs that a bind of 4 CPUs would see as free, or why it would not take the node, with that NodePlacement read live.
fn free_live(snapshot: &Snapshot, live: &fairlead_crds::NodePlacement) -> Result<CpuMask, Reason> {
    let facts = match snapshot.placement_live("n1", live) {
        PlacementRead::Found(facts) => facts,
        PlacementRead::Refused(reason) => return Err(reason),
        PlacementRead::Failed(message) => panic!("{message}"),
    };
    let machine = facts.machine?;
    let room = Room::of(&machine, &facts.reservations, &facts.beside, "new", 0);
    room.map(|room| room.cpus).map_err(|_| Reason::NodeDistrusted)
}

#[test]
fn running_pods_keep_their_cpus_while_the_watch_still_shows_the_lost_placement() {
    let mut model = one_node(&[("a", "0-1"), ("b", "4-5")]);
    let runs = |carries| Like { carries: Some(carries), node: Some("n1"), phase: "Running", ..Like::default() };
    add_pod(&mut model, "a", &runs("0-1"));
    let snapshot = add_pod(&mut model, "b", &runs("4-5"));
    let view = snapshot.node_named("n1").unwrap();
    assert_eq!((view.free.clone(), view.shared_reserve), (mask("2-3,6-7"), 0));
    assert_eq!(view.memory_free_bytes, [6 << 30, 8 << 30], "by reservation and annotation, counted once");
    let mut anew = placement("n1", 1, &[]);
    anew.metadata.uid = Some("np-another".into());
    assert_eq!(free_live(&snapshot, &anew), Ok(mask("2-3,6-7")));
    assert_eq!(free_live(&snapshot, &placement("n1", 2, &[("a", "0-1")])), Ok(mask("2-3,6-7")));

    // The Node is registered anew, and the watch still shows the NodePlacement of the former one.
    let of_new = |owners: &mut Option<Vec<OwnerReference>>| owners.as_mut().unwrap()[0].uid = "uid-anew".into();
    let (mut node, mut topology) = (node("n1"), topology("n1"));
    node.metadata.uid = Some("uid-anew".into());
    of_new(&mut topology.metadata.owner_references);
    of_new(&mut anew.metadata.owner_references);
    model.apply(Event::Nodes(Change::Apply(node)));
    model.apply(Event::Topologies(Change::Apply(topology)));
    let snapshot = model.snapshot();
    assert_eq!(verdict(&snapshot, "2"), Err(Reason::NoPlacementObject));
    assert_eq!(free_live(&snapshot, &anew), Ok(mask("2-3,6-7")));
    model.apply(Event::Placements(Change::Apply(anew)));
    assert_eq!(model.snapshot().node_named("n1").unwrap().free, mask("2-3,6-7"));
}

#[test]
fn a_reservation_of_a_former_node_keeps_no_pod_out_of_the_shared_pool() {
    let mut former = placement("n1", 1, &[("p", "0-1")]);
    former.metadata.owner_references.as_mut().unwrap()[0].uid = "uid-of-a-former-n1".into();
    let mut model = model(vec![node("n1")], vec![topology("n1")], vec![former]);
    let snapshot = add_pod(&mut model, "p", &Like { node: Some("n1"), phase: "Running", ..Like::default() });
    assert_eq!(snapshot.node_named("n1").unwrap().shared_reserve, 2);
}

#[test]
fn the_annotation_of_a_pod_of_another_scheduler_says_nothing() {
    for carries in ["0-7", "x", "8"] {
        let like = Like { carries: Some(carries), node: Some("n1"), phase: "Running", ..Like::default() };
        let snapshot = add_pod(&mut one_node(&[]), "forged", &Like { scheduler: "default-scheduler", ..like });
        let view = snapshot.node_named("n1").unwrap();
        assert_eq!((view.free.clone(), view.distrust.clone()), (mask("0-7"), None), "{carries}");
        assert_eq!(view.shared_reserve, 2, "it runs in the shared pool");
        assert_eq!(bound(&snapshot, "new", "2"), Ok(mask("0-1")));
    }
}

#[test]
fn a_placement_annotation_of_ours_that_nobody_can_read_makes_the_node_distrusted() {
    for (carries, said) in [("x", "pod shop/odd"), ("8", "the machine has no CPUs 8")] {
        let mut model = one_node(&[]);
        let like = Like { carries: Some(carries), node: Some("n1"), phase: "Running", ..Like::default() };
        let snapshot = add_pod(&mut model, "odd", &like);
        assert_eq!(verdict(&snapshot, "2"), Err(Reason::NodeDistrusted));
        assert_eq!(bound(&snapshot, "new", "2"), Err(Reason::NodeDistrusted));
        let detail = snapshot.why_not("n1", &wish("new", "2")).unwrap();
        assert!(detail.message.contains(said), "{}", detail.message);
        model.apply(Event::Placements(Change::Apply(placement("n1", 2, &[("odd", "0-1")]))));
        let snapshot = model.snapshot();
        assert_eq!(bound(&snapshot, "new", "2"), Ok(mask("2-3")), "the reservation says it");
        assert_eq!(free_live(&snapshot, &placement("n1", 3, &[("odd", "0-1")])), Ok(mask("2-7")));
        assert_eq!(free_live(&snapshot, &placement("n1", 3, &[])), Err(Reason::NodeDistrusted), "lost since");
    }
}

#[test]
fn older_states_of_a_placement_do_not_come_back() {
    let mut model = one_node(&[]);
    model.apply(Event::Placements(Change::Apply(placement("n1", 5, &[("a", "0-1")]))));
    model.apply(Event::Placements(Change::Apply(placement("n1", 4, &[]))));
    assert_eq!(model.snapshot().node_named("n1").unwrap().free, mask("2-7"));
    let mut anew = placement("n1", 1, &[]);
    anew.metadata.uid = Some("np-another".into());
    model.apply(Event::Placements(Change::Apply(anew)));
    model.apply(Event::Placements(Change::Delete(placement("n1", 5, &[]))));
    assert_eq!(model.snapshot().node_named("n1").unwrap().free, mask("0-7"), "another object of that name");
}

/// A cluster restored from a backup shows former states of the same objects, and no later event corrects what is kept
/// against them: every write would be a conflict.
#[test]
fn a_relist_is_believed_also_where_it_goes_back() {
    let mut model = one_node(&[]);
    model.apply(Event::Placements(Change::Apply(placement("n1", 5, &[("a", "0-1")]))));
    model.apply(Event::Placements(Change::Reset(vec![placement("n1", 3, &[("b", "2-3")])])));
    let snapshot = model.snapshot();
    assert_eq!(snapshot.node_named("n1").unwrap().free, mask("0-1,4-7"));
    let PlacementRead::Found(facts) = snapshot.placement("n1") else { panic!("{:?}", snapshot.placement("n1")) };
    assert_eq!(facts.generation, 3);
    let mut anew = placement("n1", 1, &[]);
    anew.metadata.uid = Some("np-another".into());
    model.apply(Event::Placements(Change::Reset(vec![anew])));
    assert_eq!(model.snapshot().node_named("n1").unwrap().free, mask("0-7"));
}

#[test]
fn a_late_answer_about_a_former_placement_does_not_bring_it_back() {
    let mut model = one_node(&[]);
    let free = |model: &mut Model| model.snapshot().node_named("n1").unwrap().free.clone();
    let of_former = placement("n1", 2, &[("a", "0-1")]);
    model.apply(Event::Written(of_former.clone()));
    assert_eq!(free(&mut model), mask("2-7"), "ahead of the watch");
    model.apply(Event::Placements(Change::Delete(of_former.clone())));
    model.apply(Event::Written(of_former.clone()));
    assert!(model.snapshot().node_named("n1").unwrap().placement.is_none());
    let mut anew = placement("n1", 1, &[("b", "6-7")]);
    anew.metadata.uid = Some("np-another".into());
    model.apply(Event::Placements(Change::Apply(anew)));
    model.apply(Event::Written(of_former));
    assert_eq!(free(&mut model), mask("0-5"));
}

#[test]
fn a_pod_with_a_reservation_here_may_come_back_to_it() {
    let mut model = one_node(&[("p", "0-3"), ("q", "4-7")]);
    let snapshot = add_pod(&mut model, "p", &Like { cpu: "4", ..Like::default() });
    assert_eq!(snapshot.judge(0, &wish("other", "4")), Err(Reason::NotEnoughExclusiveCpus));
    let choice = snapshot.choose(0, &wish("p", "4")).unwrap();
    assert_eq!((choice.cpus, snapshot.judge(0, &wish("p", "4"))), (mask("0-3"), Ok(choice.score)));
}

#[test]
fn a_reservation_is_reserved_bound_observed_and_lapsed_and_a_candidate_where_nobody_has_it() {
    let mut model = one_node(&[]);
    let listed = [("runs", "0"), ("gone", "1"), ("moved", "2"), ("waits", "3"), ("ended", "4"), ("bound", "5")];
    let agent = [("runs", "Pinned", "0"), ("bound", "Pending", ""), ("waits", "Pinned", "3"), ("gone", "Pinned", "1")];
    model.apply(Event::Placements(Change::Apply(observed(placement("n1", 2, &listed), 2, &agent))));
    let like = Like::default();
    add_pod(&mut model, "runs", &Like { node: Some("n1"), ..like.clone() });
    add_pod(&mut model, "bound", &Like { node: Some("n1"), ..like.clone() });
    add_pod(&mut model, "moved", &Like { node: Some("n2"), ..like.clone() });
    add_pod(&mut model, "waits", &like);
    let snapshot = add_pod(&mut model, "ended", &Like { node: Some("n1"), phase: "Failed", ..like });
    let survey = snapshot.survey(60_000, |_, _| 60_000);
    let found: Vec<(String, bool)> = survey.candidates.into_iter().map(|c| (c.pod.uid, c.even_unbound)).collect();
    let expected = [("gone", false), ("moved", false), ("waits", true), ("ended", false)];
    assert_eq!(found, expected.map(|(uid, even_unbound)| (uid.to_owned(), even_unbound)));
    let phases = [(Phase::Reserved, 1), (Phase::Bound, 1), (Phase::Observed, 1), (Phase::Lapsed, 3)];
    assert_eq!(survey.phases, phases.into());
    // Told again it is the same; and the observation gone, the pod is bound all the same.
    model.apply(Event::Placements(Change::Apply(placement("n1", 2, &listed))));
    let survey = model.snapshot().survey(60_000, |_, _| 0);
    assert_eq!(survey.phases, [(Phase::Reserved, 1), (Phase::Bound, 2), (Phase::Lapsed, 3)].into());
    assert_eq!(survey.candidates.len(), 3, "the unbound one has its grace");
}

#[test]
fn placements_are_told_to_the_steps_as_they_are() {
    let mut model = one_node(&[("a", "0-1")]);
    let snapshot = model.snapshot();
    let PlacementRead::Found(facts) = snapshot.placement("n1") else { panic!("{:?}", snapshot.placement("n1")) };
    assert_eq!((facts.uid.as_str(), facts.generation, facts.reservations.len()), ("np-n1", 1, 1));
    assert!(facts.machine.is_ok());
    let live = snapshot.placement_live("n1", &placement("n1", 9, &[]));
    assert!(matches!(live, PlacementRead::Found(facts) if facts.generation == 9 && facts.reservations.is_empty()));
    let malformed = snapshot.placement_live("n1", &placement("n1", 9, &[("a", "x")]));
    assert_eq!(malformed, PlacementRead::Refused(Reason::NodeDistrusted));
    assert_eq!(snapshot.placement("n2"), PlacementRead::Refused(Reason::NodeUnknown));
}

#[test]
fn a_reservation_survives_the_wire() {
    let made = reservation("p", "0-3,6");
    let wire = to_wire(&made);
    let text = serde_json::to_value(&wire).unwrap();
    assert_eq!(text["reservedAt"], "2026-01-01T00:00:00Z");
    assert_eq!(from_wire(&serde_json::from_value(text).unwrap()).unwrap(), made);
    let annotation = serde_json::to_value(annotation_of(&made)).unwrap();
    let expected =
        serde_json::json!({"cpus": "0-3,6", "containers": [{"name": "main", "cpus": "0-3,6", "memoryNodes": "0"}]});
    assert_eq!(annotation, expected);

    let pages = NumaHugePages { numa_node: 0, page_bytes: 2 << 20, bytes: 6 << 20 };
    let special = Reservation { huge_pages: vec![pages], isolated: true, ..made };
    let text = serde_json::to_value(to_wire(&special)).unwrap();
    assert_eq!(text["memory"][0]["hugePages"], serde_json::json!([{"pageBytes": 2 << 20, "bytes": 6 << 20}]));
    assert_eq!(from_wire(&serde_json::from_value(text).unwrap()).unwrap(), special);
    assert!(annotation_of(&special).isolated);
}

#[test]
fn unchanged_parts_are_shared_between_snapshots() {
    let nodes = vec![node("n1"), node("n2")];
    let mut model =
        model(nodes, vec![topology("n1"), topology("n2")], vec![placement("n1", 1, &[]), placement("n2", 1, &[])]);
    let before = model.snapshot();
    assert!(std::sync::Arc::ptr_eq(&before, &model.snapshot()));
    let after = add_pod(&mut model, "p", &Like { node: Some("n2"), cpu: "500m", ..Like::default() });
    assert!(std::sync::Arc::ptr_eq(before.nodes.at(0).unwrap(), after.nodes.at(0).unwrap()));
    assert!(!std::sync::Arc::ptr_eq(before.nodes.at(1).unwrap(), after.nodes.at(1).unwrap()));
    let mut again = pod("p", &Like { node: Some("n2"), cpu: "500m", ..Like::default() });
    again.metadata.resource_version = Some("2".into());
    model.apply(Event::Pods(Change::Apply(again)));
    assert!(
        std::sync::Arc::ptr_eq(after.nodes.at(1).unwrap(), model.snapshot().nodes.at(1).unwrap()),
        "only its version changed"
    );
}
