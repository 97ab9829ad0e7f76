//! The agent cut off from the API server, and what changes there meanwhile.

use anyhow::{Context as _, Result, ensure};
use fairlead_e2e::eventually::{Seen, eventually, seen};
use serde_json::json;

use crate::agent;
use crate::foreign::{as_extender, refused};
use crate::steps::{LASTING, stay};
use crate::world::{AGENT, LIMIT, NODE, Picture, World};

/// Where the guest's pods find the API server.
const API_ADDRESS: &str = "10.0.0.1";
/// Pods with CPUs of their own: the shared one makes room for those that come.
const OWNERS: [&str; 2] = ["pair", "quad"];

/// Meanwhile a pod is bound, whose promise the agent cannot see: it is not run loose. And the promise of a running pod is
/// taken back: nothing moves, neither then nor when the agent learns of it. It says so, and the next promise on the node
/// brings the lost one back.
pub async fn cut_off(world: &World) -> Result<()> {
    let before = world.as_promised(&LASTING).await?;
    let restarts = agent::restarts(&world.agent().await?);

    let cut = Cut::make(world).await?;
    world.create("late", Some("2"), |_| ()).await?;
    eprintln!("           cut off: {}", refused(world, "late").await?);
    take_back(world, &before, "pair").await?;
    let meanwhile = world.look().await?;
    ensure!(!meanwhile.containers.contains_key("late"), "it runs loose");
    ensure!(meanwhile.reservation(&before.of("pair")?.uid).is_none(), "its promise was to be gone");
    stay(&LASTING, &before, &meanwhile)?;
    cut.heal(world).await?;

    eprintln!("           healed: {}", told_of(world, &before.of("pair")?.uid).await?);
    world.running(&["late"]).await?;
    let without = world.look().await?;
    stay(&OWNERS, &before, &without)?;
    let (shared, own) = (&without.of("shared")?.kernel.cpus, &without.of("pair")?.kernel.cpus);
    ensure!(shared.is_disjoint(own), "shared runs on {shared:?}, pair still owns {own:?}");
    ensure!(agent::restarts(&world.agent().await?) == restarts, "the agent was restarted");

    world.create("next", Some("2"), |_| ()).await?;
    comes_back(world, &before, "pair").await?;
    stay(&OWNERS, &before, &world.as_promised(&[&LASTING[..], &["late"]].concat()).await?)?;
    world.delete(&["late", "next"]).await
}

/// Waits until the pod is promised what it was.
async fn comes_back(world: &World, before: &Picture, pod: &str) -> Result<()> {
    let uid = &before.of(pod)?.uid;
    let was = before.reservation(uid).with_context(|| format!("{pod} had no reservation"))?;
    eventually(&format!("{pod} has its reservation again"), LIMIT, || async {
        let placement = world.placements.get(NODE).await?;
        let is = placement.spec.reservations.iter().find(|reservation| reservation.pod_uid == *uid);
        let same = is.is_some_and(|is| is.containers == was.containers && is.memory == was.memory);
        Ok(seen(same, format!("{is:?}")))
    })
    .await
}

/// Deletes the reservation of a pod from the node's placement.
async fn take_back(world: &World, picture: &Picture, pod: &str) -> Result<()> {
    let uid = &picture.of(pod)?.uid;
    let placement = world.placements.get(NODE).await?;
    let at = placement.spec.reservations.iter().position(|reservation| reservation.pod_uid == *uid);
    let at = at.with_context(|| format!("{pod} has no reservation"))?;
    let patch = json!([
        { "op": "test", "path": "/metadata/generation", "value": placement.metadata.generation },
        { "op": "remove", "path": format!("/spec/reservations/{at}") },
    ]);
    let user = as_extender();
    let args = ["patch", "nodeplacement", NODE, "--type=json", &user, "-p", &patch.to_string()];
    world.bed.kubectl.run(&args, LIMIT).await.map(drop)
}

/// Waits until the agent tells that the pod's promise is gone, and how it runs.
async fn told_of(world: &World, uid: &str) -> Result<String> {
    eventually("the agent tells that the promise is gone", LIMIT, || async {
        let status = world.placements.get(NODE).await?.status.unwrap_or_default();
        let line = status.containers.into_iter().find(|container| container.pod_uid == uid);
        Ok(match line {
            Some(line) if line.message.contains("reservation") => {
                Seen::Yes(format!("{:?} on {}: {}", line.state, line.cpus, line.message))
            }
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// The agent without the API server. Everything else reaches both: the node drops what the one sends to the other.
struct Cut {
    rule: String,
    /// In the agent's network.
    inside: String,
}

impl Cut {
    /// Cuts, and sees that nothing comes through.
    async fn make(world: &World) -> Result<Self> {
        let pod = agent::address(&world.agent().await?)?;
        let probe = &world.guest.probe;
        let pid = probe.shell(&format!("pidof {AGENT}")).await?;
        let inside = format!("nsenter --net=/proc/{}/ns/net nc -w 2 {API_ADDRESS} 443 < /dev/null 2>&1", pid.trim());
        probe.shell(&inside).await.context("the agent's network reaches the API server")?;
        let rule = format!("from {API_ADDRESS} to {pod} type prohibit");
        probe.shell(&format!("ip rule add {rule}")).await?;
        let cut = Self { rule, inside };
        eventually("nothing comes through", LIMIT, || async {
            let through = cut.reaches(world).await;
            Ok(seen(!through, "the agent's network reaches the API server"))
        })
        .await?;
        Ok(cut)
    }

    async fn reaches(&self, world: &World) -> bool {
        world.guest.probe.shell(&self.inside).await.is_ok()
    }

    /// Undoes it.
    async fn heal(self, world: &World) -> Result<()> {
        world.guest.probe.shell(&format!("ip rule del {}", self.rule)).await?;
        eventually("the API server is reached again", LIMIT, || async {
            Ok(if self.reaches(world).await { Seen::Yes(()) } else { Seen::NotYet("nothing".to_owned()) })
        })
        .await
    }
}
