//! Why a request does not fit, with the numbers.

/// Why a request does not fit. CPU numbers count all that would be taken: siblings of a half-used core included. What no
/// eviction could change is told apart from what is only taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoFit {
    /// No container asks for a CPU.
    #[error("no container asks for exclusive CPUs")]
    NothingRequested,
    /// It would not fit the machine if everything were free.
    #[error("needs {needed_cpus} CPUs in whole cores, the machine has {machine_cpus}")]
    LargerThanMachine {
        /// CPUs needed.
        needed_cpus: u64,
        /// CPUs in regular cores, isolated ones excepted.
        machine_cpus: u32,
    },
    /// It wishes for isolated CPUs, and would not fit them if they were all free.
    #[error("needs {needed_cpus} isolated CPUs, the machine has {isolated_cpus}")]
    TooFewIsolatedCpus {
        /// CPUs needed.
        needed_cpus: u64,
        /// Isolated CPUs in regular cores.
        isolated_cpus: u32,
    },
    /// Too few CPUs are free.
    #[error("needs {needed_cpus} CPUs in whole cores, {free_cpus} are free")]
    NotEnoughFreeCpus {
        /// CPUs needed.
        needed_cpus: u64,
        /// CPUs of wholly free regular cores, or single ones where single ones are wished for.
        free_cpus: u32,
    },
    /// Too few isolated CPUs are free.
    #[error("needs {needed_cpus} isolated CPUs, {free_cpus} are free")]
    NotEnoughIsolatedCpus {
        /// CPUs needed.
        needed_cpus: u64,
        /// As in [`NoFit::NotEnoughFreeCpus`], isolated ones.
        free_cpus: u32,
    },
    /// The shared pool would become smaller than its reserve.
    #[error("needs {needed_cpus} CPUs in whole cores, the shared pool can spare {spare_cpus}")]
    SharedReserve {
        /// CPUs needed.
        needed_cpus: u64,
        /// Free CPUs above the reserve.
        spare_cpus: u32,
    },
    /// The NUMA nodes with CPUs have too little free memory together.
    #[error("needs {needed_bytes} bytes of memory, the NUMA nodes with CPUs have {free_bytes} free")]
    NotEnoughMemory {
        /// Bytes asked for.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// The NUMA nodes with CPUs have too few free huge pages of a size together.
    #[error(
        "needs {needed_bytes} bytes in huge pages of {page_bytes} bytes, the NUMA nodes with CPUs have {free_bytes} free"
    )]
    NotEnoughHugePages {
        /// Size of one page, bytes.
        page_bytes: u64,
        /// Bytes needed, in whole pages.
        needed_bytes: u64,
        /// Bytes free, in whole pages.
        free_bytes: u64,
    },
    /// It wishes for one L3, and is larger than any.
    #[error("needs {needed_cpus} CPUs in one L3 cache, the largest has {l3_cpus}")]
    LargerThanL3 {
        /// CPUs needed.
        needed_cpus: u64,
        /// CPUs of the largest.
        l3_cpus: u32,
    },
    /// It wishes for one L3, and none has so much free.
    #[error("needs {needed_cpus} CPUs in one L3 cache, the most that are free in one are {free_cpus}")]
    NotOneL3 {
        /// CPUs needed.
        needed_cpus: u64,
        /// The most CPUs free in one.
        free_cpus: u32,
    },
    /// It wishes for one NUMA node, and is larger than any.
    #[error("needs {needed_cpus} CPUs in one NUMA node, the largest has {numa_cpus}")]
    LargerThanNumaNode {
        /// CPUs needed.
        needed_cpus: u64,
        /// CPUs of the largest.
        numa_cpus: u32,
    },
    /// It wishes for one NUMA node, and none has CPUs, memory and huge pages free together.
    #[error(
        "needs {needed_cpus} CPUs and {needed_bytes} bytes of memory in one NUMA node, the most CPUs that are free in one \
         are {free_cpus}"
    )]
    NotOneNumaNode {
        /// CPUs needed.
        needed_cpus: u64,
        /// Bytes of memory needed, without huge pages.
        needed_bytes: u64,
        /// The most CPUs free in one; may be enough where it is the memory that is not.
        free_cpus: u32,
    },
}

impl NoFit {
    /// Whether this is found only where the shared pool can spare the CPUs. Who knows of a larger reserve than the
    /// computation did has to name that first.
    #[must_use]
    pub const fn after_shared_reserve(&self) -> bool {
        match self {
            Self::NothingRequested
            | Self::LargerThanMachine { .. }
            | Self::TooFewIsolatedCpus { .. }
            | Self::NotEnoughFreeCpus { .. }
            | Self::NotEnoughIsolatedCpus { .. }
            | Self::LargerThanL3 { .. }
            | Self::LargerThanNumaNode { .. }
            | Self::SharedReserve { .. } => false,
            Self::NotEnoughMemory { .. }
            | Self::NotEnoughHugePages { .. }
            | Self::NotOneL3 { .. }
            | Self::NotOneNumaNode { .. } => true,
        }
    }
}
