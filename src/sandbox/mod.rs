//! One job, one container, never reused.
//!
//! [`run`] creates a hardened container ([`spec`]), speaks the framed protocol with its supervisor over stdio
//! ([`protocol`]), bounds everything that comes out ([`archive`]), decides how the job ended ([`outcome`]) and removes the
//! container, whatever happened.

mod advice;
pub mod archive;
mod bare;
pub mod connections;
mod container;
mod course;
mod ledger;
mod lend;
pub mod limits;
pub mod outcome;
mod pool;
pub mod protocol;
mod reaper;
mod report;
mod seccomp;
mod send;
mod session;
pub mod spec;
mod wire;

pub use bare::{run_plain, start_and_remove};
pub use container::remove;
pub use ledger::Ledger;
pub use lend::{SOCKET, lend};
pub use limits::{Caps, LimitError, Limits, Requested};
pub use outcome::{Failure, FailureKind, Fault, Outcome};
pub use pool::{Lender, Pool, PoolParts, PoolSize, Pooled, Retired, Watcher};
pub use reaper::{Container, names, reap};
pub use report::{Notice, Report, Timings};
pub use send::{InputFile, Source, egress_terms};
pub use session::{Request, probe, run};
pub use spec::{Class, ContainerSpec, Mount, label, private_uid};
