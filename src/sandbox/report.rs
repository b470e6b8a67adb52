//! What a session tells while it runs, and at its end.

use super::outcome::{Failure, FailureKind, Outcome};
use super::protocol::{ContainerUsage, Progress, RawEvent, StopReason};
use crate::egress::Record;
use serde_json::Value;

/// What happened, as it happens.
#[derive(Debug)]
pub enum Notice {
    /// The container runs and its supervisor takes the job.
    Ready {
        /// Version of the runner in the image.
        runner_version: String,
        /// Version of Python in the image.
        python: String,
        /// Whether the container was there before the job.
        parked: bool,
    },
    /// An event of the job.
    Event(RawEvent),
    /// Rows done.
    Progress(Progress),
    /// A connection that the job made has ended.
    Egress(Record),
    /// The engine asked the job to stop.
    Stopping(StopReason),
}

/// The end of one execution.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What the container used.
    pub usage: ContainerUsage,
    /// Names of outputs in [`Request::outputs`](super::Request::outputs). Only `artifact.json` when the job failed.
    pub collected: Vec<String>,
    /// Diagnostics of a `validate`.
    pub diagnostics: Vec<Value>,
    /// Time by step.
    pub timings: Timings,
    /// Set when Docker did not remove the container and this waited for it: which it is, and what becomes of it.
    pub left_behind: Option<String>,
}

impl Report {
    /// The end of a job that could not even be started.
    #[must_use]
    pub fn never_ran(failure: Failure) -> Self {
        Self {
            outcome: match failure.kind {
                FailureKind::Cancelled => Outcome::Cancelled(failure),
                _ => Outcome::Failed(failure),
            },
            usage: ContainerUsage::default(),
            collected: Vec::new(),
            diagnostics: Vec::new(),
            timings: Timings::default(),
            left_behind: None,
        }
    }
}

/// Time by step, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Waiting for dependencies.
    pub install_ms: u64,
    /// Docker's making of the container.
    pub create_ms: u64,
    /// Attach and start, to `READY`.
    pub start_ms: u64,
    /// Inputs and scripts.
    pub run_ms: u64,
    /// From the last output byte on; the container's removal, where the job waits for it.
    pub collect_ms: u64,
}

impl Timings {
    /// All steps together, milliseconds.
    #[must_use]
    pub const fn total_ms(self) -> u64 {
        self.install_ms + self.create_ms + self.start_ms + self.run_ms + self.collect_ms
    }
}
