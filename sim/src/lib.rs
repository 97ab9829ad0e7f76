//! For tests only: a fake API server with the semantics that faults need, the cases that hold it to the genuine one, and
//! exhaustive searches that drive the shipped steps.

pub mod api;
pub mod conformance;
pub mod search;
