//! What happens before a version becomes the active one of its workspace, once its package has passed the check: dependencies and
//! `on_activate` hooks. Whether it does become it is the caller's to say.

use super::dependencies;
use super::request::{Ask, Parts, request};
use super::{Node, Observer, Prepared, Recorder, container_name, host_io};
use crate::egress::Grant;
use crate::events::{Event, now};
use crate::network::Purpose;
use crate::packages::MANIFEST;
use crate::sandbox::protocol::Progress;
use crate::sandbox::{self, Failure, Limits, Outcome};
use crate::text::plain;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use utoipa::ToSchema;

/// What the hooks' container brings out.
const REPORT: &str = "activation.json";
/// Size of it, MiB: the runner keeps 256 KiB of what hooks return, and a bounded number of diagnostics.
const REPORT_MB: u64 = 4;
/// Lines of the hooks' output that are kept: so many of the first, and so many of the last.
const FIRST_LINES: usize = 200;
const LAST_LINES: usize = 100;
/// Characters of one line.
const LINE: usize = 1_000;
/// Characters of each of the two parts together.
const PART: usize = 48 * 1024;
/// The end of an installer's log that is kept, bytes.
const INSTALL_LOG: usize = 64 * 1024;
const MAX_DIAGNOSTICS: usize = 200;

/// The course of an activation, up to the moment when the pointer may move.
#[derive(Debug)]
pub struct Activation {
    /// Why the version must not become active.
    pub failure: Option<Failure>,
    /// The `dependencies` block.
    pub dependencies: Value,
    /// What the check and the hooks gave cause to say.
    pub diagnostics: Vec<Value>,
    /// The hooks that ran, in order.
    pub hooks: Vec<HookRun>,
    /// What scripts printed.
    pub output: HookOutput,
    /// The end of the installer's log; empty when nothing was installed.
    pub install_log: String,
    /// Set when Docker did not remove a container: which it is, and what becomes of it.
    pub left_behind: Option<String>,
}

/// One run of a hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HookRun {
    /// Its script.
    pub hook: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What it returned; null for nothing, and for what was too much to keep.
    #[schema(value_type = Option<Object>)]
    pub returned: Option<Map<String, Value>>,
}

/// A line that a script printed, or that was said of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputLine {
    /// `stdout`, `stderr`, or `hook` for what is said of one.
    pub stream: String,
    /// The line, without control characters.
    pub text: String,
}

/// What scripts printed: the first and the last lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookOutput {
    /// Lines, in order.
    pub lines: Vec<OutputLine>,
    /// Lines that were left out between the first and the last ones.
    pub dropped: u64,
}

/// Makes the dependencies of a checked package ready, and runs its `on_activate` hooks in a container of the profile that jobs
/// have. `remarks` are what the check gave cause to say. `cancel` turning true ends it; no container is left when this returns, unless Docker does not remove it.
pub async fn activate(
    node: &Node,
    job: &Prepared,
    mut remarks: Vec<Value>,
    cancel: watch::Receiver<bool>,
) -> Activation {
    // The manifest is not what is being activated; its remarks were made when it was published.
    remarks.retain(|diagnostic| diagnostic["path"] != MANIFEST);
    remarks.truncate(MAX_DIAGNOSTICS);
    let mut made = Activation {
        failure: None,
        dependencies: json!({"status": "none"}),
        diagnostics: remarks,
        hooks: Vec::new(),
        output: HookOutput::default(),
        install_log: String::new(),
        left_behind: None,
    };
    if let Err(failure) = course(node, job, cancel, &mut made).await {
        made.failure = Some(failure);
    }
    made
}

async fn course(
    node: &Node,
    job: &Prepared,
    cancel: watch::Receiver<bool>,
    made: &mut Activation,
) -> Result<(), Failure> {
    let mut collector = Collector::default();
    let mut recorder = Recorder::new(std::io::sink(), &job.identity, 1, &mut collector);
    let mut dependencies = dependencies::ready(node, job, cancel.clone(), &mut recorder).await;
    made.dependencies = dependencies.block.to_value();
    made.install_log = end_of(&dependencies.log, INSTALL_LOG);
    if let Some(failure) = dependencies.failure.take() {
        return Err(failure);
    }

    let identity = &job.identity;
    let limits = Limits { output_mb: REPORT_MB, ..job.limits.clone() };
    let mounts = dependencies.mounts();
    let parts = Parts {
        identity,
        package: &job.package,
        inputs: &[],
        limits: &limits,
        network: job.network.block(),
        dependencies: made.dependencies.clone(),
        lock_sha256: dependencies.lock_sha256(),
        mounts: &mounts,
        egress: Grant::of(&job.network, Purpose::Run),
    };
    let outputs = Arc::new(tempfile::tempdir().map_err(|error| host_io(&std::env::temp_dir(), &error))?);
    let (name, started_at) = (container_name(&identity.job_id, identity.execution), now());
    let ask = Ask {
        mode: "activate",
        name: &name,
        started_at: &started_at,
        outputs: Arc::clone(&outputs),
        expected: &[REPORT],
    };
    let request = request(node, &parts, ask);
    let (notices, mut received) = mpsc::channel(256);
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.pool, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async {
            while let Some(notice) = received.recv().await {
                recorder.notice(notice);
            }
        }
    );
    drop(recorder);
    made.output = collector.output();
    let report = report?;
    made.left_behind = report.left_behind;
    if report.collected.iter().any(|name| name == REPORT) {
        read(outputs.path(), made);
    }
    match report.outcome {
        Outcome::Succeeded(_) => Ok(()),
        Outcome::Failed(failure) | Outcome::Cancelled(failure) => Err(failure),
    }
}

