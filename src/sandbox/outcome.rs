//! How a job ended: one enum of stable kinds, and the one function that decides.
//!
//! The order of trust is: the engine's own clock and requests, Docker's word about the container, and only then the
//! completion record from inside. The catalogue for people is `docs/developers/error-kinds.md`; a test compares the two.

use super::limits::Limits;
use super::protocol::{ChildEnd, Done, ProtocolError, ReportedError, ReportedOutcome, RunSummary, StopReason};
use crate::text::plain;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $fault:ident;)+) => {
        /// Why a job failed. The text form is stable: it is stored, indexed and documented.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FailureKind { $($(#[doc = $doc])+ $variant,)+ }

        impl FailureKind {
            /// Every kind, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Whose move it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)+ }
            }
        }
    };
}

/// Whose move it is after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The package or what it did; running it again as it is gives the same.
    Job,
    /// The package as written or the inputs as given; nothing, or nothing useful, was run.
    Request,
    /// The machine, Docker or the image; running it again may help.
    Environment,
}

kinds! {
    /// A script raised, exited or was killed where the job cannot go on without it.
    ScriptError = "script_error", Job;
    /// A hook raised.
    HookFailed = "hook_failed", Job;
    /// The wall-clock limit passed.
    Timeout = "timeout", Job;
    /// The memory limit was reached.
    OutOfMemory = "out_of_memory", Job;
    /// The CPU-time limit was reached.
    CpuLimit = "cpu_limit", Job;
    /// The scratch space is full: bytes or number of files.
    DiskFull = "disk_full", Job;
    /// An output is over its limit, or over what a worksheet can hold.
    OutputTooLarge = "output_too_large", Job;
    /// An output is missing, or is no regular file, or is not what it should be.
    OutputInvalid = "output_invalid", Job;
    /// Something in the container broke the protocol.
    ProtocolViolation = "protocol_violation", Job;
    /// A person or program cancelled the job.
    Cancelled = "cancelled", Job;
    /// The package cannot run as it is written.
    PackageInvalid = "package_invalid", Request;
    /// The package is over a cap.
    PackageTooLarge = "package_too_large", Request;
    /// `requirements.txt` has lines that are not allowed.
    RequirementsInvalid = "requirements_invalid", Request;
    /// The package needs dependencies that the index and the wheelhouse do not have.
    DependencyUnavailable = "dependency_unavailable", Request;
    /// The package needs dependencies that the wheelhouse does not have, and network is denied.
    DependencyNetworkDenied = "dependency_network_denied", Request;
    /// Dependencies could not be fetched, verified or installed.
    DependencyInstallFailed = "dependency_install_failed", Environment;
    /// A limit was asked for that the instance does not give.
    LimitInvalid = "limit_invalid", Request;
    /// An input does not exist, cannot be read, or changed while it was read.
    InputMissing = "input_missing", Request;
    /// The inputs do not fit into the job's scratch space.
    InputTooLarge = "input_too_large", Request;
    /// An input has no bytes.
    InputEmpty = "input_empty", Request;
    /// An input is no spreadsheet.
    InputNotWorkbook = "input_not_workbook", Request;
    /// An input is protected by a password.
    InputEncrypted = "input_encrypted", Request;
    /// An input is damaged.
    InputCorrupt = "input_corrupt", Request;
    /// An input unpacks to far more than its size.
    InputZipBomb = "input_zip_bomb", Request;
    /// A text input is in no encoding that can be told.
    InputBadEncoding = "input_bad_encoding", Request;
    /// A cell is over the limit.
    InputCellTooLarge = "input_cell_too_large", Request;
    /// A table has more columns than the limit.
    InputTooWide = "input_too_wide", Request;
    /// A workbook has no worksheet.
    InputNoSheets = "input_no_sheets", Request;
    /// No input has any cell with a value.
    InputNoData = "input_no_data", Request;
    /// The runner itself failed, or ended without a completion record.
    RunnerCrashed = "runner_crashed", Job;
    /// The base image is not there.
    ImageMissing = "image_missing", Environment;
    /// The asked-for OCI runtime is not there.
    RuntimeMissing = "runtime_missing", Environment;
    /// Docker cannot be reached, or refused what the engine needs.
    EngineUnavailable = "engine_unavailable", Environment;
    /// The host's own disk failed the engine.
    HostIo = "host_io", Environment;
    /// The job waited in the queue longer than its deadline.
    QueueTimeout = "queue_timeout", Environment;
    /// Every execution was cut off, its process or machine lost, and there are no more to be had.
    NodeLost = "node_lost", Environment;
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FailureKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no kind of failure")))
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FailureKind {
    /// The kind of this text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }

    /// Whether the machine under the job failed before the job itself was judged, so that another execution may go well.
    /// A runtime that is missing is none of these: the admin asked for it, and nothing may run without it.
    #[must_use]
    pub const fn is_infrastructure(self) -> bool {
        matches!(self, Self::EngineUnavailable | Self::ImageMissing | Self::HostIo)
    }

    /// The kind that a runner may claim by this text; what only the engine can know is not among them.
    fn claimed(text: &str, installer: bool) -> Option<Self> {
        let kind = Self::from_text(text)?;
        match kind {
            Self::DependencyUnavailable | Self::DependencyNetworkDenied | Self::DependencyInstallFailed => {
                installer.then_some(kind)
            }
            Self::ScriptError
            | Self::HookFailed
            | Self::OutOfMemory
            | Self::DiskFull
            | Self::OutputTooLarge
            | Self::CpuLimit => Some(kind),
            Self::ProtocolViolation | Self::PackageInvalid => Some(kind),
            Self::InputMissing | Self::InputTooLarge => None,
            _ if text.starts_with("input_") => Some(kind),
            _ => None,
        }
    }
}

/// A failure, as it stands in the job record, the artifact, the events and on the terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable kind.
    pub kind: FailureKind,
    /// What happened, which limit, and what to do.
    pub message: String,
    /// Pass during which it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// Script of the package at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Function at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Line in the script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Small JSON object for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl Failure {
    /// A failure with a kind and a message, and nothing that points into a package.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), pass: None, script: None, function: None, line: None, detail: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All passes done, outputs collected.
    Succeeded(RunSummary),
    /// It failed.
    Failed(Failure),
    /// It was cancelled.
    Cancelled(Failure),
}

