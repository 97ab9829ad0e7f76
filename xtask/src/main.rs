//! demo, up, down, test, bench, generate, tidy.
fn main() {}
