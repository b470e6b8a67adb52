//! The metrics of one process. Labels are bounded: they come from code, from routes, or from the few longest queues.

use super::table::{self, Metric};
use crate::sandbox::Pooled;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{self, Registry};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Content type of [`Metrics::encode`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Workspaces with a queue depth of their own.
pub const LONGEST_QUEUES: usize = 20;

/// Bucket bounds for what should take milliseconds, seconds.
const QUICK: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bucket bounds for requests and for phases of jobs, seconds.
const SLOW: [f64; 15] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];

type Labels<const N: usize> = [(&'static str, String); N];

/// A part of a job's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting in the queue.
    Queue,
    /// Its dependencies being made ready.
    Install,
    /// Its container being created.
    Create,
    /// Its container being started.
    Start,
    /// Running.
    Run,
    /// Its outputs being collected.
    Collect,
}

impl Phase {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Install => "install",
            Self::Create => "create",
            Self::Start => "start",
            Self::Run => "run",
            Self::Collect => "collect",
        }
    }
}

/// The metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Held while the queue depths are replaced, and while all is read: no scrape sees half of them.
    registry: Mutex<Registry>,
    http_requests: Family<Labels<3>, Counter>,
    http_seconds: Family<Labels<1>, Histogram>,
    jobs_submitted: Family<Labels<1>, Counter>,
    jobs_finished: Family<Labels<2>, Counter>,
    queue_depth: Family<Labels<1>, Gauge>,
    queue_oldest: Family<Labels<1>, Gauge<f64, AtomicU64>>,
    claim_seconds: Histogram,
    phase_seconds: Family<Labels<1>, Histogram>,
    activations: Family<Labels<1>, Counter>,
    activation_seconds: Family<Labels<1>, Histogram>,
    containers: Family<Labels<1>, Gauge>,
    pool_adoptions: Family<Labels<1>, Counter>,
    pool_adoption_seconds: Histogram,
    pool_age_seconds: Histogram,
    pool_start_seconds: Histogram,
    pool_retired: Family<Labels<1>, Counter>,
    requeued: Family<Labels<1>, Counter>,
    store_seconds: Family<Labels<1>, Histogram>,
    events_written: Counter,
    streams: Gauge,
}

/// One open stream; it is counted until it is dropped.
#[derive(Debug)]
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn quick() -> Histogram {
    Histogram::new(QUICK)
}

