//! What the store promises, on both databases: `tests/postgres run cargo test --test store`.
//!
//! Each promise is written once, inside [`on_both`], and becomes two tests, `…::sqlite` and `…::postgres`. Every test has a
//! database of its own, and ends with an audit: the counters must be what the rows say.

#[macro_use]
mod harness;

mod admission;
mod audit;
mod claims;
mod drafts;
mod events;
mod executions;
mod lifecycle;
mod model;
mod network;
mod outage;
mod races;
mod records;
mod setup;
