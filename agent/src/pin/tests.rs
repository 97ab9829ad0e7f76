//! Single rules of the pinning.
use fairlead_topology::{CoreDescription, CpuMask, MachineDescription, NumaDescription};

use super::{Cores, Event, Place, Promise, Request, Seen, State, Version, observed, step};

fn mask(text: &str) -> CpuMask {
    CpuMask::parse_list(text).unwrap()
}

fn cores(list: &str) -> Cores {
    Cores { usable: mask(list), shared: mask(list), memory_nodes: mask("0-1") }
}

fn seen(pod: &str, placed: bool) -> Seen {
    Seen {
        id: format!("id-{pod}"),
        sandbox: format!("s-{pod}"),
        pod_uid: pod.into(),
        namespace: "ns".into(),
        pod_name: pod.into(),
        name: "c".into(),
        placed,
        ..Seen::default()
    }
}

fn promise(cpus: &str) -> Promise {
    let containers = [("c".to_owned(), mask(cpus))].into();
    Promise { cpus: mask(cpus), containers, memory_nodes: mask("0"), ..Promise::default() }
}

fn promises(of: &[(&str, Promise)]) -> Event {
    let promises = of.iter().map(|(uid, promise)| ((*uid).to_owned(), promise.clone())).collect();
    Event::Promises { version: Version { uid: "p".into(), generation: 1 }, promises }
}

fn after(events: Vec<Event>) -> (State, Vec<Request>) {
    let start = (State::new(false, Some("agent".into())), Vec::new());
    events.into_iter().fold(start, |(state, _), event| step(state, 0, event))
}

fn create(pod: &str, placed: bool) -> Event {
    Event::Create { call: 1, seen: seen(pod, placed), until_ms: 1_500 }
}

fn ready(list: &str) -> Vec<Event> {
    vec![Event::Machine(cores(list)), Event::Synchronized(Vec::new())]
}

fn refusal(requests: &[Request]) -> Option<&str> {
    requests.iter().find_map(|request| match request {
        Request::Refuse { message, .. } => Some(message.as_str()),
        _ => None,
    })
}

#[test]
fn isolated_cpus_are_owned_and_never_shared() {
    let description = MachineDescription {
        cores: (0..4).map(|id| CoreDescription { id, cpus: CpuMask::from_ids([id, id + 4]) }).collect(),
        numa_nodes: vec![
            NumaDescription { id: 0, memory_bytes: 1, ..NumaDescription::default() },
            NumaDescription { id: 5, ..NumaDescription::default() },
        ],
        isolated: mask("2-3"),
        disallowed: mask("7"),
        offline: mask("6"),
        ..MachineDescription::default()
    };
    let cores = Cores::of(&description);
    assert_eq!([&cores.usable, &cores.shared, &cores.memory_nodes].map(ToString::to_string), ["0-5", "0-1,4-5", "0"]);
    let all = Cores::of(&MachineDescription { isolated: mask("0-7"), ..description });
    assert_eq!(all.shared.to_string(), "0-5");
}

#[test]
fn the_agents_own_pod_is_left_alone() {
    let mut events = ready("0-7");
    events.push(create("agent", false));
    let (state, requests) = after(events);
    assert!(matches!(&requests[..], [Request::Adjust { place: None, .. }]));
    assert!(state.containers.is_empty());
}

#[test]
fn nobody_takes_the_last_shared_cpu() {
    let mut events = ready("0-3");
    events.extend([promises(&[("a", promise("0-3"))]), create("a", true)]);
    let (_, requests) = after(events);
    assert_eq!(refusal(&requests), Some("ns/a/c: promised CPUs 0-3 would leave no CPU to the shared pool"));
}

#[test]
fn promised_cpus_are_not_given_while_another_pod_holds_them() {
    let mut events = ready("0-7");
    events.extend([promises(&[("a", promise("2-3"))]), create("a", true)]);
    events.extend([promises(&[("b", promise("3-4"))]), create("b", true)]);
    let (_, requests) = after(events.clone());
    assert_eq!(refusal(&requests), Some("ns/b/c: promised CPUs 3 are still held by ns/a/c"));
    events.extend([Event::PodGone("s-a".into()), create("b", true)]);
    let (state, requests) = after(events);
    assert_eq!(refusal(&requests), None);
    assert_eq!(state.pool().to_string(), "0-2,5-7");
}

