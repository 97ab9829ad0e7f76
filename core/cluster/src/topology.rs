//! From NodeTopology to a checked machine.
use fairlead_crds::node_topology::{self, CpuGroup, CpuKind, Distance, L3Cache, NodeTopologySpec, NumaNode, PciDevice};
use fairlead_topology::{
    CacheDescription, CoreDescription, CpuKindDescription, CpuListError, CpuMask, GroupDescription, HugePages, Machine,
    MachineDescription, MachineError, NumaDescription, NumaDistance, PackageDescription, PciDescription,
};

/// Why a NodeTopology is no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A number is outside its range.
    #[error("spec.{field}: {value} is out of range (0 to {max})")]
    Number {
        /// Which field.
        field: String,
        /// What it says.
        value: i64,
        /// Largest value.
        max: i64,
    },
    /// A text is not of its form.
    #[error("spec.{field}: {text:?} is not {expected}")]
    Text {
        /// Which field.
        field: String,
        /// What it says.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A CPU list cannot be read.
    #[error("spec.{field}: {source}")]
    Cpus {
        /// Which field.
        field: String,
        /// What is wrong with it.
        #[source]
        source: CpuListError,
    },
    /// The parts contradict each other.
    #[error("spec.{source}")]
    Machine {
        /// How.
        #[source]
        source: MachineError,
    },
    /// hwloc and sysfs told different things.
    #[error(
        "spec.disagreements: {count} fact(s) on which hwloc and sysfs differ, first {field}: hwloc {hwloc:?}, sysfs {sysfs:?}"
    )]
    Disagreement {
        /// How many.
        count: usize,
        /// The first one's field.
        field: String,
        /// What hwloc says.
        hwloc: String,
        /// What sysfs says.
        sysfs: String,
    },
}

fn number(value: i64, field: impl Fn() -> String) -> Result<u32, TopologyError> {
    u32::try_from(value).map_err(|_| TopologyError::Number { field: field(), value, max: i64::from(u32::MAX) })
}

fn bytes(value: i64, field: impl Fn() -> String) -> Result<u64, TopologyError> {
    u64::try_from(value).map_err(|_| TopologyError::Number { field: field(), value, max: i64::MAX })
}

fn cpus(text: &str, field: impl Fn() -> String) -> Result<CpuMask, TopologyError> {
    CpuMask::parse_list(text).map_err(|source| TopologyError::Cpus { field: field(), source })
}

fn group(list: &str, group: &CpuGroup) -> Result<(u32, CpuMask), TopologyError> {
    let id = group.id;
    Ok((number(id, || format!("{list}[id={id}].id"))?, cpus(&group.cpus, || format!("{list}[id={id}].cpus"))?))
}

fn groups(list: &'static str, told: &[CpuGroup]) -> Result<Vec<GroupDescription>, TopologyError> {
    told.iter().map(|entry| group(list, entry).map(|(id, cpus)| GroupDescription { id, cpus })).collect()
}

/// The description that a NodeTopology gives, numbers and lists read but nothing else checked.
///
/// # Errors
/// The first number or CPU list that cannot be read.
pub fn description_of(spec: &NodeTopologySpec) -> Result<MachineDescription, TopologyError> {
    let of_packages = |entry| group("packages", entry).map(|(id, cpus)| PackageDescription { id, cpus });
    let of_cores = |entry| group("cores", entry).map(|(id, cpus)| CoreDescription { id, cpus });
    let alone = |text: &str, field: &str| cpus(text, || field.to_owned());
    Ok(MachineDescription {
        packages: spec.packages.iter().map(of_packages).collect::<Result<_, _>>()?,
        numa_nodes: spec.numa_nodes.iter().map(numa_node).collect::<Result<_, _>>()?,
        l3_caches: spec.l3_caches.iter().map(l3_cache).collect::<Result<_, _>>()?,
        cores: spec.cores.iter().map(of_cores).collect::<Result<_, _>>()?,
        dies: groups("dies", &spec.dies)?,
        clusters: groups("clusters", &spec.clusters)?,
        cpu_kinds: (0..).zip(&spec.cpu_kinds).map(|(at, kind)| cpu_kind(at, kind)).collect::<Result<_, _>>()?,
        isolated: alone(&spec.isolated_cpus, "isolatedCPUs")?,
        disallowed: alone(&spec.disallowed_cpus, "disallowedCPUs")?,
        offline: alone(&spec.offline_cpus, "offlineCPUs")?,
        pci_devices: spec.pci_devices.iter().map(pci_device).collect::<Result<_, _>>()?,
    })
}

