//! Laws over random clusters: a relist gives what the events gave (I7); filter and choice never disagree; what is remembered
//! is what would be found anew.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
mod support;

use fairlead_cluster::{Change, Dump, Event, Model, Snapshot};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Like, OWN, bound_on, namespace, node_with, observed, placement, pod, pool, quota, topology};

/// CPUs, label `app` and annotations of a pod that wishes something.
type Wishing = (&'static str, Option<&'static str>, &'static [(&'static str, &'static str)]);

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const NAMESPACES: [&str; 3] = ["shop", "lab", "kube-system"];
const APPS: [&str; 2] = ["a", "b"];
const POOL_WISHES: [&str; 4] = [
    "{}",
    r#"{"cpus": "Shared"}"#,
    r#"{"align": "SingleNUMA", "mode": "Decide"}"#,
    r#"{"cpus": "Exclusive", "colocation": {"likes": ["blue"], "dislikes": ["red"]}}"#,
];
const STATES: [&str; 4] = ["Pending", "Pinned", "Unpinned", "Drifted"];
const CPU_LISTS: [&str; 5] = ["0-1", "2-3", "4-7", "1-2", "9"];

/// The last state of one object; `None`: it is gone.
#[derive(Clone, Debug, Default)]
struct Facts {
    nodes: BTreeMap<usize, Option<usize>>,
    topologies: BTreeMap<usize, Option<bool>>,
    placements: BTreeMap<usize, Option<(i64, PlacementLike)>>,
    pods: BTreeMap<usize, Option<Like>>,
    quotas: BTreeMap<usize, Option<(u32, Vec<usize>)>>,
    namespaces: BTreeMap<usize, Option<bool>>,
    pools: BTreeMap<usize, Option<PoolLike>>,
}

/// Second of creation, index of the label, index of the wish.
type PoolLike = (u32, Option<usize>, usize);

/// Indices of CPU lists, and what the agent observed: indices of a state and of a CPU list.
type PlacementLike = (Vec<usize>, Option<(usize, usize)>);

#[derive(Clone, Debug)]
enum Step {
    Node(usize, Option<usize>),
    /// Whether the agent pins.
    Topology(usize, Option<bool>),
    Placement(usize, Option<PlacementLike>),
    Pod(usize, Option<Like>),
    Quota(usize, Option<(u32, Vec<usize>)>),
    Namespace(usize, Option<bool>),
    Pool(usize, Option<PoolLike>),
}

fn like() -> impl Strategy<Value = Like> {
    let node = prop::option::of(prop::sample::select(NODES.to_vec()));
    let namespace = prop::sample::select(NAMESPACES.to_vec());
    let cpu = prop::sample::select(vec!["1", "2", "4", "500m"]);
    let phase = prop::sample::select(vec!["Pending", "Running", "Failed"]);
    let beside = prop::option::of(prop::sample::select(vec!["500m", "1", "1300m"]));
    let carries = prop::option::of(prop::sample::select(vec!["0-1", "2", "4-7", "9"]));
    let scheduler = prop::sample::select(vec!["fairlead-scheduler", "fairlead-scheduler", "another"]);
    let app = prop::option::of(prop::sample::select(APPS.to_vec()));
    (node, namespace, cpu, phase, any::<bool>(), 0u32..3, carries, beside, scheduler, app).prop_map(
        |(node, namespace, cpu, phase, gated, second, carries, beside, scheduler, app)| Like {
            gated: gated && node.is_none(),
            carries: carries.filter(|_| node.is_some()),
            node,
            namespace,
            cpu,
            phase,
            second,
            beside,
            scheduler,
            app,
            owner: None,
            released: false,
            wishes: &[],
        },
    )
}

fn placement_like() -> impl Strategy<Value = PlacementLike> {
    let seen = prop::option::weighted(0.3, (0..STATES.len(), 0..CPU_LISTS.len()));
    (prop::collection::vec(0..CPU_LISTS.len(), 0..3), seen)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize, prop::option::of(0..3usize)).prop_map(|(i, v)| Step::Node(i, v)),
        (0..3usize, prop::option::of(prop::bool::weighted(0.8))).prop_map(|(i, v)| Step::Topology(i, v)),
        (0..3usize, prop::option::of(placement_like())).prop_map(|(i, v)| Step::Placement(i, v)),
        (0..2usize, prop::option::of((0u32..2, prop::option::of(0..2usize), 0..POOL_WISHES.len())))
            .prop_map(|(i, v)| Step::Pool(i, v)),
        (0..6usize, prop::option::of(like())).prop_map(|(i, v)| Step::Pod(i, v)),
        (0..3usize, prop::option::of((0u32..3, prop::collection::vec(0..3usize, 0..3))))
            .prop_map(|(i, v)| Step::Quota(i, v)),
        (0..3usize, prop::option::of(any::<bool>())).prop_map(|(i, v)| Step::Namespace(i, v)),
    ]
}

fn make_node(i: usize, v: usize) -> k8s_openapi::api::core::v1::Node {
    node_with(NODES[i], "8", ["8", "7", "6500m"][v])
}

