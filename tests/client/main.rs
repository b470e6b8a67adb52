//! The commands that speak to a service, against a real one with real containers.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod config;
mod drafts;
mod events;
mod failures;
mod flow;
mod service;
