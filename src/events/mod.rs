//! `events.ndjson`: the append-only log of one job, owned by the engine.
//!
//! A container may say what happened; only the engine says when, in which order and of which job. The catalogue is
//! `docs/developers/events.md`; a test compares it with [`EVENTS`].

pub mod read;

use crate::text::plain;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::io::{self, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// An event that this program can emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventName {
    /// Stable name.
    pub name: &'static str,
    /// Whether a container may cause it by a frame; the engine alone emits the others.
    pub from_container: bool,
}

const fn engine(name: &'static str) -> EventName {
    EventName { name, from_container: false }
}

const fn container(name: &'static str) -> EventName {
    EventName { name, from_container: true }
}

/// Every event name, in the order of the catalogue.
pub const EVENTS: &[EventName] = &[
    engine("enqueue"),
    engine("retry"),
    engine("start"),
    engine("worker.spawn"),
    engine("network.decision"),
    engine("deps.resolve"),
    engine("deps.install"),
    engine("deps.ready"),
    engine("deps.failed"),
    container("pass.start"),
    container("pass.exit"),
    container("hook.start"),
    container("hook.exit"),
    container("log"),
    container("truncated"),
    engine("egress.connect"),
    engine("egress.denied"),
    engine("worker.timeout"),
    engine("cancel"),
    engine("worker.oom"),
    engine("worker.exit"),
    engine("collect"),
    engine("error"),
    engine("exit"),
    engine("requeue"),
];

/// Whether an event may have this name, or be of this family: `pass` stands for `pass.start` and `pass.exit`.
#[must_use]
pub fn is_known(name: &str) -> bool {
    EVENTS.iter().any(|event| is_of(event.name, name))
}

/// Whether an event of this name has the name or is of the family `wanted`.
#[must_use]
pub fn is_of(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// How important an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For developers of packages.
    Debug,
    /// The normal course of things.
    Info,
    /// Worth a look.
    Warning,
    /// It failed.
    Error,
}

impl Level {
    /// The level of this name; `info` for anything else a container may say.
    #[must_use]
    pub fn claimed(text: Option<&str>) -> Self {
        match text {
            Some("debug") => Self::Debug,
            Some("warning") => Self::Warning,
            Some("error") => Self::Error,
            _ => Self::Info,
        }
    }
}

/// One line of `events.ndjson`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC, milliseconds.
    pub ts: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// One of [`EVENTS`]; a reader may meet one of a newer program.
    pub event: Cow<'static, str>,
    /// Importance.
    pub level: Level,
    /// The job.
    pub job_id: String,
    /// Which of the user's tries this job is.
    pub attempt: u32,
    /// How often the scheduler has started this job.
    pub execution: u32,
    /// Job state after the event, where it changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'static, str>>,
    /// How long that took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// More about it; strings in it that come from a container are plain text.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}

/// Longest string kept anywhere in a detail that a container sent, characters.
const DETAIL_TEXT: usize = 4_200;
/// Deepest nesting kept in a detail that a container sent.
const DETAIL_DEPTH: usize = 6;

/// Writes the events of one execution.
#[derive(Debug)]
pub struct EventLog<W: Write> {
    out: W,
    job_id: String,
    attempt: u32,
    execution: u32,
    next_seq: u64,
    error: Option<io::Error>,
}

impl<W: Write> EventLog<W> {
    /// A log whose first event gets the number `next_seq`: 1 for a new job, else one more than the last of its log so far.
    pub fn new(out: W, job_id: &str, attempt: u32, execution: u32, next_seq: u64) -> Self {
        Self { out, job_id: job_id.to_owned(), attempt, execution, next_seq, error: None }
    }

    /// The number that the next event gets.
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Starts an event of the engine's own.
    pub fn event(&mut self, name: &'static str) -> Draft<'_, W> {
        debug_assert!(EVENTS.iter().any(|event| event.name == name), "{name} is not in the catalogue");
        Draft { level: Level::Info, state: None, duration_ms: None, detail: Map::new(), name, log: self }
    }

    /// Appends an event that a container sent; `None` when it may not cause one of that name.
    pub fn from_container(&mut self, name: &str, level: Option<&str>, detail: Map<String, Value>) -> Option<Event> {
        let known = EVENTS.iter().find(|event| event.from_container && event.name == name)?;
        let duration_ms = detail.get("duration_ms").and_then(Value::as_u64);
        let mut draft = self.event(known.name).level(Level::claimed(level));
        draft.duration_ms = duration_ms;
        draft.detail = detail.into_iter().map(|(key, value)| (plain(&key, 80), bounded(value, DETAIL_DEPTH))).collect();
        draft.detail.remove("duration_ms");
        Some(draft.write())
    }

    /// Flushes; the first error of any write comes out here, since an event must never stop a job.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }
}

/// An event that is about to be written.
#[derive(Debug)]
pub struct Draft<'a, W: Write> {
    log: &'a mut EventLog<W>,
    name: &'static str,
    level: Level,
    state: Option<&'static str>,
    duration_ms: Option<u64>,
    detail: Map<String, Value>,
}