fn make_placement(i: usize, generation: i64, (lists, seen): &PlacementLike) -> fairlead_crds::NodePlacement {
    let uids: Vec<String> = (0..lists.len()).map(|n| format!("p{n}")).collect();
    let pairs: Vec<(&str, &str)> = uids.iter().zip(lists).map(|(uid, &list)| (uid.as_str(), CPU_LISTS[list])).collect();
    let made = placement(NODES[i], generation, &pairs);
    let seen: Vec<_> = seen.iter().map(|&(state, list)| ("p0", STATES[state], CPU_LISTS[list])).collect();
    if seen.is_empty() { made } else { observed(made, generation, &seen) }
}

fn make_topology(i: usize, owned: bool) -> fairlead_crds::NodeTopology {
    let mut made = topology(NODES[i]);
    if !owned {
        made.spec.pinning = None;
    }
    made
}

fn make_pool(i: usize, &(second, app, wish): &PoolLike) -> fairlead_crds::WorkerPool {
    let wish = serde_json::from_str(POOL_WISHES[wish]).unwrap();
    pool(["blue", "red"][i], second, app.map(|app| APPS[app]), wish)
}

fn make_quota(i: usize, v: &(u32, Vec<usize>)) -> fairlead_crds::TenantQuota {
    let namespaces: Vec<&str> = v.1.iter().map(|&n| NAMESPACES[n]).collect();
    quota(&format!("t{i}"), v.0, &namespaces, json!({"concurrency": {"hard": 3}}))
}

fn make_namespace(i: usize, labelled: bool) -> k8s_openapi::api::core::v1::Namespace {
    namespace(NAMESPACES[i], labelled.then_some("t0"))
}

fn make_pod(i: usize, like: &Like) -> k8s_openapi::api::core::v1::Pod {
    pod(&format!("p{i}"), like)
}

fn change<K>(value: Option<K>, gone: impl FnOnce() -> K) -> Change<K> {
    value.map_or_else(|| Change::Delete(gone()), Change::Apply)
}

/// The event of a step; the generation of a placement is the number of the step.
fn event(step: &Step, number: i64) -> Event {
    match step {
        Step::Node(i, v) => Event::Nodes(change(v.map(|v| make_node(*i, v)), || make_node(*i, 0))),
        Step::Topology(i, v) => {
            Event::Topologies(change(v.map(|owned| make_topology(*i, owned)), || topology(NODES[*i])))
        }
        Step::Pool(i, v) => Event::Pools(change(v.as_ref().map(|v| make_pool(*i, v)), || make_pool(*i, &(0, None, 0)))),
        Step::Placement(i, v) => {
            let made = v.as_ref().map(|lists| make_placement(*i, number, lists));
            Event::Placements(change(made, || make_placement(*i, number, &(Vec::new(), None))))
        }
        Step::Pod(i, v) => {
            Event::Pods(change(v.as_ref().map(|like| make_pod(*i, like)), || make_pod(*i, &Like::default())))
        }
        Step::Quota(i, v) => {
            Event::Quotas(change(v.as_ref().map(|v| make_quota(*i, v)), || make_quota(*i, &(0, vec![]))))
        }
        Step::Namespace(i, v) => {
            Event::Namespaces(change(v.map(|l| make_namespace(*i, l)), || make_namespace(*i, false)))
        }
    }
}

fn remember(facts: &mut Facts, step: &Step, number: i64) {
    match step.clone() {
        Step::Node(i, v) => drop(facts.nodes.insert(i, v)),
        Step::Topology(i, v) => drop(facts.topologies.insert(i, v)),
        Step::Placement(i, v) => drop(facts.placements.insert(i, v.map(|lists| (number, lists)))),
        Step::Pool(i, v) => drop(facts.pools.insert(i, v)),
        Step::Pod(i, v) => drop(facts.pods.insert(i, v)),
        Step::Quota(i, v) => drop(facts.quotas.insert(i, v)),
        Step::Namespace(i, v) => drop(facts.namespaces.insert(i, v)),
    }
}

fn list<V, K>(facts: &BTreeMap<usize, Option<V>>, make: impl Fn(usize, &V) -> K) -> Change<K> {
    Change::Reset(facts.iter().filter_map(|(i, v)| Some(make(*i, v.as_ref()?))).collect())
}

fn lists(facts: &Facts) -> Vec<Event> {
    vec![
        Event::Nodes(list(&facts.nodes, |i, v| make_node(i, *v))),
        Event::Topologies(list(&facts.topologies, |i, owned| make_topology(i, *owned))),
        Event::Placements(list(&facts.placements, |i, (number, lists)| make_placement(i, *number, lists))),
        Event::Pods(list(&facts.pods, make_pod)),
        Event::Quotas(list(&facts.quotas, make_quota)),
        Event::Pools(list(&facts.pools, make_pool)),
        Event::Namespaces(list(&facts.namespaces, |i, l| make_namespace(i, *l))),
    ]
}

