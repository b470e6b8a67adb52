//! One execution of one stored job: fetch, run, seal, store, end.

use super::Inner;
use super::writer::EventWriter;
use crate::blob::{BlobError, JobFile, Key, Prefix};
use crate::egress::Grant;
use crate::events::{Event, Level};
use crate::job::{self, Identity, Input, Node, Observer, Prepared, Recorder, Refusal};
use crate::network::Purpose;
use crate::queue::{JobState, Phase};
use crate::sandbox::protocol::Progress;
use crate::sandbox::{Failure, FailureKind, Outcome, Requested};
use crate::store::{Claimed, End, Requeue, Seal, StoredEvent};
use crate::telemetry;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// How an execution came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its job has ended in this state.
    Finished(JobState, Option<&'static str>),
    /// Its job waits again, or has failed for want of executions.
    Requeued(&'static str, Option<JobState>),
    /// It was no longer its job's.
    Fenced,
}

/// Runs a claimed job. Dropping the future leaves its container to the caller.
pub(super) async fn run(inner: &Arc<Inner>, node: &Node, claimed: &Claimed, cancel: watch::Receiver<bool>) -> Ended {
    match attempt(inner, node, claimed, cancel).await {
        Ok(ended) => ended,
        Err(failure) => requeue(inner, claimed, failure).await,
    }
}

/// # Errors
/// What the machine did not let it do; the job is not to blame.
async fn attempt(
    inner: &Arc<Inner>,
    node: &Node,
    claimed: &Claimed,
    cancel: watch::Receiver<bool>,
) -> Result<Ended, Failure> {
    let job = &claimed.job;
    let identity = Identity {
        job_id: job.id.clone(),
        workspace_id: job.workspace_id.to_string(),
        config_version_id: Some(job.version_id.to_string()),
        attempt: job.attempt,
        execution: job.execution,
        trace_id: job.trace_id.clone(),
    };
    let mut sink = Sink::new(inner, claimed);
    let held = Arc::clone(&sink.held);
    let mut recorder = Recorder::new(std::io::sink(), &identity, job.next_seq, &mut sink);
    let staging = tempfile::Builder::new()
        .prefix("execution-")
        .tempdir_in(&inner.scratch)
        .map_err(|error| host_io(&inner.scratch, &error))?;
    let staging = Arc::new(staging);
    let prepared = match prepare(inner, node, claimed, identity.clone(), staging.path()).await {
        Ok(prepared) => prepared,
        Err(refusal) if refusal.failure.kind.is_infrastructure() => return Err(refusal.failure),
        Err(refusal) => {
            let mut failure = refusal.failure;
            if !refusal.diagnostics.is_empty() {
                failure.detail = Some(json!({"diagnostics": refusal.diagnostics}));
            }
            inner.events.flush().await;
            hold(&held);
            let outcome = match seal(inner, claimed).await? {
                Seal::Fenced => return Ok(Ended::Fenced),
                Seal::Cancelled => cancelled(),
                Seal::Sealed => Outcome::Failed(failure),
            };
            recorder.refused(&outcome);
            let result = json!({"files": [], "timings": {"queue_ms": claimed.waited_ms}});
            return finish(inner, claimed, &outcome, result, &held).await;
        }
    };
    inner.events.phase(&job.id, job.execution, Phase::Starting);
    let executed = job::execute(node, &prepared, &staging, cancel, &mut recorder).await?;
    if let Outcome::Failed(failure) = executed.outcome()
        && failure.kind.is_infrastructure()
    {
        return Err(failure.clone());
    }
    // What comes after this goes into the transaction that ends the job, and everything before it must be stored by then.
    hold(&held);
    inner.events.flush().await;
    let outcome = match seal(inner, claimed).await? {
        Seal::Fenced => return Ok(Ended::Fenced),
        Seal::Cancelled => match executed.outcome() {
            Outcome::Cancelled(failure) => Outcome::Cancelled(failure.clone()),
            _ => cancelled(),
        },
        Seal::Sealed => executed.outcome().clone(),
    };
    let collecting = std::time::Instant::now();
    let report = executed.conclude(outcome, &mut recorder).await?;
    if let Some(container) = &report.left_behind {
        tracing::warn!(job = %job.id, "{container}");
    }
    let kept = report.files.iter().filter_map(|name| JobFile::named(name)).filter(|file| *file != JobFile::Events);
    let kept: Vec<JobFile> = kept.collect();
    let request = read_json(&staging.path().join("run-request.json")).await;
    let (workspace, execution) = (&job.workspace_id, job.execution);
    let stored = inner.blobs.take_execution(workspace, &job.id, execution, staging.path(), &kept).await;
    let files: Vec<Value> = std::iter::zip(&kept, stored.map_err(storage)?)
        .map(|(file, stored)| json!({"name": file.name(), "bytes": stored.bytes, "sha256": stored.sha256}))
        .collect();
    let collect_ms = report.timings.collect_ms + millis(collecting.elapsed());
    let result = json!({
        "files": files,
        "network": request["network"],
        "dependencies": request["dependencies"],
        "usage": {"cpu_ms": report.usage.cpu_ms, "peak_memory_bytes": report.usage.peak_memory_bytes},
        "timings": {
            "queue_ms": claimed.waited_ms,
            "install_ms": report.timings.install_ms,
            "create_ms": report.timings.create_ms,
            "start_ms": report.timings.start_ms,
            "run_ms": report.timings.run_ms,
            "collect_ms": collect_ms,
        },
    });
    let phases = [
        (telemetry::Phase::Queue, u64::try_from(claimed.waited_ms).unwrap_or_default()),
        (telemetry::Phase::Install, report.timings.install_ms),
        (telemetry::Phase::Create, report.timings.create_ms),
        (telemetry::Phase::Start, report.timings.start_ms),
        (telemetry::Phase::Run, report.timings.run_ms),
        (telemetry::Phase::Collect, collect_ms),
    ];
    for (phase, ms) in phases {
        inner.metrics.job_phase(phase, std::time::Duration::from_millis(ms));
    }
    finish(inner, claimed, &report.outcome, result, &held).await
}

/// Stores the end of the job, as often as it takes: the work is done, only the database may be away.
async fn finish(
    inner: &Arc<Inner>,
    claimed: &Claimed,
    outcome: &Outcome,
    result: Value,
    held: &Held,
) -> Result<Ended, Failure> {
    let state = match outcome {
        Outcome::Succeeded(_) => JobState::Succeeded,
        Outcome::Failed(_) => JobState::Failed,
        Outcome::Cancelled(_) => JobState::Cancelled,
    };
    let events = held.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let end = End { state, error: outcome.failure().map(|failure| json!(failure)), result, events };
    let (id, execution) = (&claimed.job.id, claimed.job.execution);
    let started = std::time::Instant::now();
    let stored = inner.persist("the end of a job", || inner.store.finish(id, execution, &end)).await?;
    inner.metrics.store("finish", started.elapsed());
    if !stored && superseded(inner, claimed).await {
        // Whoever sweeps what lost executions left may have been here before these files were.
        let prefix = Prefix::execution(&claimed.job.workspace_id, id, execution);
        if let Err(error) = inner.blobs.delete_prefix(&prefix).await {
            tracing::warn!(job = %id, execution, %error, "files of an execution that was fenced off are left");
        }
        return Ok(Ended::Fenced);
    }
    // Also when it was not stored now and the execution is still the job's: then it was stored by a try whose answer was lost.
    Ok(Ended::Finished(state, outcome.failure().map(|failure| failure.kind.as_str())))
}

/// Whether the job's end is not, or will not be, that of this execution.
async fn superseded(inner: &Arc<Inner>, claimed: &Claimed) -> bool {
    let (workspace, id) = (&claimed.job.workspace_id, &claimed.job.id);
    match inner.persist("a look at a job", || inner.store.job(workspace, id)).await {
        Ok(Some(row)) => row.execution != claimed.job.execution || row.result.is_none(),
        Ok(None) => true,
        Err(_) => false,
    }
}

async fn seal(inner: &Arc<Inner>, claimed: &Claimed) -> Result<Seal, Failure> {
    inner.persist("a job's seal", || inner.store.seal(&claimed.job.id, claimed.job.execution)).await
}

async fn requeue(inner: &Arc<Inner>, claimed: &Claimed, failure: Failure) -> Ended {
    let reason = failure.kind.as_str();
    tracing::warn!(job = %claimed.job.id, execution = claimed.job.execution, %failure, "an execution was cut off by the machine");
    inner.events.flush().await;
    let why = Requeue::Infrastructure(failure);
    let (id, execution) = (&claimed.job.id, claimed.job.execution);
    let requeued = inner.persist("a requeue", || inner.store.requeue(id, execution, &why, &inner.defaults)).await;
    match requeued {
        Ok(Some(state)) => Ended::Requeued(reason, Some(state)),
        Ok(None) => Ended::Fenced,
        // The lease will run out, and whoever sweeps then does what could not be done here.
        Err(_) => Ended::Requeued(reason, None),
    }
}

fn cancelled() -> Outcome {
    Outcome::Cancelled(Failure::new(
        FailureKind::Cancelled,
        "the job was cancelled just before its end; its container is gone and no workbook was kept",
    ))
}

/// Fetches and checks everything that the job needs on this machine.
async fn prepare(
    inner: &Arc<Inner>,
    node: &Node,
    claimed: &Claimed,
    identity: Identity,
    staging: &Path,
) -> Result<Prepared, Refusal> {
    let job = &claimed.job;
    let package = inner.packages.get(&inner.blobs, &job.workspace_id, &claimed.package_sha256).await?;
    let manifest = job::stored_manifest_of(&package, &node.caps)?;
    let limits = job::limits(&manifest, Requested::default(), &node.caps)?;
    let stored = inner.persist("the network policy", || inner.store.network_of(&claimed.job.config_id)).await?;
    let gone = || Failure::new(FailureKind::HostIo, "the job's config is gone from the database");
    let stored = stored.ok_or_else(gone)?;
    let source_builds = stored.source_builds;
    // As the policy is now, not as it was when the job was submitted.
    let network = stored.decide(inner.network, manifest.defaults.runtime_network_access);
    let sizes = job.documents.iter().map(|document| document.bytes);
    job::inputs_fit(sizes, &package, &limits, node.egress.ca_bundle(&Grant::of(&network, Purpose::Run)))?;
    let mut inputs = Vec::with_capacity(job.documents.len());
    for (index, document) in job.documents.iter().enumerate() {
        let key = Key::document(&job.workspace_id, &document.document_id);
        let path = local(inner, &key, &staging.join(format!("in-{index:04}")), &document.filename).await?;
        let input = Input::stored(
            document.document_id.to_string(),
            document.filename.clone(),
            document.bytes,
            document.sha256.clone(),
            path,
        );
        inputs.push(input);
    }
    Ok(Prepared::new(package, manifest, inputs, limits, identity, network).with_source_builds(source_builds))
}

/// A blob as a file on this machine: where it lies anyway, or fetched.
async fn local(inner: &Inner, key: &Key, to: &Path, name: &str) -> Result<PathBuf, Failure> {
    let missing = || {
        Failure::new(
            FailureKind::InputMissing,
            format!("the bytes of document {name:?} are gone from storage; upload it again"),
        )
    };
    match inner.blobs.local_path(key) {
        Some(path) if tokio::fs::try_exists(&path).await.unwrap_or(false) => Ok(path),
        Some(_) => Err(missing()),
        None => match inner.blobs.fetch_to(key, to).await {
            Ok(_) => Ok(to.to_owned()),
            Err(BlobError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(storage(error)),
        },
    }
}

pub(super) fn storage(error: BlobError) -> Failure {
    Failure::new(FailureKind::HostIo, format!("storage failed: {error}"))
}

fn host_io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}; free space there", path.display()))
}

