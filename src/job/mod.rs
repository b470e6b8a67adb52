//! One job from request to result: inputs measured, package checked, limits resolved, events and run request written, the
//! container run, the artifact finished. What it leaves in the staging folder is complete or absent, never half-written.

pub mod artifact;
mod inputs;
mod refusal;

pub use inputs::{Input, MAX_INPUTS, open_all};
pub use refusal::Refusal;

use crate::events::{Event, EventLog, Level, now};
use crate::ids::JobId;
use crate::packages::{self, Package};
use crate::sandbox::{
    self, Caps, ContainerSpec, Failure, FailureKind, InputFile, Limits, Notice, Outcome, Report, Request, Requested,
    Source, Timings, label,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::LineWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, watch};
use ulid::Ulid;

/// Names of the files that a job leaves.
pub const FILES: [&str; 4] = ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json"];

/// Where and with what jobs run: one per process.
#[derive(Debug, Clone)]
pub struct Node {
    /// Docker Engine.
    pub docker: bollard::Docker,
    /// Image reference, for people.
    pub image: String,
    /// Image digest; containers are made from exactly this.
    pub image_digest: String,
    /// OCI runtime that the admin asked for.
    pub runtime: Option<String>,
    /// The admin's caps.
    pub caps: Caps,
    /// Label of this installation's containers.
    pub instance: String,
}

/// A job that has passed every check that needs no container.
#[derive(Debug)]
pub struct Prepared {
    /// Its id.
    pub id: JobId,
    package: Package,
    manifest: packages::Manifest,
    inputs: Vec<Input>,
    limits: Limits,
    trace_id: String,
}

impl Prepared {
    /// The resolved limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &packages::Manifest {
        &self.manifest
    }

    /// The inputs.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }
}

/// Checks package, limits and inputs. Blocking; nothing is started or written.
///
/// # Errors
/// A [`Refusal`] with everything that is wrong with the package, or the first thing that is wrong with limits or inputs.
pub fn prepare(package: &Path, inputs: &[PathBuf], asked: Requested, caps: &Caps) -> Result<Prepared, Refusal> {
    let package = refusal::open_package(package)?;
    let manifest = refusal::check_package(&package, caps)?;
    let limits = Limits::resolve(caps, refusal::requested(&manifest).overridden_by(asked))
        .map_err(|error| Failure::new(FailureKind::LimitInvalid, error.to_string()))?;
    let scratch = limits.scratch_mb * 1024 * 1024;
    let inputs = open_all(inputs, scratch.saturating_sub(package.unpacked_bytes()))?;
    Ok(Prepared {
        id: JobId::generate(),
        package,
        manifest,
        inputs,
        limits,
        trace_id: Ulid::new().to_string().to_lowercase(),
    })
}

/// What a job makes known while it runs.
pub trait Observer: Send {
    /// An event was appended.
    fn event(&mut self, event: &Event);
    /// Rows done.
    fn progress(&mut self, progress: &sandbox::protocol::Progress);
}

/// How a job ended.
#[derive(Debug)]
pub struct JobReport {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// CPU and memory of the container.
    pub usage: sandbox::protocol::ContainerUsage,
    /// Time by phase.
    pub timings: Timings,
    /// Which of [`FILES`] are in the staging folder.
    pub files: Vec<&'static str>,
}

