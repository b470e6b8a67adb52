//! What became of a job, in a few sentences: what happened, where the time went, and what to do. Taken from its events, its
//! record and its artifact, as far as each is there.

use super::Output;
use super::style::{self, BAD, DIM, STRONG, paint, seconds, thousands};
use super::summary::Summary;
use super::timeline::detail;
use crate::api::routes::job_record::JobRecord;
use crate::events::{Event, Level, millis};
use crate::queue::JobState;
use crate::sandbox::{Failure, FailureKind};
use crate::text::plain;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Passes and hooks that are named as the slowest.
const SLOWEST: usize = 5;
/// Below this, where the time went is no reason to do anything about it, ms.
const SHORT_MS: u64 = 10_000;

/// Where the time of a job went, milliseconds.
#[derive(Debug, Default, Clone, Serialize)]
struct Times {
    /// In the queue.
    queue_ms: Option<u64>,
    /// In executions that were cut off.
    lost_ms: Option<u64>,
    /// Waiting for dependencies.
    install_ms: Option<u64>,
    /// Creating and starting the container.
    start_ms: Option<u64>,
    /// In hooks and passes.
    run_ms: Option<u64>,
    /// Storing what it made.
    collect_ms: Option<u64>,
    /// From its acceptance to its end.
    total_ms: Option<u64>,
}

/// A pass or a hook, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Step {
    kind: &'static str,
    name: String,
    duration_ms: u64,
}

/// What is known of a job.
#[derive(Debug, Default)]
pub struct Account {
    job: Option<String>,
    state: Option<String>,
    execution: u32,
    error: Option<Failure>,
    /// Kind and message of an error that this program does not know.
    foreign: Option<(String, String)>,
    times: Times,
    slowest: Vec<Step>,
    /// The pass or hook that has begun and not ended.
    within: Option<String>,
    raised: Option<String>,
    findings: Vec<String>,
    denied: u64,
    queue_position: Option<i64>,
    ended: bool,
    // Times of events, ms.
    began: Option<i64>,
    waiting: Option<i64>,
    started: Option<i64>,
    spawned: Option<i64>,
    last: Option<i64>,
}

/// What is told of it.
#[derive(Debug, Serialize)]
struct Told {
    job_id: Option<String>,
    status: Option<String>,
    execution: u32,
    what: Vec<String>,
    error: Option<Failure>,
    time: Times,
    slowest: Vec<Step>,
    advice: Vec<String>,
}

fn between(from: Option<i64>, to: Option<i64>) -> Option<u64> {
    u64::try_from(to?.checked_sub(from?)?).ok()
}

impl Account {
    /// Takes an event; they come in order.
    pub fn event(&mut self, event: &Event) {
        let at = millis(&event.ts);
        self.began = self.began.or(at);
        self.last = at.or(self.last);
        self.job.get_or_insert_with(|| plain(&event.job_id, 80));
        self.execution = event.execution;
        if let Some(state) = &event.state {
            self.state = Some(plain(state, 40));
        }
        match &*event.event {
            "enqueue" => self.waiting = at,
            "start" => {
                let waited = between(self.waiting.take(), at);
                self.times.queue_ms = add(self.times.queue_ms, waited);
                self.started = at;
                (self.error, self.foreign, self.spawned) = (None, None, None);
                (self.times.install_ms, self.times.start_ms, self.times.run_ms) = (None, None, None);
                self.slowest.clear();
            }
            "deps.ready" | "deps.failed" => self.times.install_ms = event.duration_ms,
            "worker.spawn" => {
                self.spawned = at;
                let since = between(self.started, at);
                self.times.start_ms =
                    since.map(|since| since.saturating_sub(self.times.install_ms.unwrap_or_default()));
            }
            "pass.start" => self.within = Some(format!("the pass {}", detail(event, "pass", 80))),
            "hook.start" => self.within = Some(format!("the hook {}", hook(event))),
            "pass.exit" => self.step("pass", detail(event, "pass", 80), event.duration_ms),
            "hook.exit" => self.step("hook", hook(event), event.duration_ms),
            "log" if event.level == Level::Error => self.raised = Some(detail(event, "text", 500)),
            "egress.denied" => self.denied += 1,
            "truncated" => self.findings.push("The scripts printed more than is kept.".into()),
            "worker.exit" => self.times.run_ms = event.duration_ms.or_else(|| between(self.spawned, at)),
            "collect" => self.times.collect_ms = event.duration_ms,
            "error" => self.failed(Value::Object(event.detail.clone())),
            "requeue" => {
                self.times.lost_ms = add(self.times.lost_ms, between(self.started.take(), at));
                self.waiting = at;
                self.within = None;
            }
            "exit" => {
                self.ended = true;
                self.within = None;
                self.times.total_ms = between(self.began, at);
            }
            _ => {}
        }
    }

