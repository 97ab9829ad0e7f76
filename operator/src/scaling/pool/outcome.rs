//! What a turn of a pool leads to: the write of replicas, the status, the events.
use super::super::judge::{self, Findings, Refusal, Tenancy, why};
use super::super::queue::Judgement;
use super::super::report::PoolReport;
use super::super::target::TargetError;
use super::PoolTask;
use crate::metrics::ScaleOutcome;
use crate::objects::PoolKey;
use crate::status::apply_body;
use crate::status::writer::{params, reference};
use crate::view::View;
use fairlead_crds::keys::{manager, reason};
use fairlead_crds::{WorkerPool, WorkerPoolStatus};
use fairlead_runtime::{API_DEADLINE, Fact, Severity, deadline};
use fairlead_scaling::{Backlog, Decision, Hold as Held};
use kube::Api;
use kube::api::Patch;

impl PoolTask {
    pub(super) async fn order(&mut self, pool: &WorkerPool, from: u32, decision: &Decision) -> Option<Refusal> {
        let to = decision.replicas;
        let target = &pool.spec.scale_target_ref;
        match self.shared.targets.order(&self.key.namespace, target, from, to).await {
            Ok(()) => {
                self.shared.metrics.scaled(ScaleOutcome::Written);
                self.hold.wrote(to);
                self.denials.accepted();
                self.scale_at_ms = Some(self.shared.clock.ms());
                if let Some(scale) = &mut self.scale {
                    scale.replicas = to;
                }
                tracing::info!(pool = %self.key, from, to, "Scaled");
                self.tell(pool, Severity::Normal, "Scaled", scaled_text(from, decision));
                None
            }
            Err(error) => {
                let conflict = matches!(error, TargetError::Conflict { .. });
                self.shared.metrics.scaled(if conflict { ScaleOutcome::Conflict } else { ScaleOutcome::Failed });
                if matches!(error, TargetError::Api { outcome_unknown: true, .. }) {
                    self.hold.may_have_written(to);
                }
                tracing::warn!(pool = %self.key, from, to, %error, "Not scaled");
                // Whatever it was: the next turn looks at the scale as it is.
                self.scale_at_ms = None;
                let refusal = (!conflict).then(|| target_refusal(&error));
                if let (TargetError::Denied { .. } | TargetError::Forbidden { .. }, Some(refusal)) = (&error, &refusal)
                {
                    self.denials.denied(self.shared.clock.ms(), from, to, refusal.clone());
                }
                refusal
            }
        }
    }

    pub(super) async fn publish(
        &mut self,
        view: &View,
        pool: &WorkerPool,
        judgement: &Judgement,
        refusal: Option<Refusal>,
        decided: Option<(Decision, Option<u32>)>,
        ready: u32,
    ) {
        let now_ms = self.shared.clock.ms();
        let ordered = self.scale.as_ref().map_or(0, |scale| scale.replicas);
        let (decision, quota) = decided.unzip();
        let quota = quota.flatten();
        let tenancy = match (view.tenant_of(&self.key.namespace), self.quota_fault(view)) {
            (None, _) => Tenancy::None,
            (Some(_), Some(_)) => Tenancy::Unreadable,
            (Some(_), None) => Tenancy::Some,
        };
        let known = self.pace.known(pool.status.as_ref(), now_ms).cloned().unwrap_or_default();
        // Unknown is not nothing: pods must not lose their wishes because a read failed (I4).
        let selector = self.scale.as_ref().map_or(&known.selector, |scale| &scale.selector_text);
        let findings = Findings {
            refusal,
            backlog: judgement.backlog,
            queue_message: &judgement.message,
            tenancy,
            decision: decision.as_ref(),
            quota,
            ordered,
            ready,
            selector: selector.as_deref(),
        };
        let backlog = match judgement.backlog {
            Backlog::Known { length, in_flight, .. } => Some((length, in_flight)),
            Backlog::Unknown { .. } => None,
        };
        let wanted = decision.filter(|_| backlog.is_some()).map(|decision| decision.wanted);
        let report = PoolReport { wanted, ordered, ready, quota, backlog, decision };
        self.shared.reports.put(&self.key, report);
        let status = judge::status(&findings, &known.conditions, pool.metadata.generation, self.shared.clock.wall_ms());
        if self.leads(view) && self.pace.is_due(pool.status.as_ref(), &status, now_ms) {
            self.tell_changes(pool, &known, &status);
            self.write_status(pool, status, now_ms).await;
        }
    }

