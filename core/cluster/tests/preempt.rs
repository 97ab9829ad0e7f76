//! Which victims must go: the least of the proposed ones, and none in vain.
#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

mod support;

use fairlead_cluster::{Change, Event, Model, Preemptor, Snapshot};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;
use support::{Like, node, one_node, placement, pod, pool, topology, wish};

fn preemptor(cpu: &'static str) -> Preemptor {
    Snapshot::default().preemptor(wish("urgent", cpu), 9, true)
}

fn bound(uid: &str, cpu: &'static str, priority: i32) -> Pod {
    let mut pod = pod(uid, &Like { cpu, node: Some("n1"), ..Like::default() });
    pod.spec.as_mut().unwrap().priority = Some(priority);
    pod
}

/// Four cores of two threads: `a` and `b` hold one each, `c` two; all of the node's CPUs.
fn full() -> Model {
    let mut model = one_node(&[("a", "0-1"), ("b", "2-3"), ("c", "4-7")]);
    for (uid, cpu, priority) in [("a", "2", 5), ("b", "2", 1), ("c", "4", 3)] {
        model.apply(Event::Pods(Change::Apply(bound(uid, cpu, priority))));
    }
    model
}

fn kept(snapshot: &Snapshot, preemptor: &Preemptor, proposed: &[&str]) -> Option<Vec<usize>> {
    snapshot.victims(preemptor, "n1", proposed).map(|victims| victims.kept)
}

#[test]
fn only_the_needed_victims_go_and_the_most_important_stay() {
    let snapshot = full().snapshot();
    assert_eq!(kept(&snapshot, &preemptor("2"), &["a", "c", "b"]), Some(vec![2]), "b is the least important");
    assert_eq!(kept(&snapshot, &preemptor("4"), &["a", "c", "b"]), Some(vec![1]), "a comes back, then b: c alone does");
    assert_eq!(kept(&snapshot, &preemptor("6"), &["a", "c", "b"]), Some(vec![1, 2]));
    assert_eq!(kept(&snapshot, &preemptor("8"), &["a", "c", "b"]), Some(vec![0, 1, 2]));
}

#[test]
fn a_node_where_all_of_them_are_not_enough_is_dropped() {
    let snapshot = full().snapshot();
    assert_eq!(kept(&snapshot, &preemptor("4"), &["b"]), None);
    assert_eq!(snapshot.victims(&preemptor("2"), "elsewhere", &["b"]), None);
    assert_eq!(kept(&Snapshot::default(), &preemptor("2"), &["b"]), None);
}

#[test]
fn a_proposal_without_victims_is_answered_as_the_node_is() {
    let mut model = full();
    assert_eq!(kept(&model.snapshot(), &preemptor("2"), &[]), None);
    let emptied = placement("n1", 2, &[("b", "2-3"), ("c", "4-7")]);
    model.apply(Event::Placements(Change::Apply(emptied)));
    model.apply(Event::Pods(Change::Delete(bound("a", "2", 5))));
    let snapshot = model.snapshot();
    assert_eq!(kept(&snapshot, &preemptor("2"), &[]), Some(vec![]));
    assert_eq!(kept(&snapshot, &preemptor("2"), &["b"]), None, "it fits: nobody goes, and no list without victims");
}

