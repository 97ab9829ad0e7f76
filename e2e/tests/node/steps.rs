//! The scenarios, in the order of the story. Each leaves pods `pair` (2 CPUs), `quad` (4 CPUs) and `shared` running.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead_crds::node_placement::PinState;
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::eventually::{eventually, seen};
use fairlead_e2e::guest::list;
use serde_json::json;

use crate::agent;
use crate::history::History;
use crate::world::{AGENT, LIMIT, NODE, Picture, World, told};

/// Pods of the whole story.
pub const LASTING: [&str; 3] = ["pair", "quad", "shared"];
/// Under full load.
const LOAD: Duration = Duration::from_secs(10);
/// Budget of the agent.
const AGENT_RESIDENT_BYTES: u64 = 15 << 20;

/// Scheduler and extender place, the agent pins.
pub async fn placed(world: &World) -> Result<()> {
    world.create("shared", None, |_| ()).await?;
    world.create("pair", Some("2"), |_| ()).await?;
    world.create("quad", Some("4"), |_| ()).await?;
    world.running(&LASTING).await?;
    let picture = world.as_promised(&LASTING).await?;
    for (pod, cpus) in [("pair", 2), ("quad", 4)] {
        let observed = picture.of(pod)?;
        ensure!(observed.kernel.cpus.len() == cpus, "{pod} has {:?}", observed.kernel.cpus);
        ensure!(observed.kernel.memory_nodes.len() == 1, "{pod} fits into one NUMA node: {:?}", observed.kernel);
        eventually(&format!("{pod} is reported as pinned"), LIMIT, || async {
            let state = world.look().await?.state(&observed.uid);
            Ok(seen(state == Some(PinState::Pinned), format!("{state:?}")))
        })
        .await?;
        eprintln!("           {pod}: CPUs {:?}, memory {:?}", observed.kernel.cpus, observed.kernel.memory_nodes);
    }
    Ok(())
}

/// Same processes, same CPUs, same memory nodes.
pub fn unchanged(before: &Picture, after: &Picture) -> Result<()> {
    stay(&LASTING, before, after)
}

/// The same of these pods.
pub fn stay(pods: &[&str], before: &Picture, after: &Picture) -> Result<()> {
    for pod in pods {
        let (before, after) = (before.of(pod)?, after.of(pod)?);
        ensure!(before.pids() == after.pids(), "{pod} had {:?}, has {:?}", before.pids(), after.pids());
        ensure!(before.kernel.cpus == after.kernel.cpus, "{pod} moved from {before:?} to {after:?}");
        ensure!(before.kernel.memory_nodes == after.kernel.memory_nodes, "{pod}: memory of {before:?}, now {after:?}");
    }
    Ok(())
}