impl Outcome {
    /// The job state: `succeeded`, `failed` or `cancelled`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// The failure, when there is one.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Succeeded(_) => None,
            Self::Failed(failure) | Self::Cancelled(failure) => Some(failure),
        }
    }
}

/// What Docker says about a container that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerExit {
    /// Exit code of the supervisor.
    pub code: Option<i64>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
}

/// Everything that was seen of one execution.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The engine asked the job to stop, before the completion record came.
    pub stop: Option<StopReason>,
    /// The supervisor did not answer `STOP`; the engine killed the container.
    pub killed: bool,
    /// The completion record.
    pub done: Option<Done>,
    /// The protocol was broken.
    pub broken: Option<ProtocolError>,
    /// Docker's word; asked for only when the record does not settle it.
    pub exit: Option<ContainerExit>,
    /// Last lines of the supervisor's own stderr.
    pub stderr_tail: String,
    /// The connection to Docker broke before the container ended.
    pub lost_contact: Option<String>,
    /// Outputs without which the job did not succeed.
    pub expected: &'static [&'static str],
    /// Outputs that were collected, by name.
    pub collected: Vec<String>,
    /// It is an installer.
    pub installer: bool,
    /// The output archive was refused.
    pub refused_output: Option<Failure>,
}

/// Decides how the job ended.
#[must_use]
pub fn decide(evidence: &Evidence, limits: &Limits) -> Outcome {
    if evidence.stop == Some(StopReason::Cancelled) {
        return Outcome::Cancelled(Failure::new(
            FailureKind::Cancelled,
            "the job was cancelled while it ran; its container is gone and no workbook was kept",
        ));
    }
    let record = evidence.done.as_ref();
    let phase = record.and_then(|done| done.child.as_ref()).and_then(|child| child.phase.clone());
    let unanswered = evidence.killed || (evidence.stop.is_some() && record.is_none());
    let mut outcome = if unanswered || record.is_some_and(|done| done.outcome == ReportedOutcome::Stopped) {
        Outcome::Failed(match evidence.stop {
            Some(_) => timeout(limits),
            // The hard deadline passed although nobody had to stop the job: the supervisor hangs.
            None if evidence.killed => timeout(limits),
            None => Failure::new(
                FailureKind::ProtocolViolation,
                "the supervisor stopped a job that nobody asked it to stop",
            ),
        })
    } else if let Some(broken) = &evidence.broken {
        Outcome::Failed(Failure::new(
            FailureKind::ProtocolViolation,
            format!(
                "the container broke the engine's protocol: {broken}; check what the scripts do to the processes and files around them"
            ),
        ))
    } else if let Some(done) = record {
        settle(done, evidence, limits)
    } else {
        Outcome::Failed(without_record(evidence, limits))
    };
    if let Outcome::Failed(failure) = &mut outcome
        && failure.pass.is_none()
    {
        failure.pass = phase;
    }
    outcome
}

