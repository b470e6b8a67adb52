//! The queue's policy on one screen; the transactions that carry it out are in `store::queue`.
//!
//! - **Admission.** A job is accepted while fewer jobs wait than the instance and its workspace allow. Exactly: counters
//!   are checked and raised in the transaction that stores the job.
//! - **Fair share.** Every claim charges its workspace `SHARE / weight`; the waiting workspace that was charged least is
//!   next. One that comes back, after it had nothing to run or was not allowed to, starts at the clock of the others, so
//!   neither earns credit (start-time fair queueing, Goyal, Vin, Cheng, 1996).
//! - **Priority** orders the jobs of one workspace, and does not starve: a step is worth [`PRIORITY_STEP_MS`] of waiting.
//! - **Lanes.** A config's jobs are one lane of its workspace, with a bound of its own on how many run at once.
//! - **Executions.** A claim starts the job's next execution, with a lease. Its number is the fencing token: a write
//!   that names another number, or comes after the end, changes nothing.

mod admission;
mod signals;
mod state;

pub use admission::{Admissions, Drain};
pub use signals::{News, Signals, Watch};
pub use state::{JobState, Phase};

/// What one claim charges a workspace of weight 1.
pub const SHARE: i64 = 1_000_000;
/// Weight of a workspace unless an admin says otherwise.
pub const DEFAULT_WEIGHT: i64 = 100;
/// What one step of priority is worth in waiting time, ms.
pub const PRIORITY_STEP_MS: i64 = 60_000;
/// Priorities that a submission may ask for; 0 is the default and higher goes first.
pub const PRIORITIES: std::ops::RangeInclusive<i64> = -10..=10;
/// How long an `Idempotency-Key` is remembered, ms.
pub const IDEMPOTENCY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where a job stands in its workspace: lower is earlier.
#[must_use]
pub const fn rank(queued_at: i64, priority: i64) -> i64 {
    queued_at - priority * PRIORITY_STEP_MS
}