#[test]
fn an_idle_sibling_belongs_to_nobody_else() {
    let mut half = promise("2");
    half.cpus = mask("2,6");
    let mut events = ready("0-7");
    events.extend([promises(&[("a", half)]), create("a", true)]);
    let (state, requests) = after(events.clone());
    let place = requests.iter().find_map(|request| match request {
        Request::Adjust { place, .. } => place.clone(),
        _ => None,
    });
    assert_eq!(place, Some(Place { cpus: mask("2"), memory_nodes: mask("0"), unlimited: true }));
    assert_eq!(state.pool().to_string(), "0-1,3-5,7");
    events.extend([promises(&[("b", promise("6"))]), create("b", true)]);
    assert!(refusal(&after(events).1).unwrap().contains("CPUs 6 are still held"));
}

#[test]
fn an_older_read_does_not_undo_a_newer_watch() {
    let of =
        |generation, uid: &str| (Version { uid: uid.into(), generation }, [("a".to_owned(), promise("2-3"))].into());
    let (version, newer) = of(3, "p");
    let mut events = ready("0-7");
    events.push(Event::Promises { version, promises: newer });
    let known = |read: (Version, super::Promises)| {
        let (state, _) = after([events.clone(), vec![Event::Read(Ok(read))]].concat());
        state.promises.len()
    };
    assert_eq!(known((Version { uid: "p".into(), generation: 2 }, super::Promises::new())), 1);
    assert_eq!(known((Version { uid: "p".into(), generation: 4 }, super::Promises::new())), 0);
    assert_eq!(known((Version { uid: "q".into(), generation: 1 }, super::Promises::new())), 0);
}

#[test]
fn a_promise_that_cannot_be_read_refuses_its_own_containers() {
    let faulty = Promise { fault: Some("spec.reservations[podUID=a].cpus: no number".into()), ..promise("2-3") };
    let mut events = ready("0-7");
    events.extend([promises(&[("a", faulty), ("b", promise("4-5"))]), create("a", true)]);
    let (_, requests) = after(events.clone());
    assert_eq!(
        refusal(&requests),
        Some("ns/a/c: the reservation cannot be read: spec.reservations[podUID=a].cpus: no number")
    );
    events.push(create("b", true));
    assert_eq!(refusal(&after(events).1), None);
}

/// Where admission policies are off anybody may write the annotation.
#[test]
fn an_annotation_alone_earns_nothing() {
    let place = |cpus: &str| Some(Place { cpus: mask(cpus), memory_nodes: mask("0-1"), unlimited: true });
    let claimed = |annotated: &str, runs: &str| {
        let forged = Seen { annotated: place(annotated), runs: place(runs), ..seen("a", true) };
        let (state, _) = after(vec![Event::Machine(cores("0-7")), Event::Synchronized(vec![forged])]);
        state.containers["id-a"].claim.is_some()
    };
    assert!(claimed("2-3", "2-3"));
    for (annotated, runs) in [("2-3", "0-7"), ("0-7", "0-7"), ("2-3", "2-4")] {
        assert!(!claimed(annotated, runs), "{annotated} {runs}");
    }
}

#[test]
fn what_is_not_created_yet_is_pending_and_no_fault() {
    let mut events = ready("0-7");
    events.push(promises(&[("a", promise("2-3"))]));
    let seen = observed(&after(events).0);
    assert_eq!(seen.containers[0].state, fairlead_crds::node_placement::PinState::Pending);
    assert_eq!((seen.pinned.status, seen.shared_cpus.as_str()), (Some(true), "0-1,4-7"));
    let lost = observed(&after(vec![Event::Machine(cores("0-7"))]).0);
    assert_eq!((lost.pinned.status, lost.pinned.reason.as_str()), (None, "RuntimeAway"));
}

