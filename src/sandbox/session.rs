//! One job in one container, from create to remove.

use super::archive::OutputSink;
use super::connections::Connections;
use super::container::{create, remove, start, wait_for_exit};
use super::course::Course;
use super::outcome::{Evidence, Failure, FailureKind, decide};
use super::protocol::{self, ContainerUsage, Ready, ReportedOutcome, StopReason};
use super::report::{Notice, Report, Timings};
use super::send::{InputFile, write_all};
use super::spec::ContainerSpec;
use super::wire::{NotReady, START_BUDGET, Wire, wait_until_ready};
use crate::egress::{Broker, Egress, Grant};
use crate::text::plain;
use bollard::Docker;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Frames of connections that wait for room in what goes into a container.
const FRAMES_UNDER_WAY: usize = 8;

/// What to run, and in what.
#[derive(Debug)]
pub struct Request<'a> {
    /// Name of the container; unique, stored by the caller before it calls.
    pub name: &'a str,
    /// How the container is made.
    pub spec: ContainerSpec<'a>,
    /// The `JOB` frame's payload.
    pub job: Value,
    /// The input archive, in order.
    pub files: Vec<InputFile>,
    /// How this node reaches the network.
    pub network: Arc<Egress>,
    /// What of it the container may reach.
    pub egress: Grant,
    /// An empty folder for the outputs; its content counts only when the outcome says so. Shared with the thread that unpacks
    /// into it, which a caller that drops the future does not wait for: the folder goes with the last of the two.
    pub outputs: Arc<TempDir>,
    /// Outputs without which the job did not succeed; no others are taken.
    pub expected: &'static [&'static str],
    /// Whether it is an installer, which may say why dependencies cannot be had. No tenant's script runs in it.
    pub installer: bool,
}

