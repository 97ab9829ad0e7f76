//! Machines, CPU masks, choice of exact CPUs and the score of that choice; pure, integers only.
//!
//! The path through the crate: a source (hwloc, sysfs, a NodeTopology object) fills a [`MachineDescription`],
//! [`Machine::new`] checks it and gives every part a dense index, and [`choose`] names the exact CPUs a request
//! would get there. [`FreeSummary`] holds what is free in a form that [`FreeSummary::evaluate`] reads in some
//! tens of nanoseconds; it runs the same search as [`choose`] and so can never disagree with it.
//!
//! # The order of choices
//! Of all ways to serve a request the least one is taken, compared by, in this order:
//! 1. fewest NUMA nodes that give cores or memory,
//! 2. least sum of the distances between them (both directions),
//! 3. fewest L3 caches touched (the parts of one L3 in two NUMA nodes count as two; cores without L3 count as one
//!    cache for each NUMA node),
//! 4. fewest free cores left in those NUMA nodes,
//! 5. fewest free cores left in those L3 caches,
//! 6. lowest NUMA ids, then lowest L3 ids, then lowest cores (in the order NUMA node, L3, CPU id).
//!
//! The search is exact while the number of sets of NUMA nodes of one size stays within [`MAX_NUMA_SETS`] and its work
//! within [`MAX_SEARCH_STEPS`]; that is always so with up to 16 NUMA nodes that own CPUs and 64 cache groups. Where the
//! steps end first, the best set so far is taken, sets of lower ids being tried before others. Where there is none, or
//! there are too many sets, sets are grown from a start, each time by the node that gives most of what is missing, then
//! the nearest, then the lowest; the starts are the nodes that give most themselves, all of them up to 40 nodes and
//! 65,536 ÷ n² of more. What comes out is valid, but may not be the least.
//!
//! Of several L3 caches the tightest together are looked for within a bound too; beyond it the largest are taken.

mod caches;
mod choose;
mod deal;
mod demand;
mod fill;
mod free;
mod machine;
mod mask;
mod mask_text;
mod pick;
mod pool;
mod rank;
mod refusal;
mod request;
mod search;
mod terms;
mod wish;

pub use choose::{Choice, NodeFree, NumaHugePages, Verdict, choose, evaluate};
pub use free::FreeSummary;
pub use machine::{
    CacheDescription, CoreDescription, CpuField, CpuKindDescription, Field, GroupDescription, HugePages,
    LOCAL_DISTANCE, MAX_CPUS, MAX_PCI_DEVICES, MAX_PCI_NAMES, Machine, MachineDescription, MachineError,
    NumaDescription, NumaDistance, PackageDescription, PciDescription, REMOTE_DISTANCE,
};
pub use mask::CpuMask;
pub use mask_text::CpuListError;
pub use rank::Score;
pub use refusal::NoFit;
pub use request::{ContainerCpus, CpuRequest, HugePageNeed, Role};
pub use search::{MAX_NUMA_SETS, MAX_SEARCH_STEPS};
pub use terms::Terms;
pub use wish::{Align, Cache, CpuClass, Packing, Surroundings, Threads, Wish};
