//! Trying out the scripts of a package in a container: every one is imported, and all but hooks are called with made-up values.

use super::request::{Ask, Parts, request};
use super::{Node, Observer, Prepared, Recorder, container_name, dependencies, host_io};
use crate::egress::Grant;
use crate::events::{Event, now};
use crate::network::Purpose;
use crate::packages::{Code, Diagnostic, MANIFEST, Package, REQUIREMENTS};
use crate::sandbox::protocol::Progress;
use crate::sandbox::{self, Failure, FailureKind, Limits, Outcome};
use crate::text::plain;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Wall-clock time of all scripts together, milliseconds. The runner ends each by itself, well before this.
const TIMEOUT_MS: u64 = 30_000;
/// CPU time, seconds; what several processes at once may take of it is bounded by the wall clock.
const CPU_SECONDS: u64 = 60;
/// Processes and threads.
const PIDS: u32 = 64;
/// Diagnostics that are taken from a container, and characters of the text of one.
const MAX_DIAGNOSTICS: usize = 200;
const MAX_TEXT: usize = 1_000;

/// What came of it.
#[derive(Debug)]
pub struct DryRun {
    /// What there is to say about the scripts.
    pub diagnostics: Vec<Diagnostic>,
    /// Set when Docker did not remove the container: which it is, and what becomes of it.
    pub left_behind: Option<String>,
}

/// Says that the scripts of a package were not tried out, and why; `hint` is what the reader may do about it.
#[must_use]
pub fn not_tried(why: &str, hint: &str) -> Diagnostic {
    let code = Code::DryRunSkipped;
    Diagnostic {
        level: code.level(),
        code,
        path: MANIFEST.to_owned(),
        pointer: None,
        line: None,
        message: format!("The scripts were not tried out: {}.", why.trim_end_matches('.')),
        hint: Some(hint.to_owned()),
    }
}

/// Tries out the scripts of a checked package: makes its dependencies ready, as an activation does, and runs its scripts in a
/// container of the profile that jobs have, without network, without inputs, and under tight limits. `cancel` turning true ends
/// it; no container is left when this returns, unless Docker does not remove it.
///
/// # Errors
/// A [`Failure`] when it could not be done: the machine failed, or it was cancelled. All that the package is to blame for is a
/// diagnostic.
pub async fn dry_run(node: &Node, job: &Prepared, cancel: watch::Receiver<bool>) -> Result<DryRun, Failure> {
    let mut silent = Silent;
    let mut recorder = Recorder::new(std::io::sink(), &job.identity, 1, &mut silent);
    let mut dependencies = dependencies::ready(node, job, cancel.clone(), &mut recorder).await;
    if let Some(failure) = dependencies.failure.take() {
        if is_not_the_packages(&failure) {
            return Err(failure);
        }
        let message =
            format!("The scripts were not tried out, for their dependencies cannot be had: {}.", end(&failure.message));
        let hint = "Once a job or an activation could install them, validate again.";
        return Ok(DryRun {
            diagnostics: vec![said(Code::DryRunSkipped, REQUIREMENTS, message, hint)],
            left_behind: None,
        });
    }
    let limits = Limits {
        timeout_ms: TIMEOUT_MS,
        cpu_seconds: CPU_SECONDS,
        pids: job.limits.pids.min(PIDS),
        output_mb: 1,
        on_job_end_ms: 1_000,
        log_lines: 0,
        log_bytes: 0,
        ..job.limits.clone()
    };
    let mounts = dependencies.mounts();
    let parts = Parts {
        identity: &job.identity,
        package: &job.package,
        inputs: &[],
        limits: &limits,
        network: Value::Null,
        dependencies: dependencies.block.to_value(),
        lock_sha256: dependencies.lock_sha256(),
        mounts: &mounts,
        egress: Grant::denied(Purpose::Run, "scripts that are only tried out have no network".to_owned()),
    };
    let scratch = tempfile::tempdir().map_err(|error| host_io(&std::env::temp_dir(), &error))?;
    let (name, started_at) = (container_name(&job.identity.job_id, job.identity.execution), now());
    let ask = Ask { mode: "validate", name: &name, started_at: &started_at, outputs: Arc::new(scratch), expected: &[] };
    let request = request(node, &parts, ask);
    let (notices, mut ignored) = mpsc::channel(64);
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.pool, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async { while ignored.recv().await.is_some() {} }
    );
    let report = report?;
    let diagnostics = match report.outcome {
        Outcome::Succeeded(_) => read(&job.package, report.diagnostics),
        Outcome::Cancelled(failure) => return Err(failure),
        Outcome::Failed(failure) if is_not_the_packages(&failure) => return Err(failure),
        Outcome::Failed(failure) => {
            let path = failure.script.as_deref().filter(|path| job.package.file(path).is_some()).unwrap_or(MANIFEST);
            let message =
                format!("The scripts broke the container that they were tried out in: {}.", end(&failure.message));
            let hint = "Have scripts do nothing but define functions when they are imported, and validate again: what was found until \
                        then is said, and scripts behind that were not tried.";
            let mut found = vec![said(Code::DryRunFailed, path, message, hint)];
            found.extend(read(&job.package, report.diagnostics));
            found
        }
    };
    Ok(DryRun { diagnostics, left_behind: report.left_behind })
}

