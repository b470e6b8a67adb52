//! What has to be done again and again, and nothing waits for.

use super::Inner;
use crate::blob::{BlobError, JobFile, Key, Prefix};
use crate::health::Part;
use crate::ids::{JobId, WorkspaceId};
use crate::job::Node;
use crate::sandbox::{FailureKind, reap};
use crate::store::{StoreError, StoredFile, now_ms};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Items of one round of storing logs or of retention.
const ROUND: i64 = 100;
/// Events of one page while a log is being stored.
const PAGE: i64 = 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// When to delete what; everything is off by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Finished jobs, with their files, this many days after their end.
    pub jobs_days: Option<i64>,
    /// Documents, this many days after their upload, unless an unfinished job needs them.
    pub documents_days: Option<i64>,
    /// Event logs of finished jobs, this many days after their end.
    pub events_days: Option<i64>,
    /// Finished jobs that a workspace keeps; the oldest go first.
    pub jobs_kept: Option<i64>,
    /// Bytes of documents that a workspace keeps; the oldest go first.
    pub document_bytes: Option<i64>,
}

/// Starts all of it; it ends with the process.
pub(super) fn start(inner: &Arc<Inner>) {
    tokio::spawn(watch_docker(Arc::clone(inner)));
    tokio::spawn(store_logs(Arc::clone(inner)));
    tokio::spawn(watch_storage(Arc::clone(inner)));
    tokio::spawn(retain(Arc::clone(inner)));
    tokio::spawn(measure(Arc::clone(inner)));
}

/// Connects to Docker, and again when it was away; reaps.
async fn watch_docker(inner: Arc<Inner>) {
    const LOOK: Duration = Duration::from_secs(2);
    const REAP: Duration = Duration::from_secs(60);
    let mut reaped = std::time::Instant::now();
    let mut node = inner.node.subscribe();
    loop {
        let current = node.borrow_and_update().clone();
        match current {
            None => match (inner.connect)().await {
                Ok(ready) => {
                    // Before any job is claimed: what an earlier process of this node left is nobody's.
                    reap_own(&inner, &ready).await;
                    reaped = std::time::Instant::now();
                    inner.health.set(Part::Docker, Ok(()));
                    inner.health.set(Part::Image, Ok(()));
                    inner.node.send_replace(Some(Arc::new(ready)));
                }
                Err(failure) => {
                    let image = failure.kind != FailureKind::EngineUnavailable;
                    let reason = failure.message;
                    inner.health.set(Part::Docker, if image { Ok(()) } else { Err(reason.clone()) });
                    inner.health.set(Part::Image, Err(reason));
                    tokio::time::sleep(LOOK).await;
                }
            },
            Some(ready) => match tokio::time::timeout(Duration::from_secs(10), ready.docker.ping()).await {
                Ok(Ok(_)) => {
                    if reaped.elapsed() > REAP {
                        reap_own(&inner, &ready).await;
                        reaped = std::time::Instant::now();
                    }
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        _ = node.changed() => {}
                    }
                }
                Ok(Err(error)) => lost_docker(&inner, &format!("Docker does not answer: {error}")),
                Err(_) => lost_docker(&inner, "Docker did not answer within 10 s"),
            },
        }
    }
}

fn lost_docker(inner: &Inner, reason: &str) {
    inner.health.set(Part::Docker, Err(reason.to_owned()));
    inner.node.send_replace(None);
}

async fn reap_own(inner: &Inner, node: &Node) {
    let removed = reap(&node.docker, inner.instance.as_str(), |container| {
        // A container is in the ledger before it is made, so that what is not in it now was left by somebody.
        container.node == Some(inner.id.as_str()) && !inner.ledger.owns(container.name)
    })
    .await;
    node.deps.sweep(&node.docker).await;
    if removed > 0 {
        tracing::info!(containers = removed, "reaped what an earlier process left");
    }
}

/// Moves the events of finished jobs from the database into their files.
async fn store_logs(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.ended.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(10)) => {}
        }
        loop {
            let jobs = match inner.store.jobs_with_loose_events(ROUND).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    tracing::debug!(%error, "logs wait for the database");
                    break;
                }
            };
            let full = i64::try_from(jobs.len()).unwrap_or_default() == ROUND;
            let mut failed = false;
            for (workspace, job, execution) in jobs {
                if let Err(error) = store_log(&inner, &workspace, &job, execution).await {
                    tracing::warn!(%job, error, "a job's log cannot be stored now");
                    failed = true;
                }
            }
            if !full || failed {
                break;
            }
        }
    }
}

