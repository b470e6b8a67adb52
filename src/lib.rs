//! ADE Runtime: a container job runtime for spreadsheet normalization.
//!
//! One concern per module; dependencies point downwards only: `cli` → `job` → `packages`, `sandbox`, `events`.

pub mod packages;
pub mod sandbox;