fn slow() -> Histogram {
    Histogram::new(SLOW)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        Self(Arc::new(Inner {
            http_requests: add(&mut registry, table::HTTP_REQUESTS, Family::default()),
            http_seconds: add(&mut registry, table::HTTP_SECONDS, Family::new_with_constructor(slow)),
            jobs_submitted: add(&mut registry, table::JOBS_SUBMITTED, Family::default()),
            jobs_finished: add(&mut registry, table::JOBS_FINISHED, Family::default()),
            queue_depth: add(&mut registry, table::QUEUE_DEPTH, Family::default()),
            queue_oldest: add(&mut registry, table::QUEUE_OLDEST, Family::default()),
            claim_seconds: add(&mut registry, table::CLAIM_SECONDS, quick()),
            phase_seconds: add(&mut registry, table::PHASE_SECONDS, Family::new_with_constructor(slow)),
            activations: add(&mut registry, table::ACTIVATIONS, Family::default()),
            activation_seconds: add(&mut registry, table::ACTIVATION_SECONDS, Family::new_with_constructor(slow)),
            containers: add(&mut registry, table::CONTAINERS, Family::default()),
            pool_adoptions: add(&mut registry, table::POOL_ADOPTIONS, Family::default()),
            pool_adoption_seconds: add(&mut registry, table::POOL_ADOPTION_SECONDS, quick()),
            pool_age_seconds: add(&mut registry, table::POOL_AGE_SECONDS, slow()),
            pool_start_seconds: add(&mut registry, table::POOL_START_SECONDS, quick()),
            pool_retired: add(&mut registry, table::POOL_RETIRED, Family::default()),
            requeued: add(&mut registry, table::REQUEUED, Family::default()),
            store_seconds: add(&mut registry, table::STORE_SECONDS, Family::new_with_constructor(quick)),
            events_written: add(&mut registry, table::EVENTS_WRITTEN, Counter::default()),
            streams: add(&mut registry, table::STREAMS, Gauge::default()),
            registry: Mutex::new(registry),
        }))
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: only writing to memory could fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// A request was answered. `method` and `route` must be from bounded sets.
    pub fn http_request(&self, method: &'static str, route: &str, status: u16, taken: Duration) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let labels = [("method", method.into()), ("route", route.to_owned()), ("status_class", class.into())];
        self.0.http_requests.get_or_create(&labels).inc();
        self.0.http_seconds.get_or_create(&[("route", route.to_owned())]).observe(taken.as_secs_f64());
    }

    /// A job was asked for: `accepted`, `replayed`, or the code of the refusal.
    pub fn job_submitted(&self, result: &'static str) {
        self.0.jobs_submitted.get_or_create(&[("result", result.into())]).inc();
    }

    /// A job ended in `state`, with the kind of its failure if it has one.
    pub fn job_finished(&self, state: &'static str, error_kind: Option<&'static str>) {
        let labels = [("state", state.into()), ("error_kind", error_kind.unwrap_or("none").into())];
        self.0.jobs_finished.get_or_create(&labels).inc();
    }

    /// Replaces what is known of the queues: depth and age of the workspaces whose queues are longest, and the depth of all
    /// others together.
    pub fn set_queues<'a>(&self, longest: impl IntoIterator<Item = (&'a str, u64, Duration)>, others: u64) {
        let _whole = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.queue_depth.clear();
        self.0.queue_oldest.clear();
        let depth = |workspace: &str, depth: u64| {
            let labels = [("workspace", workspace.to_owned())];
            self.0.queue_depth.get_or_create(&labels).set(i64::try_from(depth).unwrap_or(i64::MAX));
        };
        for (workspace, jobs, age) in longest.into_iter().take(LONGEST_QUEUES) {
            depth(workspace, jobs);
            self.0.queue_oldest.get_or_create(&[("workspace", workspace.to_owned())]).set(age.as_secs_f64());
        }
        depth("other", others);
    }

    /// A claim took this long.
    pub fn claimed(&self, taken: Duration) {
        self.0.claim_seconds.observe(taken.as_secs_f64());
    }

    /// A job spent this long in a phase.
    pub fn job_phase(&self, phase: Phase, taken: Duration) {
        self.0.phase_seconds.get_or_create(&[("phase", phase.as_str().into())]).observe(taken.as_secs_f64());
    }

    /// An activation ended so, this long after it was asked for.
    pub fn activation(&self, result: &'static str, taken: Duration) {
        let labels = [("result", result.into())];
        self.0.activations.get_or_create(&labels).inc();
        self.0.activation_seconds.get_or_create(&labels).observe(taken.as_secs_f64());
    }

    /// Containers of this node in `state`.
    pub fn set_containers(&self, state: &'static str, count: u32) {
        self.0.containers.get_or_create(&[("state", state.into())]).set(count.into());
    }

    /// Something happened in the pool of parked containers.
    pub fn pool(&self, what: Pooled) {
        let adoption = |result: &'static str| {
            self.0.pool_adoptions.get_or_create(&[("result", result.into())]).inc();
        };
        match what {
            Pooled::Hit(age) => {
                adoption("hit");
                self.0.pool_age_seconds.observe(age.as_secs_f64());
            }
            Pooled::Missed => adoption("miss"),
            Pooled::Failed => adoption("failed"),
            Pooled::Adopted(taken) => self.0.pool_adoption_seconds.observe(taken.as_secs_f64()),
            Pooled::Parked(taken) => self.0.pool_start_seconds.observe(taken.as_secs_f64()),
            Pooled::Retired(why) => {
                self.0.pool_retired.get_or_create(&[("reason", why.as_str().into())]).inc();
            }
        }
    }

    /// An execution was lost and its job queued again.
    pub fn execution_requeued(&self, reason: &'static str) {
        self.0.requeued.get_or_create(&[("reason", reason.into())]).inc();
    }

    /// A database operation took this long.
    pub fn store(&self, op: &'static str, taken: Duration) {
        self.0.store_seconds.get_or_create(&[("op", op.into())]).observe(taken.as_secs_f64());
    }

    /// Events were stored.
    pub fn events_written(&self, count: u64) {
        self.0.events_written.inc_by(count);
    }

    /// A stream or a waiting request began; it ends when the guard is dropped.
    #[must_use]
    pub fn open_stream(&self) -> OpenStream {
        self.0.streams.inc();
        OpenStream(self.0.streams.clone())
    }
}

