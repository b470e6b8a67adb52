//! Events for people: one line each, with aligned times and phases, and at the end why the job failed. What is printed has no
//! control character that an event brought along.

use super::Output;
use super::style::{BAD, DIM, STRONG, WARN, paint, seconds, thousands};
use crate::events::read::{Damage, Line};
use crate::events::{EVENTS, Event, Level, is_known, is_of, millis};
use crate::packages::Stage;
use crate::sandbox::Failure;
use crate::text::plain;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Deserialize;
use serde_json::Value;
use std::io::{self, Write};

/// Damaged lines that are told one by one; the others are counted.
const TOLD_DAMAGE: u64 = 10;
/// As wide as `1:23:45.678` and one more.
const TIME_WIDTH: usize = 12;

/// Which events to show, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct View {
    /// Only events of this level or above: debug, info, warning or error
    #[arg(long, value_name = "LEVEL", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["debug", "info", "warning", "error"]).map(|text| Level::claimed(Some(&text))))]
    level: Option<Level>,
    /// Only events of this name, such as pass.exit, or family, such as pass; may be given several times
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', value_parser = known_event)]
    events: Vec<String>,
    /// Only what happened in this hook: a stage, such as on_job_start, or a script; may be given several times
    #[arg(long = "hook", value_name = "HOOK", value_delimiter = ',')]
    hooks: Vec<String>,
    /// Show date and time, UTC, rather than the time since the start
    #[arg(long)]
    pub absolute: bool,
}

fn known_event(text: &str) -> Result<String, String> {
    if is_known(text) {
        return Ok(text.to_owned());
    }
    let names: Vec<&str> = EVENTS.iter().map(|event| event.name).collect();
    Err(format!("there is no such event; there are {}", names.join(", ")))
}

/// Shows events as they come.
pub struct Timeline<'a> {
    view: &'a View,
    output: Output,
    /// When the job began, ms; the first event's time unless it is told.
    start: Option<i64>,
    phase: &'static str,
    /// Stage and script of the hook that runs.
    hook: Option<(String, String)>,
    failure: Option<String>,
    damaged: u64,
    ended: bool,
}

impl<'a> Timeline<'a> {
    /// A timeline whose times count from `start` ms, or from the first event.
    pub fn new(view: &'a View, output: Output, start: Option<i64>) -> Self {
        let (phase, hook, failure) = ("", None, None);
        Self { view, output, start, phase, hook, failure, damaged: 0, ended: false }
    }

    /// Whether the last event was the end of a job.
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether there were lines, and none of them was an event.
    pub const fn has_nothing_but_damage(&self) -> bool {
        self.damaged > 0 && self.start.is_none()
    }

