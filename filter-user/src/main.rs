//! The `nodewall` command.
fn main() {}