    /// Takes the job's record, which knows better than its events.
    pub fn record(&mut self, job: &JobRecord) {
        self.job = Some(job.job_id.to_string());
        self.state = Some(job.status.to_string());
        self.execution = job.execution;
        self.ended = job.status.is_final();
        self.queue_position = job.queue_position;
        if let Some(error) = &job.error {
            self.failed(error.clone());
        }
        let times = &mut self.times;
        times.queue_ms = job.usage.queue_ms.or(times.queue_ms);
        times.install_ms = job.usage.install_ms.or(times.install_ms);
        times.start_ms = job.usage.start_ms.or(times.start_ms);
        times.run_ms = job.usage.run_ms.or(times.run_ms);
        times.collect_ms = job.usage.collect_ms.or(times.collect_ms);
        times.total_ms = job.timings.total_ms.or(times.total_ms);
    }

    /// Takes the parts of the job's artifact.
    pub fn artifact(&mut self, summary: &Summary) {
        self.findings.extend(summary.findings());
    }

    /// Takes something else that is worth knowing.
    pub fn finding(&mut self, text: String) {
        self.findings.push(text);
    }

    fn failed(&mut self, error: Value) {
        match Failure::deserialize(&error) {
            Ok(failure) => self.error = Some(failure),
            Err(_) => {
                let text = |key: &str| plain(error[key].as_str().unwrap_or_default(), 1_000);
                self.foreign = Some((text("kind"), text("message")));
            }
        }
    }

    fn step(&mut self, kind: &'static str, name: String, duration_ms: Option<u64>) {
        self.within = None;
        let Some(duration_ms) = duration_ms else { return };
        self.slowest.push(Step { kind, name, duration_ms });
        self.slowest.sort_by_key(|step| std::cmp::Reverse(step.duration_ms));
        self.slowest.truncate(SLOWEST);
    }

    fn tell(&self) -> Told {
        Told {
            job_id: self.job.clone(),
            status: self.state.clone(),
            execution: self.execution,
            what: self.what(),
            error: self.error.clone(),
            time: self.times.clone(),
            slowest: self.slowest.clone(),
            advice: self.advice(),
        }
    }

