//! What an agent observed on its node, and what a person bears of it.
use crate::node::Distrust;
use fairlead_crds::node_placement::{ObservedContainer as Wire, PinState};
use fairlead_crds::{NodePlacement, keys};
use fairlead_placement::{
    Beside, Observed, ObservedContainer, Pinning, Reason, Reservation, as_promised, drift, unforgiven,
};
use fairlead_topology::CpuMask;

/// The part of a NodePlacement that the agent and people write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watched {
    /// `status.observedGeneration`.
    pub(crate) generation: Option<i64>,
    /// `status.containers`.
    pub(crate) containers: Vec<Wire>,
    /// Value of the annotation [`keys::TRUST_ANNOTATION`].
    pub(crate) borne: String,
}

impl Eq for Watched {}

impl Watched {
    pub(crate) fn of(placement: &NodePlacement) -> Self {
        let status = placement.status.as_ref();
        let annotations = placement.metadata.annotations.as_ref();
        Self {
            generation: status.and_then(|status| status.observed_generation),
            containers: status.map(|status| status.containers.clone()).unwrap_or_default(),
            borne: annotations.and_then(|all| all.get(keys::TRUST_ANNOTATION)).cloned().unwrap_or_default(),
        }
    }

    /// UIDs of the pods that were seen to run as promised; none where the observation cannot be read.
    pub(crate) fn as_promised(&self, reservations: &[Reservation]) -> Vec<String> {
        if self.containers.is_empty() {
            return Vec::new();
        }
        let observed = self.read().unwrap_or_default();
        as_promised(reservations, &observed).map(str::to_owned).collect()
    }

    fn read(&self) -> Result<Observed, Distrust> {
        let containers = self.containers.iter().map(container).collect::<Result<_, _>>()?;
        Ok(Observed { generation: self.generation, containers })
    }
}

fn container(wire: &Wire) -> Result<ObservedContainer, Distrust> {
    let unreadable = |field: &str, why: String| Distrust {
        reason: Reason::NodeDistrusted,
        detail: format!("status.containers[podUID={},name={}].{field}: {why}", wire.pod_uid, wire.name),
    };
    let list =
        |field: &str, text: &str| CpuMask::parse_list(text).map_err(|error| unreadable(field, error.to_string()));
    Ok(ObservedContainer {
        pod_uid: wire.pod_uid.clone(),
        name: wire.name.clone(),
        pinning: match wire.state {
            PinState::Pending => Pinning::Pending,
            PinState::Pinned => Pinning::Pinned,
            PinState::Unpinned => Pinning::Unpinned,
            PinState::Drifted => Pinning::Drifted,
        },
        cpus: list("cpus", &wire.cpus)?,
        memory_nodes: list("memoryNodes", &wire.memory_nodes)?.iter().collect(),
    })
}

/// Why a node is not trusted because of what was observed on it.
pub(crate) fn distrust_of(
    generation: i64,
    watched: &Watched,
    reservations: &[Reservation],
    beside: &Beside,
) -> Option<Distrust> {
    if watched.containers.is_empty() {
        return None;
    }
    let observed = match watched.read() {
        Ok(observed) => observed,
        Err(distrust) => return Some(distrust),
    };
    let drifts = drift(generation, reservations, beside, &observed);
    let first = unforgiven(&drifts, &watched.borne).next()?;
    Some(Distrust {
        reason: Reason::NodeDrifted,
        detail: format!(
            "{first}; the next status that agrees ends this, or the pod's UID in the annotation {} of the NodePlacement",
            keys::TRUST_ANNOTATION
        ),
    })
}
