//! One job in one container, from create to remove.

use super::archive::OutputSink;
use super::connections::Connections;
use super::container::{Opened, wait_for_exit};
use super::course::Course;
use super::limits::Limits;
use super::outcome::{Evidence, Failure, FailureKind, decide};
use super::pool::{Adopted, Pool, Pooled};
use super::protocol::{self, ContainerUsage, Ready, ReportedOutcome, StopReason};
use super::report::{Notice, Report, Timings};
use super::send::{InputFile, write_all};
use super::spec::ContainerSpec;
use super::wire::{NotReady, Wire};
use crate::egress::{Broker, Egress, Grant};
use crate::text::plain;
use bollard::Docker;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Frames of connections that wait for room in what goes into a container.
const FRAMES_UNDER_WAY: usize = 8;

/// What to run, and in what.
#[derive(Debug)]
pub struct Request<'a> {
    /// Name of the container; unique.
    pub name: &'a str,
    /// How the container is made.
    pub spec: ContainerSpec,
    /// The job's limits, of which the container knows some.
    pub limits: &'a Limits,
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

/// Runs one job in a container of its own, which is destroyed with it: one of the pool's, parked or made meanwhile, or else a
/// new one under the job's own labels. One that Docker does not remove changes no outcome; where somebody waits for the
/// removal, it is named in the report.
///
/// `cancel` turning true stops the job. Notices are dropped when nobody receives them. Dropping the future removes the container;
/// its supervisor ends by itself, since its stdin closes.
///
/// # Errors
/// A [`Failure`] when the job could not even be started (no Docker, image, runtime, or an input that is gone); how a job
/// that was started ended is in the [`Report`].
pub async fn run(
    pool: &Pool,
    request: Request<'_>,
    mut cancel: watch::Receiver<bool>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Report, Failure> {
    let asked = Instant::now();
    let adopted = tokio::select! {
        adopted = pool.adopt(&request.spec.class, request.name) => adopted,
        // What is being made for it is another's.
        Ok(_) = cancel.wait_for(|cancel| *cancel) => None,
    };
    if let Some(adopted) = adopted {
        let (mut opened, origin, waited) = match adopted {
            Adopted::Parked(opened) => (opened, Origin::Parked, Duration::ZERO),
            Adopted::New(opened) => (opened, Origin::Pool, asked.elapsed()),
        };
        // Whenever it was begun: this is what the job waited for it.
        (opened.creating, opened.starting) = (Duration::ZERO, waited);
        match conduct(pool, opened, &request, origin, cancel.clone(), notices).await {
            Ok(report) => return Ok(report),
            Err(NotRun::Failed(failure)) => return Err(failure),
            Err(NotRun::Unadopted) => pool.tell(Pooled::Failed),
        }
    }
    let opened = pool.open(request.name, &request.spec, &mut cancel).await?;
    match conduct(pool, opened, &request, Origin::Job, cancel, notices).await {
        Ok(report) => Ok(report),
        Err(NotRun::Failed(failure)) => Err(failure),
        Err(NotRun::Unadopted) => {
            Err(Failure::new(FailureKind::EngineUnavailable, "the container was gone before the job began in it"))
        }
    }
}

/// Starts a container, waits until its supervisor is ready, and removes it: whether jobs can run here at all.
///
/// # Errors
/// Why it did not come up.
pub async fn probe(pool: &Pool, name: &str, spec: &ContainerSpec) -> Result<Ready, Failure> {
    let (_keep, mut never) = watch::channel(false);
    let Opened { held, ready, wire, .. } = pool.open(name, spec, &mut never).await?;
    let left_behind = held.remove().await;
    let ready = ready.map_err(|why| {
        let last_words = plain(&wire.stderr_tail(), 600);
        Failure::new(FailureKind::RunnerCrashed, format!("a test container did not come up: {why} {last_words}"))
    })?;
    left_behind.map_or(Ok(ready), |message| Err(Failure::new(FailureKind::EngineUnavailable, message)))
}

/// For whom a container was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// For whoever would come.
    Parked,
    /// For whoever had waited longest.
    Pool,
    /// For this job.
    Job,
}

/// Why a job did not run.
enum NotRun {
    /// A container of the pool was gone before anything of the job began in it.
    Unadopted,
    /// It cannot.
    Failed(Failure),
}