/// What the runner reports, as far as it is of the right shape: scripts run beside it and may have written it themselves.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    annotations: Vec<Map<String, Value>>,
    diagnostics: Vec<Map<String, Value>>,
}

fn read(folder: &Path, made: &mut Activation) {
    const OF_THE_RUN: [&str; 5] = ["stage", "hook", "annotated_at", "duration_ms", "failed"];
    let bytes = std::fs::read(folder.join(REPORT)).unwrap_or_default();
    let Ok(report) = serde_json::from_slice::<Report>(&bytes) else { return };
    for mut entry in report.annotations.into_iter().take(MAX_DIAGNOSTICS) {
        let hook = plain(entry.get("hook").and_then(Value::as_str).unwrap_or_default(), 240);
        let duration_ms = entry.get("duration_ms").and_then(Value::as_u64).unwrap_or_default();
        OF_THE_RUN.iter().for_each(|key| drop(entry.shift_remove(*key)));
        made.hooks.push(HookRun { hook, duration_ms, returned: (!entry.is_empty()).then_some(entry) });
    }
    let room = MAX_DIAGNOSTICS.saturating_sub(made.diagnostics.len());
    for mut diagnostic in report.diagnostics.into_iter().take(room) {
        // What a run says of a script, in the terms of the check.
        let script = diagnostic.get("script").cloned().unwrap_or(Value::Null);
        let message = plain(diagnostic.get("message").and_then(Value::as_str).unwrap_or_default(), 1_000);
        diagnostic.insert("message".to_owned(), message.into());
        diagnostic.entry("path").or_insert(script);
        made.diagnostics.push(Value::Object(diagnostic));
    }
}

/// The end of a text, from the beginning of a line.
fn end_of(text: &str, limit: usize) -> String {
    let Some(mut from) = text.len().checked_sub(limit).filter(|from| *from > 0) else { return text.to_owned() };
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let rest = &text[from..];
    format!("…\n{}", rest.split_once('\n').map_or(rest, |(_, whole)| whole))
}

/// Keeps what scripts print.
#[derive(Debug, Default)]
struct Collector {
    installing: bool,
    first: Vec<OutputLine>,
    first_chars: usize,
    last: VecDeque<OutputLine>,
    last_chars: usize,
    dropped: u64,
}

impl Collector {
    fn line(&mut self, line: OutputLine) {
        let chars = line.text.len();
        // Once a line is among the last ones, all that come after it are.
        if self.last.is_empty() && self.first.len() < FIRST_LINES && self.first_chars + chars <= PART {
            self.first_chars += chars;
            self.first.push(line);
            return;
        }
        self.last_chars += chars;
        self.last.push_back(line);
        while self.last.len() > LAST_LINES || self.last_chars > PART {
            self.last_chars -= self.last.pop_front().map_or(0, |line| line.text.len());
            self.dropped += 1;
        }
    }

    fn output(self) -> HookOutput {
        let mut lines = self.first;
        lines.extend(self.last);
        HookOutput { lines, dropped: self.dropped }
    }
}

impl Observer for Collector {
    fn event(&mut self, event: &Event) {
        let text = |key: &str| event.detail.get(key).and_then(Value::as_str).unwrap_or_default();
        match &*event.event {
            "deps.ready" | "deps.failed" => self.installing = false,
            "log" if !self.installing => {
                let stream = ["stderr", "hook"].into_iter().find(|stream| *stream == text("stream"));
                let line =
                    OutputLine { stream: stream.unwrap_or("stdout").to_owned(), text: plain(text("text"), LINE) };
                self.line(line);
            }
            "truncated" => self.dropped += event.detail.get("lines").and_then(Value::as_u64).unwrap_or_default(),
            _ => {}
        }
    }

    fn installing(&mut self) {
        self.installing = true;
    }

    fn progress(&mut self, _: &Progress) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize, text: &str) -> OutputLine {
        OutputLine { stream: "stdout".to_owned(), text: format!("{number} {text}") }
    }

    #[test]
    fn the_first_and_the_last_lines_are_kept_and_the_others_counted() {
        for text in ["x", &"x".repeat(900)] {
            let mut collector = Collector::default();
            (0..5_000).for_each(|number| collector.line(line(number, text)));
            let output = collector.output();
            assert_eq!((&output.lines[0], output.lines.last()), (&line(0, text), Some(&line(4_999, text))));
            assert_eq!(output.lines.len() as u64 + output.dropped, 5_000);
            assert!(output.lines.iter().map(|line| line.text.len()).sum::<usize>() <= 2 * PART);
        }
        let mut few = Collector::default();
        few.line(line(1, "only"));
        assert_eq!(few.output(), HookOutput { lines: vec![line(1, "only")], dropped: 0 });
    }

    #[test]
    fn the_end_of_a_log_begins_with_a_whole_line() {
        assert_eq!(end_of("a\nb\n", 10), "a\nb\n");
        assert_eq!(end_of("äää\nöö\nü\n", 7), "…\nü\n");
    }
}
