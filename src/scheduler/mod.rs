//! Handing jobs to containers, on this node.
//!
//! - `dispatch` claims as many jobs as there is room for, whenever there may be work and this node is ready.
//! - `execution` takes one claimed job to its end; a task each.
//! - `activation` takes a version to the point where it may become the active one of its workspace.
//! - `pulse` keeps leases, hears of cancels and of lost leases, and sweeps what others have lost.
//! - `upkeep` connects to Docker again when it was away, reaps, stores the logs of finished jobs, and applies retention.
//!
//! **The rule for restarts.** A container's stdin is this process: when the process dies, the container ends by itself. So
//! nothing is adopted. A node that starts removes every container with its own label, and re-queues every job that it
//! still holds, as the job's next execution. What a node that never comes back held is re-queued by the others when its
//! lease runs out.

mod activation;
mod dry_run;
mod execution;
mod lines;
mod packages;
mod pulse;
mod upkeep;
mod writer;

use crate::blob::{Blobs, Digest};
use crate::health::{Health, Part};
use crate::ids::{InstanceId, JobId, NodeId, WorkspaceId};
use crate::job::Node;
use crate::network::Switch;
use crate::packages::Package;
use crate::queue::{JobState, Signals};
use crate::sandbox::{Failure, FailureKind, Ledger, Pool};
use crate::store::{Claimed, Defaults, Requeue, Store, StoreError};
use crate::telemetry::Metrics;
use execution::Ended;
use futures_util::future::BoxFuture;
use lines::Lines;
use packages::Packages;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tracing::Instrument;
use writer::EventWriter;

pub use activation::{Activated, NotActivated, Wish};
pub use dry_run::{Candidate, NotTried};
pub use upkeep::Retention;

/// Connects to Docker and finds or builds the image.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Node, Failure>> + Send + Sync>;

/// Time for the last containers to be removed.
const REMOVALS: Duration = Duration::from_secs(10);
/// Longer than a claim can take: then the database counts as gone, and nothing was claimed.
const CLAIM: Duration = Duration::from_secs(15);

/// What a scheduler works with.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Documents, packages, outputs.
    pub blobs: Blobs,
    /// The switchboard.
    pub signals: Arc<Signals>,
    /// Counters.
    pub metrics: Metrics,
    /// Readiness.
    pub health: Arc<Health>,
    /// How to get at Docker.
    pub connect: Connect,
    /// Containers of this process.
    pub ledger: Ledger,
    /// This node.
    pub node_id: NodeId,
    /// The installation.
    pub instance_id: InstanceId,
    /// Containers at once, unless an admin stored another number; `None` takes no job, whatever is stored.
    pub max_concurrency: Option<usize>,
    /// Settings of the queue.
    pub defaults: Defaults,
    /// An empty folder for executions.
    pub scratch: PathBuf,
    /// When to delete what.
    pub retention: Retention,
    /// The setting of the network policy.
    pub network: Switch,
}

/// The scheduler of this node.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    blobs: Blobs,
    signals: Arc<Signals>,
    metrics: Metrics,
    health: Arc<Health>,
    connect: Connect,
    ledger: Ledger,
    id: NodeId,
    instance: InstanceId,
    default_concurrency: Option<usize>,
    concurrency: AtomicUsize,
    defaults: Defaults,
    scratch: PathBuf,
    retention: Retention,
    network: Switch,
    started_at: i64,
    events: EventWriter,
    packages: Packages,
    /// Docker and the image; none while they are not there.
    node: watch::Sender<Option<Arc<Node>>>,
    running: Mutex<HashMap<JobId, Slot>>,
    activations: Arc<Lines>,
    dry_runs: Arc<Lines>,
    /// A place has become free.
    freed: Notify,
    /// A job has ended, and its log can be stored.
    ended: Notify,
    draining: watch::Sender<bool>,
    /// Held from a claim until what was claimed is in `running`.
    claims: tokio::sync::Mutex<()>,
}

/// A job that this node has.
struct Slot {
    execution: u32,
    cancel: watch::Sender<bool>,
    task: AbortHandle,
    stopped: Option<Stop>,
}

/// Why an execution is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It is no longer its job's.
    Fenced,
    /// The process ends.
    Drained,
}

