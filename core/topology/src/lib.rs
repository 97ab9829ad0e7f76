//! Machines, CPU masks, choice of exact CPUs, scores.
