//! `ade serve` when things break: the process, its machine, Docker, the database, the disk, another node.
//!
//! Every test starts the real program in a folder of its own and looks afterwards at what must be true whatever happened: see
//! `truth`.

#[path = "../support/mod.rs"]
mod support;

mod activations;
mod api;
mod crashes;
mod draining;
mod faults;
mod leftovers;
mod nodes;
mod pool;
mod proxy;
mod races;
mod retention;
mod scheduling;
mod site;
mod starting;
mod truth;
