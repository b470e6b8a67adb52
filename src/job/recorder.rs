//! The event log of an execution, and whoever watches it.

use super::Identity;
use crate::deps::Step;
use crate::egress::{Ending, Record};
use crate::events::{Event, EventLog, Level};
use crate::sandbox::protocol::{ContainerUsage, Progress, StopReason};
use crate::sandbox::{FailureKind, Notice, Outcome, Timings};
use serde_json::{Value, json};
use std::io::{self, Write};

/// What a job makes known while it runs.
pub trait Observer: Send {
    /// An event was appended.
    fn event(&mut self, event: &Event);
    /// Dependencies are being made ready, until `deps.ready` or `deps.failed`.
    fn installing(&mut self) {}
    /// Rows done.
    fn progress(&mut self, progress: &Progress);
}

/// The log that a [`Recorder`] writes.
pub type Log<'a> = EventLog<Box<dyn Write + Send + 'a>>;

/// Appends the events of one execution and shows each to an observer, in order.
pub struct Recorder<'a> {
    log: Log<'a>,
    observer: &'a mut dyn Observer,
}

impl<'a> Recorder<'a> {
    /// A recorder whose first event gets the number `next_seq`: 1 for a new job.
    ///
    /// `out` takes whole lines, each in small writes; buffer it by lines.
    pub fn new(
        out: impl Write + Send + 'a,
        identity: &Identity,
        next_seq: u64,
        observer: &'a mut dyn Observer,
    ) -> Self {
        let out: Box<dyn Write + Send + 'a> = Box::new(out);
        let log = EventLog::new(out, identity.job_id.as_str(), identity.attempt, identity.execution, next_seq);
        Self { log, observer }
    }

    /// Appends an event of the engine's own.
    pub fn note(&mut self, write: impl FnOnce(&mut Log<'a>) -> Event) {
        let event = write(&mut self.log);
        self.observer.event(&event);
    }

    /// The number that the next event gets.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.log.next_seq()
    }

    /// Flushes; the first error of any write comes out here, since an event must never stop a job.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> io::Result<()> {
        self.log.finish()
    }

    /// Records the whole course of an execution that was refused before anything was started.
    pub fn refused(&mut self, outcome: &Outcome) {
        self.note(|log| log.event("start").state("running").write());
        self.ended(outcome, 0);
    }

    pub(super) fn started(&mut self, inputs: usize, limits: Value, network: Value, lacks_network: bool) {
        self.note(|log| log.event("start").state("running").with("inputs", inputs).with("limits", limits).write());
        let level = if lacks_network { Level::Warning } else { Level::Info };
        self.note(|log| log.event("network.decision").level(level).with_all(network).write());
    }

    pub(super) fn installing(&mut self) {
        self.observer.installing();
    }

    /// A step of an install, whose text has been bounded and scrubbed.
    pub(super) fn step(&mut self, step: Step) {
        let (event, mut detail) = match step {
            Step::Event { event, detail } => (event, detail),
            Step::Egress(record) => return self.egress(&record),
        };
        let duration_ms = detail.get("duration_ms").and_then(Value::as_u64);
        detail.shift_remove("duration_ms");
        self.note(|log| {
            let draft = log.event(event).with_all(Value::Object(detail));
            match duration_ms {
                Some(ms) => draft.took(ms).write(),
                None => draft.write(),
            }
        });
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Ready { runner_version, python, parked } => {
                self.note(|log| {
                    log.event("worker.spawn")
                        .with("runner_version", runner_version)
                        .with("python", python)
                        .with("container", if parked { "parked" } else { "new" })
                        .write()
                });
            }
            Notice::Event(raw) => {
                if let Some(event) = self.log.from_container(&raw.event, raw.level.as_deref(), raw.detail) {
                    self.observer.event(&event);
                }
            }
            Notice::Progress(progress) => self.observer.progress(&progress),
            Notice::Egress(record) => self.egress(&record),
            Notice::Stopping(StopReason::Timeout) => {
                self.note(|log| log.event("worker.timeout").level(Level::Error).write());
            }
            Notice::Stopping(StopReason::Cancelled) => {
                self.note(|log| log.event("cancel").level(Level::Warning).write());
            }
        }
    }

    fn egress(&mut self, record: &Record) {
        let (name, level) = match record.ending {
            Ending::Connected { .. } => ("egress.connect", Level::Info),
            Ending::Refused(_) => ("egress.denied", Level::Warning),
        };
        self.note(|log| {
            let host = record.target.as_ref().map(|target| target.host.to_string());
            let port = record.target.as_ref().map(|target| target.port);
            let draft = log.event(name).level(level).took(record.duration_ms).with("host", host).with("port", port);
            let draft = match &record.ending {
                Ending::Connected { address, rule, bytes_sent, bytes_received, ended } => draft
                    .with("address", address.map(|address| address.to_string()))
                    .with("rule", rule.as_str())
                    .with("bytes_sent", *bytes_sent)
                    .with("bytes_received", *bytes_received)
                    .with("ended", *ended),
                Ending::Refused(refusal) => {
                    draft.with("code", refusal.code.as_str()).with("reason", refusal.message.as_str())
                }
            };
            draft.with("purpose", record.purpose.as_str()).write()
        });
    }

    pub(super) fn exited(&mut self, usage: &ContainerUsage, timings: Timings) {
        self.note(|log| {
            let mut draft = log.event("worker.exit").took(timings.run_ms);
            if let Some(cpu) = usage.cpu_ms {
                draft = draft.with("cpu_ms", cpu);
            }
            if let Some(peak) = usage.peak_memory_bytes {
                draft = draft.with("peak_memory_bytes", peak);
            }
            draft.write()
        });
    }

    pub(super) fn concluded(&mut self, outcome: &Outcome, timings: Timings, files: &[&'static str]) {
        self.note(|log| log.event("collect").took(timings.collect_ms).with("files", files.to_vec()).write());
        self.ended(outcome, timings.total_ms());
    }

    fn ended(&mut self, outcome: &Outcome, took_ms: u64) {
        if let Some(failure) = outcome.failure() {
            if failure.kind == FailureKind::OutOfMemory {
                self.note(|log| log.event("worker.oom").level(Level::Error).write());
            }
            let level = if matches!(outcome, Outcome::Cancelled(_)) { Level::Warning } else { Level::Error };
            self.note(|log| log.event("error").level(level).with_all(json!(failure)).write());
        }
        self.note(|log| log.event("exit").state(outcome.state()).took(took_ms).write());
    }
}
