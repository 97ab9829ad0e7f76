//! What a pool is told: its configuration for the policy, who else has its target, its conditions and status.
use crate::clock::time_of;
use crate::objects::{Autoscalers, PoolKey, TargetKey};
use crate::status::{merged, ours};
use fairlead_crds::conditions::Wanted;
use fairlead_crds::keys::{condition, reason};
use fairlead_crds::worker_pool::Backlog as WireBacklog;
use fairlead_crds::{WorkerPool, WorkerPoolSpec, WorkerPoolStatus};
use fairlead_scaling::{Backlog, Decision, Limit, PoolConfig};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reasons of the condition ScalingActive beside those that other parts know.
pub mod why {
    /// A policy or webhook does not accept the replicas.
    pub const DENIED: &str = "ScaleDenied";
    /// The operator may not read or write the target's scale.
    pub const FORBIDDEN: &str = "ScaleForbidden";
    /// Somebody else changed the replicas a moment ago.
    pub const HELD: &str = "ManualChangeHeld";
    /// The backlog is unknown.
    pub const QUEUE_UNKNOWN: &str = "QueueUnknown";
    /// The tenant's limits cannot be read.
    pub const QUOTA_INVALID: &str = "QuotaInvalid";
    /// The scale could not be read or written.
    pub const UNREAD: &str = "ScaleUnread";
}

/// Numbers out of range are refused by the schema; here they become the nearest in range.
#[must_use]
pub fn config(spec: &WorkerPoolSpec) -> PoolConfig {
    let replicas = |n: i32| u32::try_from(n).unwrap_or(0);
    let ms = |seconds: i32| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let catch_up = &spec.scaling.policy.catch_up;
    PoolConfig {
        min: replicas(spec.min_replicas),
        max: replicas(spec.max_replicas),
        rate_per_second_milli: u64::try_from(spec.worker.rate_per_second_milli).unwrap_or(1),
        startup_ms: ms(spec.worker.startup_seconds),
        drain_ms: ms(catch_up.drain_seconds),
        utilization_percent: replicas(catch_up.utilization_percent),
        scale_down_window_ms: ms(spec.scaling.scale_down.window_seconds),
        idle_ms: ms(spec.scaling.scale_down.idle_seconds),
    }
}

/// Who else has the target: an autoscaler, or an older pool (then the first by name).
#[must_use]
pub fn rival(
    key: &PoolKey,
    pool: &WorkerPool,
    pools: &BTreeMap<PoolKey, Arc<WorkerPool>>,
    autoscalers: &Autoscalers,
) -> Option<String> {
    let target = TargetKey::of(&key.namespace, &pool.spec.scale_target_ref);
    if let Some(name) = autoscalers.of(&target) {
        return Some(format!(
            "HorizontalPodAutoscaler {name} scales the same {}: remove one of the two; nothing is written meanwhile",
            target.kind
        ));
    }
    let age = |pool: &WorkerPool| pool.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let mine = (age(pool), key);
    let older = pools.iter().find(|(other, theirs)| {
        *other != key
            && TargetKey::of(&other.namespace, &theirs.spec.scale_target_ref) == target
            && (age(theirs), *other) < mine
    });
    older.map(|(other, _)| {
        format!("the older WorkerPool {} scales the same {}: remove one of the two", other.name, target.kind)
    })
}

/// Longest `status.selector` by its schema.
const SELECTOR_LENGTH_MAX: usize = 4096;

/// Why replicas are not driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `Some(false)` for certain, `None` for what may pass by itself.
    pub status: Option<bool>,
    /// Reason.
    pub reason: &'static str,
    /// Message.
    pub message: String,
}

impl Refusal {
    /// For certain.
    #[must_use]
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Some(false), reason, message: message.into() }
    }
}

/// The tenant of the pool's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// None: no limit applies.
    None,
    /// One with limits that may or may not concern the pool.
    Some,
    /// One whose limits cannot be read.
    Unreadable,
}

/// What the conditions are made from.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// Why replicas are not driven, if so.
    pub refusal: Option<Refusal>,
    /// The backlog.
    pub backlog: Backlog,
    /// Where it comes from, or why it is unknown.
    pub queue_message: &'a str,
    /// The tenant.
    pub tenancy: Tenancy,
    /// The last decision; none before the target was read.
    pub decision: Option<&'a Decision>,
    /// Most replicas by quota.
    pub quota: Option<u32>,
    /// Ordered replicas.
    pub ordered: u32,
    /// Ready pods.
    pub ready: u32,
    /// Label selector of the target's pods; none before the target was read.
    pub selector: Option<&'a str>,
}

/// The three conditions.
#[must_use]
pub fn conditions(findings: &Findings<'_>) -> [Wanted; 3] {
    [scaling_active(findings), queue_known(findings), limited(findings)]
}

