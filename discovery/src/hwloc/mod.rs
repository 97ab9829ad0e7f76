//! A machine as hwloc sees it: this one, or one made up from a synthetic description.

mod devices;
mod reading;
mod synthetic;

use std::collections::BTreeSet;

use fairlead_topology::CpuMask;
use hwlocality::Topology;
use hwlocality::errors::{HybridError, RawHwlocError};
use hwlocality::topology::builder::{BuildFlags, TopologyBuilder, TypeFilter};

use crate::{Discovered, DiscoveryError, SysfsSource, TopologySource};
use reading::Reading;

/// hwloc as a source. What it builds is dropped as soon as it is read; a description is a tenth of its size.
#[derive(Debug, Clone)]
pub struct HwlocSource {
    input: Input,
}

#[derive(Debug, Clone)]
enum Input {
    Native,
    Synthetic(String),
}

/// What the kernel tells better than hwloc does.
#[derive(Debug, Default)]
struct Kernel {
    /// Memory-only NUMA nodes: hwloc lends them the CPUs of their surroundings.
    without_cpus: BTreeSet<u32>,
    /// hwloc knows no isolated CPUs.
    isolated: CpuMask,
    /// Whether the cpuset that hwloc saw is that of this process alone.
    own_cpuset: bool,
}

impl HwlocSource {
    /// The machine this process runs on, whole. CPUs that the cgroups around this process keep away are described as
    /// disallowed; a cpuset of this very cgroup says nothing about the machine (whoever pins containers gave it).
    #[must_use]
    pub fn native() -> Self {
        Self { input: Input::Native }
    }

    /// A machine made up from hwloc's synthetic description; whether it is one shows in
    /// [`TopologySource::describe`].
    #[must_use]
    pub fn synthetic(description: &str) -> Self {
        Self { input: Input::Synthetic(description.to_owned()) }
    }

    fn topology(&self) -> Result<Topology, DiscoveryError> {
        match &self.input {
            Input::Native => {
                let topology = builder()?.build().map_err(failed_to("read this machine"))?;
                if topology.is_this_system() { Ok(topology) } else { Err(DiscoveryError::NotThisMachine) }
            }
            Input::Synthetic(text) => {
                synthetic::screen(text)?;
                builder()?
                    .from_synthetic(text)
                    .map_err(|source| DiscoveryError::Synthetic { text: text.clone(), source })?
                    .build()
                    .map_err(failed_to("build the synthetic topology"))
            }
        }
    }

    fn kernel(&self) -> Result<Kernel, DiscoveryError> {
        match self.input {
            Input::Native => {
                let sysfs = SysfsSource::native();
                Ok(Kernel {
                    without_cpus: sysfs.numa_nodes_without_cpus()?,
                    isolated: sysfs.isolated()?,
                    own_cpuset: sysfs.allowed()?.is_none(),
                })
            }
            Input::Synthetic(_) => Ok(Kernel::default()),
        }
    }
}

impl TopologySource for HwlocSource {
    fn describe(&self) -> Result<Discovered, DiscoveryError> {
        let topology = self.topology()?;
        Reading::of(&topology).describe(&self.kernel()?)
    }
}

fn builder() -> Result<TopologyBuilder, DiscoveryError> {
    let parameter = |what| {
        move |error| match error {
            HybridError::Hwloc(source) => failed_to("take its settings")(source),
            HybridError::Rust(_) => DiscoveryError::Object { object: "builder", what },
        }
    };
    // Without the first flag a container would see only the CPUs of its own cpuset, and without the filter no device.
    // Without the second the x86 backend binds the calling thread to each CPU in turn, those that containers own included.
    Topology::builder()
        .with_flags(BuildFlags::INCLUDE_DISALLOWED | BuildFlags::DONT_CHANGE_BINDING)
        .map_err(|error| match error {
            HybridError::Hwloc(source) => failed_to("take its settings")(source),
            HybridError::Rust(_) => DiscoveryError::Object { object: "builder", what: "flags" },
        })?
        .with_io_type_filter(TypeFilter::KeepImportant)
        .map_err(parameter("filter"))
}

fn failed_to(operation: &'static str) -> impl Fn(RawHwlocError) -> DiscoveryError {
    move |source| DiscoveryError::Hwloc { operation, source }
}