impl<W: Write> Draft<'_, W> {
    /// Sets the importance.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets the job's state after the event.
    #[must_use]
    pub fn state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }

    /// Sets how long it took, milliseconds.
    #[must_use]
    pub fn took(mut self, duration_ms: u64) -> Self {
        self.duration_ms = Some(duration_ms);
        self
    }

    /// Adds one detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    /// Adds every member of an object as a detail; nothing for any other value.
    #[must_use]
    pub fn with_all(mut self, detail: Value) -> Self {
        if let Value::Object(members) = detail {
            self.detail.extend(members);
        }
        self
    }

    /// Appends the event and returns it.
    pub fn write(self) -> Event {
        let log = self.log;
        let seq = log.next_seq;
        log.next_seq += 1;
        let event = Event {
            ts: now(),
            seq,
            event: self.name.into(),
            level: self.level,
            job_id: log.job_id.clone(),
            attempt: log.attempt,
            execution: log.execution,
            state: self.state.map(Cow::from),
            duration_ms: self.duration_ms,
            detail: self.detail,
        };
        let written = serde_json::to_writer(&mut log.out, &event)
            .map_err(io::Error::from)
            .and_then(|()| log.out.write_all(b"\n"));
        if let Err(error) = written {
            log.error.get_or_insert(error);
        }
        event
    }
}

fn bounded(value: Value, depth: usize) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text, DETAIL_TEXT)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::Null,
        Value::Array(items) => Value::Array(items.into_iter().map(|item| bounded(item, depth - 1)).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, item)| (plain(&key, 80), bounded(item, depth - 1))).collect())
        }
        other => other,
    }
}

/// The present, RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn now() -> String {
    text(OffsetDateTime::now_utc())
}

/// A time in milliseconds since the Unix epoch, RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn at(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    text(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// A time as [`at`] and [`now`] give it, in milliseconds since the Unix epoch.
#[must_use]
pub fn millis(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

fn text(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // A formatted date cannot fail for a time that the clock gives; RFC 3339 is the fallback that keeps this total.
    time.format(&format).or_else(|_| time.format(&Rfc3339)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn lines_carry_the_engines_order_and_ids() {
        let mut bytes = Vec::new();
        let mut log = EventLog::new(&mut bytes, "job_1", 2, 3, 41);
        log.event("enqueue").state("queued").write();
        log.from_container("log", Some("warning"), object(json!({"text": "x", "seq": 99}))).unwrap();
        log.finish().unwrap();
        let lines: Vec<Value> =
            String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["seq"], 41);
        assert_eq!(lines[0]["state"], "queued");
        assert_eq!(
            (&lines[1]["seq"], &lines[1]["attempt"], &lines[1]["level"]),
            (&json!(42), &json!(2), &json!("warning"))
        );
    }

    #[test]
    fn a14_a_container_cannot_emit_the_engines_events() {
        let mut log = EventLog::new(io::sink(), "job_1", 1, 1, 1);
        for name in ["exit", "error", "start", "worker.exit", "job.succeeded", ""] {
            assert!(log.from_container(name, None, Map::new()).is_none(), "{name}");
        }
    }

    #[test]
    fn a14_long_and_deep_details_are_cut() {
        let mut log = EventLog::new(io::sink(), "job_1", 1, 1, 1);
        let mut deep = json!(1);
        for _ in 0..50 {
            deep = json!([deep]);
        }
        let detail =
            object(json!({"text": "a".repeat(100_000), "deep": deep, "esc": "\u{1b}[2J\n{\"event\":\"exit\"}"}));
        let event = log.from_container("log", None, detail).unwrap();
        assert!(serde_json::to_string(&event).unwrap().len() < 5_000);
        assert!(!event.detail["esc"].as_str().unwrap().contains(['\u{1b}', '\n']));
    }
}