fn add<M: registry::Metric + Clone>(registry: &mut Registry, about: Metric, metric: M) -> M {
    // The encoder puts `_total` behind the names of counters.
    let name = about.name.strip_suffix("_total").unwrap_or(about.name);
    registry.register(name, about.help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::super::table::METRICS;
    use super::*;

    fn touched() -> Metrics {
        let metrics = Metrics::new();
        let taken = Duration::from_millis(3);
        metrics.http_request("GET", "/x/{id}", 404, taken);
        metrics.job_submitted("accepted");
        metrics.job_finished("failed", Some("timeout"));
        metrics.set_queues([("ws_1", 2, Duration::from_millis(1500))], 0);
        metrics.claimed(taken);
        metrics.job_phase(Phase::Run, taken);
        metrics.activation("activated", taken);
        metrics.set_containers("parked", 2);
        for what in [
            Pooled::Hit(taken),
            Pooled::Adopted(taken),
            Pooled::Parked(taken),
            Pooled::Retired(crate::sandbox::Retired::Old),
        ] {
            metrics.pool(what);
        }
        metrics.execution_requeued("lease_expired");
        metrics.store("claim", taken);
        metrics.events_written(5);
        metrics
    }

    #[test]
    fn what_is_scraped_is_what_the_table_says() {
        let text = touched().encode().unwrap();
        for metric in METRICS {
            let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            assert!(text.contains(&format!("# TYPE {base} {}\n", metric.kind.as_str())), "{base}: {text}");
            assert!(text.contains(&format!("# HELP {base} {}.\n", metric.help)), "{base}: {text}");
            let name = if metric.kind == table::Kind::Histogram { format!("{base}_sum") } else { metric.name.into() };
            let sample = text.lines().find(|line| line.split(['{', ' ']).next() == Some(&name)).unwrap();
            let inside = sample.split_once('{').map_or("", |(_, rest)| rest);
            let labels: Vec<_> = inside.split("\",").filter_map(|pair| Some(pair.split_once("=\"")?.0)).collect();
            assert_eq!(labels, metric.labels, "{sample}");
        }
        assert_eq!(text.matches("# TYPE ").count(), METRICS.len(), "{text}");
        assert!(text.contains("ade_queue_oldest_seconds{workspace=\"ws_1\"} 1.5"), "{text}");
    }

    #[test]
    fn queue_depths_are_bounded_and_replaced() {
        let metrics = Metrics::new();
        let names: Vec<String> = (0..100).map(|n| format!("ws_{n:03}")).collect();
        metrics.set_queues(names.iter().zip(1..).map(|(name, depth)| (name.as_str(), depth, Duration::ZERO)), 7);
        let text = metrics.encode().unwrap();
        assert_eq!(text.matches("ade_queue_depth{").count(), LONGEST_QUEUES + 1);
        assert!(text.contains("{workspace=\"ws_019\"} 20\n") && text.contains("{workspace=\"other\"} 7\n"), "{text}");
        metrics.set_queues([], 0);
        assert_eq!(metrics.encode().unwrap().matches("ade_queue_depth{").count(), 1);
    }

    #[test]
    fn a_stream_counts_until_it_is_dropped() {
        let metrics = Metrics::new();
        let open = metrics.open_stream();
        assert!(metrics.encode().unwrap().contains("ade_streams 1\n"));
        drop(open);
        assert!(metrics.encode().unwrap().contains("ade_streams 0\n"));
    }
}
