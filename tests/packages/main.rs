//! Config packages, through the public interface: what opens and what is refused, every rule of the manifest
//! and of scripts, the published schema against the parser, and the docs against the code.

// Helpers of tests fail by panicking, like the tests themselves; clippy's exemption covers only the latter.
#![allow(clippy::unwrap_used, clippy::panic)]

mod docs;
mod manifest;
mod opening;
mod schema;
mod scripts;
mod seeds;
mod support;