async fn store_log(inner: &Inner, workspace: &WorkspaceId, job: &JobId, execution: u32) -> Result<(), String> {
    let row = inner.store.job(workspace, job).await.map_err(|error| error.to_string())?;
    let Some(row) = row.filter(|row| !row.events_stored) else { return Ok(()) };
    let (whole, last) = (row.result.is_some(), row.next_seq.saturating_sub(1));
    // What executions have left that did not end their job themselves is nobody's.
    for lost in 1..=execution {
        if lost < execution || !whole {
            let prefix = Prefix::execution(workspace, job, lost);
            inner.blobs.delete_prefix(&prefix).await.map_err(|error| error.to_string())?;
        }
    }
    let pages = futures_util::stream::try_unfold(Some(0), |after| {
        let (store, job) = (inner.store.clone(), job.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let events = store.events_after(&job, after, PAGE).await.map_err(std::io::Error::other)?;
            let Some(read) = events.last().map(|event| event.seq) else {
                // Another node was faster and has removed them here: its log is whole, this one would not be.
                return if after == last {
                    Ok(None)
                } else {
                    Err(std::io::Error::other("the events are being stored"))
                };
            };
            let mut page = String::new();
            for event in &events {
                page.push_str(&event.line);
                page.push('\n');
            }
            Ok::<_, std::io::Error>(Some((Bytes::from(page), Some(read))))
        }
    });
    let key = Key::job_file(workspace, job, execution, JobFile::Events);
    let stored = inner.blobs.put_stream(&key, Box::pin(pages), u64::MAX).await.map_err(|error| error.to_string())?;
    let file = StoredFile { bytes: stored.bytes, sha256: stored.sha256.to_string() };
    inner.store.events_are_stored(job, &file).await.map_err(|error| error.to_string())
}

/// Looks whether storage can be written, and sweeps what crashed uploads left.
async fn watch_storage(inner: Arc<Inner>) {
    let mut swept: Option<std::time::Instant> = None;
    loop {
        inner.health.set(Part::Storage, probe(&inner).await);
        if swept.is_none_or(|last| last.elapsed() >= Duration::from_secs(3600)) {
            swept = Some(std::time::Instant::now());
            inner.blobs.sweep_temporary(Duration::from_secs(24 * 3600)).await.ok();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Whether jobs can put their files away, and work on them before that.
async fn probe(inner: &Inner) -> Result<(), String> {
    inner.blobs.probe().await.map_err(|error| error.to_string())?;
    let path = inner.scratch.join("probe");
    let written = tokio::fs::write(&path, [0; 4096]).await;
    tokio::fs::remove_file(&path).await.ok();
    written.map_err(|error| format!("cannot write in {}: {error}", inner.scratch.display()))
}

/// Deletes what is past its age or quota, and the blobs of documents and of files of drafts that were deleted.
async fn retain(inner: Arc<Inner>) {
    loop {
        if let Err(error) = retain_once(&inner).await {
            tracing::warn!(error, "retention is interrupted");
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}

async fn retain_once(inner: &Inner) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    let blob = |error: BlobError| error.to_string();
    let Retention { jobs_days, documents_days, events_days, jobs_kept, document_bytes } = inner.retention;
    let before = |days: Option<i64>| days.map(|days| now_ms() - days * DAY_MS);
    if documents_days.is_some() || document_bytes.is_some() {
        let past =
            inner.store.documents_past_retention(before(documents_days), document_bytes, ROUND).await.map_err(text)?;
        for document in past {
            inner.store.delete_document(&document.workspace_id, &document.id, None).await.map_err(text)?;
        }
    }
    for document in inner.store.deleted_documents(ROUND).await.map_err(text)? {
        inner.blobs.delete(&Key::document(&document.workspace_id, &document.id)).await.map_err(blob)?;
        inner.store.forget_document(&document.id).await.map_err(text)?;
    }
    loop {
        let deleted = inner.store.deleted_draft_files(ROUND).await.map_err(text)?;
        for file in &deleted {
            inner.blobs.delete(&Key::draft_file(&file.workspace_id, &file.id)).await.map_err(blob)?;
            inner.store.forget_draft_file(&file.id).await.map_err(text)?;
        }
        // A draft may have had many.
        if i64::try_from(deleted.len()).unwrap_or_default() < ROUND {
            break;
        }
    }
    if jobs_days.is_some() || jobs_kept.is_some() {
        for job in inner.store.jobs_past_retention(before(jobs_days), jobs_kept, ROUND).await.map_err(text)? {
            inner.blobs.delete_prefix(&Prefix::job(&job.workspace_id, &job.id)).await.map_err(blob)?;
            inner.store.delete_job(&job.id).await.map_err(text)?;
        }
    }
    if let Some(before) = before(events_days) {
        for job in inner.store.jobs_with_old_events(before, ROUND).await.map_err(text)? {
            let key = Key::job_file(&job.workspace_id, &job.id, job.execution, JobFile::Events);
            inner.blobs.delete(&key).await.map_err(blob)?;
            inner.store.events_are_gone(&job.id).await.map_err(text)?;
        }
    }
    Ok(())
}

/// Gauges that only the database knows.
async fn measure(inner: Arc<Inner>) {
    loop {
        let longest = i64::try_from(crate::telemetry::LONGEST_QUEUES).unwrap_or_default();
        if let Ok(queues) = inner.store.deepest_queues(longest).await
            && let Ok((queued, _)) = inner.store.live_counts().await
        {
            let count = |jobs: i64| u64::try_from(jobs).unwrap_or_default();
            let shown: i64 = queues.iter().map(|(workspace, _)| workspace.queued).sum();
            let each = queues.iter().map(|(workspace, waited)| {
                (workspace.slug.as_str(), count(workspace.queued), Duration::from_millis(count(*waited)))
            });
            inner.metrics.set_queues(each, count(queued - shown));
        }
        let parked = inner.node.borrow().as_ref().map_or(0, |node| node.pool.parked());
        for (state, count) in [("running", inner.running().len()), ("parked", parked)] {
            inner.metrics.set_containers(state, u32::try_from(count).unwrap_or(u32::MAX));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}