#[test]
fn a_victim_whose_going_another_filter_may_need_stays_a_victim() {
    let mut model = full();
    let more = Snapshot::default().preemptor(wish("urgent", "2"), 9, false);
    assert_eq!(kept(&model.snapshot(), &more, &["a", "b"]), Some(vec![0, 1]));
    let mut repels = bound("a", "2", 5);
    repels.spec.as_mut().unwrap().affinity = serde_json::from_value(json!({ "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "kubernetes.io/hostname" }] } }))
    .unwrap();
    model.apply(Event::Pods(Change::Apply(repels)));
    assert_eq!(kept(&model.snapshot(), &preemptor("2"), &["a", "b"]), Some(vec![0]), "a frees what is needed");
}

#[test]
fn sums_that_only_kube_scheduler_counts_keep_a_victim() {
    let mut model = one_node(&[("a", "0-1")]);
    model.apply(Event::Pods(Change::Apply(bound("a", "2", 0))));
    let mut gpu = bound("gpu", "500m", 0);
    gpu.spec.as_mut().unwrap().containers[0].resources =
        serde_json::from_value(json!({ "requests": { "acme.com/gpu": "1" }, "limits": { "acme.com/gpu": "1" } }))
            .unwrap();
    model.apply(Event::Pods(Change::Apply(gpu)));
    let mut with_gpu = node("n1");
    with_gpu
        .status
        .as_mut()
        .unwrap()
        .allocatable
        .as_mut()
        .unwrap()
        .insert("acme.com/gpu".into(), serde_json::from_value(json!("1")).unwrap());
    model.apply(Event::Nodes(Change::Apply(with_gpu)));
    let mut urgent = preemptor("2");
    urgent.wish.request.insert("acme.com/gpu".into(), 1);
    assert_eq!(
        kept(&model.snapshot(), &urgent, &["a", "gpu"]),
        Some(vec![1]),
        "its cores fit beside a, its GPU does not"
    );
}

#[test]
fn a_pod_in_the_shared_pool_pushes_out_what_the_pool_needs() {
    let mut model = one_node(&[("a", "0-5")]);
    model.apply(Event::Pods(Change::Apply(bound("a", "6", 0))));
    model.apply(Event::Pods(Change::Apply(bound("small", "1500m", 0))));
    let snapshot = model.snapshot();
    assert_eq!(kept(&snapshot, &preemptor("700m"), &["a", "small"]), Some(vec![1]));
    assert_eq!(kept(&snapshot, &preemptor("2500m"), &["small"]), None);
    assert_eq!(kept(&snapshot, &preemptor("2500m"), &["a", "small"]), Some(vec![0]));
}

#[test]
fn an_unknown_victim_stays_and_frees_nothing() {
    let snapshot = full().snapshot();
    assert_eq!(snapshot.victims(&preemptor("2"), "n1", &["ghost"]), None);
    let victims = snapshot.victims(&preemptor("2"), "n1", &["ghost", "b"]).unwrap();
    assert_eq!((victims.kept, victims.unknown), (vec![0, 1], vec![0]));
}

#[test]
fn a_refused_pod_is_awaited_once_a_node_has_room_that_had_none() {
    let mut model = full();
    let mut refused = pod("refused", &Like { cpu: "2", ..Like::default() });
    let message = "0/1 nodes are available: 1 fairlead: not enough free whole cores.";
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
    refused.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
    model.apply(Event::Pods(Change::Apply(refused)));
    model.apply(Event::Pods(Change::Apply(pod("new", &Like { cpu: "2", ..Like::default() }))));
    let before = model.snapshot();
    assert_eq!(before.awaited(&Snapshot::default(), None, 9).found, [], "no node has room");

    model.apply(Event::Pods(Change::Delete(bound("a", "2", 5))));
    let pod_gone = model.snapshot();
    assert_eq!(pod_gone.awaited(&before, None, 9).found, [], "its cores are held yet");
    model.apply(Event::Placements(Change::Apply(placement("n1", 2, &[("b", "2-3"), ("c", "4-7")]))));
    let freed = model.snapshot();
    let awaited = freed.awaited(&pod_gone, None, 9).found;
    let named: Vec<_> = awaited.iter().map(|next| (next.pod.uid.as_str(), next.node.as_str())).collect();
    assert_eq!(named, [("refused", "n1")]);
    assert_eq!(freed.awaited(&freed, None, 9).found, [], "nothing changed");
    model.apply(Event::Placements(Change::Apply(placement("n1", 3, &[("c", "4-7")]))));
    assert_eq!(model.snapshot().awaited(&freed, None, 9).found, [], "the node changed and had room before");
    assert!(freed.still_awaited("refused", "n1").is_some() && pod_gone.still_awaited("refused", "n1").is_none());
    assert_eq!(
        freed.awaited(&Snapshot::default(), None, 9).found.len(),
        1,
        "a process that starts has missed the moment"
    );
}

#[test]
fn a_pod_shown_a_sample_is_awaited_by_any_node_unless_it_chooses_among_them() {
    let mut model = one_node(&[]);
    let refused = |selector: bool| {
        let mut refused = pod("refused", &Like { cpu: "2", ..Like::default() });
        let condition =
            json!({ "type": "PodScheduled", "status": "False", "message": "fairlead: node has no NodeTopology" });
        refused.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
        if selector {
            refused.spec.as_mut().unwrap().node_selector = Some([("a".to_owned(), "b".to_owned())].into());
        }
        refused
    };
    model.apply(Event::Pods(Change::Apply(pod("refused", &Like { cpu: "2", ..Like::default() }))));
    let before = model.snapshot();
    model.apply(Event::Pods(Change::Apply(refused(true))));
    assert_eq!(model.snapshot().awaited(&before, None, 9).found, []);
    model.apply(Event::Pods(Change::Apply(refused(false))));
    let now = model.snapshot();
    assert_eq!(now.awaited(&before, None, 9).found.len(), 1);
    assert_eq!(now.awaited(&now, None, 9).found, [], "it was refused before");
}

#[test]
fn a_node_that_becomes_trusted_is_room() {
    let mut model = support::model(vec![node("n1")], vec![], vec![placement("n1", 1, &[])]);
    let mut refused = pod("refused", &Like { cpu: "2", ..Like::default() });
    let condition =
        json!({ "type": "PodScheduled", "status": "False", "message": "fairlead: node has no NodeTopology" });
    refused.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
    model.apply(Event::Pods(Change::Apply(refused)));
    let before: Arc<Snapshot> = model.snapshot();
    model.apply(Event::Topologies(Change::Apply(topology("n1"))));
    assert_eq!(model.snapshot().awaited(&before, None, 9).found.len(), 1);
}

#[test]
fn a_look_that_ends_at_a_limit_is_gone_on_with_and_nobody_is_lost() {
    let mut model = one_node(&[("a", "0-7")]);
    for index in 0..70 {
        // Each wishes something else, so that one look cannot answer all.
        let mut refused = pod(&format!("p{index:02}"), &Like { cpu: "1", ..Like::default() });
        let condition =
            json!({ "type": "PodScheduled", "status": "False", "message": "fairlead: not enough free whole cores" });
        refused.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
        let memory = json!({ "cpu": "1", "memory": format!("{}Mi", 100 + index) });
        refused.spec.as_mut().unwrap().containers[0].resources =
            Some(serde_json::from_value(json!({ "requests": memory, "limits": memory })).unwrap());
        model.apply(Event::Pods(Change::Apply(refused)));
    }
    let before = model.snapshot();
    model.apply(Event::Placements(Change::Apply(placement("n1", 2, &[("a", "4-7")]))));
    let now = model.snapshot();
    let first = now.awaited(&before, None, 99);
    assert_eq!(first.found.len(), 64);
    let second = now.awaited(&before, first.ended_at.as_ref(), 99);
    assert_eq!((second.found.len(), second.ended_at), (6, None));
    assert_eq!((&*first.found[0].pod.uid, &*second.found[0].pod.uid, &*second.found[5].pod.uid), ("p00", "p64", "p69"));
    let few = now.awaited(&before, first.ended_at.as_ref(), 2);
    assert_eq!(few.found, second.found[..2]);
    assert_eq!(now.awaited(&before, few.ended_at.as_ref(), 9).found, second.found[2..]);
}

#[test]
fn a_pod_is_awaited_when_its_pool_becomes_known_or_wishes_less() {
    let wish = |align: &str| json!({ "align": align });
    let mut model = one_node(&[]);
    // More than one NUMA node has.
    let like = Like { cpu: "6", app: Some("a"), owner: Some(("ReplicaSet", "picker-5d8f")), ..Like::default() };
    let mut refused = pod("refused", &like);
    let condition = json!({ "type": "PodScheduled", "status": "False", "message": "fairlead: WorkerPool of the pod" });
    refused.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
    refused.spec.as_mut().unwrap().node_selector = Some([("a".to_owned(), "b".to_owned())].into());
    model.apply(Event::Pods(Change::Apply(refused)));
    let mut before = model.snapshot();
    for (selector, align, found) in
        [(None, "FewestNUMA", 0), (Some("a"), "SingleNUMA", 0), (Some("a"), "FewestNUMA", 1), (Some("b"), "Spread", 1)]
    {
        model.apply(Event::Pools(Change::Apply(pool("picker", 1, selector, wish(align)))));
        let now = model.snapshot();
        assert_eq!(now.awaited(&before, None, 9).found.len(), found, "{selector:?} {align}");
        assert_eq!(now.awaited(&now, None, 9).found, []);
        before = now;
    }
}

/// `waits` is nominated for the node and gets two cores there.
fn nominated(priority: i32, cpu: &'static str) -> Pod {
    let mut waits = pod("waits", &Like { cpu, ..Like::default() });
    waits.spec.as_mut().unwrap().priority = Some(priority);
    waits.status.as_mut().unwrap().nominated_node_name = Some("n1".to_owned());
    waits
}

#[test]
fn what_a_nominated_pod_of_the_same_or_a_higher_priority_will_hold_is_not_given_to_another() {
    let mut model = full();
    let with = |snapshot: &Snapshot, cpu| snapshot.preemptor(wish("urgent", cpu), 9, true);
    for (priority, four) in [(8, Some(vec![1])), (9, Some(vec![0, 1])), (10, Some(vec![0, 1]))] {
        model.apply(Event::Pods(Change::Apply(nominated(priority, "2"))));
        let snapshot = model.snapshot();
        // Of eight CPUs the two pods want six: `c` with its four, and one of the others.
        assert_eq!(kept(&snapshot, &with(&snapshot, "4"), &["b", "c"]), four, "{priority}");
    }
    let snapshot = model.snapshot();
    assert_eq!(kept(&snapshot, &with(&snapshot, "2"), &["b"]), None, "the other needs them");
    let itself = snapshot.preemptor(wish("waits", "2"), 9, true);
    assert_eq!(kept(&snapshot, &itself, &["b"]), Some(vec![0]), "nobody keeps himself out");
    model.apply(Event::Pods(Change::Apply(nominated(9, "100"))));
    let snapshot = model.snapshot();
    assert_eq!(kept(&snapshot, &with(&snapshot, "2"), &["b"]), Some(vec![0]), "one that fits nowhere holds nothing");
}

#[test]
fn a_nominated_pod_takes_the_place_of_those_that_are_leaving_for_it() {
    let mut model = full();
    let mut leaving = bound("b", "2", 1);
    leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    model.apply(Event::Pods(Change::Apply(leaving)));
    model.apply(Event::Pods(Change::Apply(nominated(9, "2"))));
    let snapshot = model.snapshot();
    let urgent = snapshot.preemptor(wish("urgent", "4"), 9, false);
    assert_eq!(kept(&snapshot, &urgent, &["c"]), Some(vec![0]), "it gets what b holds, and c is enough");
    let larger = snapshot.preemptor(wish("urgent", "6"), 9, false);
    assert_eq!(kept(&snapshot, &larger, &["a", "c"]), Some(vec![0, 1]));
    assert_eq!(kept(&snapshot, &larger, &["b", "c"]), None, "a stays, and the other gets one of the two");
}
