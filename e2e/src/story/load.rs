//! Orders come in at a set rate; every Ready pod takes them off at a set rate. The queue moves by the pods that run.
use super::watch::Shared;
use super::world::QueueFacts;
use anyhow::Context;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamInfoGroupsReply, StreamReadOptions, StreamReadReply};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(50);

/// A queue and the application whose Ready pods work on it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Namespace of the workers.
    pub namespace: &'static str,
    /// Label `app` of the workers.
    pub app: &'static str,
    /// Redis stream.
    pub stream: &'static str,
    /// Consumer group.
    pub group: &'static str,
    /// Thousandths of an order per second that one Ready pod takes.
    pub rate_milli: u64,
    /// Orders waiting at which no more come: however long an outage lasts, the queue is worked off in bounded time.
    pub most_waiting: u64,
}

/// Orders per second, changed while the load runs.
#[derive(Clone, Default)]
pub struct Rate(Arc<AtomicU64>);

impl Rate {
    /// Sets the rate in orders per second.
    pub fn set(&self, per_second: u64) {
        self.0.store(per_second, Ordering::Relaxed);
    }

    fn per_second(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connects to the queue server.
///
/// # Errors
/// The address cannot be reached or the password is wrong.
pub async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(url).context("parsing the address of Redis")?;
    client.get_multiplexed_async_connection().await.context("connecting to Redis")
}

/// Creates the stream and its group, empty.
///
/// # Errors
/// Redis refuses.
pub async fn create(redis: &mut MultiplexedConnection, line: &Line) -> anyhow::Result<()> {
    let _: String = redis
        .xgroup_create_mkstream(line.stream, line.group, "$")
        .await
        .with_context(|| format!("creating group {} of stream {}", line.group, line.stream))?;
    Ok(())
}

/// Adds orders at `rate` until the task is dropped.
pub async fn generate(mut redis: MultiplexedConnection, line: Line, rate: Rate, world: Shared) {
    let mut owed = Owed::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let due = owed.take(rate.per_second() * 1000, Instant::now(), 5_000);
        let full = world.lock().backlog(line.stream).is_some_and(|waiting| waiting >= line.most_waiting);
        if due == 0 || full {
            continue;
        }
        let mut pipe = redis::pipe();
        for _ in 0..due {
            pipe.cmd("XADD").arg(line.stream).arg("*").arg("order").arg("1").ignore();
        }
        if let Err(error) = pipe.query_async::<()>(&mut redis).await {
            tracing::warn!(%error, stream = line.stream, "adding orders failed");
        }
    }
}

/// Takes orders off at the set rate times the Ready pods that the API server shows, until the task is dropped; writes
/// what Redis says of the group into the world.
pub async fn work(mut redis: MultiplexedConnection, line: Line, world: Shared) {
    let mut owed = Owed::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let ready = world.lock().ready(line.namespace, line.app);
        let milli = line.rate_milli * ready.len() as u64;
        // idle workers do not save up work for later: at most one second of it
        let due = owed.take(milli, Instant::now(), milli / 1000 + 1);
        if let Err(error) = take_off(&mut redis, &line, &ready, due).await {
            tracing::warn!(%error, stream = line.stream, "taking orders off failed");
        }
        match facts(&mut redis, &line).await {
            Ok(facts) => {
                world.lock().queues.insert(line.stream.to_owned(), facts);
            }
            Err(error) => tracing::warn!(%error, stream = line.stream, "reading the queue failed"),
        }
    }
}

async fn take_off(redis: &mut MultiplexedConnection, line: &Line, ready: &[String], due: u64) -> anyhow::Result<()> {
    let Some(consumer) = ready.first() else { return Ok(()) };
    if due == 0 {
        return Ok(());
    }
    let options = StreamReadOptions::default().group(line.group, consumer).count(usize::try_from(due)?);
    let reply: Option<StreamReadReply> = redis.xread_options(&[line.stream], &[">"], &options).await?;
    let ids: Vec<String> = reply.into_iter().flat_map(|r| r.keys).flat_map(|k| k.ids).map(|entry| entry.id).collect();
    if !ids.is_empty() {
        let _: u64 = redis.xack(line.stream, line.group, &ids).await?;
    }
    Ok(())
}

async fn facts(redis: &mut MultiplexedConnection, line: &Line) -> anyhow::Result<QueueFacts> {
    let groups: StreamInfoGroupsReply = redis.xinfo_groups(line.stream).await?;
    let group = groups.groups.iter().find(|g| g.name == line.group).context("the group is gone")?;
    Ok(QueueFacts {
        lag: group.lag.context("Redis cannot tell the lag of the group")? as u64,
        pending: group.pending as u64,
    })
}

/// Fractions of orders carried from tick to tick.
#[derive(Default)]
struct Owed {
    milli: u64,
    last: Option<Instant>,
}

impl Owed {
    /// Whole orders due by now at `rate_milli` thousandths per second, at most `cap`; what is above the cap is forgotten.
    fn take(&mut self, rate_milli: u64, now: Instant, cap: u64) -> u64 {
        let elapsed_ms = self.last.map_or(0, |last| u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX));
        self.last = Some(now);
        self.milli += rate_milli * elapsed_ms / 1000;
        let due = (self.milli / 1000).min(cap);
        self.milli = if due == cap { 0 } else { self.milli - due * 1000 };
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_many_ticks() {
        let start = Instant::now();
        let mut owed = Owed::default();
        let total: u64 = (0..=200).map(|i| owed.take(7_300, start + TICK * i, 1_000)).sum();
        assert_eq!(total, 73);
    }
}