/// Pods that are judged.
fn asking() -> Vec<(&'static str, Like)> {
    let plain = [
        ("new", "1", None),
        ("new", "3", None),
        ("p0", "2", None),
        ("p1", "6", None),
        ("new", "1500m", None),
        ("new", "1", Some("500m")),
        ("new", "2", Some("2")),
        ("new", "6", Some("1500m")),
        ("p0", "2", Some("100m")),
        ("p1", "500m", Some("3")),
    ];
    let plain = plain.map(|(uid, cpu, beside)| (uid, Like { cpu, beside, ..Like::default() }));
    let wishing: [Wishing; 9] = [
        ("2", Some("a"), &[]),
        ("2", Some("b"), &[("threads", "Any")]),
        ("3", None, &[("align", "SingleNUMA")]),
        ("5", None, &[("align", "Spread"), ("packing", "Spread")]),
        ("2", None, &[("cpus", "Shared")]),
        ("1500m", None, &[("cpus", "Exclusive")]),
        ("2", None, &[("threads", "OnePerCore"), ("cache", "RequireOneL3")]),
        ("2", None, &[("class", "Isolated")]),
        ("2", None, &[("likes", "blue"), ("dislikes", "red"), ("near", "eth0")]),
    ];
    let wishing = wishing.map(|(cpu, app, wishes)| ("new", Like { cpu, app, wishes, ..Like::default() }));
    plain.into_iter().chain(wishing).collect()
}

fn agree(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for (index, view) in (0u32..).zip(snapshot.nodes.iter()) {
        prop_assert_eq!(snapshot.index_of(&view.name), Some(index));
        for (uid, like) in asking() {
            let asking = pod(uid, &like);
            let wish = snapshot.wish_of(&asking);
            let chosen = snapshot.choose(index, &wish);
            prop_assert_eq!(snapshot.judge_of(&wish).of(index), snapshot.judge(index, &wish), "remembered or anew");
            prop_assert_eq!(snapshot.judge(index, &wish), chosen.as_ref().map(|c| c.score).map_err(|reason| *reason));
            // A pod that is bound and carries CPUs is placed no more.
            if view.held_by(uid).is_some() || view.beside.carried.iter().any(|held| held.pod.uid == uid) {
                continue;
            }
            // What the bind step reserves is what was chosen; a pod that filter refuses everywhere it refuses too.
            let reserved = bound_on(snapshot, &view.name, &asking);
            if let Some(refusal) = &wish.refusal {
                prop_assert_eq!(reserved, Err(refusal.reason));
                continue;
            }
            match (&reserved, &chosen) {
                // Of several things missing each names the one it looks for first.
                (Err(_), Err(_)) if view.distrust.is_some() => {}
                _ => prop_assert_eq!(reserved, chosen.as_ref().map(|c| c.cpus.clone()).map_err(|reason| *reason)),
            }
            if let Ok(choice) = chosen {
                prop_assert!(choice.cpus.is_subset(&view.free));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_relist_gives_what_the_events_gave(steps in prop::collection::vec(step(), 0..40), looks in prop::collection::vec(any::<bool>(), 40)) {
        let mut facts = Facts::default();
        let mut walked = Model::new(OWN);
        for empty in lists(&facts) {
            walked.apply(empty);
        }
        for ((step, number), look) in steps.iter().zip(1i64..).zip(looks) {
            walked.apply(event(step, number));
            remember(&mut facts, step, number);
            if look {
                agree(&walked.snapshot())?;
            }
        }
        let walked_to = walked.snapshot();

        let mut listed = Model::new(OWN);
        for kind in lists(&facts).into_iter().rev() {
            listed.apply(kind);
        }
        prop_assert_eq!(&*listed.snapshot(), &*walked_to);

        // The last state of each object, object by object, kinds in another order.
        let mut shuffled = Model::new(OWN);
        for empty in lists(&Facts::default()) {
            shuffled.apply(empty);
        }
        let mut last: Vec<(&Step, i64)> = steps.iter().zip(1i64..).collect();
        last.reverse();
        let mut done = std::collections::HashSet::new();
        for (step, number) in last {
            let (Step::Node(i, _) | Step::Topology(i, _) | Step::Placement(i, _) | Step::Pod(i, _) | Step::Quota(i, _) | Step::Namespace(i, _) | Step::Pool(i, _)) = step;
            if done.insert((std::mem::discriminant(step), *i)) {
                shuffled.apply(event(step, number));
            }
        }
        prop_assert_eq!(&*shuffled.snapshot(), &*walked_to);

        // A relist over what is known changes nothing.
        for kind in lists(&facts) {
            walked.apply(kind);
        }
        let relisted: Arc<Snapshot> = walked.snapshot();
        prop_assert_eq!(&*relisted, &*walked_to);

        // A dump is all there is to it, also as text.
        let dump = walked_to.dump();
        let text = serde_json::to_string(&dump).unwrap();
        let read: Dump = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &dump);
        let replayed = Model::from_dump(&read).unwrap().snapshot();
        prop_assert_eq!(&*replayed, &*walked_to);
        prop_assert_eq!(serde_json::to_string(&replayed.dump()).unwrap(), text);
    }
}