    async fn write_status(&mut self, pool: &WorkerPool, status: WorkerPoolStatus, now_ms: u64) {
        let PoolKey { namespace, name } = &self.key;
        let api: Api<WorkerPool> = Api::namespaced(self.shared.client.clone(), namespace);
        let body = apply_body("WorkerPool", Some(namespace), name, pool.metadata.uid.as_deref(), &status);
        let params = params(manager::POOL_STATUS);
        let write = deadline("write status", API_DEADLINE, api.patch_status(name, &params, &Patch::Apply(&body))).await;
        match write {
            Ok(_) => self.pace.wrote(status, now_ms),
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(pool = %self.key, error = %error.chain(), "Status was not written");
                self.pace.refused(now_ms);
            }
        }
    }

    /// A condition that turned bad is an event.
    fn tell_changes(&self, pool: &WorkerPool, before: &WorkerPoolStatus, after: &WorkerPoolStatus) {
        for now in &after.conditions {
            let was = before.conditions.iter().find(|c| c.type_ == now.type_);
            let same = was.is_some_and(|was| (&was.status, &was.reason) == (&now.status, &now.reason));
            let bad = match now.type_.as_str() {
                fairlead_crds::keys::condition::LIMITED_BY_QUOTA => now.status == "True",
                _ => now.status == "False" && now.reason != why::QUEUE_UNKNOWN,
            };
            if bad && !same {
                self.tell(pool, Severity::Warning, &now.reason, now.message.clone());
            }
        }
    }

    fn tell(&self, pool: &WorkerPool, severity: Severity, reason: &str, message: String) {
        self.shared.events.record(Fact {
            regarding: reference(pool, "WorkerPool"),
            severity,
            reason: reason.to_owned(),
            action: "Scale".to_owned(),
            message,
        });
    }
}

pub(super) fn target_refusal(error: &TargetError) -> Refusal {
    let message = error.to_string();
    match error {
        TargetError::NoSuchKind { .. } | TargetError::NotFound { .. } => Refusal::no(reason::TARGET_NOT_FOUND, message),
        TargetError::Forbidden { .. } => Refusal::no(why::FORBIDDEN, message),
        TargetError::Denied { .. } => Refusal::no(why::DENIED, message),
        _ => Refusal { status: None, reason: why::UNREAD, message },
    }
}

/// Why the replicas changed, for people.
fn scaled_text(from: u32, decision: &Decision) -> String {
    if let Some(Held::Unknown(why)) = decision.hold {
        let to = decision.replicas;
        return format!(
            "replicas from {from} to {to}, the pool's own bounds; the backlog is unknown ({})",
            why.as_str()
        );
    }
    let terms = &decision.terms;
    let per_second = |milli: u64| format!("{}.{}", milli / 1000, milli % 1000 / 100);
    let arrivals = terms.arrivals_milli.map_or_else(|| "unknown".to_owned(), |rate| format!("{}/s", per_second(rate)));
    let limited = decision.limited_by.map_or(String::new(), |limit| format!(", limited by {}", limit.as_str()));
    format!(
        "replicas from {from} to {}: backlog {}, arrivals {arrivals}, one worker {}/s{limited}",
        decision.replicas,
        terms.length.saturating_add(terms.in_flight),
        per_second(terms.service_milli)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_scaling::{Limit, Terms, UnknownReason};

    #[test]
    fn the_event_says_why() {
        let terms = Terms { arrivals_milli: Some(102_500), service_milli: 10_000, length: 40, ..Terms::default() };
        let decision = Decision { wanted: 30, replicas: 20, limited_by: Some(Limit::Quota), hold: None, terms };
        assert_eq!(
            scaled_text(4, &decision),
            "replicas from 4 to 20: backlog 40, arrivals 102.5/s, one worker 10.0/s, limited by Quota"
        );
        let unknown = Decision { hold: Some(Held::Unknown(UnknownReason::Unreachable)), replicas: 2, ..decision };
        let text = scaled_text(0, &unknown);
        assert!(text.contains("unknown (Unreachable)") && !text.contains("backlog 0"), "{text}");
    }

    #[test]
    fn target_errors_become_reasons() {
        let missing = TargetError::NotFound { kind: "Deployment".into(), name: "w".into() };
        assert_eq!(target_refusal(&missing).reason, "TargetNotFound");
        let forbidden = TargetError::Forbidden { operation: "read the scale", kind: "X".into() };
        assert_eq!(
            (target_refusal(&forbidden).reason, target_refusal(&forbidden).status),
            ("ScaleForbidden", Some(false))
        );
        let denied = TargetError::Denied { kind: "X".into(), name: "w".into(), to: 9, what: "at most 8".into() };
        let told = target_refusal(&denied);
        assert_eq!((told.reason, told.status), ("ScaleDenied", Some(false)));
        assert!(told.message.contains("9 replicas") && told.message.contains("at most 8"), "{}", told.message);
        let away = TargetError::Api { what: "gone".into(), outcome_unknown: true };
        assert_eq!((target_refusal(&away).reason, target_refusal(&away).status), ("ScaleUnread", None));
    }
}
