//! One job in one container, from create to remove.

use super::archive::{self, OutputSink};
use super::limits::Limits;
use super::outcome::{ContainerExit, Evidence, Failure, FailureKind, Outcome, decide};
use super::protocol::{
    self, ContainerUsage, Decoder, Done, FromSupervisor, Progress, ProtocolError, RawEvent, Ready, ReportedOutcome,
    StopReason, ToSupervisor,
};
use super::spec::{self, ContainerSpec};
use crate::text::plain;
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// From start to `READY`.
const START_BUDGET: Duration = Duration::from_secs(60);
/// On top of what `on_job_end` may take: kill, collect, report.
const COLLECT_BUDGET: Duration = Duration::from_secs(30);
/// Bytes of events that one job may send. The supervisor lets through 5,000 lines with 1 Mi characters in all, in JSON at most
/// six bytes each, then a tail of 50 lines, and some dozens of other events: 8 MiB at worst, of which this is twice.
const EVENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of progress that one job may send. It is kept nowhere, so it has a bound of its own: an honest job of 24 hours, the
/// longest that can be set, reports some 55 bytes ten times a second, which is 45 MiB.
const PROGRESS_BYTES: u64 = 64 * 1024 * 1024;
const STDERR_TAIL: usize = 4096;

/// A file of the input archive.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Name in the archive: `package/…` or `in/NNNN`; made by the engine, never by a tenant.
    pub name: String,
    /// Where its bytes are.
    pub source: Source,
}

/// Where the bytes of an [`InputFile`] are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In memory; for the small files of a package.
    Bytes(Bytes),
    /// On the host's disk, streamed; must still have this size and hash when it is read.
    File {
        /// Path on the host.
        path: PathBuf,
        /// Bytes.
        size: u64,
        /// Hash, lower-case hex.
        sha256: String,
    },
}

impl InputFile {
    fn size(&self) -> u64 {
        match &self.source {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { size, .. } => *size,
        }
    }
}

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
    /// An empty folder for the outputs; its content counts only when the outcome says so. Shared with the thread that unpacks
    /// into it, which a caller that drops the future does not wait for: the folder goes with the last of the two.
    pub outputs: Arc<TempDir>,
    /// Outputs without which the job did not succeed.
    pub expected: &'static [&'static str],
}

/// What happened, as it happens.
#[derive(Debug)]
pub enum Notice {
    /// The container runs and the supervisor waits.
    Ready {
        /// Version of the runner in the image.
        runner_version: String,
        /// Version of Python in the image.
        python: String,
    },
    /// Inputs are in; scripts run from here on.
    Running,
    /// An event of the job.
    Event(RawEvent),
    /// Rows done.
    Progress(Progress),
    /// The engine asked the job to stop.
    Stopping(StopReason),
}

/// The end of one execution.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What the container used.
    pub usage: ContainerUsage,
    /// Names of outputs in [`Request::outputs`]. Only `artifact.json` when the job failed.
    pub collected: Vec<String>,
    /// Diagnostics of a `check`.
    pub diagnostics: Vec<Value>,
    /// Time by step.
    pub timings: Timings,
    /// Set when Docker did not remove the container: which it is, and what becomes of it.
    pub left_behind: Option<String>,
}

impl Report {
    /// The end of a job that could not even be started.
    #[must_use]
    pub fn never_ran(failure: Failure) -> Self {
        Self {
            outcome: Outcome::Failed(failure),
            usage: ContainerUsage::default(),
            collected: Vec::new(),
            diagnostics: Vec::new(),
            timings: Timings::default(),
            left_behind: None,
        }
    }
}

/// Time by step, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Docker's making of the container.
    pub create_ms: u64,
    /// Attach and start, to `READY`.
    pub start_ms: u64,
    /// Inputs and scripts.
    pub run_ms: u64,
    /// Last output byte to the container's removal.
    pub collect_ms: u64,
}

