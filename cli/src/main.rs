//! kubectl fairlead: explain, top, drain.
fn main() {}
