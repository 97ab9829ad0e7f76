//! What one pass of the drain does to each pod, decided without asking anyone.
//!
//! A scheduler's name cannot be changed, so a pod that waits for our scheduler comes back under the default one only by
//! being created anew. That is done to pods whose controller creates them anew, and which have not been bound: running
//! pods are never touched. From all other pods only the gate is taken.
use fairlead_crds::keys;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// Passes in which pods of one controller are deleted. A controller whose pods still come back for our scheduler after
/// that names it in its own template.
pub(crate) const MOST_ROUNDS: u32 = 5;

/// What the decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) resource_version: String,
    /// Waits for our scheduler.
    pub(crate) ours: bool,
    /// Index of our gate among the pod's gates.
    pub(crate) gate: Option<usize>,
    /// Bound to a node, ended, or being deleted.
    pub(crate) settled: bool,
    pub(crate) controller: Option<Controller>,
}

/// Who creates the pod anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) uid: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// A Job counts a deleted pod as failed.
    pub(crate) is_job: bool,
}

/// What is remembered from pass to pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Controller UID to passes in which pods of it were deleted.
    rounds: BTreeMap<String, u32>,
    /// Job UID to pods that may still be deleted before the Job fails.
    budgets: BTreeMap<String, u32>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The controller creates it anew. Only in the version that was judged: it may have been bound since.
    Delete { namespace: String, name: String, uid: String, resource_version: String },
    /// Takes the gate at this index.
    Ungate { namespace: String, name: String, uid: String, gate: usize },
}

/// A pod that will stay Pending once Fairlead is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stranded {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) why: Why,
}

/// Why it cannot be given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoController,
    JobWouldFail(String),
    TemplateNamesUs(String),
}

impl Why {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::NoController => "has no controller; delete it and create it anew".into(),
            Self::JobWouldFail(job) => format!(
                "its deletion would count as a failure that Job {job} has no backoffLimit left for; raise it or create the Job anew"
            ),
            Self::TemplateNamesUs(owner) => {
                format!("{owner} names {} in its own template; remove schedulerName there", keys::SCHEDULER_NAME)
            }
        }
    }
}

impl Facts {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| Controller {
            uid: owner.uid.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            is_job: owner.kind == "Job" && owner.api_version.starts_with("batch/"),
        });
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            resource_version: pod.metadata.resource_version.clone().unwrap_or_default(),
            ours: spec.is_some_and(|spec| spec.scheduler_name.as_deref() == Some(keys::SCHEDULER_NAME)),
            gate: gates.iter().position(|gate| gate.name == keys::QUOTA_GATE),
            settled: spec.is_some_and(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty()))
                || matches!(phase, "Succeeded" | "Failed")
                || pod.metadata.deletion_timestamp.is_some(),
            controller,
        }
    }
}

impl Memory {
    pub(crate) fn knows_job(&self, uid: &str) -> bool {
        self.budgets.contains_key(uid)
    }

    /// `deletable`: pods of the Job that may be deleted before its backoffLimit is used up.
    pub(crate) fn learn_job(&mut self, uid: &str, deletable: u32) {
        self.budgets.insert(uid.to_owned(), deletable);
    }

    fn may_delete(&self, controller: &Controller) -> Result<(), Why> {
        if controller.is_job && self.budgets.get(&controller.uid).is_none_or(|left| *left == 0) {
            return Err(Why::JobWouldFail(controller.name.clone()));
        }
        if self.rounds.get(&controller.uid).is_some_and(|rounds| *rounds >= MOST_ROUNDS) {
            return Err(Why::TemplateNamesUs(format!("{} {}", controller.kind, controller.name)));
        }
        Ok(())
    }
}

/// Decides a pass: the writes, in the order of `pods`, and the pods that stay behind.
pub(crate) fn pass(pods: &[Facts], memory: &mut Memory) -> (Vec<Step>, Vec<Stranded>) {
    let (mut steps, mut stranded) = (Vec::new(), Vec::new());
    let mut touched: BTreeMap<&str, ()> = BTreeMap::new();
    for pod in pods {
        let back = match (&pod.controller, pod.ours && !pod.settled) {
            (_, false) => None,
            (None, true) => Some(Err(Why::NoController)),
            (Some(controller), true) => Some(memory.may_delete(controller).map(|()| controller)),
        };
        match back {
            Some(Ok(controller)) => {
                touched.insert(&controller.uid, ());
                if let Some(left) = memory.budgets.get_mut(&controller.uid) {
                    *left = left.saturating_sub(1);
                }
                steps.push(pod.delete());
                continue;
            }
            Some(Err(why)) => {
                stranded.push(Stranded { namespace: pod.namespace.clone(), name: pod.name.clone(), why });
            }
            None => {}
        }
        steps.extend(pod.gate.map(|gate| pod.ungate(gate)));
    }
    for uid in touched.into_keys() {
        *memory.rounds.entry(uid.to_owned()).or_default() += 1;
    }
    (steps, stranded)
}

