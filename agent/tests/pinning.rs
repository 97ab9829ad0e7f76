//! The pinning against a stand-in for the container runtime and an API server that is a function.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "support/node.rs"]
mod node;
#[path = "support/runtime/mod.rs"]
mod runtime;

use std::time::Duration;

use fairlead_crds::node_placement::PinState;
use fairlead_crds::node_topology::PinningMode;
use node::{Node, exclusive, reservation, shared};
use runtime::{News, Running};

fn own(node: &Node) -> bool {
    node.pinning().is_some_and(|pinning| pinning.mode == PinningMode::Own)
}

#[tokio::test]
async fn it_registers_and_owns_the_node() {
    let mut node = Node::start().await;
    assert_eq!(node.runtime.news[0], News::Registered { name: "fairlead".into(), index: "99".into() });
    node.until(own).await;
    let pinning = node.pinning().unwrap();
    assert_eq!((pinning.reason.as_str(), pinning.runtime.as_deref()), ("RuntimeReady", Some("stand-in v0")));
    assert_eq!(
        (pinning.cpu_manager_policy.as_deref(), pinning.memory_manager_policy.as_deref()),
        (Some("none"), Some("none"))
    );
}

#[tokio::test]
async fn a_container_runs_on_what_its_pod_was_promised_and_others_beside_it() {
    let mut node = Node::start().await;
    let before = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&before].cpus, "0-15");
    assert_eq!(node.runtime.containers[&before].quota, 100_000);

    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let shrunk = |node: &Node| node.runtime.containers[&before].cpus == "0-3,6-15";
    node.until(shrunk).await;
    let id = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    let running = &node.runtime.containers[&id];
    assert_eq!((running.cpus.as_str(), running.mems.as_str(), running.quota), ("4-5", "1", -1));
    assert_eq!((running.env.len(), running.rlimits.len()), (0, 0));
    // A container of the pod without CPUs of its own.
    let helper = node.runtime.create(&exclusive("a"), "helper").await.unwrap();
    assert_eq!(node.runtime.containers[&helper].cpus, "0-3,6-15");
    node.until(|node| node.state_of("a", "c") == Some(PinState::Pinned)).await;
    assert_eq!(node.observed().unwrap().shared_cpus, "0-3,6-15");

    // Its promise goes, and it keeps its CPUs; it goes, and they come free.
    node.promise(vec![]);
    node.runtime.serve_for(Duration::from_millis(1_300)).await;
    assert_eq!(
        (node.runtime.containers[&id].cpus.as_str(), node.runtime.containers[&before].cpus.as_str()),
        ("4-5", "0-3,6-15")
    );
    node.runtime.remove(&id).await;
    node.until(|node| node.runtime.containers[&before].cpus == "0-15").await;
}

#[tokio::test]
async fn what_the_kubelet_wants_to_change_is_corrected() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let shared = node.runtime.create(&shared("s"), "c").await.unwrap();
    let id = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.runtime.update(&id, "0-7", 200_000).await.unwrap();
    let running = &node.runtime.containers[&id];
    assert_eq!((running.cpus.as_str(), running.mems.as_str(), running.quota), ("4-5", "1", -1));
    node.runtime.update(&shared, "4-5", 200_000).await.unwrap();
    let running = &node.runtime.containers[&shared];
    assert_eq!((running.cpus.as_str(), running.quota), ("0-3,6-15", 200_000));
    // Held to its own CPUs, and a sign that somebody else sets them.
    node.until(|node| node.pinning().is_some_and(|pinning| pinning.reason == "OtherCpusetWriter")).await;
}