impl Timings {
    /// All steps together, milliseconds.
    #[must_use]
    pub const fn total_ms(self) -> u64 {
        self.create_ms + self.start_ms + self.run_ms + self.collect_ms
    }
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

/// Removes a container of ours with its anonymous volumes; one that is already gone is fine.
///
/// # Errors
/// `engine_unavailable` when Docker does not remove it within some tries; it then goes by its deadline.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), Failure> {
    let mut last = String::new();
    for pause_ms in [0, 100, 400, 1500] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.remove_container(name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Failure::new(
        FailureKind::EngineUnavailable,
        format!(
            "Docker did not remove container {name}: {}; it goes once its deadline has passed, or now with: docker rm -f {name}",
            plain(&last, 300)
        ),
    ))
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

async fn create(docker: &Docker, name: &str, spec: &ContainerSpec<'_>) -> Result<(), Failure> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let refused = |error| refused_by_docker(&error, spec.image, spec.runtime);
    docker.create_container(Some(options), spec::container(spec)).await.map(drop).map_err(refused)
}

/// Attaches to a created container, so that nothing it says is missed, and starts it.
async fn start(docker: &Docker, name: &str, spec: &ContainerSpec<'_>) -> Result<AttachContainerResults, Failure> {
    let refused = |error| refused_by_docker(&error, spec.image, spec.runtime);
    let options = AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = docker.attach_container(name, Some(options)).await.map_err(refused)?;
    docker.start_container(name, None::<StartContainerOptions>).await.map_err(refused)?;
    Ok(attached)
}

async fn conduct(
    docker: &Docker,
    request: Request<'_>,
    mut cancel: watch::Receiver<bool>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Report, Failure> {
    let Request { name, spec, job, files, outputs, expected } = request;
    let limits = spec.limits;
    let starting = Instant::now();
    let attached = start(docker, name, &spec).await?;
    let mut wire = Wire::new(attached.output);
    let ready = wait_until_ready(&mut wire, &mut cancel).await;
    let mut evidence = Evidence { expected, ..Evidence::default() };
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
            let sink = OutputSink::start(outputs, limits.output_mb * 1024 * 1024);
            let (stop, stop_requests) = mpsc::channel(1);
            let mut writer = AbortOnDropHandle::new(tokio::spawn(write_all(attached.input, job, files, stop_requests)));
            notices.send(Notice::Running).await.ok();
            let mut relay = Relay { notices, sink, stop, evidence: &mut evidence, event_bytes: 0, progress_bytes: 0 };
            tokio::select! {
                biased;
                // The container still waits for the rest of an archive that will never come.
                failure = failed_to_send(&mut writer) => return Err(failure),
                () = relay.until_done(&mut wire, &mut cancel, limits) => {}
            }
            run_ms = millis(started.elapsed());
            let Relay { sink, .. } = relay;
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

async fn wait_for_exit(docker: &Docker, name: &str) -> Option<ContainerExit> {
    for _ in 0..40 {
        let state = docker.inspect_container(name, None).await.ok()?.state?;
        if state.running != Some(true) {
            return Some(ContainerExit { code: state.exit_code, oom_killed: state.oom_killed.unwrap_or(false) });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// The container's output: frames from stdout, a tail of stderr.
struct Wire {
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    decoder: Decoder,
    stderr: Vec<u8>,
    /// Set when the connection to Docker broke, rather than the container ended.
    lost: Option<String>,
}

impl Wire {
    fn new(output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>) -> Self {
        Self { output, decoder: Decoder::default(), stderr: Vec::new(), lost: None }
    }

    /// The next frame; `None` when the container has ended or Docker has gone.
    async fn next(&mut self) -> Result<Option<FromSupervisor>, ProtocolError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.output.next().await {
                Some(Ok(LogOutput::StdErr { message })) => {
                    self.stderr.extend_from_slice(&message);
                    let excess = self.stderr.len().saturating_sub(STDERR_TAIL);
                    self.stderr.drain(..excess);
                }
                Some(Ok(output)) => self.decoder.feed(&output.into_bytes()),
                Some(Err(error)) => {
                    self.lost = Some(error.to_string());
                    return Ok(None);
                }
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }

    fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

enum NotReady {
    Cancelled,
    Silent,
    Ended,
    Broken(ProtocolError),
}

async fn wait_until_ready(wire: &mut Wire, cancel: &mut watch::Receiver<bool>) -> Result<Ready, NotReady> {
    let deadline = Instant::now() + START_BUDGET;
    tokio::select! {
        frame = wire.next() => match frame {
            Ok(Some(FromSupervisor::Ready(payload))) => protocol::parse("READY", &payload).map_err(NotReady::Broken),
            Ok(Some(_)) => Err(NotReady::Broken(ProtocolError::Order("the first frame was not READY"))),
            Ok(None) => Err(NotReady::Ended),
            Err(error) => Err(NotReady::Broken(error)),
        },
        () = cancelled(cancel) => Err(NotReady::Cancelled),
        () = sleep_until(deadline) => Err(NotReady::Silent),
    }
}

/// Completes when `cancel` turns true; never when its sender is gone.
async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Everything between `READY` and the end of the container.
struct Relay<'a> {
    notices: &'a mpsc::Sender<Notice>,
    sink: OutputSink,
    stop: mpsc::Sender<StopReason>,
    evidence: &'a mut Evidence,
    event_bytes: u64,
    progress_bytes: u64,
}

impl Relay<'_> {
    async fn until_done(&mut self, wire: &mut Wire, cancel: &mut watch::Receiver<bool>, limits: &Limits) {
        let mut soft = Instant::now() + Duration::from_millis(limits.timeout_ms);
        let grace = Duration::from_millis(limits.on_job_end_ms) + COLLECT_BUDGET;
        let mut hard = soft + grace;
        loop {
            let reason = tokio::select! {
                frame = wire.next() => {
                    match frame {
                        Ok(Some(frame)) => match self.take(frame).await {
                            Ok(false) => continue,
                            Ok(true) => return,
                            Err(error) => self.evidence.broken = Some(error),
                        },
                        Ok(None) => self.evidence.lost_contact = wire.lost.take(),
                        Err(error) => self.evidence.broken = Some(error),
                    }
                    return;
                }
                () = cancelled(cancel), if self.evidence.stop != Some(StopReason::Cancelled) => StopReason::Cancelled,
                () = sleep_until(soft), if self.evidence.stop.is_none() => StopReason::Timeout,
                () = sleep_until(hard) => {
                    self.evidence.killed = true;
                    return;
                }
            };
            self.evidence.stop = Some(reason);
            soft = Instant::now();
            hard = soft + grace;
            self.notices.send(Notice::Stopping(reason)).await.ok();
            self.stop.try_send(reason).ok();
        }
    }

    /// Takes one frame; true when it was the last.
    async fn take(&mut self, frame: FromSupervisor) -> Result<bool, ProtocolError> {
        match frame {
            FromSupervisor::Event(payload) => {
                count(&mut self.event_bytes, payload.len(), "events", EVENT_BYTES)?;
                let event: RawEvent = protocol::parse("EVENT", &payload)?;
                self.notices.send(Notice::Event(event)).await.ok();
            }
            FromSupervisor::Progress(payload) => {
                count(&mut self.progress_bytes, payload.len(), "progress", PROGRESS_BYTES)?;
                // Relayed from the child as it is; one that cannot be read is not worth a failure, and none is worth a wait.
                if let Ok(progress) = protocol::parse::<Progress>("PROGRESS", &payload) {
                    self.notices.try_send(Notice::Progress(progress)).ok();
                }
            }
            FromSupervisor::Output(chunk) => self.sink.push(chunk).await,
            FromSupervisor::EndOfOutput => {}
            FromSupervisor::Done(payload) => {
                self.evidence.done = Some(protocol::parse::<Done>("DONE", &payload)?);
                return Ok(true);
            }
            FromSupervisor::Ready(_) => return Err(ProtocolError::Order("READY came twice")),
        }
        Ok(false)
    }
}

fn count(total: &mut u64, bytes: usize, what: &'static str, limit: u64) -> Result<(), ProtocolError> {
    *total += bytes as u64;
    if *total > limit { Err(ProtocolError::Flood { what, limit }) } else { Ok(()) }
}

/// Sends the job and the input archive, then stop requests; keeps stdin open until it is aborted.
async fn write_all(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    job: Value,
    files: Vec<InputFile>,
    mut stops: mpsc::Receiver<StopReason>,
) -> Result<(), Failure> {
    match send_inputs(&mut input, &job, &files).await {
        Ok(()) => {}
        Err(SendError::Input(failure)) => return Err(failure),
        // The container is gone; what it left behind says why.
        Err(SendError::Pipe) => return Ok(()),
    }
    while let Some(reason) = stops.recv().await {
        let mut frame = BytesMut::new();
        ToSupervisor::Stop(reason).encode(&mut frame);
        if input.write_all(&frame).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
    Ok(())
}

enum SendError {
    Input(Failure),
    Pipe,
}

async fn send_inputs(
    input: &mut Pin<Box<dyn AsyncWrite + Send>>,
    job: &Value,
    files: &[InputFile],
) -> Result<(), SendError> {
    let mut out = FrameWriter { input, buffer: BytesMut::new(), pending: BytesMut::new() };
    let payload = job.to_string();
    if payload.len() > protocol::MAX_PAYLOAD {
        return Err(SendError::Input(Failure::new(
            FailureKind::InputTooLarge,
            format!(
                "the job's description has {} bytes, the limit is {}: submit fewer inputs or shorter names",
                payload.len(),
                protocol::MAX_PAYLOAD
            ),
        )));
    }
    ToSupervisor::Job(Bytes::from(payload)).encode(&mut out.buffer);
    for file in files {
        let size = file.size();
        let header = archive::input_header(&file.name, size).map_err(|error| {
            let message = format!(
                "the file name {:?} does not fit into the input archive: {error}; shorten it",
                plain(&file.name, 120)
            );
            SendError::Input(Failure::new(FailureKind::PackageInvalid, message))
        })?;
        out.data(&header).await?;
        match &file.source {
            Source::Bytes(bytes) => out.data(bytes).await?,
            Source::File { path, size, sha256 } => send_file(&mut out, path, *size, sha256).await?,
        }
        out.data(&archive::padding(size)).await?;
    }
    out.data(&archive::trailer()).await?;
    out.end().await
}

async fn send_file(out: &mut FrameWriter<'_>, path: &PathBuf, size: u64, sha256: &str) -> Result<(), SendError> {
    let failed = |what: String| {
        SendError::Input(Failure::new(FailureKind::InputMissing, format!("input {}: {what}", path.display())))
    };
    let mut file = tokio::fs::File::open(path).await.map_err(|error| failed(error.to_string()))?.take(size);
    let mut hash = Sha256::new();
    let mut sent = 0;
    let mut buffer = vec![0; protocol::MAX_PAYLOAD];
    loop {
        let read = file.read(&mut buffer).await.map_err(|error| failed(error.to_string()))?;
        if read == 0 {
            break;
        }
        sent += read as u64;
        hash.update(&buffer[..read]);
        out.data(&buffer[..read]).await?;
    }
    if sent != size || format!("{:x}", hash.finalize()) != sha256 {
        return Err(failed("it changed while it was read; submit it again".into()));
    }
    Ok(())
}

/// Gathers archive bytes into full frames and frames into large writes.
struct FrameWriter<'a> {
    input: &'a mut Pin<Box<dyn AsyncWrite + Send>>,
    /// Frames ready to be written.
    buffer: BytesMut,
    /// Archive bytes of the frame that is being filled.
    pending: BytesMut,
}

impl FrameWriter<'_> {
    async fn data(&mut self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let room = protocol::MAX_PAYLOAD - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == protocol::MAX_PAYLOAD {
                self.close_frame();
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn close_frame(&mut self) {
        let payload = self.pending.split().freeze();
        ToSupervisor::Input(payload).encode(&mut self.buffer);
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        self.input.write_all(&self.buffer).await.map_err(|_| SendError::Pipe)?;
        self.buffer.clear();
        self.input.flush().await.map_err(|_| SendError::Pipe)
    }

    async fn end(&mut self) -> Result<(), SendError> {
        self.close_frame();
        ToSupervisor::EndOfInput.encode(&mut self.buffer);
        self.flush().await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What it means that Docker refused to make or start a job container.
fn refused_by_docker(error: &bollard::errors::Error, image: &str, runtime: Option<&str>) -> Failure {
    let text = plain(&error.to_string(), 500);
    let lower = text.to_lowercase();
    if let Some(runtime) = runtime
        && (lower.contains("runtime specified")
            || lower.contains("runtime name")
            || lower.contains(&format!("\"{runtime}\"")))
    {
        return Failure::new(
            FailureKind::RuntimeMissing,
            format!(
                "Docker has no usable OCI runtime {runtime:?}; nothing was run. Install it and add it to Docker's daemon.json, or unset ADE_RUNTIME. Docker said: {text}"
            ),
        );
    }
    match status(error) {
        Some(404) if lower.contains("image") => Failure::new(
            FailureKind::ImageMissing,
            format!("the base image {image} is not on this Docker Engine; build it with `ade image build`"),
        ),
        _ => Failure::new(
            FailureKind::EngineUnavailable,
            format!(
                "Docker did not start the container: {text}; `ade doctor` checks the engine and says how to mend it"
            ),
        ),
    }
}