fn numa_node(numa: &NumaNode) -> Result<NumaDescription, TopologyError> {
    let at = |field: &str| format!("numaNodes[id={}].{field}", numa.id);
    let distance = |told: &Distance| {
        Ok(NumaDistance {
            to: number(told.to, || at("distances.to"))?,
            value: number(told.value, || at("distances.value"))?,
        })
    };
    let pages = |told: &node_topology::HugePages| {
        Ok(HugePages {
            page_bytes: bytes(told.page_bytes, || at("hugePages.pageBytes"))?,
            count: bytes(told.count, || at("hugePages.count"))?,
        })
    };
    Ok(NumaDescription {
        id: number(numa.id, || at("id"))?,
        cpus: cpus(&numa.cpus, || at("cpus"))?,
        memory_bytes: bytes(numa.memory_bytes, || at("memoryBytes"))?,
        huge_pages: numa.huge_pages.iter().map(pages).collect::<Result<_, _>>()?,
        kind: numa.kind.clone(),
        distances: numa.distances.iter().map(distance).collect::<Result<_, _>>()?,
    })
}

fn l3_cache(cache: &L3Cache) -> Result<CacheDescription, TopologyError> {
    let at = |field: &str| format!("l3Caches[id={}].{field}", cache.id);
    Ok(CacheDescription {
        id: number(cache.id, || at("id"))?,
        cpus: cpus(&cache.cpus, || at("cpus"))?,
        size_bytes: bytes(cache.size_bytes, || at("sizeBytes"))?,
    })
}

fn cpu_kind(at: usize, kind: &CpuKind) -> Result<CpuKindDescription, TopologyError> {
    let cpus = cpus(&kind.cpus, || format!("cpuKinds[{at}].cpus"))?;
    Ok(CpuKindDescription { efficiency: kind.efficiency, cpus })
}

fn pci_device(device: &PciDevice) -> Result<PciDescription, TopologyError> {
    let at = |field: &str| format!("pciDevices[address={}].{field}", device.address);
    let (vendor, device_id) = device.id.split_once(':').unwrap_or((&device.id, ""));
    let expected = "vendor:device in hexadecimal, like 10de:2230";
    let id = |part: &str| hexadecimal(part).ok_or_else(|| text(at("id"), &device.id, expected));
    let class = || text(at("class"), &device.class, "a class of four hexadecimal digits, like 0302");
    Ok(PciDescription {
        address: device.address.clone(),
        class: hexadecimal(&device.class).ok_or_else(class)?,
        vendor: id(vendor)?,
        device: id(device_id)?,
        names: device.names.clone(),
        cpus: cpus(&device.cpus, || at("cpus"))?,
        switch: device.switch.clone(),
    })
}

fn text(field: String, text: &str, expected: &'static str) -> TopologyError {
    TopologyError::Text { field, text: text.chars().take(40).collect(), expected }
}

/// Four digits; `from_str_radix` alone would take a sign too.
fn hexadecimal(digits: &str) -> Option<u16> {
    let four = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| four)
}

/// The machine that a NodeTopology describes.
///
/// # Errors
/// What cannot be read, is contradictory, or was told differently by hwloc and sysfs: with none of those is a node
/// trusted with exclusive CPUs.
pub fn machine_of(spec: &NodeTopologySpec) -> Result<Machine, TopologyError> {
    let machine = Machine::new(&description_of(spec)?).map_err(|source| TopologyError::Machine { source })?;
    match spec.disagreements.first() {
        None => Ok(machine),
        Some(first) => Err(TopologyError::Disagreement {
            count: spec.disagreements.len(),
            field: first.field.clone(),
            hwloc: first.hwloc.clone(),
            sysfs: first.sysfs.clone(),
        }),
    }
}
