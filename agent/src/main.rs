//! Parses arguments, wires, runs.
fn main() {}
