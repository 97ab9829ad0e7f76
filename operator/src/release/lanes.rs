//! Lanes: how many writes on pods are under way at once, and for whom. One tenant has at most half of them; a tenant whose
//! writes keep failing or hanging has one at a time, beside those of the others, until one of them succeeds. So what makes
//! one tenant's pods refuse every write (its own admission webhook is down) costs the others nothing.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
    tenants: Mutex<BTreeMap<String, Arc<Lane>>>,
}

/// What one tenant may.
#[derive(Debug)]
pub struct Lane {
    own: Semaphore,
    single: Semaphore,
    strikes: AtomicU32,
}

/// Held while a write is under way.
#[derive(Debug)]
pub struct Permit<'a>(#[allow(dead_code, reason = "given back by the drop")] [SemaphorePermit<'a>; 2]);

impl Lanes {
    /// At most `concurrency` writes at once.
    #[must_use]
    pub fn new(concurrency: usize) -> Self {
        Self(Arc::new(Shared {
            concurrency,
            main: Semaphore::new(concurrency),
            side: Semaphore::new(SIDE_LANE),
            tenants: Mutex::default(),
        }))
    }

    /// Writes on pods under way at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.0.concurrency
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

    /// Forgets a tenant.
    pub fn forget(&self, tenant: &str) {
        self.0.tenants.lock().remove(tenant);
    }

    /// Waits until this tenant may write.
    ///
    /// # Errors
    /// Never: the lanes are not closed.
    pub async fn enter<'a>(&'a self, lane: &'a Lane) -> Result<Permit<'a>, AcquireError> {
        loop {
            let faltered = lane.falters();
            let (own, shared) = if faltered { (&lane.single, &self.0.side) } else { (&lane.own, &self.0.main) };
            let permits = [own.acquire().await?, shared.acquire().await?];
            // Much may have happened while it stood in line.
            if lane.falters() == faltered {
                return Ok(Permit(permits));
            }
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
        lanes.forget("worse");
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