/// Runs a prepared job; its files go to `staging`, an empty folder.
///
/// # Errors
/// A [`Failure`] of kind `host_io` when the staging folder cannot be written; every other failure is in the report.
pub async fn run(
    node: &Node,
    job: &Prepared,
    staging: &Path,
    cancel: watch::Receiver<bool>,
    observer: &mut dyn Observer,
) -> Result<JobReport, Failure> {
    let started_at = now();
    let run_request = run_request(node, job, &started_at);
    write_json(&staging.join("run-request.json"), &run_request)?;
    let events_path = staging.join("events.ndjson");
    let events = File::create(&events_path).map_err(|error| host_io(&events_path, &error))?;
    let mut recorder = Recorder { log: EventLog::new(LineWriter::new(events), job.id.as_str(), 1, 1), observer };
    recorder.note(|log| log.event("enqueue").state("queued").write());
    recorder.note(|log| {
        log.event("start").state("running").with("inputs", job.inputs.len()).with("limits", json!(job.limits)).write()
    });
    recorder.note(|log| {
        let decision = network(job);
        let level = if job.manifest.defaults.runtime_network_access { Level::Warning } else { Level::Info };
        let draft = log.event("network.decision").level(level);
        decision
            .as_object()
            .into_iter()
            .flatten()
            .fold(draft, |draft, (key, value)| draft.with(key, value.clone()))
            .write()
    });

    let outputs =
        tempfile::Builder::new().prefix(".outputs-").tempdir_in(staging).map_err(|error| host_io(staging, &error))?;
    let result = execute(node, job, &started_at, outputs.path(), cancel, &mut recorder).await;
    let (mut outcome, usage, timings, collected, runner) = match result {
        Ok((report, runner)) => (report.outcome, report.usage, report.timings, report.collected, runner),
        Err(failure) => (Outcome::Failed(failure), Default::default(), Timings::default(), Vec::new(), Value::Null),
    };

    let mut runtime = runtime(node, &job.limits);
    if let (Value::Object(runtime), Value::Object(runner)) = (&mut runtime, runner) {
        runtime.extend(runner);
    }
    let from = collected.iter().any(|name| name == "artifact.json").then(|| outputs.path().join("artifact.json"));
    let finish = |outcome: &Outcome| {
        artifact::finalize(
            from.as_deref(),
            &staging.join("artifact.json"),
            &[
                ("job", job_block(job, outcome, &started_at)),
                ("runtime", runtime.clone()),
                ("network", network(job)),
                ("dependencies", dependencies()),
            ],
            &[("config", config_block(job)), ("engine", engine_block(job)), ("inputs", inputs_block(job))],
            matches!(outcome, Outcome::Succeeded(_)),
        )
    };
    if let Err(failure) = finish(&outcome) {
        if failure.kind == FailureKind::HostIo {
            return Err(failure);
        }
        outcome = Outcome::Failed(failure);
        finish(&outcome)?;
    }
    let mut files = vec!["artifact.json", "events.ndjson", "run-request.json"];
    if matches!(outcome, Outcome::Succeeded(_)) {
        let workbook = staging.join("normalized.xlsx");
        std::fs::rename(outputs.path().join("normalized.xlsx"), &workbook)
            .map_err(|error| host_io(&workbook, &error))?;
        files.insert(0, "normalized.xlsx");
    }
    recorder.note(|log| log.event("collect").took(timings.collect_ms).with("files", files.clone()).write());
    recorder.end(&outcome, timings);
    recorder.log.finish().map_err(|error| host_io(&events_path, &error))?;
    Ok(JobReport { id: job.id.clone(), outcome, usage, timings, files })
}

/// Everything about a package that can be told without a container, as diagnostics. Blocking.
///
/// # Errors
/// A [`Failure`] when the package cannot even be opened.
pub fn inspect(package: &Path, caps: &Caps) -> Result<Vec<Value>, Failure> {
    let package = refusal::open_package(package)?;
    let report = packages::validate(&package, &refusal::package_caps(caps));
    Ok(refusal::to_values(&report.diagnostics))
}

/// Runs a package's static checks inside a container, without executing any of its code; the manifest may be invalid.
///
/// # Errors
/// A [`Failure`] when the check could not be done; what it found is the returned list.
pub async fn check(node: &Node, package: &Path, cancel: watch::Receiver<bool>) -> Result<Vec<Value>, Failure> {
    let package = refusal::open_package(package)?;
    let limits = Limits::resolve(&node.caps, Requested::default())
        .map_err(|error| Failure::new(FailureKind::LimitInvalid, error.to_string()))?;
    let id = JobId::generate();
    let parts = Parts { id: &id, package: &package, inputs: &[], limits: &limits, trace_id: "", network: Value::Null };
    let scratch = tempfile::tempdir().map_err(|error| host_io(&std::env::temp_dir(), &error))?;
    let name = container_name(&id);
    let (notices, mut ignored) = mpsc::channel(64);
    let request = request(node, &parts, "check", &name, &now(), scratch.path(), &[]);
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.docker, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async { while ignored.recv().await.is_some() {} }
    );
    let report = report?;
    match report.outcome {
        Outcome::Failed(failure) if failure.kind != FailureKind::PackageInvalid => Err(failure),
        Outcome::Cancelled(failure) => Err(failure),
        Outcome::Failed(_) | Outcome::Succeeded(_) => Ok(report.diagnostics),
    }
}

struct Recorder<'a> {
    log: EventLog<LineWriter<File>>,
    observer: &'a mut dyn Observer,
}