/// Runs one job in a container of its own and removes the container, whatever happens. One that Docker does not remove is
/// named in the report and changes no outcome.
///
/// `cancel` turning true stops the job. Notices are dropped when nobody receives them. Dropping the future leaves the
/// container to the caller, who calls [`remove`]; its supervisor ends by itself, since its stdin closes.
///
/// # Errors
/// A [`Failure`] when the job could not even be started (no Docker, image, runtime, or an input that is gone); how a job
/// that was started ended is in the [`Report`].
pub async fn run(
    docker: &Docker,
    request: Request<'_>,
    cancel: watch::Receiver<bool>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Report, Failure> {
    let creating = Instant::now();
    let name = request.name;
    create(docker, name, &request.spec).await?;
    let create_ms = millis(creating.elapsed());
    let result = conduct(docker, request, cancel, notices).await;
    let removing = Instant::now();
    let left_behind = remove(docker, name).await.err().map(|failure| failure.message);
    match result {
        Ok(mut report) => {
            report.timings.create_ms = create_ms;
            report.timings.collect_ms += millis(removing.elapsed());
            report.left_behind = left_behind;
            Ok(report)
        }
        Err(mut failure) => {
            if let Some(left_behind) = left_behind {
                failure.message = format!("{}; and {left_behind}", failure.message);
            }
            Err(failure)
        }
    }
}

/// Starts a container, waits until its supervisor is ready, and removes it: whether jobs can run here at all.
///
/// # Errors
/// Why it did not come up.
pub async fn probe(docker: &Docker, name: &str, spec: &ContainerSpec<'_>) -> Result<Ready, Failure> {
    create(docker, name, spec).await?;
    let ready = async {
        let attached = start(docker, name, spec).await?;
        let mut wire = Wire::new(attached.output);
        let (_keep, mut never) = watch::channel(false);
        wait_until_ready(&mut wire, &mut never).await.map_err(|why| {
            let why = match why {
                NotReady::Broken(error) => error.to_string(),
                NotReady::Silent => format!("it was not ready within {} s", START_BUDGET.as_secs()),
                NotReady::Ended | NotReady::Cancelled => {
                    format!("it ended at once: {}", plain(&wire.stderr_tail(), 600))
                }
            };
            Failure::new(FailureKind::RunnerCrashed, format!("a test container did not come up: {why}"))
        })
    }
    .await;
    remove(docker, name).await?;
    ready
}

async fn conduct(
    docker: &Docker,
    request: Request<'_>,
    mut cancel: watch::Receiver<bool>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Report, Failure> {
    let Request { name, spec, job, files, network, egress, outputs, expected, installer } = request;
    let limits = spec.limits;
    let starting = Instant::now();
    let attached = start(docker, name, &spec).await?;
    let mut wire = Wire::new(attached.output);
    let ready = wait_until_ready(&mut wire, &mut cancel).await;
    let mut evidence = Evidence { expected, installer, ..Evidence::default() };
    let mut usage = ContainerUsage::default();
    let mut diagnostics = Vec::new();
    let started = Instant::now();
    let mut run_ms = 0;
    match ready {
        Err(NotReady::Cancelled) => evidence.stop = Some(StopReason::Cancelled),
        Err(NotReady::Broken(error)) => evidence.broken = Some(error),
        Err(NotReady::Silent) => {
            return Err(Failure::new(
                FailureKind::EngineUnavailable,
                format!(
                    "the container was not ready within {} s; is the machine overloaded? See `ade doctor`",
                    START_BUDGET.as_secs()
                ),
            ));
        }
        Err(NotReady::Ended) => evidence.lost_contact = wire.lost.take(),
        Ok(ready) if ready.protocol != protocol::VERSION => {
            return Err(Failure::new(
                FailureKind::ImageMissing,
                format!(
                    "the image {} speaks protocol {}, this engine speaks {}: rebuild it with `ade image build`",
                    spec.image,
                    ready.protocol,
                    protocol::VERSION
                ),
            ));
        }
        Ok(ready) => {
            let notice =
                Notice::Ready { runner_version: plain(&ready.runner_version, 40), python: plain(&ready.python, 40) };
            notices.send(notice).await.ok();
            let sink = OutputSink::start(outputs, limits.output_mb * 1024 * 1024, expected);
            let (stop, stop_requests) = mpsc::channel(1);
            let (out, frames) = mpsc::channel(FRAMES_UNDER_WAY);
            let connections = connections(network, egress, out, notices.clone());
            let writing = write_all(attached.input, job, files, stop_requests, frames);
            let mut writer = AbortOnDropHandle::new(tokio::spawn(writing));
            notices.send(Notice::Running).await.ok();
            let mut course =
                Course { notices, sink, stop, connections, evidence: &mut evidence, event_bytes: 0, progress_bytes: 0 };
            tokio::select! {
                biased;
                // The container still waits for the rest of an archive that will never come.
                failure = failed_to_send(&mut writer) => return Err(failure),
                () = course.until_done(&mut wire, &mut cancel, limits) => {}
            }
            run_ms = millis(started.elapsed());
            let Course { sink, connections, .. } = course;
            connections.close().await;
            match sink.finish().await {
                Ok(collected) => evidence.collected = collected,
                Err(failure) => evidence.refused_output = Some(failure),
            }
        }
    }
    evidence.stderr_tail = wire.stderr_tail();
    if needs_exit(&evidence) {
        evidence.exit = wait_for_exit(docker, name).await;
    }
    if let Some(done) = &mut evidence.done {
        usage = std::mem::take(&mut done.usage);
        diagnostics = done.diagnostics.take().unwrap_or_default();
    }
    let outcome = decide(&evidence, limits);
    let timings = Timings { start_ms: millis(started - starting), run_ms, ..Timings::default() };
    Ok(Report { outcome, usage, collected: evidence.collected, diagnostics, timings, left_behind: None })
}

/// The connections of a container, each of which ends in a notice.
fn connections(
    network: Arc<Egress>,
    grant: Grant,
    out: mpsc::Sender<Bytes>,
    notices: mpsc::Sender<Notice>,
) -> Connections {
    let bounds = *network.bounds();
    let broker = Arc::new(Broker::new(network, grant));
    let serve = move |connection, over| -> BoxFuture<'static, ()> {
        let (broker, notices) = (Arc::clone(&broker), notices.clone());
        Box::pin(async move {
            let record = broker.serve(connection, over).await;
            notices.send(Notice::Egress(record)).await.ok();
        })
    };
    Connections::new(bounds.relayed_at_once().into(), bounds.relayed_in_all(), out, Box::new(serve))
}

/// Completes when an input could not be sent; never when all were, or when the container was gone first.
async fn failed_to_send(writer: &mut AbortOnDropHandle<Result<(), Failure>>) -> Failure {
    match writer.await {
        Ok(Err(failure)) => failure,
        _ => std::future::pending().await,
    }
}

/// Whether only Docker can say how the container ended.
fn needs_exit(evidence: &Evidence) -> bool {
    match &evidence.done {
        None => evidence.broken.is_none() && evidence.stop.is_none(),
        Some(done) => done.outcome == ReportedOutcome::Died && done.error.is_none(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
