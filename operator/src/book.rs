//! The pods as the operator needs them: a few facts of each, found by UID and by namespace.
use fairlead_crds::keys;
use fairlead_fairshare::ResourceVector;
use fairlead_fairshare::protocol::{PodView, Standing, Uid, VersionError, parse_version};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pods of one namespace.
pub type PodsOfNamespace = BTreeMap<Uid, Arc<PodNote>>;

/// What is known of one pod.
#[derive(Clone, Debug)]
pub struct PodNote {
    /// UID.
    pub uid: Uid,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Version and standing, as the release protocol sees them.
    pub view: PodView,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Condition Ready is True.
    pub ready: bool,
    /// Node, once bound.
    pub node: Option<String>,
    /// Effective request, as kube-scheduler counts.
    pub request: ResourceVector,
    /// Priority.
    pub priority: i32,
    /// Creation, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Our condition on it.
    pub told: Option<Told>,
    /// Since when its status is what it is.
    pub told_since: Option<Time>,
    /// Names our scheduler, has neither gate nor released annotation, and is not bound: it came past the gate.
    pub unstamped: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// Our condition on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Status True.
    pub released: bool,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// Why a pod cannot be taken into account.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The API server always gives these.
    #[error("pod has no {field}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Its version cannot be compared.
    #[error("failed to read the version of pod {namespace}/{name}")]
    Version {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// What is wrong.
        #[source]
        source: VersionError,
    },
}

impl PodNote {
    /// Reads a pod.
    ///
    /// # Errors
    /// The pod does not come from an API server that can be worked with; see [`PodError`].
    pub fn of(pod: &Pod) -> Result<Self, PodError> {
        let meta = &pod.metadata;
        let need = |value: &Option<String>, field| value.clone().ok_or(PodError::Missing { field });
        let (namespace, name) = (need(&meta.namespace, "metadata.namespace")?, need(&meta.name, "metadata.name")?);
        let uid: Uid = need(&meta.uid, "metadata.uid")?.into();
        let version = parse_version(&need(&meta.resource_version, "metadata.resourceVersion")?)
            .map_err(|source| PodError::Version { namespace: namespace.clone(), name: name.clone(), source })?;
        let standing = standing(pod);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        let stamped = meta.annotations.as_ref().is_some_and(|a| a.contains_key(keys::RELEASED_ANNOTATION));
        let ours = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()) == Some(keys::SCHEDULER_NAME);
        Ok(Self {
            uid,
            namespace,
            name,
            view: PodView { version, standing },
            labels: meta.labels.clone().unwrap_or_default(),
            ready: is_ready(pod),
            unstamped: standing == Standing::Released && ours && !stamped && node.is_none(),
            node,
            request: fairlead_cluster::request::effective(pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            created_ms: meta.creation_timestamp.as_ref().map_or(0, |t| crate::clock::ms_of(&t.0)),
            told: our_condition(pod).map(told),
            told_since: our_condition(pod).and_then(|condition| condition.last_transition_time.clone()),
            deleting: meta.deletion_timestamp.is_some(),
        })
    }
}

fn standing(pod: &Pod) -> Standing {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Standing::Ended;
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    let gated = gates.is_some_and(|gates| gates.iter().any(|gate| gate.name == keys::QUOTA_GATE));
    if gated { Standing::Gated } else { Standing::Released }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn our_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == keys::condition::RELEASED)
}

fn told(condition: &PodCondition) -> Told {
    Told {
        released: condition.status == "True",
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    }
}

/// All pods, by UID and by namespace. Both share the notes.
#[derive(Debug, Default)]
pub struct PodBook {
    by_uid: BTreeMap<Uid, Arc<PodNote>>,
    by_namespace: BTreeMap<String, Arc<PodsOfNamespace>>,
}

