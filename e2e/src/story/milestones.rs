//! Milestones: what must be seen, in order, each within a bound of time; one JSON object per line when it was.
use super::watch::Shared;
use super::world::World;
use anyhow::bail;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(50);

/// Where milestones are told: to a line-based output, to the view, or to a test.
pub trait Teller: Send + Sync {
    /// A milestone was seen.
    fn milestone(&self, name: &str, at_ms: u64, detail: &Value);
    /// Something that people may want to know while they wait.
    fn progress(&self, text: &str);
}

/// Prints milestones as JSON lines on stdout, progress on stderr.
pub struct Lines;

impl Teller for Lines {
    #[allow(clippy::print_stdout)]
    fn milestone(&self, name: &str, at_ms: u64, detail: &Value) {
        println!("{}", json!({ "milestone": name, "at_ms": at_ms, "detail": detail }));
    }

    fn progress(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// The clock of the story and what it has told.
pub struct Milestones<'a> {
    start: Instant,
    world: Shared,
    teller: &'a dyn Teller,
    patience: Duration,
}

impl<'a> Milestones<'a> {
    /// Starts the clock. `patience` is added to the bound of every milestone: what an outage may cost.
    pub fn new(world: Shared, teller: &'a dyn Teller, patience: Duration) -> Self {
        Self { start: Instant::now(), world, teller, patience }
    }

    /// Whether faults may happen: then only what must hold under faults is asked for.
    #[must_use]
    pub fn faults_may_happen(&self) -> bool {
        !self.patience.is_zero()
    }

    /// Reads the world as it is now.
    pub fn now<T>(&self, read: impl Fn(&World) -> T) -> T {
        read(&self.world.lock())
    }

    /// Does something to the cluster; within the patience a failure is tried again.
    ///
    /// # Errors
    /// The last failure.
    pub async fn persist<T, F>(&self, mut act: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            match act().await {
                Err(error) if Instant::now() < deadline => {
                    self.progress(&format!("trying again: {error:#}"));
                    sleep(Duration::from_secs(1)).await;
                }
                done => return done,
            }
        }
    }

    /// Tells what happens next.
    pub fn progress(&self, text: &str) {
        self.teller.progress(&format!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    /// Tells a milestone that was brought about rather than waited for.
    pub fn reached(&self, name: &str, detail: &Value) {
        let at_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.teller.milestone(name, at_ms, detail);
    }

    /// Waits until `seen` gives a detail; fails with what `missing` says of the world when `within` has passed.
    ///
    /// # Errors
    /// The time is up, CPUs were held twice, or a tenant was above its hard limit.
    pub async fn wait(
        &self,
        name: &str,
        within: Duration,
        mut seen: impl FnMut(&World) -> Option<Value>,
        missing: impl Fn(&World) -> String,
    ) -> anyhow::Result<Instant> {
        let within = within + self.patience;
        let deadline = Instant::now() + within;
        loop {
            {
                let world = self.world.lock();
                if let Some(breach) = world.double_promises.first() {
                    bail!("milestone {name}: CPUs are held twice: {breach}");
                }
                if let Some(breach) = world.over_limit.first() {
                    bail!("milestone {name}: above a hard limit: {breach}");
                }
                if let Some(detail) = seen(&world) {
                    drop(world);
                    self.reached(name, &detail);
                    return Ok(Instant::now());
                }
                if Instant::now() > deadline {
                    bail!("milestone {name} was not seen within {} s: {}", within.as_secs(), missing(&world));
                }
            }
            sleep(POLL).await;
        }
    }
}

/// Gives the value of `probe` once it has stayed the same for `hold`.
pub fn settled<T: PartialEq>(
    hold: Duration,
    mut probe: impl FnMut(&World) -> Option<T>,
) -> impl FnMut(&World) -> Option<T> {
    let mut since: Option<(Instant, T)> = None;
    move |world| {
        let now = probe(world);
        match (now, &since) {
            (None, _) => {
                since = None;
                None
            }
            (Some(value), Some((start, before))) if *before == value => (start.elapsed() >= hold).then_some(value),
            (Some(value), _) => {
                since = Some((Instant::now(), value));
                None
            }
        }
    }
}