impl Recorder<'_> {
    fn note(&mut self, write: impl FnOnce(&mut EventLog<LineWriter<File>>) -> Event) {
        let event = write(&mut self.log);
        self.observer.event(&event);
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Ready { runner_version, python } => {
                self.note(|log| {
                    log.event("worker.spawn").with("runner_version", runner_version).with("python", python).write()
                });
            }
            Notice::Running => {}
            Notice::Event(raw) => {
                if let Some(event) = self.log.from_container(&raw.event, raw.level.as_deref(), raw.detail) {
                    self.observer.event(&event);
                }
            }
            Notice::Progress(progress) => self.observer.progress(&progress),
            Notice::Stopping(sandbox::protocol::StopReason::Timeout) => {
                self.note(|log| log.event("worker.timeout").level(Level::Error).write());
            }
            Notice::Stopping(sandbox::protocol::StopReason::Cancelled) => {
                self.note(|log| log.event("cancel").level(Level::Warning).write());
            }
        }
    }

    fn end(&mut self, outcome: &Outcome, timings: Timings) {
        if let Some(failure) = outcome.failure() {
            if failure.kind == FailureKind::OutOfMemory {
                self.note(|log| log.event("worker.oom").level(Level::Error).write());
            }
            let detail = json!(failure);
            let level = if matches!(outcome, Outcome::Cancelled(_)) { Level::Warning } else { Level::Error };
            self.note(|log| {
                let draft = log.event("error").level(level);
                detail
                    .as_object()
                    .into_iter()
                    .flatten()
                    .fold(draft, |draft, (key, value)| draft.with(key, value.clone()))
                    .write()
            });
        }
        self.note(|log| {
            log.event("exit")
                .state(outcome.state())
                .took(timings.start_ms + timings.run_ms + timings.collect_ms)
                .write()
        });
    }
}

async fn execute(
    node: &Node,
    job: &Prepared,
    started_at: &str,
    outputs: &Path,
    cancel: watch::Receiver<bool>,
    recorder: &mut Recorder<'_>,
) -> Result<(Report, Value), Failure> {
    let (notices, mut received) = mpsc::channel(256);
    let name = container_name(&job.id);
    let parts = Parts {
        id: &job.id,
        package: &job.package,
        inputs: &job.inputs,
        limits: &job.limits,
        trace_id: &job.trace_id,
        network: network(job),
    };
    let request = request(node, &parts, "run", &name, started_at, outputs, &sandbox::archive::OUTPUTS);
    let mut runner = Value::Null;
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.docker, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async {
            while let Some(notice) = received.recv().await {
                if let Notice::Ready { runner_version, python } = &notice {
                    runner = json!({"runner_version": runner_version, "python": python});
                }
                recorder.notice(notice);
            }
        }
    );
    let report = report?;
    recorder.note(|log| {
        let mut draft = log.event("worker.exit").took(report.timings.run_ms);
        if let Some(cpu) = report.usage.cpu_ms {
            draft = draft.with("cpu_ms", cpu);
        }
        if let Some(peak) = report.usage.peak_memory_bytes {
            draft = draft.with("peak_memory_bytes", peak);
        }
        draft.write()
    });
    Ok((report, runner))
}

fn container_name(id: &JobId) -> String {
    format!("ade-{}-1", id.as_str().to_lowercase().replace('_', "-"))
}

/// What a container is told about a job.
struct Parts<'a> {
    id: &'a JobId,
    package: &'a Package,
    inputs: &'a [Input],
    limits: &'a Limits,
    trace_id: &'a str,
    network: Value,
}

fn request<'a>(
    node: &'a Node,
    job: &Parts<'a>,
    mode: &str,
    name: &'a str,
    started_at: &str,
    outputs: &Path,
    expected: &'static [&'static str],
) -> Request<'a> {
    let limits = job.limits;
    // Whatever is still there a good while after the last moment that a job may take was left by a crash.
    let deadline = OffsetDateTime::now_utc()
        + Duration::from_millis(limits.timeout_ms + limits.on_job_end_ms)
        + Duration::from_secs(180);
    let labels = HashMap::from([
        (label::INSTANCE.to_owned(), node.instance.clone()),
        (label::WORKSPACE.to_owned(), "local".to_owned()),
        (label::JOB.to_owned(), job.id.to_string()),
        (label::ATTEMPT.to_owned(), "1.1".to_owned()),
        (label::DEADLINE.to_owned(), deadline.format(&Rfc3339).unwrap_or_default()),
    ]);
    let inputs: Vec<Value> = job
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            json!({"name": input.name, "path": Input::place(index), "sha256": input.sha256, "bytes": input.bytes, "document_id": input.document_id})
        })
        .collect();
    let payload = json!({
        "protocol": sandbox::protocol::VERSION,
        "mode": mode,
        "job_id": job.id,
        "attempt": 1,
        "execution": 1,
        "trace_id": job.trace_id,
        "config_version_id": null,
        "started_at": started_at,
        "inputs": inputs,
        "limits": limits,
        "artifact": {"runtime": runtime(node, limits), "network": job.network, "dependencies": dependencies()},
    });
    let files = job
        .package
        .files()
        .map(|(name, bytes)| InputFile {
            name: format!("package/{name}"),
            source: Source::Bytes(Bytes::copy_from_slice(bytes)),
        })
        .chain(job.inputs.iter().enumerate().map(|(index, input)| input.file(index)))
        .collect();
    Request {
        name,
        spec: ContainerSpec {
            image: &node.image_digest,
            limits,
            runtime: node.runtime.as_deref(),
            uid: private_uid(),
            labels,
        },
        job: payload,
        files,
        outputs: outputs.to_owned(),
        expected,
    }
}