fn scaling_active(findings: &Findings<'_>) -> Wanted {
    let unknown = matches!(findings.backlog, Backlog::Unknown { .. });
    let (status, why, message) = match &findings.refusal {
        Some(Refusal { status, reason, message }) => (*status, *reason, message.clone()),
        None if unknown => {
            (Some(false), why::QUEUE_UNKNOWN, "replicas are held until the queue is known again".to_owned())
        }
        None => (Some(true), reason::AS_EXPECTED, "replicas follow the queue".to_owned()),
    };
    Wanted { type_: condition::SCALING_ACTIVE, status, reason: why.to_owned(), message }
}

fn queue_known(findings: &Findings<'_>) -> Wanted {
    let (status, why) = match findings.backlog {
        Backlog::Known { .. } => (Some(true), reason::AS_EXPECTED),
        Backlog::Unknown { why } => (None, why.as_str()),
    };
    let message = findings.queue_message.to_owned();
    Wanted { type_: condition::QUEUE_KNOWN, status, reason: why.to_owned(), message }
}

fn limited(findings: &Findings<'_>) -> Wanted {
    let by_quota = findings.decision.is_some_and(|decision| decision.limited_by == Some(Limit::Quota));
    let unknown = matches!(findings.backlog, Backlog::Unknown { .. });
    let (status, why, message) = match findings.tenancy {
        Tenancy::None => (Some(false), reason::NO_TENANT, "the namespace belongs to no TenantQuota: no limit applies"),
        Tenancy::Unreadable => {
            (None, why::QUOTA_INVALID, "the tenant's limits cannot be read; its TenantQuota says what is wrong")
        }
        Tenancy::Some if by_quota => (
            Some(true),
            reason::HARD_LIMIT_REACHED,
            "the tenant's hard limits admit fewer replicas than the queue asks for; the pool asks for no more",
        ),
        // Not asked is not the same as admitted (I4).
        Tenancy::Some if findings.decision.is_none() => {
            (None, why::UNREAD, "the target's replicas are not known, so nothing was asked of the quota")
        }
        Tenancy::Some if unknown => {
            (None, why::QUEUE_UNKNOWN, "what the queue asks for is unknown, so nothing was asked of the quota")
        }
        Tenancy::Some => (Some(false), reason::BELOW_LIMIT, "the queue asks for no more than the quota admits"),
    };
    Wanted { type_: condition::LIMITED_BY_QUOTA, status, reason: why.to_owned(), message: message.to_owned() }
}

/// The status as it should be; `current` are the conditions as last known, `wall_ms` is the time for those that change.
#[must_use]
pub fn status(
    findings: &Findings<'_>,
    current: &[Condition],
    generation: Option<i64>,
    wall_ms: u64,
) -> WorkerPoolStatus {
    let int = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let long = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (backlog, wanted) = match findings.backlog {
        Backlog::Known { length, in_flight, .. } => (
            Some(WireBacklog { length: long(length), in_flight: long(in_flight) }),
            findings.decision.map(|decision| int(decision.wanted)),
        ),
        Backlog::Unknown { .. } => (None, None),
    };
    WorkerPoolStatus {
        observed_generation: generation,
        wanted_replicas: wanted,
        ordered_replicas: int(findings.ordered),
        ready_replicas: int(findings.ready),
        quota_replicas: findings.quota.map(int),
        // A text that the schema does not take would keep all the rest from being written.
        selector: findings.selector.filter(|text| text.len() <= SELECTOR_LENGTH_MAX).map(str::to_owned),
        backlog,
        conditions: merged(current, &conditions(findings), generation, &time_of(wall_ms)),
    }
}

/// When a status is written: at once if a condition, the orders or the generation changed, otherwise at most once a second.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    last: Option<(WorkerPoolStatus, u64)>,
    /// Until when nothing is tried after a refusal, and how long that pause was.
    refused: Option<(u64, u64)>,
}

impl Pace {
    /// Least time between two writes of numbers.
    const NUMBERS_MS: u64 = 1_000;
    /// What was written is believed to stand for so long, until the watch shows it.
    const BELIEVED_MS: u64 = 5_000;
    /// Pause after a refused write; each one after it doubles the pause.
    const REFUSED_MS: u64 = 1_000;
    /// Longest such pause.
    const REFUSED_MS_MAX: u64 = 60_000;

    /// The status as last known: what was written a moment ago, else what the watch shows.
    #[must_use]
    pub fn known<'a>(&'a self, shown: Option<&'a WorkerPoolStatus>, now_ms: u64) -> Option<&'a WorkerPoolStatus> {
        let believed = self.last.as_ref().filter(|(_, at_ms)| now_ms.saturating_sub(*at_ms) < Self::BELIEVED_MS);
        believed.map(|(status, _)| status).or(shown)
    }

