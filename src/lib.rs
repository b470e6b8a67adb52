//! ADE Runtime: a container job runtime for spreadsheet normalization.
//!
//! One concern per module; dependencies point downwards only: `cli` → `service` → `api` → `scheduler`, `queue` → `store`, `blob`,
//! and `scheduler`, `cli` → `job` → `packages`, `sandbox`, `events`; `sandbox` and `egress`, the proxy of its containers, know each
//! other; `cli`, `bench` → `client` → the types of `api`; `bench` → `job`, for its peers; `image` stands by itself. Nothing below `api` knows HTTP,
//! nothing above `sandbox` knows Docker, nothing above `store` knows SQL.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api;
pub mod auth;
pub mod bench;
pub mod blob;
pub mod cli;
pub mod client;
pub mod deps;
pub mod egress;
pub mod events;
pub mod health;
pub mod ids;
pub mod image;
pub mod job;
pub mod network;
pub mod packages;
pub mod queue;
pub mod sandbox;
pub mod scheduler;
pub mod service;
pub mod settings;
pub mod store;
pub mod telemetry;
mod text;
