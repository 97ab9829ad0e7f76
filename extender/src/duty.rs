//! Which of several replicas binds.
//!
//! That no CPU is promised twice does not depend on it: reservations are written with a test on what was read. But pods of
//! the shared pool cost no write before their Binding, so two replicas that admit at the same moment could fill the pool
//! below its reserve. A sidecar is asked by its own kube-scheduler alone, whose election decides. Behind a Service the
//! holder of the extender's Lease binds, and the others send kube-scheduler away to try again.
use std::time::Duration;

use fairlead_runtime::lease::LeaseState;
use tokio::sync::watch;

/// A term is a moment old before anything is bound in it: by then the watch shows what the holder before bound, all of
/// whose Bindings were answered before it gave the Lease back, or are as old as the Lease is long.
const SETTLE: Duration = Duration::from_secs(1);

/// Whether this replica binds.
#[derive(Clone, Debug)]
pub enum Duty {
    /// Nobody else is asked by the same scheduler.
    Alone,
    /// While it holds the Lease: the candidature, and the term that has settled.
    Leading(watch::Receiver<LeaseState>, watch::Receiver<u64>),
}

impl Duty {
    /// While that Lease is held.
    #[must_use]
    pub fn while_leading(lease: watch::Receiver<LeaseState>) -> Self {
        let (settled, term) = watch::channel(0);
        tokio::spawn(settle(lease.clone(), settled));
        Self::Leading(lease, term)
    }

    /// Whether this replica binds at this very moment: ask right before each write.
    #[must_use]
    pub fn binds(&self) -> bool {
        match self {
            Self::Alone => true,
            Self::Leading(lease, settled) => lease.borrow().term_now().is_some_and(|term| term == *settled.borrow()),
        }
    }
}

/// Until the candidature ends.
async fn settle(mut lease: watch::Receiver<LeaseState>, settled: watch::Sender<u64>) {
    loop {
        let LeaseState { leading, term, .. } = *lease.borrow_and_update();
        if leading {
            tokio::time::sleep(SETTLE).await;
            settled.send_replace(term);
        }
        if lease.changed().await.is_err() {
            return;
        }
    }
}
