//! What is measured: every figure with its unit and what is wanted of it. `docs/operations/performance.md` lists the same.

use serde::Serialize;
use std::fmt;

/// A part of the benchmark that can be asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// One trivial job after the other, against `docker run`
    Latency,
    /// As many trivial jobs as the machine takes, and half as many
    Throughput,
    /// One large table
    Rows,
    /// A service that has nothing to do, then followers of events
    Idle,
    /// A light tenant beside a heavy one
    Fairness,
}

impl Section {
    /// Every section, in the order in which they are measured.
    pub const ALL: [Self; 5] = [Self::Latency, Self::Throughput, Self::Rows, Self::Idle, Self::Fairness];

    /// As it is written on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Rows => "rows",
            Self::Idle => "idle",
            Self::Fairness => "fairness",
        }
    }
}

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// So much, or less.
    AtMost(f64),
    /// So much, or more.
    AtLeast(f64),
}

impl Wanted {
    /// Whether a value is what is wanted.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}

/// A kind of figure.
#[derive(Debug, PartialEq)]
pub struct Kind {
    /// Its name in the JSON; begins with the section's.
    pub id: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Its unit; `×` for ratios.
    pub unit: &'static str,
    /// What is wanted of it.
    pub wanted: Option<Wanted>,
}

macro_rules! figures {
    ($($name:ident = $id:literal, $what:literal, $unit:literal $(, $wanted:expr)?;)*) => {
        $(pub(super) const $name: Kind = Kind { id: $id, what: $what, unit: $unit, wanted: figures!(@ $($wanted)?) };)*
        /// Every kind of figure, in the order in which they are measured.
        pub const FIGURES: &[Kind] = &[$($name),*];
    };
    (@) => { None };
    (@ $wanted:expr) => { Some($wanted) };
}

use Wanted::{AtLeast, AtMost};

figures! {
    LATENCY_P50 = "latency.p50", "POST to succeeded, p50", "ms";
    LATENCY_P99 = "latency.p99", "POST to succeeded, p99", "ms";
    LATENCY_OVERHEAD = "latency.overhead", "over the pipeline's own time, p50", "ms", AtMost(25.0);
    LATENCY_PARKED = "latency.parked", "jobs that got a parked container", "%";
    LATENCY_DOCKER = "latency.docker_run", "docker run of the same image, p50", "ms";
    LATENCY_RATIO = "latency.ratio", "POST to succeeded against docker run", "×", AtMost(0.15);
    THROUGHPUT_JOBS = "throughput.jobs", "jobs, all submitted at once", "jobs/s";
    THROUGHPUT_DOCKER = "throughput.docker_run", "docker run of the same image, as many at once", "containers/s";
    THROUGHPUT_CEILING = "throughput.ceiling", "containers of the same profile, from create to remove", "containers/s";
    THROUGHPUT_RATIO = "throughput.ratio", "jobs against docker run", "×", AtLeast(1.5);
    THROUGHPUT_OF_CEILING = "throughput.of_ceiling", "jobs against the ceiling", "×", AtLeast(0.8);
    HALF_P50 = "throughput.half_p50", "POST to succeeded at half of that rate, p50", "ms";
    HALF_P99 = "throughput.half_p99", "POST to succeeded at half of that rate, p99", "ms";
    HALF_RATIO = "throughput.half_ratio", "its p99 against its p50", "×", AtMost(4.0);
    HALF_PARKED = "throughput.half_parked", "its jobs that got a parked container", "%";
    ROWS_WALL = "rows.wall", "POST to succeeded of one table", "s";
    ROWS_RATE = "rows.rate", "its rows", "rows/s", AtLeast(12_500.0);
    ROWS_MEMORY = "rows.memory", "most memory of its container", "MB", AtMost(512.0);
    MILLION_WALL = "rows.million_wall", "POST to succeeded of 1,000,000 rows", "s", AtMost(60.0);
    MILLION_RATE = "rows.million_rate", "their rows", "rows/s";
    MILLION_MEMORY = "rows.million_memory", "most memory of their container", "MB", AtMost(512.0);
    IDLE_MEMORY = "idle.memory", "the service with a full pool, resident", "MB", AtMost(50.0);
    IDLE_CPU = "idle.cpu", "the service with a full pool, of one CPU", "%", AtMost(1.0);
    FOLLOWERS_MEMORY = "idle.followers_memory", "the service with followers of events, resident", "MB", AtMost(300.0);
    FAIR_WAIT = "fairness.wait", "queue wait of a light tenant, p99", "ms";
    FAIR_JOB = "fairness.job", "one of its jobs, from claim to end, p99", "ms";
    FAIR_RATIO = "fairness.ratio", "its wait against one job", "×", AtMost(1.0);
}

/// A figure that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// See [`Kind::id`].
    pub id: &'static str,
    /// See [`Kind::what`].
    pub what: &'static str,
    /// How much.
    pub value: f64,
    /// See [`Kind::unit`].
    pub unit: &'static str,
    /// What is wanted of it.
    pub wanted: Option<Wanted>,
    /// Whether that was reached; none where nothing is wanted, or the measurement is too small to tell.
    pub reached: Option<bool>,
    /// How it came about: how many, and from where to where.
    pub detail: String,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// In order.
    pub figures: Vec<Figure>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// Whether it is a small run, which shows that all works and says nothing about what is wanted.
    pub quick: bool,
}