impl PodBook {
    /// Takes over a note; gives the one before.
    pub fn put(&mut self, note: PodNote) -> Option<Arc<PodNote>> {
        let note = Arc::new(note);
        let pods = self.by_namespace.entry(note.namespace.clone()).or_default();
        Arc::make_mut(pods).insert(note.uid.clone(), note.clone());
        self.by_uid.insert(note.uid.clone(), note)
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodNote>> {
        let note = self.by_uid.remove(uid)?;
        if let Some(pods) = self.by_namespace.get_mut(&note.namespace) {
            Arc::make_mut(pods).remove(uid);
            if pods.is_empty() {
                self.by_namespace.remove(&note.namespace);
            }
        }
        Some(note)
    }

    /// One pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodNote>> {
        self.by_uid.get(uid)
    }

    /// All pods.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<PodNote>> {
        self.by_uid.values()
    }

    /// UIDs of all pods.
    pub fn uids(&self) -> impl Iterator<Item = &Uid> {
        self.by_uid.keys()
    }

    /// The pods by namespace; namespaces without pods are absent.
    #[must_use]
    pub fn by_namespace(&self) -> &BTreeMap<String, Arc<PodsOfNamespace>> {
        &self.by_namespace
    }

    /// The pods of these namespaces.
    pub fn of<'a>(&'a self, namespaces: &'a [String]) -> impl Iterator<Item = &'a Arc<PodNote>> {
        namespaces.iter().filter_map(|namespace| self.by_namespace.get(namespace)).flat_map(|pods| pods.values())
    }
}

/// Adds `more` to `sum`, stopping at the largest number.
pub fn add(sum: &mut ResourceVector, more: &ResourceVector) {
    for (resource, amount) in more {
        let entry = sum.entry(resource.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

/// `from − less`, never below 0.
#[must_use]
pub fn minus(from: &ResourceVector, less: &ResourceVector) -> ResourceVector {
    let left =
        from.iter().map(|(name, amount)| (name.clone(), amount.saturating_sub(less.get(name).copied().unwrap_or(0))));
    left.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A pod as the API gives it: gated or not, asking for `cpu`.
    pub(crate) fn pod(namespace: &str, name: &str, version: u64, gated: bool) -> Pod {
        let gates = if gated { json!([{"name": "foreign.example/x"}, {"name": keys::QUOTA_GATE}]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
                "resourceVersion": version.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": "a"}},
            "spec": {"schedulerName": keys::SCHEDULER_NAME, "schedulingGates": gates, "priority": 3,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}]},
            "status": {"phase": "Pending"}
        }))
        .unwrap()
    }

    #[test]
    fn a_note_says_what_the_pod_is() {
        let note = PodNote::of(&pod("a", "p", 7, true)).unwrap();
        assert_eq!(note.view, PodView { version: 7, standing: Standing::Gated });
        assert_eq!((note.request["cpu"], note.request["pods"], note.priority), (2000, 1, 3));
        assert!(!note.unstamped && !note.ready && note.created_ms > 0);
        let loose = PodNote::of(&pod("a", "p", 8, false)).unwrap();
        assert!(loose.unstamped && loose.view.standing == Standing::Released);
        let mut ended = pod("a", "p", 9, false);
        ended.status.as_mut().unwrap().phase = Some("Failed".into());
        assert_eq!(PodNote::of(&ended).unwrap().view.standing, Standing::Ended);
    }

    #[test]
    fn a_pod_without_identity_is_an_error_that_names_the_field() {
        let mut nameless = pod("a", "p", 7, true);
        nameless.metadata.uid = None;
        assert_eq!(PodNote::of(&nameless).unwrap_err().to_string(), "pod has no metadata.uid");
        let mut odd = pod("a", "p", 7, true);
        odd.metadata.resource_version = Some("x".into());
        assert!(matches!(PodNote::of(&odd), Err(PodError::Version { .. })));
    }

    #[test]
    fn the_book_keeps_both_indexes_in_step() {
        let mut book = PodBook::default();
        assert!(book.put(PodNote::of(&pod("a", "p", 1, true)).unwrap()).is_none());
        assert_eq!(book.put(PodNote::of(&pod("a", "p", 2, false)).unwrap()).unwrap().view.version, 1);
        let names = ["a".to_owned()];
        assert_eq!(book.of(&names).map(|note| note.view.version).collect::<Vec<_>>(), [2]);
        assert!(book.remove("uid-p").is_some() && book.remove("uid-p").is_none());
        assert!(book.by_namespace().is_empty());
    }
}
