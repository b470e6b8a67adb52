//! What runs scripts of stored packages outside of jobs: in each workspace one at a time, in the order in which it was asked for,
//! and a few at a time on a node.
//!
//! Whatever runs is a task of its own, so that its containers are removed also when nobody waits for it any more.

use crate::ids::{JobId, WorkspaceId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};

/// Of one workspace that may wait or run.
const IN_LINE: usize = 8;
/// Of a node that run.
const AT_ONCE: usize = 4;

/// The lines of one kind of work on this node.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Mutex<HashMap<WorkspaceId, Line>>,
    running: Mutex<HashMap<JobId, watch::Sender<bool>>>,
    places: Arc<Semaphore>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { lines: Mutex::default(), running: Mutex::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

#[derive(Debug, Default)]
struct Line {
    /// Fair: who has waited longest is next.
    turn: Arc<tokio::sync::Mutex<()>>,
    length: usize,
}

impl Lines {
    fn lines(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<bool>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything goes on.
    pub(super) fn any(&self) -> bool {
        !self.running().is_empty()
    }

    /// Cancels all.
    pub(super) fn stop(&self) {
        for cancel in self.running().values() {
            cancel.send_replace(true);
        }
    }

    /// Looks after something that runs, until the answer is dropped.
    pub(super) fn register(self: &Arc<Self>, id: JobId, cancel: watch::Sender<bool>) -> Registered {
        self.running().insert(id.clone(), cancel);
        Registered { lines: Arc::clone(self), id }
    }
}

/// A place in a workspace's line; given back when dropped.
pub(super) struct Place {
    lines: Arc<Lines>,
    workspace: WorkspaceId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A turn that has come; over when dropped.
pub(super) struct Turn {
    _turn: OwnedMutexGuard<()>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// A place at the end of a line.
    ///
    /// # Errors
    /// How many there are, when the line is full.
    pub(super) fn take(lines: &Arc<Lines>, workspace: &WorkspaceId) -> Result<Self, usize> {
        let mut all = lines.lines();
        let line = all.entry(workspace.clone()).or_default();
        if line.length >= IN_LINE {
            return Err(line.length);
        }
        line.length += 1;
        Ok(Self { lines: Arc::clone(lines), workspace: workspace.clone(), turn: Arc::clone(&line.turn) })
    }

    /// Waits until it is this one's turn, and there is room on the node.
    pub(super) async fn turn(&self) -> Turn {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // The semaphore is never closed.
        Turn { _turn: turn, _room: Arc::clone(&self.lines.places).acquire_owned().await.ok() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lines();
        if let Some(line) = lines.get_mut(&self.workspace) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.workspace);
            }
        }
    }
}

/// Says that something is looked after.
pub(super) struct Registered {
    lines: Arc<Lines>,
    id: JobId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.lines.running().remove(&self.id);
    }
}

/// Cancels when it is dropped.
pub(super) struct Caller(pub(super) watch::Sender<bool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}