/// containerd stores a container after it asked about it, and skips changes to what it has not stored without a word.
#[tokio::test]
async fn a_pool_that_moves_in_the_middle_of_a_creation_is_followed_after_it() {
    let mut node = Node::start().await;
    let slow = node.runtime.begin(&shared("s"), "c", &Running::default()).await.unwrap();
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    node.until(|node| node.observed().is_some_and(|observed| observed.shared_cpus == "0-3,6-15")).await;
    node.runtime.serve_for(Duration::from_millis(100)).await;
    node.runtime.finish(&slow).await;
    assert_eq!(node.runtime.containers[&slow].cpus, "0-15");
    node.until(|node| node.runtime.containers[&slow].cpus == "0-3,6-15").await;
}

/// What the runtime did not carry out is not taken for done.
#[tokio::test]
async fn a_change_that_the_kubelet_wanted_and_that_failed_is_made_up_for() {
    let mut node = Node::start().await;
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    node.runtime.unchangeable.insert(s.clone());
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    assert!(node.runtime.update(&s, "", 200_000).await.is_err());
    node.runtime.unchangeable.clear();
    node.until(|node| node.runtime.containers[&s].cpus == "0-3,6-15").await;
}

/// DESIGN 19, first the API server answers, then it does not.
#[tokio::test]
async fn a_placed_pod_without_a_reservation_is_not_run_loose() {
    let mut node = Node::start().await;
    // The watch has not told; a read does.
    node.api.lock().unwrap().promises = vec![reservation("a", &[("c", "4-5")], &[])];
    let id = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&id].cpus, "4-5");
    assert_eq!(node.runtime.containers[&id].mems, "0-3");

    let refused = node.runtime.create(&exclusive("b"), "c").await.unwrap_err();
    assert!(refused.contains("its pod has no reservation on this node"), "{refused}");
    node.api.lock().unwrap().away = true;
    let refused = node.runtime.create(&exclusive("b"), "c").await.unwrap_err();
    assert!(refused.contains("its reservation is not seen"), "{refused}");
    // Nobody else waits for that.
    let id = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&id].cpus, "0-3,6-15");
    assert_eq!(node.runtime.plugins(), 1);
}

#[tokio::test]
async fn a_restart_of_the_agent_finds_everything_as_it_was() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1]), reservation("b", &[("c", "6-7")], &[1])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.until(|node| node.state_of("a", "c") == Some(PinState::Pinned)).await;
    node.stop_agent().await;
    assert!(node.runtime.serve_until(|runtime| runtime.plugins() == 0).await);
    // Without the agent containers run loose.
    let b = node.runtime.create(&exclusive("b"), "c").await.unwrap();
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&b].cpus, "");
    // The API server is away; what was promised stands in the checkpoint.
    node.start_agent();
    node.until(|node| node.runtime.containers[&s].cpus == "0-3,8-15").await;
    node.until(|node| node.runtime.containers[&b].cpus == "6-7").await;
    assert_eq!(node.runtime.containers[&a].cpus, "4-5");
    node.until(|node| node.state_of("b", "c") == Some(PinState::Pinned)).await;
    // Then it answers, and the promise of `a` is gone: it keeps its CPUs.
    node.promise(vec![reservation("b", &[("c", "6-7")], &[1])]);
    node.runtime.serve_for(Duration::from_millis(1_300)).await;
    assert_eq!(node.runtime.containers[&a].cpus, "4-5");
    assert_eq!(node.runtime.containers[&s].cpus, "0-3,8-15");
}

/// However quick the correction is, and without waiting for the report.
#[tokio::test]
async fn what_ran_loose_is_reported_unpinned_and_then_pinned() {
    let mut node = Node::new();
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&a].cpus, "");
    node.start_whole_agent().await;
    node.until(|node| node.runtime.containers[&a].cpus == "4-5").await;
    assert!(!node.written("a", "c").contains(&PinState::Unpinned), "the correction waited for the report");
    node.until(|node| node.written("a", "c").contains(&PinState::Unpinned)).await;
    // The metrics tell what is, not what was.
    assert_eq!((node.counted("Unpinned"), node.counted("Pinned")), (Some(0), Some(1)));
    node.until(|node| node.written("a", "c").ends_with(&[PinState::Unpinned, PinState::Pinned])).await;
    // Told once.
    let writes = node.api.lock().unwrap().statuses.len();
    node.runtime.serve_for(Duration::from_millis(1_300)).await;
    assert_eq!(node.api.lock().unwrap().statuses.len(), writes);
    node.stop_agent().await;
}

