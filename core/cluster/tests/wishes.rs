//! What pods and pools wish, who pins, what drifted, and how scores are weighed.
#![allow(clippy::unwrap_used, reason = "tests")]
mod support;

use fairlead_cluster::{Change, Event, Model, Reason, Snapshot, Weighing, WishSource};
use fairlead_topology::Score;
use serde_json::json;
use std::sync::Arc;
use support::{
    Like, add_pod, bound_on, namespace, observed, one_node, placement, pod, pool, quota, reserved, topology,
};

fn with_pools(pools: Vec<fairlead_crds::WorkerPool>) -> Model {
    let mut model = one_node(&[]);
    model.apply(Event::Pools(Change::Reset(pools)));
    model
}

fn refusal(snapshot: &Snapshot, like: &Like) -> Option<(Reason, String)> {
    let refusal = snapshot.wish_of(&pod("p", like)).refusal?;
    Some((refusal.reason, refusal.detail))
}

#[test]
fn annotations_go_before_the_pool_and_the_pool_before_nothing() {
    let wish =
        json!({"align": "SingleNUMA", "threads": "Any", "near": ["eth0"], "colocation": {"dislikes": ["batch"]}});
    let snapshot = with_pools(vec![pool("picker", 1, Some("a"), wish)]).snapshot();
    let like = Like { app: Some("a"), wishes: &[("threads", "OnePerCore"), ("near", "")], ..Like::default() };
    let understood = snapshot.wish_of(&pod("p", &like));
    let text = serde_json::to_value(&understood.wish).unwrap();
    assert_eq!(text["pool"], "picker");
    assert_eq!(text["threads"], json!({"value": "OnePerCore", "source": "Annotation"}));
    assert_eq!(text["align"], json!({"value": "SingleNUMA", "source": "Pool"}));
    assert_eq!(text["cache"], json!({"value": "PreferOneL3", "source": "Default"}));
    assert_eq!(text["near"], json!({"value": [], "source": "Annotation"}), "a pod takes back what its pool wishes");
    assert_eq!(text["dislikes"], json!({"value": ["batch"], "source": "Pool"}));
    assert_eq!(understood.exclusive.unwrap().wish, understood.wish.choice());
    let stranger = snapshot.wish_of(&pod("p", &Like { app: Some("b"), ..Like::default() }));
    assert_eq!((stranger.wish.pool, stranger.wish.align.source), (None, WishSource::Default));
}

#[test]
fn of_several_pools_the_oldest_counts_then_the_first_by_name() {
    let threads = |word: &str| json!({"threads": word});
    let pools = vec![
        pool("young", 2, Some("a"), threads("Any")),
        pool("b", 1, Some("a"), threads("Any")),
        pool("a", 1, Some("a"), threads("OnePerCore")),
        pool("unread", 0, None, threads("Any")),
    ];
    let mut model = with_pools(pools);
    let of = |snapshot: &Snapshot| snapshot.wish_of(&pod("p", &Like { app: Some("a"), ..Like::default() })).wish.pool;
    assert_eq!(of(&model.snapshot()).as_deref(), Some("a"));
    model.apply(Event::Pools(Change::Delete(pool("a", 1, None, json!({})))));
    assert_eq!(of(&model.snapshot()).as_deref(), Some("b"));
    let elsewhere = pod("p", &Like { namespace: "lab", app: Some("a"), ..Like::default() });
    assert_eq!(model.snapshot().wish_of(&elsewhere).wish.pool, None);
}