    fn what(&self) -> Vec<String> {
        let job = self.job.as_deref().unwrap_or("the job");
        let state = self.state.as_deref().unwrap_or("unknown");
        let within = self.within.as_ref().map(|within| format!(", within {within}")).unwrap_or_default();
        let mut what = vec![match (self.ended, self.times.total_ms) {
            (true, Some(total)) => format!("{job} {state} after {}.", seconds(total)),
            (true, None) => format!("{job} {state}."),
            (false, _) if state == JobState::Queued.as_str() => match self.queue_position {
                Some(place) => format!("{job} waits; it is number {place} in the queue of its workspace."),
                None => format!("{job} waits."),
            },
            (false, _) => format!("{job} is {state}{within}; its log has no end yet."),
        }];
        if let Some(failure) = &self.error {
            let place = style::whereabouts(failure);
            let place = if place.is_empty() { place } else { format!(" ({place})") };
            what.push(format!("{}: {}{place}.", failure.kind, plain(&failure.message, 2_000).trim_end_matches('.')));
        } else if let Some((kind, message)) = &self.foreign {
            what.push(format!("{kind}: {message}"));
        }
        if let Some(raised) = self.raised.as_ref().filter(|_| self.error.is_some() || self.foreign.is_some()) {
            what.push(format!("The last error in its log: {raised}"));
        }
        if self.execution > 1 {
            what.push(format!("It was started {} times; what is told is of the last one.", self.execution));
        }
        if self.denied > 0 {
            what.push(format!("{} of its connections were refused.", thousands(self.denied)));
        }
        what.extend(self.findings.iter().cloned());
        what
    }

    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if let Some(failure) = &self.error {
            advice.push(sentence(failure.kind.advice()));
        } else if let Some((kind, _)) = &self.foreign {
            advice.push(format!("This program does not know {kind}: a newer one does."));
        }
        let times = &self.times;
        let total = times.total_ms.unwrap_or_default();
        // More than half of it, and long enough to be noticed.
        let most = |span: Option<u64>| span.is_some_and(|span| span > SHORT_MS && span > total / 2);
        if most(times.queue_ms) && self.error.as_ref().is_none_or(|error| error.kind != FailureKind::QueueTimeout) {
            advice.push(
                "Most of the time it waited: submit it with a higher priority, or have the admin raise `ADE_MAX_CONCURRENCY` or the workspace's share."
                    .into(),
            );
        }
        if most(times.install_ms) {
            advice.push(
                "Most of the time went into dependencies: the set is kept, and the next job with the same requirements starts at once."
                    .into(),
            );
        }
        if most(times.run_ms)
            && let Some(step) = self.slowest.first().filter(|step| most(Some(step.duration_ms)))
        {
            advice.push(format!("Most of the time went into the {} {}: look there first.", step.kind, step.name));
        }
        if self.denied > 0 {
            advice.push("See the `egress.denied` events for which hosts were refused, and why.".into());
        }
        advice
    }

    /// Prints it.
    pub fn print(&self, output: Output) {
        let told = self.tell();
        if output.json {
            println!("{}", serde_json::json!(told));
            return;
        }
        for (place, sentence) in told.what.iter().enumerate() {
            let failing = place == 1 && (self.error.is_some() || self.foreign.is_some());
            anstream::println!("{}", if failing { paint(BAD, sentence) } else { sentence.clone() });
        }
        let spans = told.time.spans();
        if !spans.is_empty() {
            anstream::println!("\n{}", paint(STRONG, "Where the time went"));
        }
        for (name, ms) in spans {
            let share = told.time.total_ms.filter(|total| *total > 0);
            let share = share.map(|total| format!("{:>3} %", ms.saturating_mul(100) / total)).unwrap_or_default();
            anstream::println!("  {name:<8} {:>12}  {}", seconds(ms), paint(DIM, share));
        }
        if !told.slowest.is_empty() {
            anstream::println!("\n{}", paint(STRONG, "Slowest"));
        }
        for step in &told.slowest {
            anstream::println!("  {:>12}  {} {}", seconds(step.duration_ms), step.kind, step.name);
        }
        if !told.advice.is_empty() {
            anstream::println!("\n{}", paint(STRONG, "What to do"));
        }
        for advice in &told.advice {
            anstream::println!("  {advice}");
        }
    }
}

impl Times {
    fn spans(&self) -> Vec<(&'static str, u64)> {
        let spans = [
            ("queue", self.queue_ms),
            ("lost", self.lost_ms),
            ("install", self.install_ms),
            ("start", self.start_ms),
            ("run", self.run_ms),
            ("collect", self.collect_ms),
        ];
        spans.into_iter().filter_map(|(name, ms)| Some((name, ms?))).collect()
    }
}

fn add(sum: Option<u64>, more: Option<u64>) -> Option<u64> {
    more.map_or(sum, |more| Some(sum.unwrap_or_default().saturating_add(more)))
}

fn hook(event: &Event) -> String {
    format!("{} ({})", detail(event, "hook", 120), detail(event, "stage", 40))
}

fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
