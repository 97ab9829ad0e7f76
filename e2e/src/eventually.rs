//! Waiting for what the cluster shows, with a bound and a telling failure.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Polls `probe` until it gives a value; fails after `limit` with what was awaited and what was last seen.
///
/// # Errors
/// The time is up, or the probe failed for good at the end of it.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    let began = Instant::now();
    loop {
        let last = match probe().await {
            Ok(Seen::Yes(value)) => return Ok(value),
            Ok(Seen::NotYet(instead)) => instead,
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() > limit {
            bail!("not within {} s: {what}; last seen: {last}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a probe found.
pub enum Seen<T> {
    /// What was awaited.
    Yes(T),
    /// Something else, for the failure's message.
    NotYet(String),
}

/// `Yes` where `holds`, else `instead`.
pub fn seen(holds: bool, instead: impl Into<String>) -> Seen<()> {
    if holds { Seen::Yes(()) } else { Seen::NotYet(instead.into()) }
}