impl Figures {
    pub(super) fn add(&mut self, kind: &Kind, value: f64, detail: impl Into<String>) {
        let Kind { id, what, unit, wanted } = *kind;
        // Three digits behind the point are more than any of these is worth.
        let value = if value.is_finite() { (value * 1000.0).round() / 1000.0 } else { 0.0 };
        let reached = wanted.filter(|_| !self.quick).map(|wanted| wanted.is_met_by(value));
        self.figures.push(Figure { id, what, value, unit, wanted, reached, detail: detail.into() });
    }
}

/// A share of sorted values: 0.5 for the median.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// Values in order.
#[must_use]
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Ends a second, of what began together at 0 and ended at these times, in seconds: without the first quarter, which has a head start
/// (containers that were there before) and none of the work that is put off to later (their removal).
pub(super) fn sustained(ends: Vec<f64>) -> f64 {
    let ends = sorted(ends);
    let skipped = ends.len() / 4;
    let since = if skipped == 0 { 0.0 } else { ends[skipped - 1] };
    let took = ends.last().copied().unwrap_or_default() - since;
    if took <= 0.0 { 0.0 } else { count(ends.len() - skipped) / took }
}

/// How many, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(super) const fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = sorted(vec![3.0, 1.0, 2.0]);
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [1.0, 2.0, 3.0, 3.0]);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_rate_leaves_out_the_first_quarter() {
        // Two at once from a pool, then one a second.
        assert_eq!(sustained(vec![0.1, 0.1, 1.1, 2.1, 3.1, 4.1, 5.1, 6.1]), 1.0);
        assert_eq!(sustained(vec![0.5, 1.0]), 2.0, "too few to leave any out");
        assert_eq!(sustained(Vec::new()), 0.0);
    }

    #[test]
    fn a_small_run_says_nothing_about_what_is_wanted() {
        for (quick, reached) in [(false, Some(true)), (true, None)] {
            let mut figures = Figures { quick, ..Figures::default() };
            figures.add(&IDLE_CPU, 1.0, "");
            assert_eq!(figures.figures[0].reached, reached);
        }
        assert!(!AtMost(25.0).is_met_by(25.1) && AtLeast(1.5).is_met_by(1.5));
    }

    #[test]
    fn every_figure_is_of_a_section_and_has_a_name_of_its_own() {
        for (at, kind) in FIGURES.iter().enumerate() {
            assert!(
                Section::ALL.iter().any(|section| kind.id.starts_with(&format!("{}.", section.as_str()))),
                "{}",
                kind.id
            );
            assert!(FIGURES[..at].iter().all(|other| other.id != kind.id), "{}", kind.id);
        }
    }
}