#[test]
fn pods_that_may_be_of_a_pool_whose_selector_is_not_known_wait_for_it() {
    let wish = || json!({"align": "SingleNUMA"});
    let mut model = with_pools(vec![pool("picker", 1, None, wish()), pool("plain", 0, None, json!({}))]);
    let snapshot = model.snapshot();
    let owned = |kind, name| Like { app: Some("a"), owner: Some((kind, name)), ..Like::default() };
    let of = |snapshot: &Snapshot, like: &Like| refusal(snapshot, like).map(|(reason, _)| reason);
    let mine = owned("ReplicaSet", "picker-5d8f");
    let (reason, detail) = refusal(&snapshot, &mine).unwrap();
    assert_eq!(reason, Reason::WishUnknown);
    assert!(detail.contains("WorkerPool picker") && detail.contains("status.selector is missing"), "{detail}");
    let asked = snapshot.wish_of(&pod("p", &mine));
    assert_eq!(snapshot.backstop(&asked), Some(Reason::WishUnknown));
    assert_eq!(snapshot.why_not("n1", &asked).unwrap().message, detail);
    for stranger in [
        owned("ReplicaSet", "picker-eu-5d8f"),
        owned("ReplicaSet", "packer-5d8f"),
        owned("Deployment", "packer"),
        owned("StatefulSet", "pick"),
        Like { app: Some("a"), ..Like::default() },
        Like { namespace: "lab", ..owned("ReplicaSet", "picker-5d8f") },
    ] {
        assert_eq!(of(&snapshot, &stranger), None, "{stranger:?}");
    }
    assert_eq!(of(&snapshot, &owned("ReplicaSet", "plain-5d8f")), None, "that pool wishes nothing");
    let replayed = Model::from_dump(&snapshot.dump()).unwrap().snapshot();
    assert_eq!(of(&replayed, &mine), Some(Reason::WishUnknown));

    let mut garbled = pool("picker", 1, None, wish());
    garbled.status.as_mut().unwrap().selector = Some("a b".to_owned());
    model.apply(Event::Pools(Change::Apply(garbled)));
    assert_eq!(of(&model.snapshot(), &mine), Some(Reason::WishUnknown));
    model.apply(Event::Pools(Change::Apply(pool("picker", 1, Some("a"), wish()))));
    let known = model.snapshot();
    assert_eq!(of(&known, &mine), None);
    assert_eq!(known.wish_of(&pod("p", &mine)).wish.align.source, WishSource::Pool);
}

#[test]
fn an_older_pool_that_selects_the_pod_goes_before_one_whose_selector_is_not_known() {
    let wish = || json!({"align": "SingleNUMA"});
    let like = Like { app: Some("a"), owner: Some(("ReplicaSet", "picker-5d8f")), ..Like::default() };
    for (second, refused) in [(1, None), (3, Some(Reason::WishUnknown))] {
        let read = pool("read", second, Some("a"), json!({"threads": "Any"}));
        let snapshot = with_pools(vec![pool("picker", 2, None, wish()), read]).snapshot();
        assert_eq!(refusal(&snapshot, &like).map(|(reason, _)| reason), refused);
    }
}

