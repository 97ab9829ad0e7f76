//! What each pool last decided, for metrics and the dump.
use crate::objects::PoolKey;
use fairlead_scaling::Decision;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// What the queue asks for; `None` while it is unknown.
    pub wanted: Option<u32>,
    /// Replicas of the target.
    pub ordered: u32,
    /// Ready pods of the target.
    pub ready: u32,
    /// Most replicas by quota.
    pub quota: Option<u32>,
    /// Undelivered and in flight.
    pub backlog: Option<(u64, u64)>,
    /// The last decision with all its terms.
    pub decision: Option<Decision>,
}

/// All pools that this process drives. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct PoolReports(Arc<Mutex<BTreeMap<PoolKey, PoolReport>>>);

impl PoolReports {
    /// Replaces a pool's report.
    pub fn put(&self, key: &PoolKey, report: PoolReport) {
        self.0.lock().insert(key.clone(), report);
    }

    /// The pool is no longer driven.
    pub fn remove(&self, key: &PoolKey) {
        self.0.lock().remove(key);
    }

    /// All.
    #[must_use]
    pub fn all(&self) -> BTreeMap<PoolKey, PoolReport> {
        self.0.lock().clone()
    }

    /// For the dump.
    #[must_use]
    pub fn dump(&self) -> Value {
        let pools = self.all().into_iter().map(|(key, report)| {
            let PoolReport { wanted, ordered, ready, quota, backlog, decision } = report;
            let entry = json!({
                "wanted": wanted,
                "ordered": ordered,
                "ready": ready,
                "quota": quota,
                "backlog": backlog.map(|(length, in_flight)| json!({ "length": length, "inFlight": in_flight })),
                "decision": decision.map(|decision| format!("{decision:?}")),
            });
            (key.to_string(), entry)
        });
        Value::Object(pools.collect())
    }
}