/// Neither the promise nor the annotation tells any more: the agent's own memory does, and after its restart the checkpoint.
#[test]
fn a_claim_outlives_everything_but_its_container() {
    let mut half = promise("2");
    half.cpus = mask("2,6");
    let mut events = ready("0-7");
    events.extend([promises(&[("a", half)]), create("a", true), promises(&[]), Event::Lost]);
    let (state, _) = after(events);
    let place = Place { cpus: mask("2"), memory_nodes: mask("0"), unlimited: true };
    let list = Event::Synchronized(vec![Seen { runs: Some(place), ..seen("a", true) }]);
    let remembered = state.to_remember();
    let (state, requests) = step(state, 0, list.clone());
    assert_eq!((state.pool().to_string().as_str(), &requests[..]), ("0-1,3-5,7", &[Request::Remember][..]));
    let (state, requests) = after(vec![Event::Machine(cores("0-7")), Event::Remembered(remembered), list]);
    assert_eq!((state.pool().to_string().as_str(), &requests[..]), ("0-1,3-5,7", &[Request::Remember][..]));
    let (state, _) = step(state, 0, Event::Gone("id-a".into()));
    assert_eq!(state.pool().to_string(), "0-7");
}

/// I8: CPUs of others that went offline leave less to share, and take nothing from who runs on its own.
#[test]
fn a_restart_with_cpus_offline_unpins_nobody() {
    let place = Place { cpus: mask("0-3"), memory_nodes: mask("0"), unlimited: true };
    let list = || Event::Synchronized(vec![Seen { runs: Some(place.clone()), ..seen("a", true) }]);
    let mut events = vec![Event::Machine(cores("0-7")), promises(&[("a", promise("0-3"))]), list()];
    let remembered = after(events.clone()).0.to_remember();
    events[0] = Event::Machine(cores("0-3"));
    let by_promise = after(events).0;
    let by_checkpoint = after(vec![Event::Machine(cores("0-3")), Event::Remembered(remembered), list()]).0;
    for state in [by_promise, by_checkpoint] {
        assert_eq!(state.containers["id-a"].claim.as_ref().map(|claim| claim.cpus.clone()), Some(mask("0-3")));
    }
}

/// It names the CPUs of the shared pool, on which its container runs like any other.
#[test]
fn a_forged_annotation_does_not_take_the_pool() {
    let pool = Place { cpus: mask("0-5"), memory_nodes: mask("0-1"), unlimited: true };
    let runs = |pod: &str, placed| Seen { runs: Some(pool.clone()), ..seen(pod, placed) };
    let forged = Seen { annotated: Some(pool.clone()), ..runs("a", true) };
    let list = Event::Synchronized(vec![forged.clone(), runs("b", false)]);
    let (state, _) = after(vec![Event::Machine(cores("0-7")), list]);
    assert!(state.containers["id-a"].claim.is_none());
    // Alone there, but this agent remembers that it put it into the pool.
    let told = [("id-a".to_owned(), vec![Place { unlimited: false, ..pool.clone() }])].into();
    let remembered = super::Remembered { told, ..super::Remembered::default() };
    let list = Event::Synchronized(vec![forged]);
    let (state, _) = after(vec![Event::Machine(cores("0-7")), Event::Remembered(remembered), list]);
    assert!(state.containers["id-a"].claim.is_none());
}

#[test]
fn tries_that_came_to_nothing_take_no_memory() {
    let mut events = ready("0-7");
    for number in 0..50 {
        let seen = Seen { id: format!("try-{number}"), ..seen("a", false) };
        events.push(Event::Create { call: number, seen, until_ms: 1_500 });
    }
    assert_eq!(after(events).0.containers.len(), 1);
}

/// Not in the list, because the connection was lost in the middle of its creation.
#[test]
fn a_container_that_nobody_was_asked_about_is_taken_over() {
    let place = Place { cpus: mask("2-3"), memory_nodes: mask("0"), unlimited: true };
    let mut events = ready("0-7");
    events.extend([promises(&[("a", promise("2-3"))]), Event::Created(Seen { runs: Some(place), ..seen("a", true) })]);
    let (state, _) = after(events);
    assert!(state.containers["id-a"].claim.is_some() && state.rival().is_none());
}

/// Cpusets of this agent's own are remembered by container; any other is another writer's, until its container is gone.
#[test]
fn another_writers_container_is_left_where_it_is() {
    let at = |cpus: &str| Place { cpus: mask(cpus), memory_nodes: mask("0-1"), unlimited: false };
    let list = || Event::Synchronized(vec![Seen { runs: Some(at("0-1")), ..seen("a", false) }]);
    let told = [("id-a".to_owned(), vec![at("0-1")])].into();
    let remembered = super::Remembered { told, ..super::Remembered::default() };
    let own = after(vec![Event::Machine(cores("0-7")), Event::Remembered(remembered), list()]);
    assert!(own.0.rival().is_none() && own.1.contains(&Request::UpdateContainers(vec![("id-a".into(), at("0-7"))])));

    let mut events = vec![Event::Machine(cores("0-7")), list(), Event::Lost, list()];
    let (state, requests) = after(events.clone());
    assert!(state.rival().is_some_and(|rival| rival.starts_with("ns/a/c was given CPUs 0-1")));
    assert_eq!(requests, [Request::Remember]);
    events.push(Event::Gone("id-a".into()));
    assert!(after(events).0.rival().is_none());
}

