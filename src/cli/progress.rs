//! What a person sees on stderr while a job runs: a live line per pass on a terminal, one plain line per finished pass elsewhere.

use super::style::{DIM, WARN, paint, seconds, thousands};
use super::timeline;
use crate::events::{Event, Level};
use crate::job::Observer;
use crate::sandbox::protocol::Progress;
use crate::text::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Log lines of scripts that are echoed; all that were kept are in `events.ndjson`.
const ECHOED_LINES: u32 = 50;

/// Shows a job's course, or nothing when quiet.
pub struct Screen {
    bar: Option<ProgressBar>,
    plain: bool,
    pass: String,
    pass_started: Instant,
    rows: u64,
    echoed: u32,
}

impl Screen {
    /// A screen on stderr.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, plain: !quiet && !terminal, pass: String::new(), pass_started: Instant::now(), rows: 0, echoed: 0 }
    }

    /// Says what is being done.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if self.plain => anstream::eprintln!("{text}"),
            None => {}
        }
    }

    /// Says something that stays on the screen.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| anstream::eprintln!("{text}")),
            None if self.plain => anstream::eprintln!("{text}"),
            None => {}
        }
    }

    /// Prints something while the live line is away.
    pub fn pause(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Clears the live line.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn rate(&self, elapsed: Duration) -> String {
        let elapsed = elapsed.as_secs_f64();
        if self.rows == 0 || elapsed < 0.05 {
            return String::new();
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for people"
        )]
        let rate = (self.rows as f64 / elapsed) as u64;
        format!("  {} rows/s", thousands(rate))
    }
}

impl Observer for Screen {
    fn event(&mut self, event: &Event) {
        let text = |key: &str| timeline::detail(event, key, 400);
        match &*event.event {
            "start" => self.say("starting the container"),
            "deps.resolve" => self.say("installing dependencies"),
            "deps.ready" => {
                let count = event.detail.get("packages").and_then(serde_json::Value::as_u64).unwrap_or_default();
                let took = seconds(event.duration_ms.unwrap_or_default());
                let what = format!("{} packages, {}, from the {}", thousands(count), text("status"), text("source"));
                self.line(&format!("  {:<10} {what} {took:>9}", "install"));
                self.say("starting the container");
            }
            "log" if text("stream") == "install" => {
                if self.bar.is_some() {
                    self.say(&format!("install    {}", text("text")));
                } else {
                    self.line(&format!("  install    {}", text("text")));
                }
            }
            "pass.start" => {
                self.pass = text("pass");
                self.pass_started = Instant::now();
                self.rows = 0;
                if self.bar.is_some() {
                    self.say(&format!("{:<10}", self.pass));
                }
            }
            "pass.exit" => {
                self.rows = timeline::rows(event).unwrap_or(self.rows);
                let took = event.duration_ms.unwrap_or_default();
                let rows = if self.rows > 0 { format!("{} rows", thousands(self.rows)) } else { String::new() };
                let rate = self.rate(Duration::from_millis(took));
                self.line(&format!("  {:<10} {rows:>16} {:>9}{}", self.pass, seconds(took), paint(DIM, rate)));
            }
            "hook.start" if self.bar.is_some() => self.say(&format!("hook {} {}", text("stage"), text("hook"))),
            "log" if self.echoed < ECHOED_LINES => {
                self.echoed += 1;
                let style = if event.level >= Level::Warning { WARN } else { DIM };
                self.line(&format!("  {} {}", paint(style, "│"), text("text")));
                if self.echoed == ECHOED_LINES {
                    self.line(&paint(DIM, "  │ further lines are in events.ndjson"));
                }
            }
            "truncated" => {
                self.line(&paint(WARN, "  the scripts printed more than is kept; see `truncated` in events.ndjson"))
            }
            "worker.timeout" => self.say("time is up, stopping"),
            "cancel" => self.say("cancelling"),
            "requeue" => self.line(&paint(WARN, "  the execution was cut off; the job waits for another one")),
            _ => {}
        }
    }

    fn installing(&mut self) {
        self.say("making dependencies ready");
    }

    fn progress(&mut self, progress: &Progress) {
        self.rows = progress.rows;
        if self.bar.is_some() {
            let total = progress.total.map(|total| format!(" of {}", thousands(total))).unwrap_or_default();
            self.say(&format!(
                "{:<10} {}{total} rows{}",
                plain(&progress.pass, 20),
                thousands(progress.rows),
                self.rate(self.pass_started.elapsed())
            ));
        }
    }
}
