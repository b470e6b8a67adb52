//! Memory for packages that requests work on: so much on a node, half of it for one workspace. Who gets none waits a moment, and is
//! then sent away.

use super::problem::{Code, Problem};
use crate::ids::WorkspaceId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// How long a request waits for others to be done. Most work on a package takes a fraction of it; a dry run takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds after which another try makes sense.
const RETRY_AFTER: u64 = 10;
/// Published packages that are read at once for drafts.
const READERS: usize = 2;
/// Bytes of a permit.
const UNIT: u64 = 1024;
/// Workspaces that are remembered without need.
const CACHED: usize = 1_000;

/// The memory of a node.
#[derive(Debug)]
pub struct Room {
    node: Arc<Semaphore>,
    node_units: u32,
    workspaces: Mutex<HashMap<WorkspaceId, Arc<Semaphore>>>,
    readers: Arc<Semaphore>,
    patience: Duration,
}

/// A part of it, given back when dropped.
#[derive(Debug)]
pub struct Held {
    workspace: OwnedSemaphorePermit,
    node: OwnedSemaphorePermit,
}

impl Held {
    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        for permit in [&mut self.workspace, &mut self.node] {
            let spare = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(spare));
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Room {
    /// So much memory. What one request needs at most must fit into half of it.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        // More than a semaphore can count is as good as no bound.
        let node_units = units(bytes).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            node: Arc::new(Semaphore::new(node_units as usize)),
            node_units,
            workspaces: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS)),
            patience: PATIENCE,
        }
    }

    /// Takes memory for a request of a workspace, as soon as it is there.
    ///
    /// # Errors
    /// `packages_busy` when others do not give it back in time.
    pub async fn take(&self, workspace: &WorkspaceId, bytes: u64) -> Result<Held, Problem> {
        let share = self.node_units / 2;
        let (wanted, deadline) = (units(bytes).min(share), Instant::now() + self.patience);
        // The workspace first: who waits for his own holds nothing that others wait for.
        let own = timeout_at(deadline, self.of(workspace, share).acquire_many_owned(wanted)).await;
        let workspace = taken(own, || busy("workspace", share))?;
        let node = timeout_at(deadline, Arc::clone(&self.node).acquire_many_owned(wanted)).await;
        Ok(Held { workspace, node: taken(node, || busy("instance", self.node_units))? })
    }

    /// Takes the turn of reading a published package, whose memory no request has taken. Held as long as the package is used.
    ///
    /// # Errors
    /// `packages_busy`.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = timeout_at(Instant::now() + self.patience, Arc::clone(&self.readers).acquire_owned()).await;
        taken(turn, || busy("instance", self.node_units))
    }

    fn of(&self, workspace: &WorkspaceId, share: u32) -> Arc<Semaphore> {
        let mut workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        if workspaces.len() > CACHED {
            // Who holds or waits has another reference to it.
            workspaces.retain(|_, room| Arc::strong_count(room) > 1);
        }
        let room = workspaces.entry(workspace.clone()).or_insert_with(|| Arc::new(Semaphore::new(share as usize)));
        Arc::clone(room)
    }
}

fn taken(
    permit: Result<Result<OwnedSemaphorePermit, AcquireError>, Elapsed>,
    busy: impl FnOnce() -> Problem,
) -> Result<OwnedSemaphorePermit, Problem> {
    // Nobody closes them.
    permit.map_err(|_| busy())?.map_err(|_| Code::Internal.into())
}

fn busy(scope: &str, units: u32) -> Problem {
    let (bytes, who) =
        (u64::from(units) * UNIT, if scope == "workspace" { "of this workspace" } else { "of this node" });
    Problem::new(Code::PackagesBusy)
        .detail(format!(
            "other packages {who} take the {} MiB that there are for them; try again when they are done, or have the admin raise \
             ADE_PACKAGE_MEMORY_MB",
            bytes >> 20
        ))
        .with("scope", scope)
        .with("max_bytes", bytes)
        .retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn small() -> Room {
        Room { patience: Duration::from_millis(20), ..Room::new(100 * MIB) }
    }

    #[tokio::test]
    async fn a_workspace_gets_half_a_node_gets_all_and_what_is_given_back_is_there_again() {
        let room = small();
        let (one, two, three) = (WorkspaceId::generate(), WorkspaceId::generate(), WorkspaceId::generate());
        let mut held = room.take(&one, 50 * MIB).await.unwrap();
        assert_eq!(room.take(&one, 1).await.unwrap_err().code(), Code::PackagesBusy, "the workspace has its half");
        let _other = room.take(&two, 50 * MIB).await.unwrap();
        assert_eq!(room.take(&three, 1).await.unwrap_err().code(), Code::PackagesBusy, "the node has no more");
        held.shrink(10 * MIB);
        let _third = room.take(&three, 30 * MIB).await.unwrap();
        let fourth = room.take(&one, 10 * MIB).await.unwrap();
        assert!(room.take(&one, 1).await.is_err());
        held.shrink(20 * MIB);
        assert!(room.take(&one, 1).await.is_err(), "nothing grows by shrinking");
        drop((held, fourth));
        drop(room.take(&one, 20 * MIB).await.unwrap());
    }

    #[tokio::test]
    async fn who_is_sent_away_leaves_nothing_taken() {
        let room = small();
        let (one, two, three) = (WorkspaceId::generate(), WorkspaceId::generate(), WorkspaceId::generate());
        let (first, second) = (room.take(&one, 50 * MIB).await.unwrap(), room.take(&two, 50 * MIB).await.unwrap());
        assert!(room.take(&three, 50 * MIB).await.is_err());
        drop(first);
        drop(room.take(&three, 50 * MIB).await.unwrap());
        drop(second);
        assert!(room.take(&one, u64::MAX).await.is_ok(), "no request needs more than it can get");
    }

    #[tokio::test]
    async fn a_wait_ends_when_what_it_is_for_is_given_back() {
        let room = Arc::new(Room { patience: Duration::from_secs(60), ..small() });
        let one = WorkspaceId::generate();
        let held = room.take(&one, 50 * MIB).await.unwrap();
        let waiting = tokio::spawn({
            let room = Arc::clone(&room);
            async move { room.take(&one, 50 * MIB).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
