//! Kinds of CPUs as the kernel tells them: by performance monitoring unit (hybrid x86) or by capacity (Arm).

use std::collections::BTreeMap;
use std::path::Path;

use fairlead_topology::CpuMask;

use super::files::Files;
use crate::DiscoveryError;

/// Names of the monitoring units, least efficient kind last, as the kernel's driver for hybrid processors gives them.
const UNITS: [&str; 3] = ["cpu_lowpower", "cpu_atom", "cpu_core"];

/// Rank (higher is faster) and CPUs; empty where the kernel tells no kinds.
pub(super) fn cpu_kinds(sysfs: &Path, online: &CpuMask) -> Result<Vec<(i32, CpuMask)>, DiscoveryError> {
    let units = Files::below(sysfs.join("devices"));
    let mut kinds = Vec::new();
    for name in UNITS {
        kinds.extend(units.list(&format!("{name}/cpus"))?);
    }
    if kinds.is_empty() {
        let files = Files::new(sysfs);
        let mut by_capacity: BTreeMap<u64, CpuMask> = BTreeMap::new();
        for cpu in online.iter() {
            if let Some(capacity) = files.number(&format!("cpu/cpu{cpu}/cpu_capacity"))? {
                by_capacity.entry(capacity).or_default().insert(cpu);
            }
        }
        kinds.extend(by_capacity.into_values());
    }
    Ok((0..).zip(kinds).collect())
}
