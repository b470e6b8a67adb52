//! The states of a job and the phases of its execution.

use crate::text::texts;

texts! {
    /// The state of a job. `queued → running → succeeded | failed | cancelled`, with `cancelling` before `cancelled` when it runs.
    JobState {
        /// Accepted and stored; waits for its turn.
        Queued = "queued",
        /// An execution has it.
        Running = "running",
        /// Its cancellation was accepted; its container is being stopped.
        Cancelling = "cancelling",
        /// All outputs are there.
        Succeeded = "succeeded",
        /// It ended without a workbook; `error` says why.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether nothing about the job's outcome will change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

texts! {
    /// What an execution is doing.
    Phase {
        /// Package and inputs are being fetched and checked.
        Preparing = "preparing",
        /// Dependencies are being installed.
        Installing = "installing",
        /// The container is being created and started.
        Starting = "starting",
        /// Hooks and passes run.
        Running = "running",
        /// Outputs are being stored.
        Collecting = "collecting",
    }
}
