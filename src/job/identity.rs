//! Which job it is, and which execution of it.

use crate::ids::JobId;
use ulid::Ulid;

/// What tells one execution from every other; it stands in all that a job leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The job.
    pub job_id: JobId,
    /// The workspace that it is of.
    pub workspace_id: String,
    /// The stored config version that it runs; none when the package is the caller's own.
    pub config_version_id: Option<String>,
    /// Which of the user's tries this job is, from 1.
    pub attempt: u32,
    /// How often the scheduler has started this job, this time included.
    pub execution: u32,
    /// For finding the job in the logs of other systems.
    pub trace_id: String,
}

impl Identity {
    /// A new job outside of any service: the workspace `local`, run once.
    #[must_use]
    pub fn local() -> Self {
        Self {
            job_id: JobId::generate(),
            workspace_id: "local".to_owned(),
            config_version_id: None,
            attempt: 1,
            execution: 1,
            trace_id: Ulid::new().to_string().to_lowercase(),
        }
    }
}

/// The name of the container of one execution. Whoever knows the job can remove the container, without asking for it first.
#[must_use]
pub fn container_name(job: &JobId, execution: u32) -> String {
    format!("ade-{}-{execution}", job.as_str().to_lowercase().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_after_its_execution() {
        let job: JobId = "job_01J8Z3K4M5N6P7Q8R9S0T1V2W3".parse().unwrap();
        assert_eq!(container_name(&job, 2), "ade-job-01j8z3k4m5n6p7q8r9s0t1v2w3-2");
    }
}