    /// Shows a line of a log: an event if the view wants it; damage is told on stderr.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        match &line.event {
            Ok((event, text)) => self.event(event, text),
            Err(damage) => {
                self.damage(line.number, damage);
                Ok(())
            }
        }
    }

    /// Shows an event if the view wants it; with `--json` the text that it stands in.
    pub fn event(&mut self, event: &Event, text: &str) -> io::Result<()> {
        let wanted = self.wants(event);
        let lines = self.lines(event, wanted);
        if self.output.json {
            return if wanted { writeln!(io::stdout(), "{text}") } else { Ok(()) };
        }
        lines.iter().try_for_each(|line| writeln!(anstream::stdout(), "{line}"))
    }

    /// Ends the timeline: why the job failed, where its log breaks off after that, and how much damage was not told.
    pub fn close(&mut self) -> io::Result<()> {
        let untold = self.damaged.saturating_sub(TOLD_DAMAGE);
        if untold > 0 {
            self.note(&format!("{} more damaged lines were skipped", thousands(untold)));
        }
        match self.failure.take() {
            Some(failure) if !self.output.json => writeln!(anstream::stdout(), "{failure}"),
            _ => Ok(()),
        }
    }

    /// Says something about the log that is no event.
    pub fn note(&self, text: &str) {
        if !self.output.quiet {
            anstream::eprintln!("{}", paint(WARN, text));
        }
    }

    fn damage(&mut self, number: u64, damage: &Damage) {
        self.damaged += 1;
        if self.damaged <= TOLD_DAMAGE {
            self.note(&format!("line {} {damage}; it was skipped", thousands(number)));
        }
    }

    fn wants(&mut self, event: &Event) -> bool {
        let text = |key: &str| event.detail.get(key).and_then(Value::as_str);
        if event.event == "hook.start" {
            self.hook = Some((text("stage").unwrap_or_default().into(), text("hook").unwrap_or_default().into()));
        } else if matches!(&*event.event, "pass.start" | "worker.exit" | "requeue") {
            self.hook = None;
        }
        let running = self.hook.as_ref();
        // The pass of an error is the stage of the hook that caused it.
        let keys: &[&str] = if event.event == "error" { &["script", "pass"] } else { &["stage", "hook"] };
        let in_hook = |wanted: &String| {
            let stage = Stage::ALL.iter().find(|stage| stage.alias() == Some(wanted));
            let wanted = stage.map_or(wanted.as_str(), |stage| stage.as_str());
            let is = |name: &str| {
                let file = name.rsplit('/').next().unwrap_or(name);
                [name, file, file.strip_suffix(".py").unwrap_or(file)].contains(&wanted)
            };
            running.is_some_and(|(stage, script)| is(stage) || is(script))
                || keys.iter().copied().filter_map(text).any(is)
        };
        let view = self.view;
        let wanted = view.level.is_none_or(|level| event.level >= level)
            && (view.events.is_empty() || view.events.iter().any(|wanted| is_of(&event.event, wanted)))
            && (view.hooks.is_empty() || view.hooks.iter().any(in_hook));
        if event.event == "hook.exit" {
            self.hook = None;
        }
        wanted
    }

    /// What is printed for an event: its line where it is `wanted`, and after the end why the job failed.
    fn lines(&mut self, event: &Event, wanted: bool) -> Vec<String> {
        let time = millis(&event.ts);
        self.start = self.start.or(time).or(Some(0));
        self.ended = event.event == "exit";
        let mut lines = Vec::new();
        if wanted {
            let phase = phase(event).unwrap_or(self.phase);
            let head = if phase == self.phase { "" } else { phase };
            self.phase = phase;
            let clock = if self.view.absolute { moment(&event.ts) } else { since(time, self.start) };
            // Padded before it is painted: the codes of colours have a length too.
            let (head, about) = (format!("{head:<7}"), about(event));
            let name = plain(&event.event, 40);
            let name = paint(style(event.level), if about.is_empty() { name } else { format!("{name:<16}") });
            let line = format!("{}  {}  {name}  {about}", paint(DIM, clock), paint(STRONG, head));
            lines.push(line.trim_end().to_owned());
        }
        if event.event == "error" {
            self.failure = Some(failing_line(event));
        } else if event.event == "requeue" {
            self.failure = None;
        } else if self.ended {
            lines.extend(self.failure.take());
        }
        lines
    }
}

const fn style(level: Level) -> anstyle::Style {
    match level {
        Level::Debug => DIM,
        Level::Info => STRONG,
        Level::Warning => WARN,
        Level::Error => BAD,
    }
}

/// The phase that an event is of; none when it can be of any.
fn phase(event: &Event) -> Option<&'static str> {
    Some(match &*event.event {
        "enqueue" | "retry" | "requeue" => "queue",
        "deps.resolve" | "deps.install" | "deps.ready" | "deps.failed" => "install",
        "log" if event.detail.get("stream").is_some_and(|stream| stream == "install") => "install",
        "start" | "network.decision" | "worker.spawn" => "start",
        "pass.start" | "pass.exit" | "hook.start" | "hook.exit" | "log" | "truncated" => "run",
        "worker.exit" | "collect" => "collect",
        "error" | "exit" => "end",
        _ => return None,
    })
}

/// `2026-01-01 12:00:00.123`.
fn moment(ts: &str) -> String {
    format!("{:<23}", plain(ts, 23).trim_end_matches('…').replace('T', " "))
}

