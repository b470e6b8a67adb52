//! ADE Runtime: a container job runtime for spreadsheet normalization.
//!
//! One concern per module; dependencies point downwards only: `cli` → `job` → `packages`, `sandbox`, `events`; `image` stands
//! by itself.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api;
pub mod blob;
pub mod cli;
pub mod events;
pub mod ids;
pub mod image;
pub mod job;
pub mod packages;
pub mod sandbox;
pub mod settings;
pub mod telemetry;
mod text;