/// The kernel lets what has no CPU left run on all that its parent has, those of claims included.
#[test]
fn a_pool_without_cpus_is_reported() {
    let mut events = ready("0-7");
    events.extend([promises(&[("a", promise("0-3"))]), create("a", true), create("s", false)]);
    events.extend([Event::Created(seen("s", false)), Event::Machine(cores("0-3"))]);
    let pinned = observed(&after(events).0).pinned;
    assert_eq!((pinned.status, pinned.reason.as_str()), (Some(false), "SharedContainersNotMoved"));
    assert_eq!(pinned.message, "1 container(s): ns/s/c: no CPU is left to the shared pool");
}

/// However often it was told since: what it was told there tells its place from another writer's.
#[test]
fn the_place_where_a_container_runs_is_remembered() {
    let mut events = ready("0-15");
    events.extend([create("s", false), Event::Created(seen("s", false)), Event::Started("id-s".into())]);
    // The kubelet changes its quota again and again, and each time it fails.
    for cpu in 1..15 {
        let refused = Event::Updated(Some("no".into()));
        events.extend([promises(&[("a", promise(&cpu.to_string()))]), refused, changed_by_kubelet(None)]);
    }
    let (state, _) = after(events);
    let told = &state.containers["id-s"].told;
    assert!(told.len() <= 8 && told.iter().any(|place| place.cpus == mask("0-15")), "{told:?}");
}

fn changed_by_kubelet(cpus: Option<&str>) -> Event {
    let asked = cpus.map(|cpus| Place { cpus: mask(cpus), ..Place::default() });
    Event::Update { call: 9, seen: seen("s", false), asked }
}

fn now_on(cpus: &str) -> Event {
    let place = Place { cpus: mask(cpus), memory_nodes: mask("0-1"), unlimited: false };
    Event::Changed(Seen { runs: Some(place), started: true, ..seen("s", false) })
}

fn with_a_shared_container() -> Vec<Event> {
    let mut events = ready("0-7");
    events.extend([create("s", false), Event::Created(seen("s", false)), Event::Started("id-s".into())]);
    events
}

/// As one `crictl update --cpuset-cpus`, and not as a writer that stays.
#[test]
fn a_sign_of_another_writer_lapses_once_it_was_corrected() {
    let mut events = with_a_shared_container();
    events.push(changed_by_kubelet(Some("0-1")));
    let rival_at = |more: Vec<Event>, now_ms| {
        let (state, _) = after([events.clone(), more].concat());
        let state = step(state, now_ms, Event::Tick).0;
        (state.rival().is_some(), state.due_ms())
    };
    assert_eq!(rival_at(vec![now_on("0-7")], 59_999), (true, Some(60_000)));
    assert!(!rival_at(vec![now_on("0-7")], 60_000).0);
    // The change failed, and nobody tells.
    assert!(!rival_at(Vec::new(), 60_000).0);
    // It was not corrected, or came back.
    assert_eq!(rival_at(vec![now_on("0-1")], 600_000), (true, None));
    let again = step(after(events.clone()).0, 50_000, changed_by_kubelet(Some("0-1"))).0;
    assert!(step(again, 60_000, Event::Tick).0.rival().is_some());
}

/// A runtime may repeat a place of before.
#[test]
fn an_earlier_place_of_our_own_is_no_sign() {
    let mut events = with_a_shared_container();
    events.extend([promises(&[("a", promise("2-3"))]), Event::Updated(None), changed_by_kubelet(Some("0-7"))]);
    assert_eq!(after(events).0.rival(), None);
}