/// Neither checkpoint nor promise: what runs as its annotation says keeps its CPUs.
#[tokio::test]
async fn a_lost_checkpoint_unpins_nobody() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.stop_agent().await;
    node.forget_checkpoint();
    assert!(node.runtime.serve_until(|runtime| runtime.plugins() == 0).await);
    node.promise(vec![]);
    node.start_agent();
    node.until(own).await;
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(
        (node.runtime.containers[&a].cpus.as_str(), node.runtime.containers[&s].cpus.as_str()),
        ("4-5", "0-3,6-15")
    );
}

#[tokio::test]
async fn three_thousand_containers_come_in_parts() {
    let mut node = Node::new();
    node.runtime.part = 37;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    for number in 0..3_000 {
        node.runtime.create(&shared(&format!("s{number}")), "c").await.unwrap();
    }
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.start_agent();
    let moved = |node: &Node| {
        node.runtime.containers.iter().all(|(id, one)| one.cpus == if *id == a { "4-5" } else { "0-3,6-15" })
    };
    node.until(moved).await;
}

#[tokio::test]
async fn a_runtime_that_restarts_is_found_again() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    for round in 1..=3_usize {
        node.runtime.hang_up();
        let loose = node.runtime.create(&shared(&format!("s{round}")), "c").await.unwrap();
        node.until(|node| node.runtime.containers[&loose].cpus == "0-3,6-15").await;
        assert_eq!(node.runtime.containers[&a].cpus, "4-5");
    }
    node.until(own).await;
    assert_eq!(node.metrics.connections.get(), 4);
}

#[tokio::test]
async fn the_older_form_of_events_is_served_too() {
    let mut node = Node::new();
    node.runtime.old_events = true;
    node.start_agent();
    node.until(own).await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.promise(vec![]);
    node.runtime.remove_pod("a").await;
    node.until(|node| node.runtime.containers[&s].cpus == "0-15").await;
}

#[tokio::test]
async fn a_change_that_the_runtime_refuses_is_reported_and_tried_again() {
    let mut node = Node::start().await;
    node.stop_agent().await;
    assert!(node.runtime.serve_until(|runtime| runtime.plugins() == 0).await);
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    node.runtime.unchangeable.insert(a.clone());
    node.start_agent();
    node.until(|node| node.state_of("a", "c") == Some(PinState::Drifted)).await;
    assert_eq!(node.observed().unwrap().pinned.status, Some(false));
    // The others are moved all the same.
    node.until(|node| node.runtime.containers[&s].cpus == "0-3,6-15").await;
    node.runtime.unchangeable.clear();
    node.until(|node| node.state_of("a", "c") == Some(PinState::Pinned)).await;
    assert_eq!(node.observed().unwrap().pinned.status, Some(true));
}

#[tokio::test]
async fn cpus_that_went_offline_are_named_and_harm_nobody_else() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1]), reservation("b", &[("c", "8-9")], &[2])]);
    let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.cpus("0-4,6-7,10-15");
    node.until(|node| node.state_of("a", "c") == Some(PinState::Drifted)).await;
    let refused = node.runtime.create(&exclusive("b"), "c").await.unwrap_err();
    assert!(refused.contains("promised CPUs 8-9 are offline"), "{refused}");
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&s].cpus, "0-3,6-7,10-15");
    node.cpus("0-15");
    node.until(|node| node.state_of("a", "c") == Some(PinState::Pinned)).await;
    assert_eq!(node.runtime.containers[&a].cpus, "4-5");
    node.runtime.create(&exclusive("b"), "c").await.unwrap();
}

