//! Which CPUs the cgroups around this process leave to it and its neighbours.
//!
//! A cgroup whose own `cpuset.cpus` is set tells nothing of that: whoever pins containers set it for this one alone, be
//! it the kubelet or our own agent. Taking what it hides for lost would take every promised core from its pod. With an
//! empty one, `cpuset.cpus.effective` is what the cgroups above leave.

use std::path::Path;

use fairlead_topology::CpuMask;

use super::files::Files;
use crate::DiscoveryError;

/// None if it cannot be told.
pub(super) fn allowed(sysfs: &Path, proc: &Path) -> Result<Option<CpuMask>, DiscoveryError> {
    let Some(told) = Files::below(proc.to_owned()).text("self/cgroup")? else { return Ok(None) };
    // hierarchy:controllers:path; version 2 is hierarchy 0 and names no controllers.
    let mut lines = told.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let v1 = lines.clone().find(|(controllers, _)| controllers.split(',').any(|name| name == "cpuset"));
    match v1 {
        Some((_, "/")) => root_of_v1(sysfs),
        // Version 1 has no empty cpuset: every cgroup has one of its own.
        Some(_) => Ok(None),
        None => match lines.find(|(controllers, _)| controllers.is_empty()) {
            Some((_, path)) => within_v2(sysfs, path),
            None => Ok(None),
        },
    }
}

fn root_of_v1(sysfs: &Path) -> Result<Option<CpuMask>, DiscoveryError> {
    let files = Files::below(sysfs.join("fs/cgroup/cpuset"));
    // Only the true root has this file; that of a cgroup namespace looks like a root otherwise.
    match files.text("release_agent")? {
        Some(_) => files.list("cpuset.cpus"),
        None => Ok(None),
    }
}

fn within_v2(sysfs: &Path, path: &str) -> Result<Option<CpuMask>, DiscoveryError> {
    // A cgroup outside of the namespace's root is not in this mount.
    if path.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    let files = Files::below(sysfs.join("fs/cgroup").join(path.trim_start_matches('/')));
    // The root has no cpuset of its own, only an effective one.
    match files.list("cpuset.cpus")? {
        Some(own) if !own.is_empty() => Ok(None),
        _ => files.list("cpuset.cpus.effective"),
    }
}