#[test]
fn the_rival_that_was_named_first_stays_named() {
    let at = |pod: &str| {
        let place = Place { cpus: mask("0-1"), memory_nodes: mask("0-1"), unlimited: false };
        Event::Create { call: 1, seen: Seen { runs: Some(place), ..seen(pod, false) }, until_ms: 1_500 }
    };
    let mut events = ready("0-7");
    events.extend([at("s"), Event::Created(seen("s", false)), at("b"), Event::Created(seen("b", false))]);
    assert!(after(events.clone()).0.rival().unwrap().starts_with("ns/s/c"));
    events.push(Event::Gone("id-s".into()));
    assert!(after(events).0.rival().unwrap().starts_with("ns/b/c"));
}

fn object(uid: &str, generation: i64, pods: &[&str]) -> (Version, super::Promises) {
    let promises = pods.iter().map(|pod| ((*pod).to_owned(), promise("2-3"))).collect();
    (Version { uid: uid.into(), generation }, promises)
}

fn watched(uid: &str, generation: i64, pods: &[&str]) -> Event {
    let (version, promises) = object(uid, generation, pods);
    Event::Promises { version, promises }
}

fn promised(events: Vec<Event>) -> (Vec<String>, Vec<Request>) {
    let (state, requests) = after(events);
    (state.promises.keys().cloned().collect(), requests)
}

/// Generations of two objects tell nothing of which is newer.
#[test]
fn a_read_that_the_watch_overtook_is_asked_again() {
    let mut events = ready("0-7");
    events.extend([watched("p", 5, &[]), create("a", true), watched("q", 1, &["b"])]);
    events.push(Event::Read(Ok(object("p", 5, &[]))));
    let (known, requests) = promised(events.clone());
    assert_eq!((known, &requests[..]), (vec!["b".to_owned()], &[Request::ReadPlacement][..]));
    events.push(Event::Read(Ok(object("r", 1, &["a"]))));
    assert_eq!(promised(events).0, ["a"]);
}

/// The read was quicker than the watch.
#[test]
fn what_the_watch_tells_late_does_not_undo_a_read() {
    let mut events = ready("0-7");
    events.extend([watched("p", 5, &[]), create("a", true), Event::Read(Ok(object("q", 1, &["a"])))]);
    for late in [watched("p", 6, &["b"]), watched("", 0, &[])] {
        let (known, requests) = promised([events.clone(), vec![late]].concat());
        assert_eq!(known, ["a"]);
        assert!(requests.contains(&Request::ReadPlacement));
    }
    // Asked again, and so it is.
    events.extend([watched("", 0, &[]), Event::Read(Ok(object("", 0, &[])))]);
    assert!(promised(events.clone()).0.is_empty());
    events.push(watched("q", 2, &["b"]));
    assert_eq!(promised(events).0, ["b"]);
}

/// The runtime tells of one container by several threads: what comes late or twice changes nothing for long.
#[test]
fn events_out_of_order_come_to_the_same() {
    let shown = |cpus: &str, started| {
        let place = Place { cpus: mask(cpus), memory_nodes: mask("0"), unlimited: true };
        Seen { runs: Some(place), started, ..seen("a", true) }
    };
    let start = [ready("0-7"), vec![promises(&[("a", promise("2-3"))]), create("a", true)]].concat();
    let created = || Event::Created(shown("2-3", false));
    let started = || Event::Started("id-a".into());
    let list = || Event::Synchronized(vec![shown("2-3", true)]);
    let orders = [
        vec![created(), started()],
        vec![started(), created()],
        vec![created(), Event::Changed(shown("2-3", true)), started()],
        vec![created(), started(), list(), list()],
        vec![list(), created(), started()],
    ];
    for order in orders {
        let (state, _) = after([start.clone(), order.clone()].concat());
        assert_eq!(state.pool().to_string(), "0-1,4-7", "{order:?}");
        assert_eq!((observed(&state).pinned.status, state.rival()), (Some(true), None), "{order:?}");
        let (state, _) = step(state, 10_000, Event::Gone("id-a".into()));
        assert!(state.held().is_empty() && state.containers.is_empty(), "{order:?}");
        // As long as nobody tells otherwise it is there; the next list does.
        let (state, _) = step(state, 10_001, created());
        let (state, _) = step(state, 10_002, Event::Lost);
        let (state, _) = step(state, 10_003, Event::Synchronized(Vec::new()));
        assert!(state.held().is_empty() && state.containers.is_empty(), "{order:?}");
    }
}
