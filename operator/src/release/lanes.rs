//! Lanes: how many writes on pods are under way at once, and for whom. While others release too, one tenant has at most
//! half of them; a tenant whose writes keep failing or hanging has one at a time, beside those of the others, until one of them succeeds. So what makes
//! one tenant's pods refuse every write (its own admission webhook is down) costs the others nothing.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

/// Failures in a row after which a tenant falters: single pods may be refused for reasons of their own.
const STRIKES_MAX: u32 = 3;
/// Writes of all tenants that falter under way at once, beside those of the others: each may hang for 5 s.
const SIDE_LANE: usize = 8;

/// The lanes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    concurrency: usize,
    main: Semaphore,
    side: Semaphore,
    /// More than one tenant wants the main lane.
    crowded: AtomicBool,
    tenants: Mutex<BTreeMap<String, Arc<Lane>>>,
}

/// What one tenant may.
#[derive(Debug)]
pub struct Lane {
    own: Semaphore,
    single: Semaphore,
    strikes: AtomicU32,
}

/// Where a write stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Its tenant falters.
    Side,
    /// Others write too.
    Shared,
    /// Nobody else does.
    Alone,
}

/// Held while a write is under way.
#[derive(Debug)]
pub struct Permit<'a>(#[allow(dead_code, reason = "given back by the drop")] [Option<SemaphorePermit<'a>>; 2]);

impl Lanes {
    /// At most `concurrency` writes at once.
    #[must_use]
    pub fn new(concurrency: usize) -> Self {
        Self(Arc::new(Shared {
            concurrency,
            main: Semaphore::new(concurrency),
            side: Semaphore::new(SIDE_LANE),
            // Until somebody knows better.
            crowded: AtomicBool::new(true),
            tenants: Mutex::default(),
        }))
    }

    /// Writes on pods under way at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.0.concurrency
    }

    /// Says whether more than one tenant releases, or wants to: a tenant alone may have all of the main lane.
    pub fn crowd(&self, crowded: bool) {
        self.0.crowded.store(crowded, Ordering::Relaxed);
    }

    /// The lane of a tenant.
    #[must_use]
    pub fn of(&self, tenant: &str) -> Arc<Lane> {
        let own = self.0.concurrency.div_ceil(2);
        let lane =
            || Arc::new(Lane { own: Semaphore::new(own), single: Semaphore::new(1), strikes: AtomicU32::default() });
        self.0.tenants.lock().entry(tenant.to_owned()).or_insert_with(lane).clone()
    }

    /// The tenant's last writes failed one and all.
    #[must_use]
    pub fn falters(&self, tenant: &str) -> bool {
        self.0.tenants.lock().get(tenant).is_some_and(|lane| lane.falters())
    }

    /// Forgets the tenants that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.tenants.lock().retain(|tenant, _| keep(tenant));
    }

    /// The tenants that have a lane.
    #[cfg(test)]
    pub(crate) fn tenants(&self) -> Vec<String> {
        self.0.tenants.lock().keys().cloned().collect()
    }

    /// Waits until this tenant may write.
    ///
    /// # Errors
    /// Never: the lanes are not closed.
    pub async fn enter<'a>(&'a self, lane: &'a Lane) -> Result<Permit<'a>, AcquireError> {
        loop {
            let line = self.line(lane);
            let permits = match line {
                Line::Side => [Some(lane.single.acquire().await?), Some(self.0.side.acquire().await?)],
                Line::Shared => [Some(lane.own.acquire().await?), Some(self.0.main.acquire().await?)],
                Line::Alone => [None, Some(self.0.main.acquire().await?)],
            };
            // Much may have happened while it stood in line.
            match (line, self.line(lane)) {
                (line, now) if line == now => return Ok(Permit(permits)),
                // Those that stood behind it may go ahead together; it has what it needs.
                (Line::Shared, Line::Alone) => return Ok(Permit(permits)),
                _ => {}
            }
        }
    }

    fn line(&self, lane: &Lane) -> Line {
        match (lane.falters(), self.0.crowded.load(Ordering::Relaxed)) {
            (true, _) => Line::Side,
            (false, true) => Line::Shared,
            (false, false) => Line::Alone,
        }
    }
}

impl Lane {
    /// A write was answered (done, or found the pod changed or gone), or failed.
    pub fn told(&self, failed: bool) {
        if failed {
            self.strikes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.strikes.store(0, Ordering::Relaxed);
        }
    }

    fn falters(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) >= STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn enters(lanes: &Lanes, lane: &Lane) -> bool {
        tokio::time::timeout(Duration::from_secs(1), lanes.enter(lane)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_hangs_leaves_half_of_the_lanes_to_the_others() {
        let lanes = Lanes::new(4);
        let (bad, good) = (lanes.of("bad"), lanes.of("good"));
        let _hanging = [lanes.enter(&bad).await.unwrap(), lanes.enter(&bad).await.unwrap()];
        assert!(!enters(&lanes, &bad).await);
        assert!(enters(&lanes, &good).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_alone_has_all_lanes_until_another_comes() {
        let lanes = Lanes::new(4);
        lanes.crowd(false);
        let (first, second) = (lanes.of("first"), lanes.of("second"));
        let mut under_way = Vec::new();
        for _ in 0..4 {
            under_way.push(tokio::time::timeout(Duration::from_secs(1), lanes.enter(&first)).await.unwrap().unwrap());
        }
        // These stand in line before the other tenant comes, and stand back for it.
        let stand = |_| {
            let (lanes, first) = (lanes.clone(), first.clone());
            tokio::spawn(async move {
                let _permit = lanes.enter(&first).await.unwrap();
                std::future::pending::<()>().await;
            })
        };
        let standing: Vec<_> = (0..4).map(stand).collect();
        tokio::task::yield_now().await;
        lanes.crowd(true);
        under_way.clear();
        assert!(enters(&lanes, &second).await);
        assert!(!enters(&lanes, &first).await, "half of them");
        standing.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn who_falters_stands_aside_one_by_one_until_a_write_succeeds() {
        let lanes = Lanes::new(2);
        let (bad, worse, good) = (lanes.of("bad"), lanes.of("worse"), lanes.of("good"));
        for _ in 0..STRIKES_MAX {
            assert!(!lanes.falters("bad"));
            bad.told(true);
            worse.told(true);
        }
        assert!(lanes.falters("bad") && !lanes.falters("good"));
        let _one = lanes.enter(&bad).await.unwrap();
        assert!(!enters(&lanes, &bad).await, "one at a time");
        assert!(enters(&lanes, &worse).await, "nor does it hold up others that falter");
        let _main = lanes.enter(&good).await.unwrap();
        bad.told(false);
        assert!(enters(&lanes, &bad).await, "back among the others");
        lanes.retain(|tenant| tenant != "worse");
        assert!(!lanes.falters("worse"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_in_line_when_the_tenant_began_to_falter_goes_aside_too() {
        let lanes = Lanes::new(2);
        let (bad, good) = (lanes.of("bad"), lanes.of("good"));
        let first = lanes.enter(&bad).await.unwrap();
        let waiting = async {
            let _permit = lanes.enter(&bad).await.unwrap();
            assert!(enters(&lanes, &good).await, "the main lane is free");
        };
        let fails = async {
            tokio::task::yield_now().await;
            (0..STRIKES_MAX).for_each(|_| bad.told(true));
            drop(first);
        };
        tokio::join!(waiting, fails);
    }
}
