//! Own cores on a genuine node: what the guest's kernel says is held against what was promised, through every restart.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "node/agent.rs"]
mod agent;
#[path = "node/apart.rs"]
mod apart;
#[path = "node/foreign.rs"]
mod foreign;
#[path = "node/history.rs"]
mod history;
#[path = "node/shape.rs"]
mod shape;
#[path = "node/steps.rs"]
mod steps;
#[path = "node/world.rs"]
mod world;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::history::History;
use crate::world::{LIMIT, NODE, World};

/// A step that hangs: longer than a wait of its own, which says what it waited for.
const STEP_LIMIT: Duration = Duration::from_secs(240);

/// Runs one step within the limit and prints how long it took.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let outcome = tokio::time::timeout(STEP_LIMIT, work).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("not within {} s", STEP_LIMIT.as_secs())));
    eprintln!("{:>7.1} s  {what}", began.elapsed().as_secs_f32());
    outcome.context(what.to_owned())
}

async fn story(world: &World) -> Result<()> {
    step("the genuine kubelet joins", world.guest.ready(&world.bed.client, LIMIT)).await?;
    step("helm installs the charts, the agent runs from its image", world.install()).await?;
    let history = History::begin(world.placements.clone(), NODE);
    step("the agent publishes the machine", shape::machine(world)).await?;
    step("pods run on the promised CPUs and memory nodes", steps::placed(world)).await?;
    step("the agent is killed", steps::agent_killed(world)).await?;
    step("the runtime is restarted", steps::runtime_restarted(world)).await?;
    step("the kubelet is restarted", steps::kubelet_restarted(world)).await?;
    step("shared pods shrink and grow", steps::shared_moves(world)).await?;
    step("the agent is absent at a start", steps::agent_absent(world, &history)).await?;
    step("a promise that cannot be seen is not run loose", Box::pin(agent::aside(world, foreign::unseen(world))))
        .await?;
    step("a second scheduler overcommits the node", Box::pin(foreign::overcommitted(world))).await?;
    step("the agent is cut off from the API server", Box::pin(agent::aside(world, apart::cut_off(world)))).await?;
    step("one L3 cache", shape::one_cache(world)).await?;
    step("huge pages", shape::huge_pages(world)).await?;
    step("full load", steps::full_load(world)).await?;
    step("what the agent takes", steps::agent_cost(world)).await?;
    steps::never_twice(&history)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_cores_on_a_genuine_node() {
    fairlead_e2e::init_logs();
    let world = step("a cluster, and a guest that answers", World::start()).await.unwrap();
    if let Err(error) = story(&world).await {
        let kept = world.bed.keep_logs().unwrap();
        std::fs::write(kept.join("guest.log"), world.guest.logs().await).unwrap();
        let objects = world.bed.kubectl.run(&["get", "nodes,pods,npl,ntopo", "-A", "-o", "yaml"], LIMIT).await;
        std::fs::write(kept.join("objects.yaml"), objects.unwrap_or_else(|error| format!("{error:#}"))).unwrap();
        panic!("{error:#}\nlogs and objects are kept in {}", kept.display());
    }
    let World { bed, guest, .. } = world;
    drop(guest);
    bed.stop().await.unwrap();
}
