//! The states of a job and the phases of its execution.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! texts {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text that is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> std::result::Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("{text:?} is not one of {}", known.join(", "))
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use texts;

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