fn settle(done: &Done, evidence: &Evidence, limits: &Limits) -> Outcome {
    match done.outcome {
        ReportedOutcome::Completed => match check_outputs(done, evidence, limits) {
            None => Outcome::Succeeded(done.summary.unwrap_or_default()),
            Some(failure) => Outcome::Failed(failure),
        },
        ReportedOutcome::Failed | ReportedOutcome::SetupFailed => Outcome::Failed(done.error.as_ref().map_or_else(
            || Failure::new(FailureKind::RunnerCrashed, "the runner reported a failure and did not say which"),
            |error| reported(error, evidence, limits),
        )),
        ReportedOutcome::Died => Outcome::Failed(match &done.error {
            Some(error) => reported(error, evidence, limits),
            None => death(&done.child.clone().unwrap_or_default(), evidence, limits),
        }),
        // Handled by the caller, which knows whether the engine asked for it.
        ReportedOutcome::Stopped => Outcome::Failed(timeout(limits)),
    }
}

fn check_outputs(done: &Done, evidence: &Evidence, limits: &Limits) -> Option<Failure> {
    if let Some(failure) = &evidence.refused_output {
        return Some(failure.clone());
    }
    if let Some(rejected) = done.rejected.first() {
        let name = plain(&rejected.name, 80);
        let reason = plain(&rejected.reason, 200);
        return Some(if reason.contains("the limit is") {
            let hint = "raise engine.defaults.memory_mb (half of it is scratch space) or write less";
            Failure::new(
                FailureKind::OutputTooLarge,
                format!("output {name} {reason} bytes ({} MB): {hint}", limits.output_mb),
            )
        } else {
            Failure::new(
                FailureKind::OutputInvalid,
                format!("output {name} {reason}: scripts must leave the files in /job/out to the runner"),
            )
        });
    }
    evidence.expected.iter().find(|name| !evidence.collected.iter().any(|have| have == *name)).map(
        |missing| {
            Failure::new(
                FailureKind::OutputInvalid,
                format!("output {missing} is missing although the job ran to its end: scripts must leave the files in /job/out to the runner"),
            )
        },
    )
}