impl Scheduler {
    /// Recovers what an earlier process of this node left, and starts to work.
    ///
    /// # Errors
    /// The database's.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let (store, signals) = (parts.store.clone(), Arc::clone(&parts.signals));
        loop {
            let swept = store.recover(&parts.node_id, 100, &parts.defaults).await?;
            for job in &swept.jobs {
                signals.changed(job);
            }
            if swept.jobs.is_empty() {
                break;
            }
            tracing::info!(jobs = swept.jobs.len(), requeued = swept.requeued, "recovered jobs of an earlier process");
        }
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let fenced = inner.clone();
            let events = EventWriter::start(store, signals, parts.metrics.clone(), move |job, execution| {
                if let Some(inner) = fenced.upgrade() {
                    inner.stop(job, execution, Stop::Fenced);
                }
            });
            Inner {
                events,
                store: parts.store,
                blobs: parts.blobs,
                signals: parts.signals,
                metrics: parts.metrics,
                health: parts.health,
                connect: parts.connect,
                ledger: parts.ledger,
                id: parts.node_id,
                instance: parts.instance_id,
                default_concurrency: parts.max_concurrency,
                concurrency: AtomicUsize::new(parts.max_concurrency.unwrap_or_default()),
                defaults: parts.defaults,
                scratch: parts.scratch,
                retention: parts.retention,
                network: parts.network,
                started_at: crate::store::now_ms(),
                packages: Packages::default(),
                node: watch::Sender::new(None),
                running: Mutex::default(),
                activations: Arc::default(),
                dry_runs: Arc::default(),
                freed: Notify::new(),
                ended: Notify::new(),
                draining: watch::Sender::new(false),
                claims: tokio::sync::Mutex::default(),
            }
        });
        inner.health.set(Part::Process, Ok(()));
        pulse::start(&inner);
        upkeep::start(&inner);
        tokio::spawn(dispatch(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// Stops a job that runs here, after its cancel was stored.
    pub fn cancel(&self, job: &JobId) {
        if let Some(slot) = self.inner.running().get(job) {
            slot.cancel.send_replace(true);
        }
    }

    /// A package of a workspace; those that were read lately are at hand.
    ///
    /// # Errors
    /// `package_invalid` when its bytes are gone or are not what they were, `host_io` when storage fails.
    pub async fn package(&self, workspace: &WorkspaceId, sha256: &Digest) -> Result<Arc<Package>, Failure> {
        self.inner.packages.get(&self.inner.blobs, workspace, sha256).await
    }

    /// The containers of this node; none while it is not ready, or about to stop.
    #[must_use]
    pub fn pool(&self) -> Option<Pool> {
        let node = self.inner.node.borrow();
        node.as_ref().filter(|_| !self.is_draining()).map(|node| node.pool.clone())
    }

    /// Whether no new jobs are taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.inner.draining.borrow()
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.inner.id
    }

    /// Containers at once on this node.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.inner.concurrency.load(Ordering::Relaxed)
    }

    /// Jobs of this node right now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.running().len()
    }

    /// Looks at the stored settings now, rather than with the next heartbeat.
    pub async fn refresh(&self) {
        pulse::refresh(&self.inner).await;
    }

    /// Takes no more jobs, and says so.
    pub fn begin_drain(&self) {
        self.inner.draining.send_replace(true);
        self.inner.health.set(Part::Process, Err("draining: this process is about to stop".into()));
    }

    /// Ends: jobs and activations that run may finish within `grace`, then jobs go back to the queue and activations are
    /// cancelled.
    pub async fn drain(&self, grace: Duration) {
        self.begin_drain();
        let over = tokio::time::Instant::now() + grace;
        // A claim that is on its way brings jobs that have to be ended, too, also when it takes longer than the grace.
        drop(tokio::time::timeout(grace.max(CLAIM), self.inner.claims.lock()).await);
        if tokio::time::timeout_at(over, self.idle()).await.is_err() {
            let left: Vec<(JobId, u32)> =
                self.inner.running().iter().map(|(job, slot)| (job.clone(), slot.execution)).collect();
            tracing::info!(jobs = left.len(), "the grace time is over: jobs go back to the queue");
            for (job, execution) in left {
                self.inner.stop(&job, execution, Stop::Drained);
            }
            self.inner.activations.stop();
            self.inner.dry_runs.stop();
            tokio::time::timeout(Duration::from_secs(30), self.idle()).await.ok();
        }
        if let Some(node) = self.inner.node.borrow().as_ref() {
            node.pool.close();
        }
        self.inner.ledger.settle(REMOVALS).await;
        self.inner.events.flush().await;
    }

    async fn idle(&self) {
        // What is lent to a command on this machine may end as well.
        let lent = || self.inner.node.borrow().as_ref().is_some_and(|node| node.pool.is_busy());
        while self.running() > 0 || self.inner.activations.any() || self.inner.dry_runs.any() || lent() {
            // Whoever frees a place wakes one waiter, which may be the dispatcher; hence the look from time to time.
            tokio::time::timeout(Duration::from_millis(200), self.inner.freed.notified()).await.ok();
        }
    }
}

