//! What one job may use: the instance's caps, what the package asks for, and how the two become one [`Limits`].

use serde::Serialize;
use std::time::Duration;

/// The ceilings that an admin sets for the instance; nothing a package or a caller asks for goes above them.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps {
    /// Wall-clock time of a job; also the default. `ADE_JOB_TIMEOUT_SECONDS`.
    pub timeout: Duration,
    /// Memory of a job's container, MiB, its scratch space included. `ADE_WORKER_MEM_MB`.
    pub memory_mb: u64,
    /// CPU time of all processes of a job, seconds. `ADE_WORKER_CPU_SECONDS`.
    pub cpu_seconds: u64,
    /// Size of one output file, MiB. `ADE_WORKER_FSIZE_MB`.
    pub output_mb: u64,
    /// CPUs of a job's container. `ADE_WORKER_CPUS`.
    pub cpus: f64,
    /// Processes and threads of a job's container. `ADE_WORKER_PIDS`.
    pub pids: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            memory_mb: 2048,
            cpu_seconds: 600,
            output_mb: 512,
            cpus: 1.0,
            pids: 128,
        }
    }
}

/// What a package or a caller asks for; `None` takes the default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requested {
    /// Wall-clock time, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Memory, MiB.
    pub memory_mb: Option<u64>,
}

impl Requested {
    /// The same, with what `over` asks for put above it.
    #[must_use]
    pub fn overridden_by(self, over: Self) -> Self {
        Self { timeout_ms: over.timeout_ms.or(self.timeout_ms), memory_mb: over.memory_mb.or(self.memory_mb) }
    }
}

/// The limits of one job, resolved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Wall-clock time of the scripts, milliseconds.
    pub timeout_ms: u64,
    /// The container's memory, MiB: processes, scratch space and shared memory together.
    pub memory_mb: u64,
    /// The part of the memory that files in `/job` may take, MiB.
    pub scratch_mb: u64,
    /// CPU time, seconds.
    pub cpu_seconds: u64,
    /// CPUs.
    pub cpus: f64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of one output file, MiB.
    pub output_mb: u64,
    /// Time of the `on_job_end` hooks, milliseconds; on top of `timeout_ms`.
    pub on_job_end_ms: u64,
    /// Log lines that are kept.
    pub log_lines: u64,
    /// Bytes of log lines that are kept.
    pub log_bytes: u64,
    /// Issues listed in the artifact per field and code; totals stay exact.
    pub issues_per_code: u64,
}

/// A package or a caller asked for more, or for less, than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Above the instance's cap.
    #[error(
        "{name} of {asked} is above this instance's cap of {cap}: ask for at most {cap}, or have the admin raise {variable}"
    )]
    AboveCap {
        /// Manifest key.
        name: &'static str,
        /// What was asked for.
        asked: u64,
        /// What is allowed.
        cap: u64,
        /// The setting that holds the cap.
        variable: &'static str,
    },
    /// Below what the runner needs.
    #[error("{name} of {asked} is below the minimum of {min}")]
    BelowMinimum {
        /// Manifest key.
        name: &'static str,
        /// What was asked for.
        asked: u64,
        /// The smallest value that works.
        min: u64,
    },
}

/// Memory when neither package nor caller says anything, MiB (contract, section 1).
pub const DEFAULT_MEMORY_MB: u64 = 512;
const MIN_MEMORY_MB: u64 = 64;
const MIN_TIMEOUT_MS: u64 = 1000;

impl Limits {
    /// Resolves what was asked for under the instance's caps. A default above a cap is lowered to it; a request is refused.
    ///
    /// # Errors
    /// [`LimitError`] naming the key and both numbers.
    pub fn resolve(caps: &Caps, asked: Requested) -> Result<Self, LimitError> {
        let cap_ms = u64::try_from(caps.timeout.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms =
            within("timeout_ms", asked.timeout_ms, cap_ms, MIN_TIMEOUT_MS, cap_ms, "ADE_JOB_TIMEOUT_SECONDS")?;
        let memory_mb = within(
            "memory_mb", asked.memory_mb, DEFAULT_MEMORY_MB, MIN_MEMORY_MB, caps.memory_mb, "ADE_WORKER_MEM_MB",
        )?;
        let scratch_mb = memory_mb / 2;
        Ok(Self {
            timeout_ms,
            memory_mb,
            scratch_mb,
            cpu_seconds: caps.cpu_seconds,
            cpus: caps.cpus,
            pids: caps.pids,
            output_mb: caps.output_mb.min(scratch_mb),
            on_job_end_ms: 10_000,
            log_lines: 5_000,
            log_bytes: 1024 * 1024,
            issues_per_code: 100,
        })
    }
}

fn within(
    name: &'static str,
    asked: Option<u64>,
    default: u64,
    min: u64,
    cap: u64,
    variable: &'static str,
) -> Result<u64, LimitError> {
    match asked {
        None => Ok(default.min(cap)),
        Some(asked) if asked > cap => Err(LimitError::AboveCap { name, asked, cap, variable }),
        Some(asked) if asked < min => Err(LimitError::BelowMinimum { name, asked, min }),
        Some(asked) => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_above_the_cap_names_both_numbers() {
        let asked = Requested { memory_mb: Some(9000), ..Requested::default() };
        let error = Limits::resolve(&Caps::default(), asked).unwrap_err().to_string();
        assert!(error.contains("9000") && error.contains("2048") && error.contains("ADE_WORKER_MEM_MB"), "{error}");
    }

    #[test]
    fn a_default_above_the_cap_is_lowered() {
        let caps = Caps { memory_mb: 128, ..Caps::default() };
        assert_eq!(Limits::resolve(&caps, Requested::default()).unwrap().memory_mb, 128);
    }

    #[test]
    fn a_request_below_the_minimum_is_refused() {
        let asked = Requested { timeout_ms: Some(10), ..Requested::default() };
        assert!(matches!(Limits::resolve(&Caps::default(), asked), Err(LimitError::BelowMinimum { min: 1000, .. })));
    }

    #[test]
    fn scratch_space_is_filled_before_memory_is() {
        let limits = Limits::resolve(&Caps::default(), Requested::default()).unwrap();
        assert!(limits.scratch_mb < limits.memory_mb && limits.output_mb <= limits.scratch_mb);
    }
}
