//! One job, one container, never reused.
//!
//! [`run`] creates a hardened container ([`spec`]), speaks the framed protocol with its supervisor over stdio
//! ([`protocol`]), bounds everything that comes out ([`archive`]), decides how the job ended ([`outcome`]) and removes the
//! container, whatever happened.

mod advice;
pub mod archive;
pub mod connections;
mod container;
mod course;
pub mod limits;
pub mod outcome;
pub mod protocol;
mod reaper;
mod report;
mod seccomp;
mod send;
mod session;
pub mod spec;
mod wire;

pub use container::remove;
pub use limits::{Caps, LimitError, Limits, Requested};
pub use outcome::{Failure, FailureKind, Fault, Outcome};
pub use reaper::{Container, reap};
pub use report::{Notice, Report, Timings};
pub use send::{InputFile, Source, egress_terms};
pub use session::{Request, probe, run};
pub use spec::{ContainerSpec, Mount, label, private_uid};
