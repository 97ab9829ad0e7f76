//! The protective rules of the placement protocol by name. Each can be switched off in the world that surrounds the
//! shipped steps, and then a search must find what it protects from.

use super::Setting;
use super::world::Budget;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// A patch of a NodePlacement tests `/metadata/generation`.
    GenerationTest,
    /// A patch of a NodePlacement tests `/metadata/uid`.
    UidTest,
    /// After a refused write the CPUs are chosen anew.
    ChooseAnew,
    /// A Binding names the `resourceVersion` of the pod.
    VersionInBinding,
    /// That version was known before the reservation was written.
    VersionFromBefore,
    /// An attempt that finds its pod's reservation there writes all the same.
    RenewalWrites,
    /// CPUs once promised to a pod stay the same.
    KeepPromised,
    /// A withdrawal reads the live pod.
    LiveRead,
    /// A withdrawal touches an unbound pod first.
    Touch,
    /// A withdrawal reads the NodePlacement before the pod.
    PlacementFirst,
    /// What runs on a node is written into its new NodePlacement before anything is promised there.
    Restore,
    /// Pods without CPUs of their own are accounted.
    ForeignPods,
    /// The memory of other reservations is accounted.
    Memory,
    /// What was reserved for a former wish is freed before the pod is bound to the shared pool.
    FreeBeforeShared,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::GenerationTest,
        Self::UidTest,
        Self::ChooseAnew,
        Self::VersionInBinding,
        Self::VersionFromBefore,
        Self::RenewalWrites,
        Self::KeepPromised,
        Self::LiveRead,
        Self::Touch,
        Self::PlacementFirst,
        Self::Restore,
        Self::ForeignPods,
        Self::Memory,
        Self::FreeBeforeShared,
    ];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenerationTest => "generation-test",
            Self::UidTest => "uid-test",
            Self::ChooseAnew => "choose-anew",
            Self::VersionInBinding => "version-in-binding",
            Self::VersionFromBefore => "version-from-before",
            Self::RenewalWrites => "renewal-writes",
            Self::KeepPromised => "keep-promised",
            Self::LiveRead => "live-read-before-withdraw",
            Self::Touch => "touch-before-withdraw",
            Self::PlacementFirst => "placement-before-pod",
            Self::Restore => "restore",
            Self::ForeignPods => "foreign-pods",
            Self::Memory => "memory",
            Self::FreeBeforeShared => "free-before-shared",
        }
    }

    /// One sentence about it.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::GenerationTest => {
                "A patch of a NodePlacement tests /metadata/generation: of two writers who decided on one list, one loses."
            }
            Self::UidTest => {
                "A patch of a NodePlacement tests /metadata/uid: generations of a new object of that name count anew."
            }
            Self::ChooseAnew => "After a refused write the CPUs are chosen anew from what is there now.",
            Self::VersionInBinding => {
                "A Binding names the pod's resourceVersion: a pod that was touched since is not bound by it."
            }
            Self::VersionFromBefore => {
                "The version that a Binding names was known before the reservation was written, not read after it."
            }
            Self::RenewalWrites => {
                "An attempt that finds its pod's reservation there renews it: whoever is withdrawing it loses the generation."
            }
            Self::KeepPromised => "CPUs once promised to a pod stay the same: a Binding under way may carry them.",
            Self::LiveRead => "A reservation is withdrawn only after the live pod was read; the watch may be behind.",
            Self::Touch => {
                "Before the reservation of an unbound pod is withdrawn, the pod is touched: every Binding under way fails."
            }
            Self::PlacementFirst => {
                "A withdrawal names the generation from before it read and touched the pod, not a later one."
            }
            Self::Restore => {
                "In a new NodePlacement the first promise restores, from a live list, what the pods bound there carry."
            }
            Self::ForeignPods => {
                "Pods without CPUs of their own, static ones included, keep theirs of the shared pool."
            }
            Self::Memory => "What other reservations hold of the memory is counted, also where CPUs are free.",
            Self::FreeBeforeShared => {
                "What was reserved for a pod's former wish is looked for live and freed before it is bound to the shared pool."
            }
        }
    }

    /// By name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.name() == name)
    }

    /// The least budget found in which its absence shows; the rest of what may happen is not needed for that.
    #[must_use]
    pub const fn setting(self) -> Setting {
        let (binds, withdrawals, losses) = match self {
            Self::GenerationTest | Self::ChooseAnew | Self::Memory | Self::FreeBeforeShared => (2, 0, 0),
            Self::ForeignPods => (3, 0, 0),
            Self::UidTest | Self::Restore => (2, 0, 1),
            Self::KeepPromised => (3, 1, 0),
            Self::VersionInBinding
            | Self::VersionFromBefore
            | Self::RenewalWrites
            | Self::LiveRead
            | Self::Touch
            | Self::PlacementFirst => (2, 1, 0),
        };
        let budget = Budget { withdrawals, losses, ..Budget::of_binds(binds) };
        let setting = match self {
            Self::Memory => Setting::usual(budget).short_of_memory(),
            Self::FreeBeforeShared => Setting::usual(Budget { wishes: 1, ..budget }).or_wishing(0),
            _ => Setting::usual(budget),
        };
        setting.without(self)
    }
}
