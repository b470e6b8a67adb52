//! Every metric, in one table; `docs/operations/monitoring.md` has the same, and a test compares them.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often how much, in buckets; its unit is seconds here.
    Histogram,
}

impl Kind {
    /// The name of it in the exposition format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name as it is scraped.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts, in which unit.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)+) => {
        $(pub(super) const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+

        /// Every metric.
        pub const METRICS: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    HTTP_REQUESTS = "ade_http_requests_total", Counter, ["method", "route", "status_class"], "Requests answered";
    HTTP_SECONDS = "ade_http_request_seconds", Histogram, ["route"], "Time until the head of the answer; asked-for waits count";
    JOBS_SUBMITTED = "ade_jobs_submitted_total", Counter, ["result"], "Jobs that were asked for, by what became of the request";
    JOBS_FINISHED = "ade_jobs_finished_total", Counter, ["state", "error_kind"], "Jobs that ended";
    QUEUE_DEPTH = "ade_queue_depth", Gauge, ["workspace"], "Queued jobs: the 20 longest queues, and the others in sum";
    QUEUE_OLDEST = "ade_queue_oldest_seconds", Gauge, ["workspace"], "Age of the queued job that is next: the 20 longest queues";
    CLAIM_SECONDS = "ade_claim_seconds", Histogram, [], "Time to claim jobs from the queue";
    PHASE_SECONDS = "ade_job_phase_seconds", Histogram, ["phase"], "Time that jobs spent in a phase";
    ACTIVATIONS = "ade_activations_total", Counter, ["result"], "Activations that were asked for, by what became of them";
    ACTIVATION_SECONDS = "ade_activation_seconds", Histogram, ["result"], "Time of activations, waiting for others included";
    CONTAINERS = "ade_containers", Gauge, ["state"], "Containers of this node";
    POOL_ADOPTIONS = "ade_pool_adoptions_total", Counter, ["result"], "Containers that jobs asked the pool for: hit, miss, or failed after a hit";
    POOL_ADOPTION_SECONDS = "ade_pool_adoption_seconds", Histogram, [], "From a parked container's being given a job to its having read it";
    POOL_AGE_SECONDS = "ade_pool_age_seconds", Histogram, [], "How long containers were parked before a job got them";
    POOL_START_SECONDS = "ade_pool_start_seconds", Histogram, [], "Time to make and start a container that is then parked";
    POOL_RETIRED = "ade_pool_retired_total", Counter, ["reason"], "Parked containers that were removed without a job: old, unhealthy or surplus";
    REQUEUED = "ade_executions_requeued_total", Counter, ["reason"], "Executions that were lost and queued again";
    STORE_SECONDS = "ade_store_seconds", Histogram, ["op"], "Time of database operations";
    EVENTS_WRITTEN = "ade_events_written_total", Counter, [], "Events of jobs that were stored";
    STREAMS = "ade_streams", Gauge, [], "Open event streams and waiting requests";
}
