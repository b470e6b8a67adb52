//! `ade serve` from the outside: the real binary, real requests, real jobs in real containers, on both databases.
//!
//! Run it with `tests/postgres run cargo test --test service`; one module with `… --test service documents::`.

#[path = "../support/mod.rs"]
mod support;

mod activation;
mod audit;
mod configs;
mod documents;
mod drafts;
mod events;
mod files;
mod jobs;
mod keys;
mod memory;
mod network;
mod pages;
mod queue;
mod records;
mod schema;
mod states;
mod tenancy;
mod versions;
mod wire;