#[tokio::test]
async fn a_second_agent_stands_back_until_the_first_is_gone() {
    let mut node = Node::start().await;
    let mut second = node.second();
    let stands_back = |pinning: Option<&str>| pinning == Some("SecondAgent");
    node.until(|_| stands_back(second.reason().as_deref()) && second.stands_back()).await;
    assert_eq!(node.runtime.plugins(), 1);
    second.stop().await;
    assert!(own(&node));
}

#[tokio::test]
async fn it_is_never_the_second_writer() {
    let mut node = Node::new();
    node.kubelet("cpuManagerPolicy: static\n");
    node.start_agent();
    node.until(|node| node.pinning().is_some_and(|pinning| pinning.reason == "KubeletStaticPolicy")).await;
    assert_eq!(node.runtime.plugins(), 0);

    let mut node = Node::start().await;
    node.until(own).await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    // Another plugin set CPUs before this one was asked.
    let id = node.runtime.create_with(&shared("s"), "c", "0-1").await.unwrap();
    assert_eq!(node.runtime.containers[&id].cpus, "0-1");
    let refused = node.runtime.create(&exclusive("a"), "c").await.unwrap_err();
    assert!(refused.contains("the agent may not pin here: ns/s/c was given CPUs 0-1"), "{refused}");
    let second = |node: &Node| node.pinning().is_some_and(|pinning| pinning.reason == "OtherCpusetWriter");
    node.until(second).await;
    // Neither a restart of the runtime nor of the agent changes that, or that container.
    node.runtime.hang_up();
    node.until(|node| node.metrics.connections.get() == 2).await;
    node.runtime.serve_for(Duration::from_millis(300)).await;
    assert!(second(&node) && node.runtime.containers[&id].cpus == "0-1");
    node.stop_agent().await;
    node.start_agent();
    node.until(second).await;
    assert_eq!(node.runtime.containers[&id].cpus, "0-1");
    // Its end does.
    node.runtime.remove(&id).await;
    node.until(own).await;
}

#[tokio::test]
async fn memory_nodes_alone_are_a_sign_of_another_writer_too() {
    let mut node = Node::start().await;
    node.until(own).await;
    let set = Running { mems: "1".into(), ..Running::default() };
    let id = node.runtime.create_from(&shared("s"), "c", &set).await.unwrap();
    node.until(|node| node.pinning().is_some_and(|pinning| pinning.reason == "OtherCpusetWriter")).await;
    assert_eq!((node.runtime.containers[&id].cpus.as_str(), node.runtime.containers[&id].mems.as_str()), ("", "1"));
}

/// What another writer keeps the agent from moving runs on CPUs of others, and the node says so.
#[tokio::test]
async fn beside_another_writer_containers_on_cpus_of_others_are_reported() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    node.runtime.create(&exclusive("a"), "c").await.unwrap();
    node.until(|node| node.state_of("a", "c") == Some(PinState::Pinned)).await;
    node.runtime.create_with(&shared("r"), "c", "0-1").await.unwrap();
    node.runtime.create(&shared("s"), "c").await.unwrap();
    node.until(|node| node.observed().is_some_and(|observed| observed.pinned.status == Some(false))).await;
    let pinned = node.observed().unwrap().pinned;
    assert_eq!(pinned.reason, "SharedContainersNotMoved");
    assert!(pinned.message.contains("ns/s/c: it runs on CPUs 4-5 of others: ns/r/c was given CPUs 0-1"), "{pinned:?}");
}

