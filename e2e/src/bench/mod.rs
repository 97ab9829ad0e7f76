//! Measurements on the genuine control plane: a table for people, `target/bench/NAME.json` for machines. Nothing here
//! judges a time.

mod fleet;
mod needle;
mod pipeline;
mod plain;
mod report;
mod scheduler;
pub mod scrape;
mod surge;
mod timeline;
mod usage;

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use self::report::Report;
use crate::bed::{Bed, Options};

/// Longest time of one bench, its bed included.
const LIMIT: Duration = Duration::from_secs(600);

/// Names of all benches.
pub const NAMES: [&str; 4] = ["needle", "needle-sampled", "pipeline", "scheduler"];

/// Runs one bench and leaves its report.
///
/// # Errors
/// There is no such bench, the bed did not start, or what should have been measured did not happen.
pub async fn bench(name: &str) -> Result<()> {
    match name {
        "needle" => on_bed(needle::options(), async |bed| needle::run(bed, needle::ALL).await).await,
        "needle-sampled" => on_bed(needle::options(), async |bed| needle::run(bed, needle::SAMPLED).await).await,
        "pipeline" => on_bed(pipeline::options(), pipeline::run).await,
        "scheduler" => on_bed(scheduler::options(), scheduler::run).await,
        _ => bail!("there is no bench {name} on the control plane; there are: {}", NAMES.join(", ")),
    }
}

async fn on_bed(options: Options, measure: impl AsyncFnOnce(&Bed) -> Result<Report>) -> Result<()> {
    let (mut interrupted, mut ended) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stop = std::pin::pin!(async move {
        tokio::select! { _ = interrupted.recv() => {}, _ = ended.recv() => {} }
    });
    let bed = tokio::select! {
        bed = Bed::start(options) => bed?,
        () = &mut stop => bail!("ended before the cluster was up"),
    };
    let measured = tokio::select! {
        report = tokio::time::timeout(LIMIT, Box::pin(measure(&bed))) => {
            let report = report.unwrap_or_else(|_| Err(anyhow!("not measured within {} s", LIMIT.as_secs())));
            report.map_err(|error| error.context(bed.release_logs()))
        }
        () = &mut stop => Err(anyhow!("ended before everything was measured")),
    };
    let shown = match measured {
        Ok(report) => report.show(&bed).await,
        Err(error) => Err(error),
    };
    bed.stop().await?;
    shown
}