#[test]
fn what_is_no_wish_is_refused_by_name_with_what_may_be_written() {
    let snapshot = one_node(&[]).snapshot();
    let cases: [(&'static [(&str, &str)], &str); 6] = [
        (&[("align", "singleNuma")], "SingleNUMA, FewestNUMA or Spread"),
        (&[("cpus", "")], "Exclusive or Shared"),
        (&[("cpu", "Shared")], "one of the fields cpus, threads"),
        (&[("near", "a b")], "up to 8 PCI addresses"),
        (&[("near", "1,2,3,4,5,6,7,8,9")], "up to 8 PCI addresses"),
        (&[("likes", "Upper")], "names of WorkerPools"),
    ];
    for (wishes, allowed) in cases {
        let like = Like { wishes, ..Like::default() };
        let (reason, detail) = refusal(&snapshot, &like).unwrap();
        assert_eq!(reason, Reason::WishInvalid);
        let key = format!("annotation topology.fairlead.dev/{}", wishes[0].0);
        assert!(detail.contains(&key) && detail.contains(allowed), "{detail}");
        let wish = snapshot.wish_of(&pod("p", &like));
        assert_eq!(snapshot.backstop(&wish), Some(Reason::WishInvalid));
        assert_eq!(snapshot.why_not("n1", &wish).unwrap().message, detail);
    }
}

#[test]
fn cpus_of_its_own_need_a_pod_that_can_have_them_and_shared_gets_none() {
    let mut model = with_pools(vec![
        pool("own", 1, Some("a"), json!({"cpus": "Exclusive"})),
        pool("shared", 1, Some("b"), json!({"cpus": "Shared"})),
    ]);
    let snapshot = model.snapshot();
    for (like, wanted) in [
        (Like { app: Some("a"), cpu: "1500m", ..Like::default() }, Some(Reason::WishImpossible)),
        (Like { wishes: &[("class", "Isolated")], cpu: "500m", ..Like::default() }, Some(Reason::WishImpossible)),
        (
            Like { wishes: &[("class", "Isolated"), ("cpus", "Shared")], ..Like::default() },
            Some(Reason::WishImpossible),
        ),
        (Like { app: Some("a"), ..Like::default() }, None),
        (Like { app: Some("a"), cpu: "1500m", wishes: &[("cpus", "Shared")], ..Like::default() }, None),
    ] {
        assert_eq!(refusal(&snapshot, &like).map(|(reason, _)| reason), wanted, "{like:?}");
    }
    let both = Like { wishes: &[("class", "Isolated"), ("cpus", "Shared")], ..Like::default() };
    let (_, detail) = refusal(&snapshot, &both).unwrap();
    assert!(detail.contains("cpus: Shared (Annotation) wants none"), "the pod itself could have them: {detail}");
    let shared = Like { app: Some("b"), cpu: "2", ..Like::default() };
    let wish = snapshot.wish_of(&pod("p", &shared));
    assert_eq!((&wish.exclusive, wish.shared_milli), (&None, 2_000));
    assert!(bound_on(&snapshot, "n1", &pod("p", &shared)).unwrap().is_empty(), "bind uses the same wish");
    // Bound, it takes from the shared pool what it requests.
    let snapshot = add_pod(&mut model, "p", &Like { node: Some("n1"), ..shared });
    assert_eq!(snapshot.node_named("n1").unwrap().shared_reserve, 2);
}

#[test]
fn bind_chooses_by_the_wish_and_by_what_is_around() {
    let snapshot = one_node(&[]).snapshot();
    let cpus = |snapshot: &Snapshot, cpu: &'static str, wishes: &'static [(&str, &str)]| {
        bound_on(snapshot, "n1", &pod("p", &Like { cpu, wishes, ..Like::default() })).unwrap().to_string()
    };
    assert_eq!(cpus(&snapshot, "4", &[]), "0-3");
    assert_eq!(cpus(&snapshot, "4", &[("align", "Spread")]), "0-1,4-5");
    // A pod of a pool holds a core of NUMA node 0: best fit joins it there.
    let mut model = with_pools(vec![pool("batch", 1, Some("a"), json!({}))]);
    model.apply(Event::Placements(Change::Apply(placement("n1", 1, &[("other", "0-1")]))));
    let snapshot = add_pod(&mut model, "other", &Like { node: Some("n1"), app: Some("a"), ..Like::default() });
    assert_eq!(cpus(&snapshot, "2", &[]), "2-3");
    let around = snapshot
        .around("n1", &snapshot.wish_of(&pod("p", &Like { wishes: &[("dislikes", "batch")], ..Like::default() })));
    assert_eq!(around.disliked.to_string(), "0-1");
    let elsewhere = Like { namespace: "lab", wishes: &[("dislikes", "batch")], ..Like::default() };
    assert!(snapshot.around("n1", &snapshot.wish_of(&pod("p", &elsewhere))).disliked.is_empty());
}

#[test]
fn a_node_that_nobody_of_ours_pins_gets_no_cpus_of_their_own() {
    let mut unowned = topology("n1");
    unowned.spec.pinning = None;
    let mut model = one_node(&[]);
    model.apply(Event::Topologies(Change::Apply(unowned)));
    let snapshot = model.snapshot();
    let wish = snapshot.wish_of(&pod("p", &Like::default()));
    assert_eq!(snapshot.judge(0, &wish), Err(Reason::NodeNotOwned));
    assert_eq!(bound_on(&snapshot, "n1", &pod("p", &Like::default())), Err(Reason::NodeNotOwned));
    assert!(snapshot.why_not("n1", &wish).unwrap().message.contains("spec.pinning"));
    let shared = snapshot.wish_of(&pod("p", &Like { cpu: "500m", ..Like::default() }));
    assert!(snapshot.judge(0, &shared).is_ok());
    assert_eq!(snapshot.distrusted().get(&Reason::NodeNotOwned), Some(&1));
}

#[test]
fn drift_distrusts_until_the_next_status_that_agrees_or_until_a_person_bears_it() {
    let base = || placement("n1", 3, &[("held", "0-1")]);
    let judged = |placement: fairlead_crds::NodePlacement| {
        let mut model = one_node(&[]);
        model.apply(Event::Placements(Change::Apply(placement)));
        let snapshot = model.snapshot();
        let wish = snapshot.wish_of(&pod("p", &Like::default()));
        let detail = snapshot.why_not("n1", &wish).unwrap().message;
        (snapshot.judge(0, &wish).map(|_| ()), bound_on(&snapshot, "n1", &pod("p", &Like::default())).is_ok(), detail)
    };
    assert_eq!(judged(base()).0, Ok(()), "nothing observed yet is pending");
    assert_eq!(judged(observed(base(), 3, &[("held", "Pending", "")])).0, Ok(()));
    assert_eq!(judged(observed(base(), 3, &[("held", "Pinned", "0-1")])).0, Ok(()));
    let (verdict, bound, detail) = judged(observed(base(), 3, &[("held", "Pinned", "2-3")]));
    assert_eq!((verdict, bound), (Err(Reason::NodeDrifted), false));
    assert!(detail.contains("runs on CPUs 2-3, promised are 0-1") && detail.contains("fairlead.dev/trust"), "{detail}");
    let mut borne = observed(base(), 3, &[("held", "Drifted", "2-3")]);
    borne.metadata.annotations = Some([("fairlead.dev/trust".to_owned(), "held".to_owned())].into());
    assert_eq!(judged(borne).0, Ok(()));
}

/// Filter judges by the watch, bind by a live reading if it must: what is wrong is wrong for both, what is mended is mended.
#[test]
fn bind_judges_trust_by_the_very_object_it_reads() {
    let base = |generation| placement("n1", generation, &[("held", "0-1")]);
    let sound = || observed(base(3), 3, &[("held", "Pinned", "0-1")]);
    let odd = [
        (observed(base(3), 3, &[("held", "Pinned", "x")]), Reason::NodeDistrusted),
        (observed(base(3), 3, &[("held", "Pinned", "2-3")]), Reason::NodeDrifted),
        (placement("n1", 3, &[("held", "0-1"), ("other", "1-2")]), Reason::NodeDistrusted),
        (placement("n1", 3, &[("held", "x")]), Reason::NodeDistrusted),
    ];
    let seen = |placement: fairlead_crds::NodePlacement| {
        let mut model = one_node(&[]);
        model.apply(Event::Placements(Change::Apply(placement)));
        model.snapshot()
    };
    let p = pod("p", &Like::default());
    let live = |snapshot: &Snapshot, placement: &fairlead_crds::NodePlacement| {
        reserved(snapshot, &p, &snapshot.placement_live("n1", placement))
    };
    for (odd, reason) in odd {
        let snapshot = seen(odd.clone());
        assert_eq!(snapshot.judge(0, &snapshot.wish_of(&p)).map(|_| ()), Err(reason));
        assert_eq!(bound_on(&snapshot, "n1", &p).map(|_| ()), Err(reason), "by the watch");
        assert_eq!(live(&snapshot, &odd).map(|_| ()), Err(reason), "live");
        assert!(live(&snapshot, &sound()).is_ok(), "mended since");
        assert_eq!(live(&seen(sound()), &odd).map(|_| ()), Err(reason), "not seen by the watch yet");
    }
}

fn weighed(used_cpus: u32, waiting: bool) -> (Weighing, Arc<Snapshot>) {
    let mut model = one_node(&[]);
    model.apply(Event::Namespaces(Change::Reset(vec![namespace("shop", None), namespace("lab", None)])));
    let tenants = [quota("shop", 1, &["shop"], json!({})), quota("lab", 2, &["lab"], json!({}))];
    model.apply(Event::Quotas(Change::Reset(tenants.to_vec())));
    for index in 0..used_cpus {
        add_pod(&mut model, &format!("s{index}"), &Like { cpu: "1", node: Some("n1"), ..Like::default() });
    }
    if waiting {
        for index in 0..8 {
            for namespace in ["shop", "lab"] {
                let uid = format!("{namespace}-w{index}");
                add_pod(&mut model, &uid, &Like { namespace, cpu: "1", gated: true, ..Like::default() });
            }
        }
    }
    let snapshot = model.snapshot();
    (snapshot.weighing(&snapshot.wish_of(&pod("p", &Like::default()))), snapshot)
}

#[test]
fn a_tenant_below_its_entitlement_is_aligned_and_one_above_is_steered_to_leftovers() {
    // Both want all: each is entitled to half of 8 CPUs.
    let at = |used: u32| {
        let weighing = weighed(used, true).0;
        assert_eq!((weighing.resource.as_deref(), weighing.entitled), (Some("cpu"), 4_000), "{used}");
        weighing.alignment_permille
    };
    assert_eq!([at(0), at(2), at(4), at(6), at(8)], [1_000, 750, 500, 250, 0]);
    // Alone it is entitled to what it uses.
    assert_eq!(weighed(6, false).0.alignment_permille, 500);
    let (_, snapshot) = weighed(2, true);
    let nobody = snapshot.weighing(&snapshot.wish_of(&pod("p", &Like { namespace: "kube-system", ..Like::default() })));
    assert_eq!((nobody.alignment_permille, nobody.tenant), (500, None));
    let idle = snapshot.weighing(&snapshot.wish_of(&pod("p", &Like { namespace: "lab", ..Like::default() })));
    assert_eq!((idle.alignment_permille, idle.used), (1_000, 0));
    assert_eq!(idle.points(Score { alignment: 70, holes: 10 }), 70);
}

#[test]
fn an_explanation_tells_every_term_and_a_replayed_dump_tells_the_same() {
    let mut model = with_pools(vec![pool("own", 1, Some("a"), json!({"align": "SingleNUMA"}))]);
    model.apply(Event::Placements(Change::Apply(placement("n1", 1, &[("other", "0-1")]))));
    add_pod(&mut model, "other", &Like { node: Some("n1"), ..Like::default() });
    let snapshot = add_pod(&mut model, "p", &Like { app: Some("a"), cpu: "2", ..Like::default() });
    let explained = snapshot.explain(snapshot.pod_named("shop", "p").unwrap());
    let text = serde_json::to_value(&explained).unwrap();
    assert_eq!(text["wish"]["align"], json!({"value": "SingleNUMA", "source": "Pool"}));
    assert_eq!(text["weighing"]["alignmentPermille"], 500);
    let node = &text["nodes"][0];
    assert_eq!(node["terms"]["containers"], json!([{"name": "main", "cpus": "2-3"}]));
    assert_eq!((&node["terms"]["numaNodes"], &node["terms"]["numaLeftCpus"]), (&json!(1), &json!(0)));
    // Three cores are free, two of them in one NUMA node (there is no L3).
    assert_eq!(
        (&node["holes"], &node["terms"]["holesAfter"]),
        (&json!([3, 1, 0, 0, 0, 0, 0, 0]), &json!([2, 1, 0, 0, 0, 0, 0, 0]))
    );
    let replayed = Model::from_dump(&snapshot.dump()).unwrap().snapshot();
    let again = replayed.explain(replayed.pod_named("shop", "p").unwrap());
    assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&explained).unwrap());
}
