//! Machines, CPU masks, choice of exact CPUs and the score of that choice; pure, integers only.
//!
//! The path through the crate: a source (hwloc, sysfs, a NodeTopology object) fills a [`MachineDescription`],
//! [`Machine::new`] checks it and gives every part a dense index, and [`choose`] names the exact CPUs a request
//! would get there. [`FreeSummary`] holds what is free in a form that [`FreeSummary::evaluate`] reads in some
//! tens of nanoseconds; it runs the same search as [`choose`] and so can never disagree with it.
//!
//! # What is given
//! A request comes down to a number of units. A unit is a whole free core ([`Threads::WholeCores`]; with
//! [`Threads::OnePerCore`] as many cores as CPUs, of which one thread each is used) or a free thread ([`Threads::Any`]),
//! always of cores of the machine's ordinary width. [`CpuClass::Regular`] never gets an isolated CPU,
//! [`CpuClass::Isolated`] only such. A core with a disliked pod on it has no free units. Init containers use what the app
//! containers get; sidecars give nothing back ([`Role`]).
//!
//! # The order of choices
//! Refused is, whatever else is wished for: more than there is or is free, what would leave the shared pool less than its
//! reserve (isolated CPUs are no part of it), more memory or huge pages than the chosen NUMA nodes have free, with
//! [`Align::SingleNuma`] all but one NUMA node, and with [`Cache::RequireOneL3`] all but one L3.
//!
//! Of all ways to serve a request the least one is taken, compared by, in this order:
//! 1. with [`Align::Spread`]: most NUMA nodes that give units, then the most even shares (least sum of squares); not where
//!    one L3 is required,
//! 2. fewest NUMA nodes that give units or memory,
//! 3. least sum of the distances between them (both directions),
//! 4. most units near the devices wished for, then fewest in an L3 with a disliked pod, then most in an L3 with a liked one
//!    ([`Surroundings`]; a wish without any such CPUs on the machine counts as granted everywhere),
//! 5. fewest L3 caches touched (the parts of one L3 in two NUMA nodes count as two; cores without L3 count as one
//!    cache for each NUMA node),
//! 6. fewest free units left in those NUMA nodes; with [`Packing::Spread`] most,
//! 7. fewest free units left in those L3 caches; with [`Packing::Spread`] most,
//! 8. lowest NUMA ids; where the pod is spread, then the larger shares on the lower ones,
//! 9. lowest L3 ids,
//! 10. lowest cores (in the order NUMA node, L3, CPU id); of single threads first those of partly used cores.
//!
//! The tightest fit (6, 7) is what keeps large holes whole: what is left over of the holes that are touched is least.
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
mod sparse;
mod tally;
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
