//! What one pass of the drain does to each pod, decided without asking anyone.
//!
//! A scheduler's name cannot be changed, so a pod that waits for our scheduler comes back under the default one only by
//! being created anew. That is done to pods whose controller is known to create them anew, and which have not been bound:
//! running pods are never touched. From all other pods only the gate is taken.
use fairlead_crds::keys;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::{BTreeMap, BTreeSet};

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

/// Who made the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) uid: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) recreates: Recreates,
}

/// Whether a controller creates a pod anew that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recreates {
    /// It does, and that is all.
    Always,
    /// A Job does, and counts the pod as failed.
    AsFailure,
    /// Many a kind takes the end of its pod for the end of its run.
    Unknown,
}

/// What is remembered from pass to pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Controller UID to passes in which pods of it were deleted.
    rounds: BTreeMap<String, u32>,
    /// Job UID to pods that may still be deleted before the Job fails.
    budgets: BTreeMap<String, u32>,
}

/// What became of the deletion of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It was done, or nobody knows: an answer that did not come may have been a yes.
    MayBe,
    /// The API server refused it, or the pod was gone already.
    Not,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The controller creates it anew. Only in the version that was judged: it may have been bound since.
    Delete { namespace: String, name: String, uid: String, resource_version: String, controller_uid: String },
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
    MayNotRecreate(String),
    JobWouldFail(String),
    TemplateNamesUs(String),
}

impl Why {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::NoController => "has no controller; delete it and create it anew".into(),
            Self::MayNotRecreate(owner) => format!(
                "{owner} is not known to create a deleted pod anew; start it once more, or delete the pod if it does"
            ),
            Self::JobWouldFail(job) => format!(
                "its deletion would count as a failure that Job {job} has no backoffLimit left for; raise it or create the Job anew"
            ),
            Self::TemplateNamesUs(owner) => {
                format!("{owner} names {} in its own template; remove schedulerName there", keys::SCHEDULER_NAME)
            }
        }
    }
}

impl Recreates {
    pub(super) fn of(owner: &OwnerReference) -> Self {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet" | "StatefulSet") | ("", "ReplicationController") => Self::Always,
            ("batch", "Job") => Self::AsFailure,
            _ => Self::Unknown,
        }
    }
}

impl Controller {
    pub(crate) fn is_job(&self) -> bool {
        self.recreates == Recreates::AsFailure
    }

    fn in_words(&self) -> String {
        format!("{} {}", self.kind, self.name)
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
            recreates: Recreates::of(owner),
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

    /// Takes note of what became of a pass's deletions, by the UID of the pods' controllers.
    pub(crate) fn learn_deletions(&mut self, deletions: &[(String, Deletion)]) {
        let may_be = || deletions.iter().filter(|(_, deletion)| *deletion == Deletion::MayBe).map(|(uid, _)| uid);
        for uid in may_be() {
            if let Some(left) = self.budgets.get_mut(uid) {
                *left = left.saturating_sub(1);
            }
        }
        for uid in may_be().collect::<BTreeSet<_>>() {
            *self.rounds.entry(uid.clone()).or_default() += 1;
        }
    }

    fn may_delete(&self, controller: &Controller, budgets: &BTreeMap<String, u32>) -> Result<(), Why> {
        if controller.recreates == Recreates::Unknown {
            return Err(Why::MayNotRecreate(controller.in_words()));
        }
        if controller.is_job() && budgets.get(&controller.uid).is_none_or(|left| *left == 0) {
            return Err(Why::JobWouldFail(controller.name.clone()));
        }
        if self.rounds.get(&controller.uid).is_some_and(|rounds| *rounds >= MOST_ROUNDS) {
            return Err(Why::TemplateNamesUs(controller.in_words()));
        }
        Ok(())
    }
}

/// Decides a pass: the writes, in the order of `pods`, and the pods that stay behind.
pub(crate) fn pass(pods: &[Facts], memory: &Memory) -> (Vec<Step>, Vec<Stranded>) {
    let (mut steps, mut stranded) = (Vec::new(), Vec::new());
    // As if every deletion of this pass succeeded.
    let mut budgets = memory.budgets.clone();
    for pod in pods {
        let back = match (&pod.controller, pod.ours && !pod.settled) {
            (_, false) => None,
            (None, true) => Some(Err(Why::NoController)),
            (Some(controller), true) => Some(memory.may_delete(controller, &budgets).map(|()| controller)),
        };
        match back {
            Some(Ok(controller)) => {
                if let Some(left) = budgets.get_mut(&controller.uid) {
                    *left = left.saturating_sub(1);
                }
                steps.push(pod.delete(controller));
                continue;
            }
            Some(Err(why)) => {
                stranded.push(Stranded { namespace: pod.namespace.clone(), name: pod.name.clone(), why });
            }
            None => {}
        }
        steps.extend(pod.gate.map(|gate| pod.ungate(gate)));
    }
    (steps, stranded)
}

impl Facts {
    fn delete(&self, controller: &Controller) -> Step {
        Step::Delete {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            controller_uid: controller.uid.clone(),
        }
    }

    pub(super) fn ungate(&self, gate: usize) -> Step {
        Step::Ungate { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone(), gate }
    }
}
