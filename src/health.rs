//! What the service needs, and whether it has it: `/readyz`, and the gates of admission and dispatch.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A thing that the service cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The database.
    Database,
    /// Where documents, packages and outputs are.
    Storage,
    /// The Docker Engine.
    Docker,
    /// The base image.
    Image,
    /// The process itself: not draining.
    Process,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Database, Self::Storage, Self::Docker, Self::Image, Self::Process];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Storage => "storage",
            Self::Docker => "docker",
            Self::Image => "image",
            Self::Process => "process",
        }
    }
}

/// The last word on every part; a part that was never heard of is not ready.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Part, Result<(), String>>>);

impl Health {
    /// Notes how a part is; logs when that has changed.
    pub fn set(&self, part: Part, state: Result<(), String>) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = parts.insert(part, state.clone());
        let was_ready = before.as_ref().map(Result::is_ok);
        match (&state, was_ready) {
            (Ok(()), Some(true)) | (Err(_), Some(false)) => {}
            (Ok(()), _) => tracing::info!(part = part.as_str(), "ready"),
            (Err(reason), _) => tracing::warn!(part = part.as_str(), reason, "not ready"),
        }
    }

    /// Whether a part is ready.
    #[must_use]
    pub fn is_ready(&self, part: Part) -> bool {
        self.report().into_iter().any(|(of, state)| of == part && state.is_ok())
    }

    /// Every part, with the reason why it is not ready.
    #[must_use]
    pub fn report(&self) -> Vec<(Part, Result<(), String>)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |part| parts.get(&part).cloned().unwrap_or_else(|| Err("starting".into()));
        Part::ALL.into_iter().map(|part| (part, state(part))).collect()
    }
}