async fn read_json(path: &Path) -> Value {
    let text = tokio::fs::read(path).await.unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Events that wait for the transaction that ends the job; `None` while they go out as they come.
type Held = Mutex<Option<Vec<StoredEvent>>>;

fn hold(held: &Held) {
    held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// Takes the events of an execution to the database.
struct Sink {
    inner: Arc<Inner>,
    events: EventWriter,
    claimed: Claimed,
    held: Arc<Held>,
}

impl Sink {
    fn new(inner: &Arc<Inner>, claimed: &Claimed) -> Self {
        Self { inner: Arc::clone(inner), events: inner.events.clone(), claimed: claimed.clone(), held: Arc::default() }
    }
}

impl Observer for Sink {
    fn event(&mut self, event: &Event) {
        let job = &self.claimed.job;
        let Ok(line) = serde_json::to_string(event) else { return };
        let stored = StoredEvent { seq: event.seq, line };
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            held.push(stored);
            return;
        }
        match &*event.event {
            "deps.ready" => self.events.phase(&job.id, job.execution, Phase::Starting),
            "worker.spawn" => self.events.phase(&job.id, job.execution, Phase::Running),
            _ => {}
        }
        if event.level >= Level::Error {
            tracing::debug!(job = %job.id, event = %event.event, "{line}", line = stored.line);
        }
        self.inner.metrics.events_written(1);
        self.events.event(&job.id, job.execution, stored);
    }

    fn installing(&mut self) {
        self.events.phase(&self.claimed.job.id, self.claimed.job.execution, Phase::Installing);
    }

    fn progress(&mut self, progress: &Progress) {
        self.inner.signals.progress(&self.claimed.job.id, progress);
    }
}
