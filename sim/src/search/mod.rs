//! Exhaustive breadth-first search of placement: the shipped bind and withdrawal steps in a world where extenders overlap,
//! die, lose answers and see old states, and pods and nodes come and go.
//!
//! Every state within the budget is reached; equal ones, up to the names of equal pods, nodes and extenders, are merged.
//! States already met are kept as 64-bit fingerprints: of 10⁸ states two are taken for one with a chance of 0.03 %.
pub mod calls;
pub mod canon;
mod events;
mod explore;
mod guards;
mod laws;
pub mod moves;
pub mod steps;
mod words;
pub mod world;

pub use explore::{Found, search};
pub use guards::Guard;
use std::fmt;
use world::Budget;

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Pods, up to 3.
    pub pods: u8,
    /// Nodes, up to 2.
    pub nodes: u8,
    /// Extenders, up to 2.
    pub extenders: u8,
    /// CPUs of each node.
    pub cpus: u8,
    /// CPUs that each pod asks for.
    pub pod_cpus: u8,
    /// What a pod may come to wish instead, in CPUs; none: to run in the shared pool.
    pub other_wish: u8,
    /// Parts that the memory of each node has.
    pub memory: u8,
    /// Parts of it that each pod asks for, whatever it wishes.
    pub pod_memory: u8,
    /// Two reservations of a node may be withdrawn in one write.
    pub together: bool,
    /// CPUs of each node that pods of the shared pool run on.
    pub foreign_cpus: u8,
    /// Writes of one step that may come to nothing before its deadline ends it.
    pub rounds: u8,
    /// How much may happen.
    pub budget: Budget,
    /// A rule that is switched off.
    pub without: Option<Guard>,
}

impl Setting {
    /// Three pods of one CPU, two nodes of three CPUs of which one belongs to pods of the shared pool, two extenders.
    #[must_use]
    pub const fn usual(budget: Budget) -> Self {
        Self {
            pods: 3,
            nodes: 2,
            extenders: 2,
            cpus: 3,
            pod_cpus: 1,
            other_wish: 0,
            memory: 3,
            pod_memory: 1,
            together: false,
            foreign_cpus: 1,
            rounds: 1,
            budget,
            without: None,
        }
    }

    /// The same on nodes whose memory has room for one pod, and CPUs for two.
    #[must_use]
    pub const fn short_of_memory(self) -> Self {
        Self { memory: 3, pod_memory: 2, ..self }
    }

    /// The same with another wish that pods may come to have.
    #[must_use]
    pub const fn or_wishing(self, other_wish: u8) -> Self {
        Self { other_wish, ..self }
    }

    /// The same with withdrawals of two at once.
    #[must_use]
    pub const fn together(self) -> Self {
        Self { together: true, ..self }
    }

    /// The same with one rule switched off.
    #[must_use]
    pub const fn without(self, guard: Guard) -> Self {
        Self { without: Some(guard), ..self }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Budget { binds, withdrawals, faults, changes, losses, wishes } = self.budget;
        let together = if self.together { " (of two pods at once, too)" } else { "" };
        write!(
            f,
            "{} pods, {} nodes, {} extenders: {binds} binds, {withdrawals} withdrawals{together}, {faults} crashes or lost \
             answers, {changes} changes of pods, {losses} nodes lost and back, {} refused writes of one step",
            self.pods, self.nodes, self.extenders, self.rounds
        )?;
        if wishes > 0 {
            write!(f, ", {wishes} changes of a wish from {} CPUs to {}", self.pod_cpus, self.other_wish)?;
        }
        if self.pod_memory > self.pod_cpus {
            write!(f, "; memory for {} pods of a node", self.memory / self.pod_memory)?;
        }
        self.without.map_or(Ok(()), |guard| write!(f, "; without {}", guard.name()))
    }
}

/// How much is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the test command.
    Bounded,
    /// Within twenty minutes.
    Complete,
    /// By hand.
    Long,
}

impl Scope {
    /// Several budgets, since one for everything at once would be out of reach.
    #[must_use]
    pub fn settings(self) -> Vec<Setting> {
        let budget = |[binds, withdrawals, faults, changes, losses, wishes]: [u8; 6]| Budget {
            binds,
            withdrawals,
            faults,
            changes,
            losses,
            wishes,
        };
        let usual = |numbers| Setting::usual(budget(numbers));
        match self {
            Self::Bounded => vec![
                usual([3, 0, 1, 0, 0, 0]),
                usual([2, 1, 1, 1, 0, 0]),
                usual([2, 0, 0, 1, 1, 0]),
                usual([2, 0, 1, 0, 1, 0]),
                usual([2, 1, 0, 1, 0, 0]).together(),
                usual([3, 0, 0, 0, 0, 0]).short_of_memory(),
                usual([2, 0, 1, 0, 0, 1]),
                usual([2, 0, 0, 0, 0, 1]).or_wishing(2),
            ],
            Self::Complete => vec![
                usual([3, 1, 1, 0, 0, 0]),
                usual([3, 0, 1, 1, 0, 0]),
                usual([3, 1, 0, 1, 0, 0]),
                usual([2, 1, 1, 1, 0, 0]),
                usual([2, 1, 0, 0, 1, 0]),
                usual([3, 0, 0, 1, 1, 0]),
                usual([2, 1, 1, 0, 1, 0]),
                usual([2, 1, 1, 0, 0, 0]).together(),
                usual([3, 0, 1, 0, 0, 0]).short_of_memory(),
                usual([2, 1, 1, 0, 0, 1]),
                usual([2, 1, 1, 0, 0, 1]).or_wishing(2),
            ],
            Self::Long => vec![
                usual([3, 1, 1, 1, 0, 0]),
                usual([3, 1, 0, 1, 1, 0]),
                usual([2, 2, 1, 1, 0, 0]).together(),
                usual([4, 1, 1, 0, 0, 0]),
                usual([3, 1, 1, 0, 1, 0]),
                usual([3, 1, 1, 0, 0, 1]),
                usual([3, 1, 1, 0, 0, 1]).or_wishing(2),
                usual([3, 1, 1, 0, 1, 0]).short_of_memory(),
            ],
        }
    }
}
