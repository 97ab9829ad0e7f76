//! The scenarios, in the order of the story. Each leaves pods `pair` (2 CPUs), `quad` (4 CPUs) and `shared` running.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairlead_crds::NodeTopology;
use fairlead_crds::keys::PLACEMENT_ANNOTATION;
use fairlead_crds::node_placement::PinState;
use fairlead_crds::node_topology::PinningMode;
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::eventually::{Seen, eventually, seen};
use fairlead_e2e::guest::list;
use kube::ResourceExt as _;
use kube::api::Api;
use serde_json::json;

use crate::history::History;
use crate::world::{AGENT, LIMIT, NODE, Picture, World, told};

const LASTING: [&str; 3] = ["pair", "quad", "shared"];
/// Under full load.
const LOAD: Duration = Duration::from_secs(10);
/// Budget of the agent.
const AGENT_RESIDENT_BYTES: u64 = 15 << 20;

/// The published machine is the one that QEMU was told to be.
pub async fn machine(world: &World) -> Result<()> {
    world.agent().await?;
    let api: Api<NodeTopology> = Api::all(world.bed.client.clone());
    let topology = eventually("the node's topology says Own", LIMIT, || async {
        let Some(topology) = api.get_opt(NODE).await? else { return Ok(Seen::NotYet("no NodeTopology".to_owned())) };
        let pinning = topology.spec.pinning.clone();
        Ok(match &pinning {
            Some(pinning) if pinning.mode == PinningMode::Own => Seen::Yes(topology),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await?;
    let machine = world.guest.machine;
    let sizes = topology.spec.numa_nodes.iter().map(|node| Ok(list(&node.cpus)?.len())).collect::<Result<Vec<_>>>()?;
    ensure!(
        sizes == vec![usize::try_from(machine.cpus_per_node())?; usize::try_from(machine.numa_nodes)?],
        "CPUs of the NUMA nodes: {sizes:?}"
    );
    ensure!(topology.spec.disagreements.is_empty(), "{:?}", topology.spec.disagreements);
    Ok(())
}

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
fn unchanged(before: &Picture, after: &Picture) -> Result<()> {
    for pod in LASTING {
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
    world.guest.probe.shell(&format!("kill -9 $(pidof {AGENT})")).await?;
    unchanged(&before, &world.look().await?)?;
    let restarted = eventually("the agent was restarted", LIMIT, || async {
        let agent = world.agent().await?;
        let statuses = agent.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        Ok(seen(restarts > 0, told(&agent)))
    });
    restarted.await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

/// kill -9 of containerd: its shims keep the containers, it comes back without a memory of the agent.
pub async fn runtime_restarted(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let took = world.kill_and_await("containerd").await?;
    world.succeeds("ctr version").await?;
    eprintln!("           containerd is back after {took:.1?}");
    world.guest.ready(&world.bed.client, LIMIT).await?;
    world.agent().await?;
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
    unchanged_but_shared(&before, &during)?;
    let (small, whole) = (&during.of("shared")?.kernel.cpus, &before.of("shared")?.kernel.cpus);
    let taken = &during.of("guest")?.kernel.cpus;
    ensure!(small.union(taken).copied().collect::<BTreeSet<_>>() == *whole, "{whole:?} became {small:?} and {taken:?}");
    world.delete("guest").await?;
    eventually("the shared pod has its CPUs back", LIMIT, || async {
        let now = world.look().await?;
        Ok(seen(now.of("shared")?.kernel.cpus == *whole, format!("{:?}", now.of("shared")?.kernel.cpus)))
    })
    .await?;
    unchanged(&before, &world.as_promised(&LASTING).await?)
}

fn unchanged_but_shared(before: &Picture, after: &Picture) -> Result<()> {
    for pod in LASTING {
        ensure!(before.of(pod)?.pids() == after.of(pod)?.pids(), "{pod} was started anew");
    }
    for pod in ["pair", "quad"] {
        ensure!(before.of(pod)?.kernel.cpus == after.of(pod)?.kernel.cpus, "{pod} moved");
    }
    Ok(())
}

/// A pod starts while no agent is there: the runtime runs it anywhere. The agent comes, says so, and pins it.
pub async fn agent_absent(world: &World, history: &History) -> Result<()> {
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
    world.agent().await?;
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
    world.delete("early").await
}

async fn select_agents(world: &World, hostname: &str) -> Result<()> {
    let patch =
        json!({ "spec": { "template": { "spec": { "nodeSelector": { "kubernetes.io/hostname": hostname } } } } });
    let args =
        ["patch", "daemonset", "fairlead-agent", "-n", RELEASE_NAMESPACE, "--type=merge", "-p", &patch.to_string()];
    world.bed.kubectl.run(&args, LIMIT).await.map(drop)
}

/// A pod is bound with our annotation and nothing is reserved for it: the agent does not let it be created. Another one,
/// of which it knows as little and which carries no annotation, runs in the shared pool.
pub async fn unseen(world: &World) -> Result<()> {
    let foreign =
        |name: &'static str| world.create(name, Some("2"), |pod| pod["spec"]["schedulerName"] = json!("nobody"));
    foreign("unseen").await?;
    foreign("unknown").await?;
    let free = world.look().await?.shared_pool()?;
    let cpu = free.last().context("the shared pool is empty")?;
    let told_cpus = json!({ "containers": [{ "name": "worker", "cpus": cpu.to_string(), "memoryNodes": "0" }] });
    bind(world, "unseen", json!({ PLACEMENT_ANNOTATION: told_cpus.to_string() })).await?;
    bind(world, "unknown", json!({})).await?;
    world.running(&["unknown"]).await?;
    let refused = eventually("the container is refused", LIMIT, || async {
        let pod = world.pods.get("unseen").await?;
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()).next();
        let refused = waiting.filter(|waiting| waiting.reason.as_deref() == Some("CreateContainerError"));
        Ok(refused.map_or_else(|| Seen::NotYet(told(&pod)), |why| Seen::Yes(why.message.clone().unwrap_or_default())))
    })
    .await?;
    eprintln!("           refused: {refused}");
    let picture = world.as_promised(&[&LASTING[..], &["unknown"]].concat()).await?;
    ensure!(!picture.containers.contains_key("unseen"), "it runs");
    ensure!(picture.of("unknown")?.kernel.cpus == picture.shared_pool()?, "{:?}", picture.of("unknown")?);
    world.delete("unseen").await?;
    world.delete("unknown").await
}

/// As the extender, which alone may write the annotation.
async fn bind(world: &World, pod: &str, annotations: serde_json::Value) -> Result<()> {
    let namespace = world.pods.get(pod).await?.namespace().unwrap_or_default();
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": pod, "namespace": namespace, "annotations": annotations },
        "target": { "kind": "Node", "name": NODE },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/binding");
    let extender = format!("--as=system:serviceaccount:{RELEASE_NAMESPACE}:fairlead-scheduler");
    let args = ["create", "--raw", &path, "-f", "-", &extender];
    world.bed.kubectl.run_with(&args, Some(&binding.to_string()), LIMIT).await.map(drop)
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

/// Resident memory of the agent, after all that.
pub async fn agent_cost(world: &World) -> Result<()> {
    let picture = world.look().await?;
    let agents = picture.containers.values().flat_map(|observed| &observed.kernel.processes);
    let agent = agents.into_iter().find(|process| process.name == AGENT).context("no agent runs")?;
    eprintln!("           agent: {} KiB resident", agent.resident_bytes >> 10);
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
