//! What may go wrong between a command and a service.

use crate::api::ProblemBody;
use crate::ids::JobId;
use crate::sandbox::Failure;
use std::path::Path;
use std::time::Duration;

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller: the request, the key, a file.
    Request,
    /// The environment: no service, a broken connection, a full disk.
    Environment,
    /// Nobody: the caller interrupted it.
    Interrupted,
}

/// Why a command did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// Stable kind: the code of a problem, or a word of the client's own.
    pub kind: String,
    /// What happened, and what to do.
    pub message: String,
    /// Who can mend it.
    pub blame: Blame,
    /// What the service said.
    pub problem: Option<Box<ProblemBody>>,
    /// After how long another try makes sense, as the service said.
    pub retry_after: Option<Duration>,
    /// The job that goes on without this command.
    pub job_id: Option<JobId>,
}

impl ClientError {
    /// An error with a kind and a message.
    pub fn new(blame: Blame, kind: impl Into<String>, message: impl Into<String>) -> Self {
        let (kind, message) = (kind.into(), message.into());
        Self { kind, message, blame, problem: None, retry_after: None, job_id: None }
    }

    /// The caller stopped the command.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Blame::Interrupted, "interrupted", message)
    }

    /// A file that was named cannot be read.
    pub fn unreadable(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::new(Blame::Request, "input_unreadable", format!("cannot read {}: {why}", path.display()))
    }

    /// A file cannot be written.
    pub fn unwritable(path: &Path, why: impl std::fmt::Display) -> Self {
        let message =
            format!("cannot write {}: {why}; free some space there or choose another place with --out", path.display());
        Self::new(Blame::Environment, "host_io", message)
    }

    /// Names the job that goes on.
    #[must_use]
    pub fn of_job(mut self, id: &JobId) -> Self {
        self.job_id = Some(id.clone());
        self
    }

    /// Whether the same request may go well in a moment: the service was not there, or said that it cannot just now.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match &self.problem {
            Some(problem) => problem.status >= 500 || problem.status == 429,
            None => matches!(self.kind.as_str(), "server_unreachable" | "connection_lost"),
        }
    }
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        let blame = match failure.kind.fault() {
            crate::sandbox::Fault::Environment => Blame::Environment,
            _ => Blame::Request,
        };
        Self::new(blame, failure.kind.as_str(), failure.message)
    }
}
