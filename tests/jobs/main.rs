//! Jobs from the command line to the files on disk: real packages over real workbooks, through the `ade` binary in real
//! containers. What a hostile package tries is in `tests/attacks`; here is what an honest one gets, and what becomes of one
//! with mistakes in it.
//!
//! Run it with `cargo test --test jobs`; one module with `cargo test --test jobs hooks::`.

#[path = "../support/mod.rs"]
mod support;

mod dry_run;
mod egress;
mod examples;
mod executions;
mod hooks;
mod inputs;
mod leftovers;
mod limits;
mod records;
mod scripts;
mod workbook;