    /// Whether `wanted` is to be written now.
    #[must_use]
    pub fn is_due(&self, shown: Option<&WorkerPoolStatus>, wanted: &WorkerPoolStatus, now_ms: u64) -> bool {
        if self.refused.is_some_and(|(until_ms, _)| now_ms < until_ms) {
            return false;
        }
        let Some(known) = self.known(shown, now_ms) else { return true };
        let conditions = ours(&known.conditions, &wanted.conditions);
        let brief = |conditions: &[Condition]| -> Vec<(String, String, String)> {
            conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
        };
        let urgent = known.ordered_replicas != wanted.ordered_replicas
            || known.observed_generation != wanted.observed_generation
            || known.selector != wanted.selector
            || brief(&conditions) != brief(&wanted.conditions);
        if (WorkerPoolStatus { conditions, ..known.clone() }) == *wanted {
            return false;
        }
        let waited = self.last.as_ref().is_none_or(|(_, at_ms)| now_ms.saturating_sub(*at_ms) >= Self::NUMBERS_MS);
        urgent || waited
    }

    /// It was written.
    pub fn wrote(&mut self, status: WorkerPoolStatus, now_ms: u64) {
        (self.last, self.refused) = (Some((status, now_ms)), None);
    }

    /// It was refused, or there was no answer.
    pub fn refused(&mut self, now_ms: u64) {
        let pause_ms = self.refused.map_or(Self::REFUSED_MS, |(_, last)| (last * 2).min(Self::REFUSED_MS_MAX));
        self.refused = Some((now_ms.saturating_add(pause_ms), pause_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;
    use fairlead_runtime::WatchEvent;
    use fairlead_scaling::{Terms, UnknownReason};
    use serde_json::json;

    fn pool(name: &str, created: &str, target: &str) -> (PoolKey, Arc<WorkerPool>) {
        let pool = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": {"namespace": "n", "name": name, "creationTimestamp": created},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                "maxReplicas": 9, "queueSources": []}
        }))
        .unwrap();
        (PoolKey { namespace: "n".into(), name: name.into() }, Arc::new(pool))
    }