fn reported(error: &ReportedError, evidence: &Evidence, limits: &Limits) -> Failure {
    let claimed = FailureKind::claimed(&error.kind, evidence.installer);
    let message = match claimed {
        Some(FailureKind::OutOfMemory) => out_of_memory(limits).message,
        Some(FailureKind::DiskFull) => disk_full(limits).message,
        Some(FailureKind::CpuLimit) => format!(
            "the scripts used more than the limit of {} s of CPU time: make them do less per row, or have the admin raise ADE_WORKER_CPU_SECONDS",
            limits.cpu_seconds
        ),
        Some(_) => plain(&error.message, 2000),
        None => format!("the runner reported an unknown failure kind: {}", plain(&error.message, 500)),
    };
    Failure {
        kind: claimed.unwrap_or(FailureKind::RunnerCrashed),
        message,
        pass: error.pass.as_deref().map(|text| plain(text, 40)),
        script: error.script.as_deref().map(|text| plain(text, 240)),
        function: error.function.as_deref().map(|text| plain(text, 120)),
        line: error.line,
        detail: error.detail.clone(),
    }
}

fn death(child: &ChildEnd, evidence: &Evidence, limits: &Limits) -> Failure {
    let docker_says_oom = evidence.exit.is_some_and(|exit| exit.oom_killed);
    match (child.signal, child.exit_code) {
        (Some(9), _) if docker_says_oom || child.oom_kills > 0 => out_of_memory(limits),
        (Some(signal), _) => Failure::new(
            FailureKind::ScriptError,
            format!(
                "the scripts' process was killed by signal {signal}{}, before its work was done; look for code that kills processes or crashes a native library",
                signal_name(signal)
            ),
        ),
        (None, Some(70)) => Failure::new(
            FailureKind::RunnerCrashed,
            format!("the runner failed inside: {}", last_words(&evidence.stderr_tail)),
        ),
        (None, code) => Failure::new(
            FailureKind::ScriptError,
            format!(
                "the scripts' process ended by itself with exit code {} before its work was done; look for os._exit or code that replaces the process",
                code.unwrap_or_default()
            ),
        ),
    }
}

fn without_record(evidence: &Evidence, limits: &Limits) -> Failure {
    // Without contact its stdin is closed, and then it ends by itself.
    let Some(exit) = evidence.exit.filter(|exit| evidence.lost_contact.is_none() || exit.oom_killed) else {
        let reason = evidence.lost_contact.as_deref().unwrap_or("the container could not be examined after it ended");
        return Failure::new(
            FailureKind::EngineUnavailable,
            format!(
                "contact with Docker was lost while the job ran: {}; `ade doctor` checks the engine",
                plain(reason, 300)
            ),
        );
    };
    if exit.oom_killed {
        return out_of_memory(limits);
    }
    let code = exit.code.map_or_else(|| "an unknown exit code".to_owned(), |code| format!("exit code {code}"));
    Failure::new(
        FailureKind::RunnerCrashed,
        format!("the container ended with {code} and no completion record: {}", last_words(&evidence.stderr_tail)),
    )
}

fn out_of_memory(limits: &Limits) -> Failure {
    Failure::new(
        FailureKind::OutOfMemory,
        format!(
            "the job reached its memory limit of {} MB (files in /job count towards it): raise engine.defaults.memory_mb in the manifest or --memory-mb, or process fewer values at once",
            limits.memory_mb
        ),
    )
}

fn disk_full(limits: &Limits) -> Failure {
    Failure::new(
        FailureKind::DiskFull,
        format!(
            "the job's scratch space of {} MB and 16,384 files is full (it is half of memory_mb): raise engine.defaults.memory_mb in the manifest or --memory-mb, or write less to /job",
            limits.scratch_mb
        ),
    )
}

fn timeout(limits: &Limits) -> Failure {
    Failure::new(
        FailureKind::Timeout,
        format!(
            "the job ran longer than its limit of {} ms and was stopped: raise engine.defaults.timeout_ms in the manifest or --timeout-ms, or look for a script that waits or loops",
            limits.timeout_ms
        ),
    )
}

fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let text = lines[lines.len().saturating_sub(3)..].join(" | ");
    if text.is_empty() { "it said nothing on stderr".into() } else { plain(&text, 600) }
}

const fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::OUTPUTS;
    use super::super::limits::{Caps, Requested};
    use super::*;

    fn limits() -> Limits {
        Limits::resolve(&Caps::default(), Requested::default()).unwrap()
    }

    fn done(json: &str) -> Option<Done> {
        Some(serde_json::from_str(json).unwrap())
    }

    fn kind(evidence: &Evidence) -> &'static str {
        let outcome = decide(evidence, &limits());
        outcome.failure().map_or("succeeded", |failure| failure.kind.as_str())
    }

    fn both() -> Vec<String> {
        vec!["normalized.xlsx".into(), "artifact.json".into()]
    }

    #[test]
    fn a_completed_job_with_both_outputs_succeeds() {
        let evidence = Evidence {
            done: done(r#"{"outcome":"completed"}"#),
            collected: both(),
            expected: &OUTPUTS,
            ..Evidence::default()
        };
        assert_eq!(kind(&evidence), "succeeded");
    }

    #[test]
    fn a23_success_without_outputs_is_a_failure() {
        let evidence = Evidence { done: done(r#"{"outcome":"completed"}"#), expected: &OUTPUTS, ..Evidence::default() };
        assert_eq!(kind(&evidence), "output_invalid");
    }

    #[test]
    fn a23_no_record_is_a_failure_whatever_the_exit_code() {
        let exit = Some(ContainerExit { code: Some(0), oom_killed: false });
        assert_eq!(kind(&Evidence { exit, ..Evidence::default() }), "runner_crashed");
    }

    #[test]
    fn a25_oom_is_told_apart_from_other_kills() {
        let killed = r#"{"outcome":"died","child":{"signal":9,"oom_kills":0}}"#;
        let oom = Some(ContainerExit { code: Some(0), oom_killed: true });
        assert_eq!(kind(&Evidence { done: done(killed), exit: oom, ..Evidence::default() }), "out_of_memory");
        assert_eq!(kind(&Evidence { done: done(killed), ..Evidence::default() }), "script_error");
    }

    #[test]
    fn a_cancel_wins_over_whatever_the_container_says() {
        let evidence = Evidence {
            stop: Some(StopReason::Cancelled),
            done: done(r#"{"outcome":"completed"}"#),
            collected: both(),
            ..Evidence::default()
        };
        assert_eq!(decide(&evidence, &limits()).state(), "cancelled");
    }

    #[test]
    fn work_that_was_done_in_time_is_kept_when_only_on_job_end_ran_over() {
        let evidence = Evidence {
            stop: Some(StopReason::Timeout),
            done: done(r#"{"outcome":"completed"}"#),
            collected: both(),
            ..Evidence::default()
        };
        assert_eq!(kind(&evidence), "succeeded");
    }

    #[test]
    fn a_supervisor_that_does_not_answer_a_timeout_is_a_timeout() {
        let evidence = Evidence { stop: Some(StopReason::Timeout), killed: true, ..Evidence::default() };
        assert_eq!(kind(&evidence), "timeout");
    }

    #[test]
    fn a14_a_runner_cannot_claim_what_only_the_engine_knows() {
        for claimed in [
            "timeout", "cancelled", "engine_unavailable", "image_missing", "queue_timeout", "node_lost", "nonsense", "",
        ] {
            let record = format!(r#"{{"outcome":"failed","error":{{"kind":"{claimed}","message":"x"}}}}"#);
            assert_eq!(kind(&Evidence { done: done(&record), ..Evidence::default() }), "runner_crashed", "{claimed}");
        }
    }
    #[test]
    fn only_failures_of_the_machine_under_a_job_are_worth_another_execution() {
        let again: Vec<&str> =
            FailureKind::ALL.iter().filter(|kind| kind.is_infrastructure()).map(|kind| kind.as_str()).collect();
        assert_eq!(again, ["image_missing", "engine_unavailable", "host_io"]);
    }

    #[test]
    fn a_kind_is_found_by_its_text_and_by_nothing_else() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::from_text(kind.as_str()), Some(*kind));
        }
        assert_eq!(FailureKind::from_text("Timeout"), None);
    }
}
