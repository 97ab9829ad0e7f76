//! The agent's own words, read where it serves them.

use std::sync::Mutex;

use anyhow::{Context as _, Result};
use fairlead_e2e::bench::scrape::{Histogram, Page};
use fairlead_e2e::eventually::{eventually, seen};
use k8s_openapi::api::core::v1::Pod;

use crate::world::{LIMIT, World};

/// Its admin port in the chart.
const ADMIN_PORT: u16 = 9804;
/// How long the runtime waits for the creation of a container.
const ANSWER: &str = "fairlead_agent_runtime_answer_seconds";
/// How often the runtime told an agent all it has.
const SYNCHRONIZED: &str = "fairlead_agent_runtime_connections_total";

/// Answers that are not on the page of the agent that runs now, or are not to count.
#[derive(Default)]
pub struct Answers(Mutex<(Histogram, Histogram)>);

/// Address of its pod.
pub fn address(agent: &Pod) -> Result<String> {
    agent.status.as_ref().and_then(|status| status.pod_ip.clone()).context("the agent's pod has no address")
}

async fn page(world: &World) -> Result<Page> {
    // No time limit of its own: with one, Debian's static busybox crashes.
    let ask = format!("wget -q -O - http://{}:{ADMIN_PORT}/metrics", address(&world.agent().await?)?);
    Ok(Page::of(world.guest.probe.shell(&ask).await?))
}

/// How often its containers were started again.
pub fn restarts(agent: &Pod) -> i32 {
    let statuses = agent.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// How often the runtime told the agent that runs now all it has.
pub async fn synchronizations(world: &World) -> Result<f64> {
    Ok(page(world).await?.sum(SYNCHRONIZED, &[]))
}

/// Waits until the runtime told it all it has more often than `before`: from then on it is asked and pins.
pub async fn pins_again(world: &World, before: f64) -> Result<()> {
    eventually("the runtime told the agent all it has", LIMIT, || async {
        let now = synchronizations(world).await?;
        Ok(seen(now > before, format!("{now} times, before {before}")))
    })
    .await
}

async fn answers_now(world: &World) -> Result<Histogram> {
    Ok(page(world).await?.histogram(ANSWER, &[("call", "CreateContainer")]))
}

/// Keeps what the agent that is about to end has measured.
pub async fn keep_answers(world: &World) -> Result<()> {
    let answers = answers_now(world).await?;
    let (ended, _) = &mut *world.answers.0.lock().unwrap();
    *ended = std::mem::take(ended).plus(&answers);
    Ok(())
}

/// Does something for which the agent waits for the API server in vain: those answers are not to count.
pub async fn aside(world: &World, work: impl Future<Output = Result<()>>) -> Result<()> {
    let before = answers_now(world).await?;
    work.await?;
    let vain = answers_now(world).await?.since(&before);
    let (_, aside) = &mut *world.answers.0.lock().unwrap();
    *aside = std::mem::take(aside).plus(&vain);
    Ok(())
}

/// How long creations of containers waited for the agents' answers, in the whole run without what was done aside.
pub async fn answers(world: &World) -> Result<Histogram> {
    let now = answers_now(world).await?;
    let (ended, aside) = &*world.answers.0.lock().unwrap();
    Ok(now.plus(ended).since(aside))
}
