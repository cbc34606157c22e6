//! The `turret` binary.
fn main() {}
