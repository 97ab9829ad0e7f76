//! What the steps are told about pods and nodes.
use crate::{Beside, Reason, Reservation};
use fairlead_topology::{CpuRequest, Machine, Surroundings};
use std::sync::Arc;

/// A pod as the API server (or the watch) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// UID.
    pub uid: String,
    /// `metadata.resourceVersion` of what was read.
    pub resource_version: String,
    /// `spec.nodeName`, if bound.
    pub node: Option<String>,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    /// Whether it has any scheduling gate.
    pub gated: bool,
    /// Whether its phase is Succeeded or Failed.
    pub terminal: bool,
    /// The exclusive CPUs it asks for; none: it runs in the shared pool and nothing is reserved.
    pub exclusive: Option<CpuRequest>,
    /// Its request alone would allow it CPUs of its own, whatever it wishes: by an earlier wish some may be held for it.
    pub may_hold: bool,
    /// Why its wish cannot be granted anywhere, if so: it cannot be read, or contradicts its request.
    pub refused: Option<Reason>,
    /// Milli-CPU of its request that stay in the shared pool.
    pub shared_milli: u64,
}

/// Answer to reading a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodRead {
    /// There it is.
    Found(PodFacts),
    /// There is no pod of that name.
    Missing,
    /// It could not be read; why.
    Failed(String),
}

/// A NodePlacement together with the machine it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.reservations`, in its order: writes name an index.
    pub reservations: Vec<Reservation>,
    /// The machine, or why none is known: then nothing can be promised, but everything can be taken back.
    pub machine: Result<Arc<Machine>, Reason>,
    /// What is held there beside the reservations, as the watch shows it; what pods carry as a live list shows it, if the
    /// request said so.
    pub beside: Beside,
    /// What lies around the pod that asks; empty for one that wishes nothing of it, and where nobody asks for a pod.
    pub around: Surroundings,
}

impl PlacementFacts {
    /// Whether nothing was written to it since it was made: an API server counts the generations of an object from 1.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.generation <= 1
    }

    /// Whether a pod is known to be bound there with CPUs of its own.
    #[must_use]
    pub fn is_carried_by(&self, pod_uid: &str) -> bool {
        self.beside.carried.iter().any(|held| held.pod.uid == pod_uid)
    }
}

/// Answer to reading a NodePlacement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "read once for a bind and moved")]
pub enum PlacementRead {
    /// There it is.
    Found(PlacementFacts),
    /// There is none ([`Reason::NoPlacementObject`]), or it cannot be read ([`Reason::NodeDistrusted`]).
    Refused(Reason),
    /// It could not be read; why.
    Failed(String),
}