    #[test]
    fn the_older_pool_keeps_the_target_and_an_autoscaler_stops_both() {
        let pools = BTreeMap::from([
            pool("a", "2026-01-02T00:00:00Z", "w"),
            pool("b", "2026-01-01T00:00:00Z", "w"),
            pool("c", "2025-01-01T00:00:00Z", "other"),
        ]);
        let none = Autoscalers::default();
        let rivals: Vec<bool> = pools.iter().map(|(key, pool)| rival(key, pool, &pools, &none).is_some()).collect();
        assert_eq!(rivals, [true, false, false]);
        let hpa =
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "h"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}}}));
        let mut objects = Objects::default();
        objects.autoscaler(WatchEvent::Reset(vec![hpa.unwrap()]));
        let (key, b) = pool("b", "2026-01-01T00:00:00Z", "w");
        assert!(rival(&key, &b, &pools, &objects.autoscalers).unwrap().contains("HorizontalPodAutoscaler h"));
    }

    fn decision(limited_by: Option<Limit>) -> Decision {
        Decision { wanted: 9, replicas: 5, limited_by, hold: None, terms: Terms::default() }
    }

    fn findings(decision: &Decision) -> Findings<'_> {
        Findings {
            refusal: None,
            backlog: Backlog::Known { length: 7, in_flight: 1, at_ms: 0 },
            queue_message: "m",
            tenancy: Tenancy::Some,
            decision: Some(decision),
            quota: Some(5),
            ordered: 5,
            ready: 4,
            selector: Some("app=picker"),
        }
    }

    fn brief(findings: &Findings<'_>) -> Vec<(Option<bool>, String)> {
        conditions(findings).into_iter().map(|c| (c.status, c.reason)).collect()
    }

    #[test]
    fn the_selector_of_the_target_is_told_unless_the_schema_would_refuse_it() {
        let decided = decision(None);
        let mut found = findings(&decided);
        let told = |found: &Findings<'_>| status(found, &[], Some(1), 0).selector;
        assert_eq!(told(&found).as_deref(), Some("app=picker"));
        let pace = Pace { last: Some((status(&found, &[], Some(1), 0), 0)), refused: None };
        found.selector = Some("app=packer");
        assert!(pace.is_due(None, &status(&found, &[], Some(1), 0), 1), "pods wait for their wishes");
        let long = "a".repeat(SELECTOR_LENGTH_MAX + 1);
        found.selector = Some(&long);
        assert_eq!(told(&found), None);
    }

    #[test]
    fn conditions_tell_what_holds_the_pool() {
        let at_limit = decision(Some(Limit::Quota));
        let mut found = findings(&at_limit);
        let yes = |reason: &str| (Some(true), reason.to_owned());
        let no = |reason: &str| (Some(false), reason.to_owned());
        assert_eq!(brief(&found), [yes("AsExpected"), yes("AsExpected"), yes("HardLimitReached")]);
        found.tenancy = Tenancy::None;
        assert_eq!(brief(&found)[2], no("NoTenant"));
        found.refusal = Some(Refusal::no(reason::SCALE_CONFLICT, "x"));
        assert_eq!(brief(&found)[0], no("ScaleConflict"));
        let free = decision(Some(Limit::Max));
        assert_eq!(brief(&findings(&free))[2], no("BelowLimit"));
    }

    #[test]
    fn what_was_not_asked_is_neither_limited_nor_admitted() {
        let (held, at_limit) = (decision(None), decision(Some(Limit::Quota)));
        let mut found = findings(&held);
        found.backlog = Backlog::Unknown { why: UnknownReason::SecretNotGranted };
        let unknown = |reason: &str| (None, reason.to_owned());
        let queue_unknown = (Some(false), "QueueUnknown".to_owned());
        assert_eq!(brief(&found), [queue_unknown, unknown("SecretNotGranted"), unknown("QueueUnknown")]);
        found.decision = Some(&at_limit);
        assert_eq!(brief(&found)[2], (Some(true), "HardLimitReached".to_owned()), "the pool's minimum hits the limit");
        found.decision = None;
        assert_eq!(brief(&found)[2], unknown("ScaleUnread"));
        found = findings(&held);
        found.tenancy = Tenancy::Unreadable;
        assert_eq!(brief(&found)[2], unknown("QuotaInvalid"));
    }

    #[test]
    fn unknown_shows_no_numbers() {
        let held = decision(None);
        let mut found = findings(&held);
        let known = status(&found, &[], Some(1), 0);
        assert_eq!((known.wanted_replicas, known.backlog.unwrap().length, known.quota_replicas), (Some(9), 7, Some(5)));
        found.backlog = Backlog::Unknown { why: UnknownReason::Stale };
        let unknown = status(&found, &[], Some(1), 0);
        assert_eq!((unknown.wanted_replicas, unknown.backlog, unknown.ordered_replicas), (None, None, 5));
    }

    #[test]
    fn numbers_are_written_once_a_second_and_facts_at_once() {
        let decided = decision(None);
        let mut found = findings(&decided);
        let mut pace = Pace::default();
        let first = status(&found, &[], Some(1), 0);
        assert!(pace.is_due(None, &first, 0));
        pace.wrote(first.clone(), 0);
        assert!(!pace.is_due(None, &first, 100));
        found.backlog = Backlog::Known { length: 8, in_flight: 1, at_ms: 100 };
        let moved = status(&found, &first.conditions, Some(1), 100);
        assert!(!pace.is_due(None, &moved, 100));
        assert!(pace.is_due(None, &moved, 1_000));
        found.ordered = 6;
        let ordered = status(&found, &first.conditions, Some(1), 200);
        assert!(pace.is_due(None, &ordered, 200));
        // Believed for a while; then what the watch shows counts.
        assert!(!pace.is_due(Some(&ordered), &first, 4_000));
        assert!(pace.is_due(Some(&ordered), &first, 5_000));
    }

    #[test]
    fn a_foreign_condition_and_a_refusal_do_not_make_writes() {
        let decided = decision(None);
        let wanted = status(&findings(&decided), &[], Some(1), 0);
        let mut shown = wanted.clone();
        let foreign = Condition { type_: "Foreign".into(), ..wanted.conditions[0].clone() };
        shown.conditions.insert(0, foreign);
        let mut pace = Pace::default();
        assert!(!pace.is_due(Some(&shown), &wanted, 0));
        shown.ordered_replicas += 1;
        let tries = |pace: &mut Pace| {
            let mut tries = 0;
            for now_ms in (0..600_000).step_by(500) {
                if pace.is_due(Some(&shown), &wanted, now_ms) {
                    pace.refused(now_ms);
                    tries += 1;
                }
            }
            tries
        };
        assert_eq!(tries(&mut pace), 15, "1, 2, 4 … 32, then each 60 s");
        pace.wrote(wanted.clone(), 600_000);
        assert!(pace.is_due(Some(&shown), &status(&findings(&decided), &[], Some(2), 0), 600_001));
    }

    #[test]
    fn the_schema_is_the_guard_and_odd_numbers_do_no_harm() {
        let (_, pool) = pool("a", "2026-01-01T00:00:00Z", "w");
        let mut spec = pool.spec.clone();
        assert_eq!(config(&spec).scale_down_window_ms, 120_000);
        spec.min_replicas = -4;
        spec.worker.rate_per_second_milli = -1;
        assert_eq!((config(&spec).min, config(&spec).rate_per_second_milli), (0, 1));
    }
}