impl Facts {
    fn delete(&self) -> Step {
        Step::Delete {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    fn ungate(&self, gate: usize) -> Step {
        Step::Ungate { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone(), gate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn pod(uid: &str) -> Facts {
        Facts {
            uid: uid.into(),
            namespace: "acme".into(),
            name: format!("pod-{uid}"),
            resource_version: "7".into(),
            ours: true,
            gate: Some(0),
            settled: false,
            controller: None,
        }
    }

    fn owned(uid: &str, owner: &str, is_job: bool) -> Facts {
        let kind = if is_job { "Job" } else { "ReplicaSet" };
        let controller = Controller { uid: owner.into(), kind: kind.into(), name: format!("the-{owner}"), is_job };
        Facts { controller: Some(controller), ..pod(uid) }
    }

    fn deleted(steps: &[Step]) -> usize {
        steps.iter().filter(|step| matches!(step, Step::Delete { .. })).count()
    }

    #[test]
    fn a_pod_with_a_controller_is_deleted_gated_or_not() {
        let released = Facts { gate: None, ..owned("b", "rs", false) };
        let (steps, stranded) = pass(&[owned("a", "rs", false), released], &mut Memory::default());
        assert_eq!(deleted(&steps), 2);
        assert!(stranded.is_empty());
    }

    #[test]
    fn a_bare_pod_loses_its_gate_and_is_listed() {
        let (steps, stranded) = pass(&[pod("a")], &mut Memory::default());
        assert_eq!(steps, [pod("a").ungate(0)]);
        assert_eq!(stranded[0].why, Why::NoController);
        // The next pass has nothing more to do: it comes to rest.
        let (steps, stranded) = pass(&[Facts { gate: None, ..pod("a") }], &mut Memory::default());
        assert!(steps.is_empty());
        assert_eq!(stranded.len(), 1);
    }

    #[test]
    fn a_pod_of_another_scheduler_only_loses_its_gate() {
        let foreign = Facts { ours: false, gate: Some(2), ..owned("a", "rs", false) };
        let (steps, stranded) = pass(std::slice::from_ref(&foreign), &mut Memory::default());
        assert_eq!(steps, [foreign.ungate(2)]);
        assert!(stranded.is_empty());
    }

    #[test]
    fn settled_pods_are_left_alone_but_for_a_gate() {
        let bound = Facts { settled: true, gate: None, ..owned("a", "rs", false) };
        let deleting = Facts { settled: true, ..owned("b", "rs", false) };
        let (steps, stranded) = pass(&[bound, deleting.clone()], &mut Memory::default());
        assert_eq!(steps, [deleting.ungate(0)]);
        assert!(stranded.is_empty());
    }

    #[test]
    fn a_job_never_loses_more_pods_than_its_backoff_limit_bears() {
        let mut memory = Memory::default();
        memory.learn_job("job", 2);
        let pods: Vec<Facts> = (0..5).map(|i| owned(&i.to_string(), "job", true)).collect();
        let (steps, stranded) = pass(&pods, &mut memory);
        assert_eq!((deleted(&steps), steps.len(), stranded.len()), (2, 5, 3));
        let (steps, _) = pass(&pods, &mut memory);
        assert_eq!(deleted(&steps), 0, "the budget lasts over passes");
        let (steps, _) = pass(&[owned("x", "unknown", true)], &mut Memory::default());
        assert_eq!(deleted(&steps), 0, "a Job that could not be read is not risked");
    }

    #[test]
    fn a_template_that_names_us_is_not_fought_for_ever() {
        let mut memory = Memory::default();
        for _ in 0..MOST_ROUNDS {
            assert_eq!(deleted(&pass(&[owned("a", "rs", false), owned("b", "rs", false)], &mut memory).0), 2);
        }
        let (steps, stranded) = pass(&[owned("c", "rs", false)], &mut memory);
        assert_eq!(steps, [pod("c").ungate(0)]);
        assert_eq!(stranded[0].why, Why::TemplateNamesUs("ReplicaSet the-rs".into()));
        assert_eq!(deleted(&pass(&[owned("d", "other", false)], &mut memory).0), 1, "others are not concerned");
    }

    #[test]
    fn facts_of_a_pod() {
        let pod: Pod = from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "3", "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": "other", "uid": "0" },
                { "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1", "controller": true } ] },
            "spec": { "containers": [], "schedulerName": "fairlead-scheduler",
                "schedulingGates": [ { "name": "foreign/gate" }, { "name": "fairlead.dev/quota" } ] },
        }))
        .unwrap();
        let facts = Facts::of(&pod);
        assert_eq!((facts.ours, facts.gate, facts.settled), (true, Some(1), false));
        let controller = facts.controller.unwrap();
        assert_eq!((controller.name.as_str(), controller.is_job), ("j", true));
    }
}