/// kill -9 of the agent: nothing moves while it is away, nor when it is back.
pub async fn agent_killed(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let restarts = agent::restarts(&world.agent().await?);
    agent::keep_answers(world).await?;
    world.guest.probe.shell(&format!("kill -9 $(pidof {AGENT})")).await?;
    unchanged(&before, &world.look().await?)?;
    eventually("the agent was restarted", LIMIT, || async {
        let agent = world.agent().await?;
        Ok(seen(agent::restarts(&agent) > restarts, told(&agent)))
    })
    .await?;
    agent::pins_again(world, 0.0).await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

/// kill -9 of containerd: its shims keep the containers, it comes back without a memory of the agent.
pub async fn runtime_restarted(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let synchronizations = agent::synchronizations(world).await?;
    let took = world.kill_and_await("containerd").await?;
    world.succeeds("ctr version").await?;
    eprintln!("           containerd is back after {took:.1?}");
    world.guest.ready(&world.bed.client, LIMIT).await?;
    agent::pins_again(world, synchronizations).await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

/// kill -9 of the kubelet: it finds its pods running.
pub async fn kubelet_restarted(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let took = world.kill_and_await("kubelet").await?;
    eprintln!("           kubelet is back after {took:.1?}");
    world.succeeds("wget -q -O - http://127.0.0.1:10248/healthz").await?;
    world.guest.ready(&world.bed.client, LIMIT).await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

/// A pod with CPUs of its own comes and goes: running shared pods make room, and get it back.
pub async fn shared_moves(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    world.create("guest", Some("4"), |_| ()).await?;
    world.running(&["guest"]).await?;
    let during = world.as_promised(&[&LASTING[..], &["guest"]].concat()).await?;
    stay(&["pair", "quad"], &before, &during)?;
    ensure!(before.of("shared")?.pids() == during.of("shared")?.pids(), "shared was started anew");
    let (small, whole) = (&during.of("shared")?.kernel.cpus, &before.of("shared")?.kernel.cpus);
    let taken = &during.of("guest")?.kernel.cpus;
    ensure!(small.union(taken).copied().collect::<BTreeSet<_>>() == *whole, "{whole:?} became {small:?} and {taken:?}");
    world.delete(&["guest"]).await?;
    eventually("the shared pod has its CPUs back", LIMIT, || async {
        let now = world.look().await?;
        Ok(seen(now.of("shared")?.kernel.cpus == *whole, format!("{:?}", now.of("shared")?.kernel.cpus)))
    })
    .await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

/// A pod starts while no agent is there: the runtime runs it anywhere. The agent comes, says so, and pins it.
pub async fn agent_absent(world: &World, history: &History) -> Result<()> {
    agent::keep_answers(world).await?;
    select_agents(world, "nowhere").await?;
    eventually("the agent is gone", LIMIT, || async {
        let left = world.guest.probe.shell(&format!("pidof {AGENT} || true")).await?;
        Ok(seen(left.trim().is_empty(), left))
    })
    .await?;
    world.create("early", Some("2"), |_| ()).await?;
    world.running(&["early"]).await?;
    let loose = world.look().await?;
    let early = loose.of("early")?;
    let promised = loose.reservation(&early.uid).context("early was bound without a reservation")?;
    ensure!(early.kernel.cpus != list(&promised.cpus)?, "nobody could have pinned it: {early:?}");
    select_agents(world, NODE).await?;
    agent::pins_again(world, 0.0).await?;
    let now = world.as_promised(&[&LASTING[..], &["early"]].concat()).await?;
    ensure!(now.of("early")?.pids() == early.pids(), "it was pinned, not started anew");
    eventually("early is reported as pinned", LIMIT, || async {
        let states = history.states(&early.uid);
        Ok(seen(states.last() == Some(&PinState::Pinned), format!("{states:?}")))
    })
    .await?;
    let states = history.states(&early.uid);
    ensure!(states.contains(&PinState::Unpinned), "it ran loose and was never reported so: {states:?}");
    eprintln!("           reported {states:?}");
    world.delete(&["early"]).await
}

async fn select_agents(world: &World, hostname: &str) -> Result<()> {
    let patch =
        json!({ "spec": { "template": { "spec": { "nodeSelector": { "kubernetes.io/hostname": hostname } } } } });
    let args =
        ["patch", "daemonset", "fairlead-agent", "-n", RELEASE_NAMESPACE, "--type=merge", "-p", &patch.to_string()];
    world.bed.kubectl.run(&args, LIMIT).await.map(drop)
}

/// All CPUs of a pod busy: whether its pod's cgroup, which keeps its quota, throttles it.
pub async fn full_load(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let quad = before.of("quad")?;
    let first = quad.kernel.processes.first().context("quad has no process")?;
    world.guest.probe.shell(&format!("cd /proc/{}/root && echo > go", first.pid)).await?;
    tokio::time::sleep(LOAD).await;
    let after = world.as_promised(&["quad"]).await?;
    let (before, after) = (&quad.kernel, &after.of("quad")?.kernel);
    ensure!(after.processes.len() > before.processes.len(), "the load did not begin: {:?}", after.processes);
    ensure!(after.own == before.own, "a container without quota was throttled: {:?}, {:?}", before.own, after.own);
    eprintln!(
        "           pod's cgroup, quota {} us: {} of {} periods throttled, {} ms in {} s on 4 CPUs",
        after.pod_quota,
        after.pod.throttled - before.pod.throttled,
        after.pod.periods - before.pod.periods,
        (after.pod.throttled_us - before.pod.throttled_us) / 1_000,
        LOAD.as_secs()
    );
    Ok(())
}

/// Resident memory of the agent, after all that, and how long creations waited for it.
pub async fn agent_cost(world: &World) -> Result<()> {
    let picture = world.look().await?;
    let agents = picture.containers.values().flat_map(|observed| &observed.kernel.processes);
    let agent = agents.into_iter().find(|process| process.name == AGENT).context("no agent runs")?;
    eprintln!("           agent: {} KiB resident", agent.resident_bytes >> 10);
    let answers = agent::answers(world).await?;
    eprintln!(
        "           creations answered: {}, p50 at most {} ms, p99 at most {} ms",
        answers.observations(),
        answers.at_most_milli(50.0),
        answers.at_most_milli(99.0)
    );
    ensure!(agent.resident_bytes <= AGENT_RESIDENT_BYTES, "the agent takes {} bytes", agent.resident_bytes);
    Ok(())
}

/// No CPU was promised twice at any time.
pub fn never_twice(history: &History) -> Result<()> {
    let all = history.all();
    for placement in &all {
        let mut held = BTreeSet::new();
        for reservation in &placement.spec.reservations {
            for cpu in list(&reservation.cpus)? {
                ensure!(held.insert(cpu), "CPU {cpu} is promised twice: {:?}", placement.spec.reservations);
            }
        }
    }
    ensure!(all.len() > 10, "only {} states were seen", all.len());
    Ok(())
}
