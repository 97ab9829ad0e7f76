//! From a surge of orders to the first new replica count, in the story's own scene.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::mpsc;

use super::report::Report;
use crate::bed::Bed;
use crate::demo::Stage;
use crate::story::milestones::Teller;
use crate::story::{self, LINES, Play};

const ROUNDS: usize = 5;
/// Orders per second of the two tenants, as the story has them.
const QUIET: [u64; 2] = [3, 1];
const SURGE: [u64; 2] = [400, 160];
const LOOK: Duration = Duration::from_millis(2);
const RISE_LIMIT: Duration = Duration::from_secs(20);
const REST_LIMIT: Duration = Duration::from_secs(90);

/// Hands the names of milestones on.
struct Ear(mpsc::UnboundedSender<String>);

impl Teller for Ear {
    fn milestone(&self, name: &str, _at_ms: u64, _detail: &Value) {
        // Nobody listens any more once `quiet` was told.
        let _ = self.0.send(name.to_owned());
    }

    fn progress(&self, text: &str) {
        tracing::info!(text);
    }
}

/// Plays the story until it is quiet, then lets orders surge several times.
pub(super) async fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let stage = Stage::new(bed)?;
    let play = Play::start(&stage).await?;
    let (ear, mut told) = mpsc::unbounded_channel();
    let ear = Ear(ear);
    tokio::select! {
        ended = story::run(&stage, &play, &ear, Duration::ZERO) => bail!("the story ended before it was quiet: {ended:?}"),
        () = async { while told.recv().await.is_some_and(|name| name != "quiet") {} } => {}
    }
    // The story goes on to its own surge before this task hears of the milestone.
    play.orders(QUIET);
    let at_rest = ordered(&play);
    let mut firsts = Vec::new();
    let mut seconds = Vec::new();
    for round in 0..ROUNDS {
        rest(&play, &at_rest).await.with_context(|| format!("before surge {round}"))?;
        let began = Instant::now();
        play.orders(SURGE);
        let mut risen: Vec<Option<f64>> = vec![None; LINES.len()];
        while risen.iter().any(Option::is_none) {
            if began.elapsed() > RISE_LIMIT {
                bail!("no new replica count within {} s of surge {round}", RISE_LIMIT.as_secs());
            }
            for ((now, quiet), risen) in ordered(&play).iter().zip(&at_rest).zip(&mut risen) {
                if now > quiet {
                    risen.get_or_insert(began.elapsed().as_secs_f64() * 1000.0);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        play.orders(QUIET);
        let mut risen: Vec<f64> = risen.into_iter().flatten().collect();
        risen.sort_by(f64::total_cmp);
        firsts.extend(risen.first());
        seconds.extend(risen.last());
        tracing::info!(round, ?risen, "milliseconds from the surge to each pool's new replica count");
    }
    report.add_rounds("surge of orders to the first new replica count", &firsts, "ms");
    report.add_rounds("surge of orders to the new replica counts of both pools", &seconds, "ms");
    Ok(())
}

fn ordered(play: &Play) -> Vec<i32> {
    let world = play.world.lock();
    LINES.iter().map(|line| world.ordered(&format!("{}/{}", line.namespace, line.app))).collect()
}

/// Waits until both pools are as small as before and have stayed so for three seconds, with next to no orders left.
async fn rest(play: &Play, at_rest: &[i32]) -> Result<()> {
    let began = Instant::now();
    let mut calm_since: Option<Instant> = None;
    loop {
        let backlog: u64 = LINES.iter().filter_map(|line| play.world.lock().backlog(line.stream)).sum();
        let now = ordered(play);
        if now == at_rest && backlog < 20 {
            if calm_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(3) {
                return Ok(());
            }
        } else {
            calm_since = None;
        }
        if began.elapsed() > REST_LIMIT {
            bail!("not at rest within {} s: replicas {now:?}, {backlog} orders", REST_LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