/// Claims jobs as long as there is room for them.
async fn dispatch(inner: Arc<Inner>) {
    // A hint may be lost on the way from another process; with one process none can be.
    let poll = Duration::from_secs(if inner.store.is_shared() { 1 } else { 5 });
    let mut node = inner.node.subscribe();
    let mut draining = inner.draining.subscribe();
    loop {
        if *draining.borrow_and_update() {
            return;
        }
        let ready = node.borrow_and_update().clone();
        let Some(ready) = ready else {
            tokio::select! {
                changed = node.changed() => if changed.is_err() { return },
                _ = draining.changed() => {}
            }
            continue;
        };
        // A full disk would take an execution from every job that waits.
        if !inner.health.is_ready(Part::Storage) {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                _ = draining.changed() => {}
            }
            continue;
        }
        let room = inner.concurrency.load(Ordering::Relaxed).saturating_sub(inner.running().len());
        if room == 0 {
            tokio::select! {
                () = inner.freed.notified() => {}
                () = tokio::time::sleep(poll) => {}
                _ = draining.changed() => {}
            }
            continue;
        }
        let before = std::time::Instant::now();
        let claims = inner.claims.lock().await;
        if *draining.borrow() {
            return;
        }
        match inner.store.claim(&inner.id, room, &inner.defaults).await {
            Ok(claimed) if claimed.is_empty() => {
                drop(claims);
                tokio::select! {
                    () = inner.signals.worked() => {}
                    () = inner.freed.notified() => {}
                    () = tokio::time::sleep(poll) => {}
                    _ = draining.changed() => {}
                    _ = node.changed() => {}
                }
            }
            Ok(claimed) => {
                inner.metrics.claimed(before.elapsed());
                inner.metrics.store("claim", before.elapsed());
                for claimed in claimed {
                    inner.signals.changed(&claimed.job.id);
                    inner.launch(&ready, claimed);
                }
            }
            Err(error) => {
                drop(claims);
                tracing::warn!(%error, "no jobs can be claimed now");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Slot>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a claimed job its task, and a second one that looks after the first.
    fn launch(self: &Arc<Self>, node: &Arc<Node>, claimed: Claimed) {
        let (cancel, cancelled) = watch::channel(false);
        let (job, execution) = (claimed.job.id.clone(), claimed.job.execution);
        let mut running = self.running();
        let span = tracing::info_span!("execution", %job, execution, trace_id = claimed.job.trace_id);
        let task = tokio::spawn({
            let (inner, node, claimed) = (Arc::clone(self), Arc::clone(node), claimed);
            async move { execution::run(&inner, &node, &claimed, cancelled).await }.instrument(span.clone())
        });
        running.insert(job.clone(), Slot { execution, cancel, task: task.abort_handle(), stopped: None });
        drop(running);
        let inner = Arc::clone(self);
        let looked_after = async move {
            let ended = task.await;
            let stopped = inner.running().get(&job).and_then(|slot| slot.stopped);
            match (ended, stopped) {
                (Ok(ended), _) => inner.note_end(&job, &ended),
                (Err(_), Some(stop)) => inner.abandon(&job, execution, stop).await,
                (Err(error), None) => {
                    tracing::error!(%job, %error, "an execution broke down");
                    inner.abandon(&job, execution, Stop::Fenced).await;
                    let failure = Failure::new(FailureKind::HostIo, "the engine failed inside; see its log");
                    let why = Requeue::Infrastructure(failure);
                    let requeued = inner
                        .persist("a requeue", || inner.store.requeue(&job, execution, &why, &inner.defaults))
                        .await;
                    drop(requeued);
                }
            }
            inner.running().remove(&job);
            inner.signals.changed(&job);
            inner.signals.work();
            inner.freed.notify_one();
            inner.ended.notify_one();
        };
        tokio::spawn(looked_after.instrument(span));
    }

    fn note_end(&self, job: &JobId, ended: &Ended) {
        match ended {
            Ended::Finished(state, kind) => {
                tracing::info!(state = state.as_str(), error_kind = *kind, "job ended");
                self.metrics.job_finished(state.as_str(), *kind);
            }
            Ended::Requeued(reason, state) => {
                self.metrics.execution_requeued(reason);
                if *state == Some(JobState::Failed) {
                    self.metrics.job_finished("failed", Some(reason));
                }
                // Docker, the image or a disk is not what it was: look, before another job is lost to it.
                if *reason == FailureKind::HostIo.as_str() {
                    self.health.set(Part::Storage, Err("a job's files could not be read or written".into()));
                } else {
                    self.node.send_replace(None);
                }
            }
            Ended::Fenced => tracing::warn!(%job, "an execution ended after it was fenced off; nothing of it was kept"),
        }
    }

    /// Drops an execution, and its container with it; its job is looked after by [`abandon`](Self::abandon) when it is to run again.
    fn stop(&self, job: &JobId, execution: u32, why: Stop) {
        if let Some(slot) = self.running().get_mut(job)
            && slot.execution == execution
        {
            slot.stopped.get_or_insert(why);
            slot.task.abort();
        }
    }

    async fn abandon(&self, job: &JobId, execution: u32, why: Stop) {
        // Its container went with its task.
        match why {
            Stop::Fenced => tracing::warn!(%job, execution, "an execution was fenced off and dropped"),
            Stop::Drained => {
                self.events.flush().await;
                let requeued = self
                    .persist("a requeue", || self.store.requeue(job, execution, &Requeue::Drained, &self.defaults))
                    .await;
                if requeued.is_ok() {
                    self.metrics.execution_requeued("drained");
                }
            }
        }
    }

    /// Tries a write until the database takes it. Fencing makes a write that comes too late harmless.
    async fn persist<T, F>(&self, what: &str, mut write: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = Duration::from_millis(100);
        loop {
            match write().await {
                Ok(done) => return Ok(done),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "{what} waits for the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    tracing::error!(%error, "{what} could not be stored");
                    return Err(Failure::new(FailureKind::HostIo, format!("{what} could not be stored: {error}")));
                }
            }
        }
    }
}
