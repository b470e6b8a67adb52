//! One job, one container, never reused.
//!
//! [`run`] creates a hardened container ([`spec`]), speaks the framed protocol with its supervisor over stdio
//! ([`protocol`]), bounds everything that comes out ([`archive`]), decides how the job ended ([`outcome`]) and removes the
//! container, whatever happened.

pub mod archive;
pub mod limits;
pub mod outcome;
pub mod protocol;
mod reaper;
mod seccomp;
mod session;
pub mod spec;

pub use limits::{Caps, LimitError, Limits, Requested};
pub use outcome::{Failure, FailureKind, Fault, Outcome};
pub use reaper::{Container, reap};
pub use session::{InputFile, Notice, Report, Request, Source, Timings, probe, remove, run};
pub use spec::{ContainerSpec, label};
