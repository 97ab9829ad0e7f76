//! What a pod wishes of its CPUs beyond their number, and what lies around it on one node.

use serde::{Deserialize, Serialize};

use crate::CpuMask;

/// Which hardware threads of a core a container gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Threads {
    /// Whole physical cores: a CPU count that is no multiple of the threads leaves a sibling idle.
    #[default]
    WholeCores,
    /// One thread of each core; its siblings stay idle and belong to the pod.
    OnePerCore,
    /// Single threads; siblings may belong to others, but never to pods that this one dislikes.
    Any,
}

/// How many NUMA nodes a pod may span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Align {
    /// As few as possible.
    #[default]
    #[serde(rename = "FewestNUMA")]
    FewestNuma,
    /// Exactly one, or it does not fit.
    #[serde(rename = "SingleNUMA")]
    SingleNuma,
    /// As many as possible, as evenly as possible.
    Spread,
}

/// How L3 caches are weighed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cache {
    /// One if it fits, else as few as possible.
    #[default]
    PreferOneL3,
    /// Exactly one, or it does not fit.
    RequireOneL3,
}

/// Which of several holes is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Packing {
    /// The tightest, so that large ones stay whole.
    #[default]
    BestFit,
    /// The emptiest, so that neighbours disturb each other least.
    Spread,
}

/// Which CPUs of the machine are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CpuClass {
    /// CPUs that the kernel schedules everything on; never isolated ones.
    #[default]
    Regular,
    /// Only CPUs that the kernel was told to isolate (`isolcpus=`).
    Isolated,
}

/// What a pod with exclusive CPUs wishes; the default is what a pod that says nothing gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wish {
    /// Which threads of a core.
    pub threads: Threads,
    /// How many NUMA nodes.
    pub align: Align,
    /// How L3 caches are weighed.
    pub cache: Cache,
    /// Which of several holes.
    pub packing: Packing,
    /// Which CPUs.
    pub class: CpuClass,
}

/// What lies around a pod on one particular node; empty masks for a pod without such wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Surroundings {
    /// CPUs local to the devices the pod wants to be near: of two choices with equally many NUMA nodes the one with more
    /// CPUs in here is better.
    pub near: CpuMask,
    /// CPUs of pods it likes: sharing an L3 with them is better.
    pub liked: CpuMask,
    /// CPUs of pods it dislikes: sharing an L3 with them is worse, sharing a core with them is refused.
    pub disliked: CpuMask,
}
