//! Which containers this process may have, and their way out.

use super::container::remove;
use bollard::Docker;
use bollard::query_parameters::RenameContainerOptionsBuilder;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Removals that may be under way while nobody waits for them; whoever comes then waits, so that dead containers cannot pile up.
const REMOVALS: usize = 16;

/// Until a container that was asked for and then given up has come up, if it does.
const LATE: Duration = Duration::from_secs(1);

/// How long a container that has said it is done may take to end.
const LEAVING: Duration = Duration::from_secs(1);

/// How long a job has run before its container gets its name: most are over by then, and a new name takes Docker
/// some 3 ms of CPU.
const NAMED_AFTER: Duration = Duration::from_millis(500);

/// A command's wait for containers that it gave up.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// Every container that this process may have at its engine, by name: from before it is made until it is removed. Whatever is of
/// this process and not in here was left by an earlier one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Entries>);

#[derive(Debug)]
struct Entries {
    names: Mutex<HashSet<String>>,
    work: TaskTracker,
    places: Arc<Semaphore>,
    in_background: bool,
}

impl Ledger {
    /// For a process that goes on after a job: nobody waits for the removal of a container that has done its work.
    #[must_use]
    pub fn in_background() -> Self {
        Self::new(true)
    }

    /// For a command, which ends with its job.
    #[must_use]
    pub fn in_foreground() -> Self {
        Self::new(false)
    }

    fn new(in_background: bool) -> Self {
        Self(Arc::new(Entries {
            names: Mutex::default(),
            work: TaskTracker::new(),
            places: Arc::new(Semaphore::new(REMOVALS)),
            in_background,
        }))
    }

    /// Whether a container of this name is one of this process.
    #[must_use]
    pub fn owns(&self, name: &str) -> bool {
        self.0.names().contains(name)
    }

    /// Enters a container that is about to be made.
    #[must_use]
    pub fn enter(&self, docker: &Docker, name: &str) -> Held {
        self.0.names().insert(name.to_owned());
        Held {
            entries: Arc::clone(&self.0),
            docker: docker.clone(),
            names: vec![name.to_owned()],
            id: None,
            naming: None,
            released: false,
        }
    }

    /// Runs what makes containers while nobody waits; [`settle`](Self::settle) waits for its end.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.work.spawn(work);
    }

    /// In a command, waits for what was given up: the process may end right after.
    pub async fn settle_in_foreground(&self) {
        if !self.0.in_background {
            self.settle(GIVEN_UP).await;
        }
    }

    /// Waits until every container that is on its way out is gone, or this time has passed.
    pub async fn settle(&self, patience: Duration) {
        self.0.work.close();
        tokio::time::timeout(patience, self.0.work.wait()).await.ok();
        self.0.work.reopen();
    }
}

impl Entries {
    fn forget(&self, names: &[String]) {
        let mut all = self.names();
        for name in names {
            all.remove(name);
        }
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container of this process. Dropping it removes the container, in the background.
#[derive(Debug)]
pub struct Held {
    entries: Arc<Entries>,
    docker: Docker,
    /// The one that it was made under, then the one of its job.
    names: Vec<String>,
    id: Option<String>,
    /// Gives it the name of its job, unless that ends before.
    naming: Option<AbortOnDropHandle<()>>,
    released: bool,
}

impl Held {
    /// A container that another process has lent to this one: its lender removes it.
    #[must_use]
    pub fn lent(docker: &Docker, id: String) -> Self {
        let entries = Arc::clone(&Ledger::in_foreground().0);
        Self { entries, docker: docker.clone(), names: Vec::new(), id: Some(id), naming: None, released: true }
    }

    /// What Docker knows it by: its name, as long as it has only one, and then its id.
    #[must_use]
    pub fn reference(&self) -> &str {
        let name = self.names.first().filter(|_| self.names.len() == 1);
        name.or(self.id.as_ref()).map_or("", String::as_str)
    }

    /// Notes that it was made.
    pub fn made(&mut self, id: String) {
        self.id = Some(id);
    }

    /// Gives a parked container the name of its job, in a while, for whoever looks at the engine; nobody waits for it.
    pub fn rename(&mut self, name: &str) {
        if self.released {
            return;
        }
        self.names.push(name.to_owned());
        self.entries.names().insert(name.to_owned());
        // From here on by its id: nobody knows when the name changes.
        let (docker, reference, name) = (self.docker.clone(), self.reference().to_owned(), name.to_owned());
        self.naming = Some(AbortOnDropHandle::new(self.entries.work.spawn(async move {
            tokio::time::sleep(NAMED_AFTER).await;
            let options = RenameContainerOptionsBuilder::default().name(&name).build();
            if let Err(error) = docker.rename_container(&reference, options).await {
                tracing::debug!(%error, container = name, "a container keeps its name");
            }
        })));
    }

    /// Removes the container, also where that is otherwise left to the background; what became of it, when Docker does not
    /// remove it.
    pub async fn remove(mut self) -> Option<String> {
        if self.released {
            return None;
        }
        self.naming = None;
        let removed = remove(&self.docker, self.reference()).await;
        self.released = true;
        self.entries.forget(&self.names);
        removed.err().map(|failure| failure.message)
    }

    /// Lets go of a container that has done its work and whose end is imminent: what became of it, when Docker does not remove it
    /// and somebody waits. One that has ended need not be killed, which is a process of the OCI runtime less.
    pub async fn release(mut self, ended: impl Future<Output = ()> + Send + 'static) -> Option<String> {
        if self.released {
            return None;
        }
        self.naming = None;
        let ended = tokio::time::timeout(LEAVING, ended);
        if !self.entries.in_background {
            ended.await.ok();
            return self.remove().await;
        }
        // The semaphore is never closed.
        let place = Arc::clone(&self.entries.places).acquire_owned().await.ok();
        self.released = true;
        self.entries.work.spawn({
            let removal = self.removal();
            async move {
                ended.await.ok();
                removal.await;
                drop(place);
            }
        });
        None
    }

    fn removal(&self) -> impl Future<Output = ()> + Send + 'static {
        let (entries, docker) = (Arc::clone(&self.entries), self.docker.clone());
        let (reference, names) = (self.reference().to_owned(), self.names.clone());
        let in_the_making = self.id.is_none();
        async move {
            if in_the_making {
                // Nobody waited for Docker's answer, and it may come a moment later.
                remove(&docker, &reference).await.ok();
                tokio::time::sleep(LATE).await;
            }
            if let Err(failure) = remove(&docker, &reference).await {
                tracing::warn!(%failure, "a container is left to the reaper");
            }
            entries.forget(&names);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // Without a runtime the process is about to end, and the container does with it: its stdin closes.
        if let Ok(runtime) = Handle::try_current() {
            self.entries.work.spawn_on(self.removal(), &runtime);
        }
    }
}