/// `1:02:03.456` after the start, aligned; `?` for a time that is none.
fn since(time: Option<i64>, start: Option<i64>) -> String {
    let Some(ms) = time.zip(start).map(|(time, start)| time.saturating_sub(start)) else {
        return format!("{:>TIME_WIDTH$}", "?");
    };
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (hours, minutes, seconds, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let text = match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}.{rest:03}"),
        (0, _) => format!("{sign}{minutes}:{seconds:02}.{rest:03}"),
        _ => format!("{sign}{hours}:{minutes:02}:{seconds:02}.{rest:03}"),
    };
    format!("{text:>TIME_WIDTH$}")
}

/// A text of an event's detail, fit for a terminal; empty without one.
pub fn detail(event: &Event, key: &str, limit: usize) -> String {
    plain(event.detail.get(key).and_then(Value::as_str).unwrap_or_default(), limit)
}

/// Rows that a pass has done, as its `pass.exit` says.
pub fn rows(event: &Event) -> Option<u64> {
    let stats = event.detail.get("stats")?;
    stats.get("rows").or_else(|| stats.get("rows_written"))?.as_u64()
}

/// What an event is about, in one line.
fn about(event: &Event) -> String {
    let text = |key: &str| detail(event, key, 500);
    let mut parts: Vec<String> = match &*event.event {
        "log" => vec![format!("{} {}", paint(DIM, "│"), text("text"))],
        "error" => vec![text("kind")],
        "pass.start" | "pass.exit" => vec![text("pass")],
        "hook.start" | "hook.exit" => vec![text("stage"), text("hook")],
        _ => event.detail.iter().filter_map(|(key, value)| scalar(key, value)).collect(),
    };
    parts.retain(|part| !part.is_empty());
    if let Some(state) = &event.state {
        parts.insert(0, plain(state, 40));
    }
    parts.extend(rows(event).map(|rows| format!("{} rows", thousands(rows))));
    if event.detail.get("ok").is_some_and(|ok| ok == false) && matches!(&*event.event, "pass.exit" | "hook.exit") {
        parts.push(paint(BAD, "failed"));
    }
    parts.extend(event.duration_ms.map(|took| paint(DIM, format!("({})", seconds(took)))));
    parts.join(" ")
}

fn scalar(key: &str, value: &Value) -> Option<String> {
    let value = match value {
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
        Value::String(text) => plain(text, 200),
        other => other.to_string(),
    };
    Some(format!("{}={value}", plain(key, 40)))
}

