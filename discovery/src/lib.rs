//! TopologySource: hwloc behind our own trait, cross-checked with sysfs.