#[tokio::test]
async fn real_time_is_permitted_on_isolated_cpus_where_the_value_says_so() {
    for permit in [true, false] {
        let mut node = Node::new();
        node.permit_sched_fifo = permit;
        node.start_agent();
        node.until(own).await;
        let mut isolated = reservation("a", &[("c", "4-5")], &[1]);
        isolated.isolated = true;
        node.promise(vec![isolated, reservation("b", &[("c", "6-7")], &[1])]);
        let a = node.runtime.create(&exclusive("a"), "c").await.unwrap();
        let b = node.runtime.create(&exclusive("b"), "c").await.unwrap();
        let permitted = [("RLIMIT_RTPRIO".to_owned(), 49, 49)];
        assert_eq!(node.runtime.containers[&a].rlimits, if permit { &permitted[..] } else { &[] });
        assert!(node.runtime.containers[&b].rlimits.is_empty());
    }
}

/// Printed, not judged: the machine of the test is shared.
#[tokio::test]
async fn creations_are_answered_from_memory() {
    let mut node = Node::start().await;
    node.promise((0..6).map(|pod| reservation(&format!("e{pod}"), &[("c", &format!("{}", 4 + pod))], &[1])).collect());
    for pod in 0..6 {
        node.runtime.create(&exclusive(&format!("e{pod}")), "c").await.unwrap();
    }
    node.runtime.answer_times.clear();
    // As many as a kubelet runs by default.
    let mut running = std::collections::VecDeque::new();
    for number in 0..2_000 {
        running.push_back(node.runtime.create(&shared(&format!("s{number}")), "c").await.unwrap());
        if running.len() > 104 {
            node.runtime.remove(&running.pop_front().unwrap()).await;
        }
    }
    let mut times = node.runtime.answer_times.clone();
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100 - 1];
    eprintln!(
        "CreateContainer answered, {} times: p50 {:?}, p99 {:?}, max {:?}",
        times.len(),
        at(50),
        at(99),
        times.last()
    );
}

/// What does not speak the protocol is left, and called again after a pause.
#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    let mut node = Node::new();
    let socket = node.dir.path().join("nri.sock");
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    node.start_agent();
    let nonsense: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        // An answer where calls belong.
        &[0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0],
        // A call where answers belong.
        &[0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0],
        // A message that is none.
        &[0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0xff, 0xff],
    ];
    let since = std::time::Instant::now();
    for bytes in nonsense {
        let (mut stream, _) = tokio::time::timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
        stream.write_all(bytes).await.unwrap();
        if bytes.starts_with(b"HTTP") {
            // A frame header of 1.2 GB: no byte more is waited for.
            continue;
        }
        // The answer to a registration that never came, and half a message: the runtime dies.
        stream.write_all(&[0, 0, 0]).await.unwrap();
    }
    // Pauses grow: 0.2 s doubling, at least half of each.
    assert!(since.elapsed() > Duration::from_millis(650), "{:?}", since.elapsed());
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
    node.runtime = runtime::Runtime::listen(&socket).unwrap();
    node.until(own).await;
}

/// The agent was killed before its checkpoint was written.
#[tokio::test]
async fn what_the_agent_placed_is_known_without_the_checkpoint() {
    let mut node = Node::start().await;
    node.promise(vec![reservation("a", &[("c", "4-5")], &[1])]);
    let s = node.runtime.create(&shared("s"), "c").await.unwrap();
    assert_eq!(node.runtime.containers[&s].cpus, "0-3,6-15");
    node.stop_agent().await;
    node.forget_checkpoint();
    assert!(node.runtime.serve_until(|runtime| runtime.plugins() == 0).await);
    node.promise(vec![]);
    node.start_agent();
    node.until(|node| node.runtime.containers[&s].cpus == "0-15").await;
    node.until(own).await;
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_is_tried_again() {
    let mut node = Node::start().await;
    let file = node.dir.path().join("checkpoint/pinning.json");
    if file.exists() {
        std::fs::remove_file(&file).unwrap();
    }
    // Nothing is renamed over a folder.
    std::fs::create_dir(&file).unwrap();
    node.runtime.create(&shared("s"), "c").await.unwrap();
    node.until(|node| node.metrics.checkpoint_failures.get() > 1).await;
    std::fs::remove_dir(&file).unwrap();
    node.until(|_| file.is_file()).await;
}
