//! Who lies around whom: dislike works both ways, whatever the holder's CPUs are known from, against an oracle that knows the
//! rule and nothing of the views.
#![allow(clippy::unwrap_used, reason = "tests")]
mod support;

use fairlead_cluster::{Change, Event, Model, Snapshot};
use fairlead_placement::{Promise, Reservation};
use fairlead_topology::CpuMask;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use support::{Like, add_pod, bound_on, model, node, placement, pod, pool, topology};

/// Label `app` (which is the pool's name too), annotation, and the namespace.
type Who = (Option<&'static str>, &'static [(&'static str, &'static str)], &'static str);

/// Pool `a` dislikes `b`, pool `c` itself; the annotations go before.
const WHO: [Who; 9] = [
    (None, &[], "shop"),
    (Some("a"), &[], "shop"),
    (Some("b"), &[], "shop"),
    (Some("c"), &[], "shop"),
    (Some("b"), &[("dislikes", "c")], "shop"),
    (Some("c"), &[("dislikes", "")], "shop"),
    (None, &[("dislikes", "a")], "shop"),
    (None, &[("dislikes", "a")], "lab"),
    (Some("a"), &[("dislikes", "NOT A POOL")], "shop"),
];

fn pool_of(who: &Who) -> Option<&'static str> {
    who.0.filter(|_| who.2 == "shop")
}

fn dislikes(who: &Who) -> BTreeSet<&'static str> {
    let own = match pool_of(who) {
        Some("a") => "b",
        Some("c") => "c",
        _ => "",
    };
    let said = who.1.iter().find(|said| is_readable(said)).map_or(own, |(_, value)| value);
    // A pod whose annotation cannot be read is still one of its pool.
    [said].into_iter().filter(|name| !name.is_empty()).collect()
}

fn is_readable((_, value): &(&str, &str)) -> bool {
    *value != "NOT A POOL"
}

/// The pool of a pod whose wish cannot be read does not count for the pod that asks: it is refused everywhere.
fn at_odds(asks: &Who, holds: &Who) -> bool {
    let names = |list: BTreeSet<&str>, pool: Option<&'static str>| pool.is_some_and(|pool| list.contains(pool));
    let readable = asks.1.iter().all(is_readable);
    let both = names(dislikes(asks), pool_of(holds)) || names(dislikes(holds), pool_of(asks));
    asks.2 == holds.2 && readable && both
}

/// What is known of the pod that holds CPUs 0-1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// Bound, and in the NodePlacement.
    Bound,
    /// Bound, by its annotation alone.
    Carries,
    /// In the NodePlacement and not bound yet.
    Reserved,
    /// The same, by what this process has under way alone.
    Promised,
    /// In the NodePlacement of this node and bound to another one.
    Elsewhere,
    /// In the NodePlacement, and no watch shows the pod.
    Unheard,
}

const KNOWN: [Known; 6] =
    [Known::Bound, Known::Carries, Known::Reserved, Known::Promised, Known::Elsewhere, Known::Unheard];

fn like(who: &Who) -> Like {
    Like { app: who.0, wishes: who.1, namespace: who.2, ..Like::default() }
}