/// Takes a job to its end in a container that was started, and lets go of the container.
async fn conduct(
    pool: &Pool,
    opened: Opened,
    request: &Request<'_>,
    origin: Origin,
    cancel: watch::Receiver<bool>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Report, NotRun> {
    let Opened { mut held, input, wire, ready, creating, starting } = opened;
    let timings = Timings { create_ms: millis(creating), start_ms: millis(starting), ..Timings::default() };
    let busy = pool.busy();
    let pooled = origin != Origin::Job;
    if pooled {
        held.rename(request.name);
    }
    let talk = Talk { docker: pool.docker(), container: held.reference(), request, origin, notices };
    let talked = talk.through(input, wire, ready, cancel).await;
    drop(busy);
    let releasing = Instant::now();
    let (talked, at_rest) = match talked {
        Ok(Talked { report, taken, at_rest }) => (Ok((report, taken)), at_rest),
        Err(not_run) => (Err(not_run), None),
    };
    let left_behind = match at_rest {
        // With the completion record nothing of the job is alive. What an installer mounts is another's next.
        Some(wire) if !request.installer => held.release(wire.ended()).await,
        _ => held.remove().await,
    };
    match talked {
        Ok((mut report, taken)) => {
            if let Some(taken) = taken.filter(|_| pooled) {
                pool.tell(Pooled::Adopted(taken));
            }
            report.timings.create_ms = timings.create_ms;
            report.timings.start_ms = timings.start_ms;
            report.timings.collect_ms += millis(releasing.elapsed());
            report.left_behind = left_behind;
            Ok(report)
        }
        Err(NotRun::Failed(mut failure)) => {
            if let Some(left_behind) = left_behind {
                failure.message = format!("{}; and {left_behind}", failure.message);
            }
            Err(NotRun::Failed(failure))
        }
        Err(NotRun::Unadopted) => Err(NotRun::Unadopted),
    }
}

/// What is said between the engine and the supervisor of a container.
struct Talk<'a> {
    docker: &'a Docker,
    container: &'a str,
    request: &'a Request<'a>,
    origin: Origin,
    notices: &'a mpsc::Sender<Notice>,
}

/// How it ended.
struct Talked {
    report: Report,
    /// From the job's handing over to its being read.
    taken: Option<Duration>,
    /// What is still to come of a supervisor that has said that it is done: its end.
    at_rest: Option<Wire>,
}

impl Talk<'_> {
    async fn through(
        &self,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        mut wire: Wire,
        ready: Result<Ready, NotReady>,
        mut cancel: watch::Receiver<bool>,
    ) -> Result<Talked, NotRun> {
        let Self { request, notices, .. } = *self;
        let limits = request.limits;
        let mut evidence = Evidence { expected: request.expected, installer: request.installer, ..Evidence::default() };
        let started = Instant::now();
        let (mut taken, mut run_ms) = (None, 0);
        match ready {
            Err(NotReady::Cancelled) => evidence.stop = Some(StopReason::Cancelled),
            Err(NotReady::Broken(error)) => evidence.broken = Some(error),
            Err(why @ NotReady::Silent) => {
                let message = format!("the container cannot be used: {why} See `ade doctor`");
                return Err(NotRun::Failed(Failure::new(FailureKind::EngineUnavailable, message)));
            }
            Err(NotReady::Ended) => evidence.lost_contact = wire.lost.take(),
            Ok(ready) if ready.protocol != protocol::VERSION => {
                let message = format!(
                    "the image {} speaks protocol {}, this engine speaks {}: rebuild it with `ade image build`",
                    request.spec.class.image(),
                    ready.protocol,
                    protocol::VERSION
                );
                return Err(NotRun::Failed(Failure::new(FailureKind::ImageMissing, message)));
            }
            Ok(ready) => {
                let notice = Notice::Ready {
                    runner_version: plain(&ready.runner_version, 40),
                    python: plain(&ready.python, 40),
                    parked: self.origin == Origin::Parked,
                };
                let sink =
                    OutputSink::start(Arc::clone(&request.outputs), limits.output_mb * 1024 * 1024, request.expected);
                let (stop, stop_requests) = mpsc::channel(1);
                let (out, frames) = mpsc::channel(FRAMES_UNDER_WAY);
                let connections =
                    connections(Arc::clone(&request.network), request.egress.clone(), out, notices.clone());
                let writing = write_all(input, request.job.clone(), request.files.clone(), stop_requests, frames);
                let mut writer = AbortOnDropHandle::new(tokio::spawn(writing));
                let mut course = Course::new(notices, sink, stop, connections, &mut evidence);
                // Whether a container of the pool takes the job shows with its first frame.
                course.ready = Some(notice);
                if self.origin == Origin::Job {
                    course.tell_ready().await;
                }
                tokio::select! {
                    biased;
                    // The container still waits for the rest of an archive that will never come.
                    failure = failed_to_send(&mut writer) => return Err(NotRun::Failed(failure)),
                    () = course.until_done(&mut wire, &mut cancel, limits) => {}
                }
                run_ms = millis(started.elapsed());
                taken = course.taken.map(|taken| taken - started);
                let adopted = course.ready.is_none();
                let Course { sink, connections, .. } = course;
                connections.close().await;
                match sink.finish().await {
                    Ok(collected) => evidence.collected = collected,
                    Err(failure) => evidence.refused_output = Some(failure),
                }
                if !adopted && evidence.stop.is_none() && !evidence.killed {
                    return Err(NotRun::Unadopted);
                }
            }
        }
        evidence.stderr_tail = wire.stderr_tail();
        if needs_exit(&evidence) {
            evidence.exit = wait_for_exit(self.docker, self.container).await;
        }
        let (mut usage, mut diagnostics) = (ContainerUsage::default(), Vec::new());
        if let Some(done) = &mut evidence.done {
            usage = std::mem::take(&mut done.usage);
            diagnostics = done.diagnostics.take().unwrap_or_default();
        }
        let outcome = decide(&evidence, limits);
        let timings = Timings { run_ms, ..Timings::default() };
        let report = Report { outcome, usage, collected: evidence.collected, diagnostics, timings, left_behind: None };
        Ok(Talked { report, taken, at_rest: evidence.done.is_some().then_some(wire) })
    }
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