/// Starts a container of the hardened profile, waits until its supervisor is ready, and removes it.
///
/// # Errors
/// Why it did not come up.
pub async fn probe(node: &Node) -> Result<sandbox::protocol::Ready, Failure> {
    let limits = Limits::resolve(&node.caps, Requested::default())
        .map_err(|error| Failure::new(FailureKind::LimitInvalid, error.to_string()))?;
    let id = JobId::generate();
    let deadline = (OffsetDateTime::now_utc() + Duration::from_secs(180)).format(&Rfc3339).unwrap_or_default();
    let labels =
        HashMap::from([(label::INSTANCE.to_owned(), node.instance.clone()), (label::DEADLINE.to_owned(), deadline)]);
    let spec = ContainerSpec {
        image: &node.image_digest,
        limits: &limits,
        runtime: node.runtime.as_deref(),
        uid: private_uid(),
        labels,
    };
    sandbox::probe(&node.docker, &container_name(&id), &spec).await
}

/// A uid of the container's own, above every uid and subordinate range in common use.
fn private_uid() -> u32 {
    let random = Ulid::new().random();
    0x4000_0000 | (u32::try_from(random & 0x0fff_ffff).unwrap_or_default())
}

fn run_request(node: &Node, job: &Prepared, created_at: &str) -> Value {
    json!({
        "schema": "ade.run_request/v1",
        "job_id": job.id,
        "attempt": 1,
        "execution": 1,
        "trace_id": job.trace_id,
        "created_at": created_at,
        "config": {
            "config_version_id": null,
            "title": job.manifest.info.title,
            "manifest_version": job.manifest.info.version,
            "package_sha256": job.package.package_sha256(),
            "manifest_sha256": job.package.manifest_sha256(),
        },
        "inputs": job.inputs,
        "image_digest": node.image_digest,
        "runtime": node.runtime,
        "limits": job.limits,
        "network": network(job),
        "dependencies": dependencies(),
    })
}

fn runtime(node: &Node, limits: &Limits) -> Value {
    json!({"image": node.image, "image_digest": node.image_digest, "runner_version": null, "python": null, "runtime": node.runtime, "limits": limits})
}

/// The network decision. A job container has no network interface; connections that policy allows will be relayed.
fn network(job: &Prepared) -> Value {
    let asked = job.manifest.defaults.runtime_network_access;
    let reason = if asked {
        "the manifest asks for network, and this instance runs every job without it"
    } else {
        "the manifest does not ask for network"
    };
    json!({"install": false, "run": false, "allowed_hosts": [], "decided_by": if asked { "instance" } else { "manifest" }, "reason": reason})
}

fn dependencies() -> Value {
    json!({"status": "none"})
}

fn job_block(job: &Prepared, outcome: &Outcome, started_at: &str) -> Value {
    json!({
        "job_id": job.id,
        "config_version_id": null,
        "trace_id": job.trace_id,
        "status": outcome.state(),
        "started_at": started_at,
        "completed_at": now(),
        "source_file": job.inputs.first().map_or("", |input| input.name.as_str()),
        "attempt": 1,
        "execution": 1,
        "error": outcome.failure(),
    })
}

fn config_block(job: &Prepared) -> Value {
    json!({"config_version_id": null, "manifest_version": job.manifest.info.version, "title": job.manifest.info.title})
}

fn engine_block(job: &Prepared) -> Value {
    json!({"writer": job.manifest.writer, "defaults": job.manifest.defaults})
}

fn inputs_block(job: &Prepared) -> Value {
    job.inputs
        .iter()
        .map(|input| json!({"name": input.name, "sha256": input.sha256, "bytes": input.bytes, "format": null, "encoding": null, "delimiter": null}))
        .collect()
}

fn write_json(path: &Path, value: &Value) -> Result<(), Failure> {
    std::fs::write(path, format!("{value:#}\n")).map_err(|error| host_io(path, &error))
}

fn host_io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::HostIo,
        format!("cannot write {}: {error}; free space there or choose another folder", path.display()),
    )
}
