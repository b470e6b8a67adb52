//! The heartbeat of a node, and what hangs on it.

use super::{Inner, Stop};
use crate::health::Part;
use crate::ids::JobId;
use crate::store::{Held, NodeRecord, Requeue, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Jobs of one sweep; the next one follows at once when there were as many.
const SWEEP: i64 = 100;

/// Between two heartbeats; a lease holds for three seconds at least.
const BEAT: Duration = Duration::from_secs(1);
/// How often a node says that it is there when nothing about it has changed.
const ANNOUNCE: Duration = Duration::from_secs(5);

/// Starts the heartbeat; it ends with the process.
pub(super) fn start(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let lease = Duration::from_millis(u64::try_from(inner.defaults.lease_ms).unwrap_or_default());
        let mut swept_keys = Instant::now();
        let mut outage: Option<Instant> = None;
        let mut last = Last::default();
        loop {
            match beat_once(&inner, &mut last).await {
                Ok(()) => {
                    inner.health.set(Part::Database, Ok(()));
                    // Only after a heartbeat got through: a node must not take its own jobs for lost after an outage. Nor those
                    // of others, who may not have got through yet: they have a lease's time for it.
                    if outage.is_some_and(|since| since.elapsed() < lease) {
                        tracing::debug!("leases are not swept yet: the database is just back");
                    } else if let Err(error) = sweep(&inner).await {
                        tracing::warn!(%error, "a sweep failed");
                    }
                    if swept_keys.elapsed() > Duration::from_secs(60) {
                        swept_keys = Instant::now();
                        inner.store.expire_idempotency_keys().await.ok();
                    }
                }
                Err(error) => {
                    outage = Some(Instant::now());
                    inner.health.set(Part::Database, Err(error.to_string()));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                // Every event of every job of every node comes by here: cancels are not worth more than ten heartbeats a second.
                () = inner.signals.elsewhere() => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
}

/// Takes over the settings that an admin stored.
pub(super) async fn refresh(inner: &Inner) {
    if let Ok(instance) = inner.store.instance().await {
        let stored = instance.max_concurrency.and_then(|stored| usize::try_from(stored).ok());
        let wanted = inner.default_concurrency.map_or(0, |default| stored.unwrap_or(default));
        if inner.concurrency.swap(wanted, Ordering::Relaxed) != wanted {
            inner.freed.notify_one();
        }
    }
}

/// What a heartbeat remembers for the next.
#[derive(Default)]
struct Last {
    /// When this node last said that it is there, with which concurrency and whether draining.
    announced: Option<(Instant, (i64, bool))>,
    /// Jobs that were found to be this node's in the database only.
    strays: Vec<Held>,
}

async fn beat_once(inner: &Inner, last: &mut Last) -> Result<(), StoreError> {
    let before: Vec<(JobId, u32)> = inner.running().iter().map(|(job, slot)| (job.clone(), slot.execution)).collect();
    let started = Instant::now();
    let held = inner.store.heartbeat(&inner.id, inner.defaults.lease_ms).await?;
    inner.metrics.store("heartbeat", started.elapsed());
    for (job, execution) in before {
        match held.iter().find(|held| held.job == job && held.execution == execution) {
            Some(held) if held.cancelling => {
                if let Some(slot) = inner.running().get(&job) {
                    slot.cancel.send_replace(true);
                }
            }
            Some(_) => {}
            // It has ended since, or somebody else has the job: the task that ended is not there any more to be stopped.
            None => {
                let ended = inner.running().get(&job).is_none_or(|slot| slot.task.is_finished());
                if !ended && still_fenced(inner, &job, execution).await {
                    inner.stop(&job, execution, Stop::Fenced);
                }
            }
        }
    }
    let unknown = |held: &Held| !inner.running().contains_key(&held.job);
    let found: Vec<Held> = held.into_iter().filter(unknown).collect();
    for stray in found.iter().filter(|held| last.strays.iter().any(|stray| stray.same_execution(held))) {
        give_back(inner, stray).await?;
    }
    last.strays = found;
    refresh(inner).await;
    // Seldom, unless there is news: an idle node would otherwise keep a disk awake for nothing.
    let record = record(inner);
    let news = (record.max_concurrency, record.draining);
    if last.announced.is_none_or(|(at, what)| at.elapsed() > ANNOUNCE || what != news) {
        inner.store.node_alive(&record).await?;
        last.announced = Some((Instant::now(), news));
    }
    Ok(())
}

/// Re-queues a job that only the database knows to be here: the answer to its claim, or what was said of its end, was lost on
/// the way. Its lease would be extended for ever.
async fn give_back(inner: &Inner, stray: &Held) -> Result<(), StoreError> {
    // No claim is on its way while this is held, so that what was claimed is known.
    let Ok(_claims) = inner.claims.try_lock() else { return Ok(()) };
    if inner.running().contains_key(&stray.job) {
        return Ok(());
    }
    let requeued = inner.store.requeue(&stray.job, stray.execution, &Requeue::Lost, &inner.defaults).await?;
    if requeued.is_some() {
        tracing::warn!(job = %stray.job, execution = stray.execution, "gave back a job that was claimed and never came");
        inner.metrics.execution_requeued("node_lost");
        inner.signals.changed(&stray.job);
        inner.signals.work();
        inner.ended.notify_one();
    }
    Ok(())
}

/// Whether an execution that a heartbeat did not find is really not its job's: it may just have stored its end.
async fn still_fenced(inner: &Inner, job: &JobId, execution: u32) -> bool {
    match inner.store.execution_of(job).await {
        Ok(Some((current, live))) => current != execution || !live,
        Ok(None) => true,
        Err(_) => false,
    }
}

fn record(inner: &Inner) -> NodeRecord {
    NodeRecord {
        id: inner.id.clone(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: inner.started_at,
        heartbeat_at: 0,
        max_concurrency: i64::try_from(inner.concurrency.load(Ordering::Relaxed)).unwrap_or(i64::MAX),
        draining: *inner.draining.borrow(),
        running: 0,
    }
}

async fn sweep(inner: &Inner) -> Result<(), StoreError> {
    loop {
        let lost = inner.store.sweep_leases(SWEEP, &inner.defaults).await?;
        let late = inner.store.sweep_deadlines(SWEEP).await?;
        for _ in 0..lost.jobs.len() {
            inner.metrics.execution_requeued("node_lost");
        }
        for job in lost.jobs.iter().chain(&late.jobs) {
            tracing::info!(%job, "swept");
            inner.signals.changed(job);
        }
        if lost.requeued > 0 {
            inner.signals.work();
        }
        if !late.jobs.is_empty() {
            inner.ended.notify_one();
        }
        if lost.jobs.len() + late.jobs.len() < usize::try_from(SWEEP).unwrap_or_default() {
            return Ok(());
        }
    }
}
