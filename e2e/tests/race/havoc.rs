//! Kills of schedulers and extenders at random moments, and what the extenders had counted before they died.

use anyhow::{Context as _, Result};
use fairlead_e2e::bed::Bed;
use fairlead_e2e::dice::Dice;
use fairlead_e2e::kubelet::Running;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

/// Default seed; `FAIRLEAD_SEED` gives another.
pub(crate) const SEED: u64 = 420_771_903;
const ADMIN_PORT: u16 = 9802;
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
const CONFLICTS: &str = "fairlead_extender_reservation_conflicts_total";
const BINDS: &str = "fairlead_extender_binds_total";

/// What each extender said last, by pod and process id: a counter dies with its process.
#[derive(Debug, Default)]
pub(crate) struct Counted(BTreeMap<(String, i32), BTreeMap<String, f64>>);

impl Counted {
    /// Asks one extender.
    async fn ask(&mut self, bed: &Bed, extender: &Running) -> Result<()> {
        let port = bed.kubelet.host_port(&extender.pod, ADMIN_PORT).context("an extender without admin port")?;
        let mut config = kube::Config::new(format!("http://127.0.0.1:{port}").parse()?);
        config.default_retry = false;
        let client = kube::Client::try_from(config)?;
        let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?);
        let text = tokio::time::timeout(SCRAPE_LIMIT, text).await.context("no metrics of an extender in time")??;
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let ours = series.starts_with(CONFLICTS) || series.starts_with(BINDS);
            ours.then(|| Some((series.to_owned(), value.parse().ok()?))).flatten()
        };
        self.0.insert((extender.pod.clone(), extender.pid), text.lines().filter_map(sample).collect());
        Ok(())
    }

    /// Asks all that live.
    pub(crate) async fn ask_all(&mut self, bed: &Bed) -> Result<()> {
        for extender in bed.kubelet.running().iter().filter(|running| running.container == "extender") {
            self.ask(bed, extender).await?;
        }
        Ok(())
    }

    /// Writes that lost to another writer.
    pub(crate) fn conflicts(&self) -> f64 {
        self.0.values().filter_map(|counters| counters.get(CONFLICTS)).sum()
    }

    /// Binds by outcome.
    pub(crate) fn binds(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.0.values().flatten() {
            if let Some(outcome) = series.strip_prefix(BINDS).and_then(|labels| labels.split('"').nth(1)) {
                *sums.entry(outcome.to_owned()).or_default() += value;
            }
        }
        sums
    }

    /// Pods bound by the extender of each scheduler's pod.
    pub(crate) fn bound_by(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for ((pod, _), counters) in &self.0 {
            let bound = counters.iter().filter(|(series, _)| series.contains("\"Bound\"")).map(|(_, value)| value);
            *sums.entry(pod.clone()).or_default() += bound.sum::<f64>();
        }
        sums
    }
}

/// Kills a scheduler or an extender every six to fourteen seconds until `kills` are done, then rests.
pub(crate) async fn havoc(bed: &Bed, dice: &mut Dice, kills: usize, counted: &mut Counted, done: &mut usize) {
    while *done < kills {
        tokio::time::sleep(Duration::from_millis(6_000 + dice.next(8_000))).await;
        let running = bed.kubelet.running();
        let racing = |running: &&Running| matches!(running.program.as_str(), "fairlead-extender" | "kube-scheduler");
        let racing: Vec<&Running> = running.iter().filter(racing).collect();
        if racing.is_empty() {
            continue;
        }
        let victim = racing[usize::try_from(dice.next(racing.len() as u64)).unwrap()];
        // One that has just started may not answer yet, and has counted nothing.
        if victim.container == "extender"
            && let Err(error) = counted.ask(bed, victim).await
        {
            eprintln!("the extender of {} told nothing before its end: {error:#}", victim.pod);
        }
        eprintln!("killing {} of {}", victim.program, victim.pod);
        *done += bed.kubelet.signal(Signal::KILL, |now| now.pid == victim.pid);
    }
    std::future::pending::<()>().await;
}
