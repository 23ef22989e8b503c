//! The command line: setup, check, demo.
fn main() {}