/// `first`: whether the pod is heard of before its CPUs.
fn cluster(holds: &Who, known: Known, first: bool) -> Model {
    let names = ["n1", "n2"];
    let listed: &[(&str, &str)] =
        if matches!(known, Known::Carries | Known::Promised) { &[] } else { &[("holder", "0-1")] };
    let empty = names.map(|name| placement(name, 1, &[]));
    let mut model = model(names.map(node).to_vec(), names.map(topology).to_vec(), empty.to_vec());
    let colocation = |dislikes: &str| json!({ "colocation": { "dislikes": [dislikes] } });
    let pools = [
        pool("a", 1, Some("a"), colocation("b")),
        pool("b", 1, Some("b"), json!({})),
        pool("c", 1, Some("c"), colocation("c")),
    ];
    let hear = |model: &mut Model| {
        let node = match known {
            Known::Bound | Known::Carries => Some("n1"),
            Known::Elsewhere => Some("n2"),
            _ => None,
        };
        let carries = (known == Known::Carries).then_some("0-1");
        if known != Known::Unheard {
            add_pod(model, "holder", &Like { node, carries, ..like(holds) });
        }
    };
    let hold = |model: &mut Model| {
        model.apply(Event::Placements(Change::Apply(placement("n1", 2, listed))));
        if known == Known::Promised {
            let cpus = CpuMask::parse_list("0-1").unwrap();
            let id = fairlead_cluster::PodWish::of(&pod("holder", &like(holds))).id;
            let choice = fairlead_cluster::Choice { cpus, ..Default::default() };
            let reservation = Some(Reservation::of_choice(id, 0, choice));
            model.assume("n1", Promise { pod_uid: "holder".into(), shared_milli: 0, reservation });
        }
        model.snapshot();
    };
    if first {
        hear(&mut model);
        model.apply(Event::Pools(Change::Reset(pools.to_vec())));
        hold(&mut model);
    } else {
        hold(&mut model);
        hear(&mut model);
        model.apply(Event::Pools(Change::Reset(pools.to_vec())));
    }
    model
}

fn disliked(snapshot: &Arc<Snapshot>, uid: &str, who: &Who) -> String {
    snapshot.around("n1", &snapshot.wish_of(&pod(uid, &like(who)))).disliked.to_string()
}

#[test]
fn dislike_works_both_ways_whatever_the_cpus_are_known_from() {
    for holds in &WHO {
        for known in KNOWN {
            let snapshot = cluster(holds, known, true).snapshot();
            assert_eq!(snapshot, cluster(holds, known, false).snapshot(), "{holds:?} {known:?}: in another order");
            for asks in &WHO {
                let here = !matches!(known, Known::Elsewhere | Known::Unheard);
                let wanted = if here && at_odds(asks, holds) { "0-1" } else { "" };
                assert_eq!(disliked(&snapshot, "new", asks), wanted, "{asks:?} asks, {holds:?} {known:?}");
                assert_eq!(disliked(&snapshot, "holder", asks), "", "nobody keeps itself away");
                let wish = snapshot.wish_of(&pod("new", &like(asks)));
                for index in [0, 1] {
                    assert_eq!(snapshot.judge_of(&wish).of(index), snapshot.judge(index, &wish));
                }
            }
        }
    }
}

/// Threads of one core: the second of the two pods is kept off it, whichever of them came first.
#[test]
fn neither_of_two_at_odds_gets_a_thread_beside_the_other() {
    let thread =
        |who: &'static str| Like { app: Some(who), cpu: "1", wishes: &[("threads", "Any")], ..Like::default() };
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut model = cluster(&(Some(first), &[("threads", "Any")], "shop"), Known::Reserved, true);
        model.apply(Event::Placements(Change::Apply(placement("n1", 3, &[("holder", "0")]))));
        let cpus = bound_on(&model.snapshot(), "n1", &pod("new", &thread(second))).unwrap();
        assert_eq!(cpus.to_string(), "4", "{second} beside {first}: another core, and another cache");
        let cpus = bound_on(&model.snapshot(), "n1", &pod("new", &thread("other"))).unwrap();
        assert_eq!(cpus.to_string(), "1", "a stranger fills the core");
    }
}

#[test]
fn a_pod_that_changes_its_mind_before_it_is_bound_is_heard() {
    let mut model = cluster(&WHO[0], Known::Reserved, true);
    let asks = &WHO[1];
    assert_eq!(disliked(&model.snapshot(), "new", asks), "");
    let angry = Like { wishes: &[("dislikes", "a")], ..like(&WHO[0]) };
    let snapshot = add_pod(&mut model, "holder", &angry);
    assert_eq!(disliked(&snapshot, "new", asks), "0-1");
    model.apply(Event::Pods(Change::Delete(pod("holder", &angry))));
    assert_eq!(disliked(&model.snapshot(), "new", asks), "");
}
