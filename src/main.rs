//! The `ade` binary: wires the command line to the library.
fn main() {}