/// Whether a failure says nothing about the package.
fn is_not_the_packages(failure: &Failure) -> bool {
    failure.kind.is_infrastructure() || matches!(failure.kind, FailureKind::Cancelled | FailureKind::RuntimeMissing)
}

fn end(message: &str) -> &str {
    message.trim_end_matches('.')
}

fn said(code: Code, path: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        level: code.level(),
        code,
        path: path.to_owned(),
        pointer: None,
        line: None,
        message,
        hint: Some(hint.to_owned()),
    }
}

/// What the runner says of one script.
#[derive(Deserialize)]
struct Said {
    code: String,
    path: String,
    #[serde(default)]
    line: Option<u32>,
    message: String,
}

/// What the runner reports, as far as it is of the right shape: scripts ran beside it, and may have had a hand in it.
fn read(package: &Package, reported: Vec<Value>) -> Vec<Diagnostic> {
    let known = reported.into_iter().take(MAX_DIAGNOSTICS + 1).filter_map(|one| {
        let said: Said = serde_json::from_value(one).ok()?;
        let code = Code::from_text(&said.code).filter(|code| hint(*code).is_some())?;
        let path = if package.file(&said.path).is_some() { said.path } else { MANIFEST.to_owned() };
        // A line of another file, or one that is not there, would mislead.
        let lines = package.file(&path).map_or(0, |bytes| bytes.split(|byte| *byte == b'\n').count());
        let line = said.line.and_then(|line| usize::try_from(line).ok()).filter(|line| (1..=lines).contains(line));
        let message = format!("{}.", end(&plain(&said.message, MAX_TEXT)));
        let hint = hint(code).filter(|hint| !hint.is_empty()).map(str::to_owned);
        Some(Diagnostic { level: code.level(), code, path, pointer: None, line, message, hint })
    });
    known.collect()
}

/// What to do about what the runner may say; none for what it may not.
const fn hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::ScriptImportFailed => {
            "Imports run without network and without inputs here; what is not in the image belongs into requirements.txt."
        }
        Code::ScriptRefused => "Let the decorator keep the signature, as functools.wraps does.",
        Code::ScriptTimeLimit => "Do at import only what takes a moment; a job would wait for it every time.",
        Code::ScriptMemoryLimit => "Load less at import, or raise engine.defaults.memory_mb.",
        Code::ScriptCrashed => "Return or raise; do not end the process.",
        Code::RowDetectorException
        | Code::ColumnDetectorException
        | Code::TransformException
        | Code::ValidatorException => {
            "The values are made up: texts, blanks, numbers and dates. In a job this result would count as neutral."
        }
        Code::RowDetectorInvalidResult => "Return {\"scores\": {\"header\": 0.5}}, with header, data or separator.",
        Code::ColumnDetectorInvalidResult => "Return {\"scores\": {\"self\": 0.5}}.",
        Code::ColumnDetectorUnknownField => "Score \"self\", or a field of the manifest.",
        Code::TransformInvalidResult => "Return {\"values\": [...]}, with one value for each that was given.",
        Code::ValidatorInvalidResult | Code::ValidatorInvalidIssue => {
            "Return {\"issues\": [{\"row_index\": 1, \"code\": \"invalid_format\", \"severity\": \"error\", \"message\": \"...\"}]}."
        }
        Code::DryRunSkipped => "Mend what takes so long, then validate again.",
        Code::MoreDiagnostics => "Fix those listed, then validate again.",
        _ => return None,
    })
}

/// Nobody watches.
struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
    fn progress(&mut self, _: &Progress) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_container_says_is_taken_only_as_far_as_it_makes_sense() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.json"), "{}\n").unwrap();
        std::fs::create_dir(folder.path().join("columns")).unwrap();
        std::fs::write(folder.path().join("columns/a.py"), "x = 1\ny = 2").unwrap();
        let package = crate::job::open_package(folder.path()).unwrap();
        let good =
            json!({"code": "script_import_failed", "path": "columns/a.py", "line": 2, "message": "\u{1b}[31mno"});
        let mut reported = vec![
            json!(5),
            json!({}),
            json!({"code": "script_syntax", "path": "columns/a.py", "message": "forged"}),
            json!({"code": "nonsense", "path": "columns/a.py", "message": "x"}),
            json!({"code": "script_crashed", "path": "/etc/passwd", "line": 99, "message": "y"}),
            json!({"code": "script_crashed", "path": "columns/a.py", "line": -1, "message": "y"}),
            json!({"code": "script_crashed", "path": "columns/a.py", "line": 3, "message": "z".repeat(100_000)}),
        ];
        reported.extend(std::iter::repeat_n(good, 500));
        let read = read(&package, reported);
        assert!(read.len() <= MAX_DIAGNOSTICS + 1);
        assert_eq!((&*read[0].path, read[0].line), (MANIFEST, None));
        assert_eq!((&*read[1].path, read[1].line), ("columns/a.py", None));
        assert!(read[1].message.chars().count() <= MAX_TEXT + 2);
        assert_eq!((read[2].code, read[2].line), (Code::ScriptImportFailed, Some(2)));
        assert!(!read[2].message.contains('\u{1b}'), "{}", read[2].message);
    }
}