/// Why the job did not succeed, from its `error` event; of a kind that this program does not know, as it stands there.
fn failing_line(event: &Event) -> String {
    let Ok(failure) = Failure::deserialize(Value::Object(event.detail.clone())) else {
        return format!("error {}: {}", detail(event, "kind", 80), detail(event, "message", 4_000));
    };
    let place = super::style::whereabouts(&failure);
    let place = if place.is_empty() { place } else { format!(" ({place})") };
    format!("error {}: {}{place}", failure.kind, plain(&failure.message, 4_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::at;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        view: View,
    }

    const OUTPUT: Output = Output { json: false, quiet: false, color: crate::cli::Color::Never };

    fn event(ms: i64, name: &str, level: &str, more: Value) -> Event {
        let mut event = json!({"ts": at(1_767_268_800_000 + ms), "seq": 1, "event": name, "level": level, "job_id": "job_1", "attempt": 1, "execution": 1});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    fn course() -> Vec<Event> {
        let hook = json!({"detail": {"stage": "after_mapping", "hook": "hooks/check.py"}});
        let error = json!({"detail": {"kind": "hook_failed", "message": "hook hooks/check.py raised", "pass": "after_mapping", "script": "hooks/check.py", "function": "run", "line": 3}});
        vec![
            event(0, "enqueue", "info", json!({"state": "queued"})),
            event(2_005, "start", "info", json!({"state": "running", "detail": {"inputs": 1, "limits": {}}})),
            event(2_500, "worker.spawn", "info", json!({"detail": {"python": "3.11.9"}})),
            event(2_600, "pass.start", "info", json!({"detail": {"pass": "structure"}})),
            event(62_600, "log", "warning", json!({"detail": {"stream": "stderr", "text": "careful"}})),
            event(
                3_662_600,
                "pass.exit",
                "info",
                json!({"duration_ms": 3_660_000, "detail": {"pass": "structure", "ok": true, "stats": {"rows": 1234}}}),
            ),
            event(3_662_700, "hook.start", "info", hook.clone()),
            event(3_662_701, "log", "info", json!({"detail": {"stream": "stdout", "text": "in the hook"}})),
            event(
                3_662_702,
                "hook.exit",
                "error",
                json!({"duration_ms": 2, "detail": {"stage": "after_mapping", "hook": "hooks/check.py", "ok": false}}),
            ),
            event(3_662_800, "worker.exit", "info", json!({})),
            event(3_662_810, "error", "error", error),
            event(3_662_820, "exit", "info", json!({"state": "failed"})),
        ]
    }

    fn render(args: &[&str], events: &[Event]) -> Vec<String> {
        let cli = Cli::try_parse_from([&["x"], args].concat()).unwrap();
        let mut timeline = Timeline::new(&cli.view, OUTPUT, None);
        let lines = events.iter().flat_map(|event| {
            let wanted = timeline.wants(event);
            timeline.lines(event, wanted)
        });
        lines.map(|line| anstream::adapter::strip_str(&line).to_string()).collect()
    }

    #[test]
    fn a_failed_job_reads_from_its_start_to_why_it_failed() {
        insta::assert_snapshot!(render(&[], &course()).join("\n"));
    }

    #[test]
    fn views_choose_by_level_name_family_and_hook() {
        let names = |args: &[&str]| {
            let lines = render(args, &course());
            let line = |line: &String| line.get(23..).map(|rest| rest.split_whitespace().next().unwrap().to_owned());
            let (last, lines) = lines.split_last().unwrap();
            assert_eq!(
                last,
                "error hook_failed: hook hooks/check.py raised (hooks/check.py:3, in run, during after_mapping)"
            );
            lines.iter().filter_map(line).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&["--level", "warning"]), "log hook.exit error");
        assert_eq!(names(&["--event", "pass,exit"]), "pass.start pass.exit exit");
        assert_eq!(names(&["--event", "pass.exit"]), "pass.exit");
        for hook in ["after_mapping", "hooks/check.py", "check.py", "check"] {
            assert_eq!(names(&["--hook", hook]), "hook.start log hook.exit error", "{hook}");
        }
        assert_eq!(names(&["--hook", "check", "--level", "error", "--event", "hook"]), "hook.exit");
        assert_eq!(names(&["--hook", "other"]), "");
        let first = &render(&["--absolute"], &course())[0];
        assert!(first.starts_with("2026-01-01 12:00:00.000  queue    enqueue "), "{first}");
        let unknown = Cli::try_parse_from(["x", "--event", "pas"]).map(drop).unwrap_err().to_string();
        assert!(unknown.contains("no such event") && unknown.contains("pass.start"), "{unknown}");
    }

    #[test]
    fn nothing_that_an_event_says_reaches_the_terminal_as_control() {
        let evil = "\u{1b}]0;x\u{7}\r\n\u{202e}\u{9b}2J";
        let detail = json!({"text": evil, "pass": evil, "stage": evil, "hook": evil, "kind": evil, "message": evil, "stats": {"rows": 1}, evil: evil});
        for name in ["log", "pass.exit", "hook.exit", "error", "start", evil] {
            let one = event(0, name, "info", json!({"ts": evil, "state": evil, "detail": detail}));
            for args in [&[][..], &["--absolute"]] {
                for line in render(args, &[one.clone(), event(1, "exit", "info", json!({}))]) {
                    assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{name}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn times_that_are_none_or_go_back_are_shown_as_such() {
        for (time, start, shown) in [
            (None, Some(0), "?"),
            (Some(5), Some(10), "-0.005"),
            (Some(61_001), Some(0), "1:01.001"),
            (Some(i64::MAX), Some(i64::MIN), "2562047788015:12:55.807"),
        ] {
            assert_eq!(since(time, start).trim_start(), shown);
        }
    }
}
