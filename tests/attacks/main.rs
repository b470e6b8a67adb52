//! What hostile tenants try, executed: each test is one row of the table in `docs/operations/security.md`, run as a real
//! config package or upload through the `ade` binary in a real container, with an assertion on what the *host* saw.
//!
//! Run it with `cargo test --test attacks -- --test-threads=4`.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod cancellation;
mod catalogue;
mod compatibility;
mod egress;
mod forgery;
mod inputs;
mod kernel;
mod network;
mod outputs;
mod processes;
mod profile;
mod resources;
mod secrets;
mod shadowing;
