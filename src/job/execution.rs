//! One execution in two halves: what the container does, and what becomes of its files. Whoever runs jobs may decide between
//! the two how the job has ended.

use super::dependencies::{self, Dependencies};
use super::recorder::Recorder;
use super::request::{Ask, Parts, request};
use super::{Node, Prepared, artifact, blocks, container_name, host_io};
use crate::egress::Grant;
use crate::events::now;
use crate::ids::JobId;
use crate::network::Purpose;
use crate::sandbox::protocol::ContainerUsage;
use crate::sandbox::{self, Failure, FailureKind, Notice, Outcome, Report, Timings};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// An execution whose container is gone and whose files are not in place yet. Dropping it drops them.
#[derive(Debug)]
pub struct Executed<'a> {
    node: &'a Node,
    job: &'a Prepared,
    staging: &'a Arc<TempDir>,
    started_at: String,
    dependencies: Dependencies,
    /// What the supervisor said of itself.
    runner: Value,
    report: Report,
}

/// How a job ended.
#[derive(Debug)]
pub struct JobReport {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// CPU and memory of the container.
    pub usage: ContainerUsage,
    /// Time by phase.
    pub timings: Timings,
    /// Which of [`FILES`](super::FILES) the job has; all are in the staging folder, but for the events, which are where the
    /// recorder put them.
    pub files: Vec<&'static str>,
    /// Set when Docker did not remove the job's container: which it is, and what becomes of it.
    pub left_behind: Option<String>,
}

/// Makes the dependencies of a prepared job ready and runs it in a container, from the event `start` to `worker.exit`; `staging` is
/// an empty folder that gets `run-request.json`, and what the container gives out.
///
/// The future may be dropped at any time, and the container goes with it. One that Docker was only just making may come up after
/// that; it is never started, and goes by its deadline.
///
/// # Errors
/// A [`Failure`] of kind `host_io` when `staging` cannot be written; every other failure is the outcome.
pub async fn execute<'a>(
    node: &'a Node,
    job: &'a Prepared,
    staging: &'a Arc<TempDir>,
    cancel: watch::Receiver<bool>,
    recorder: &mut Recorder<'_>,
) -> Result<Executed<'a>, Failure> {
    let started_at = now();
    let network = job.network.block();
    let lacks_network = job.manifest.defaults.runtime_network_access && !job.network.run.allowed;
    recorder.started(job.inputs.len(), json!(job.limits), network.clone(), lacks_network);

    let mut dependencies = dependencies::ready(node, job, cancel.clone(), recorder).await;
    dependencies.write(staging.path())?;
    let block = dependencies.block.to_value();
    let path = staging.path().join("run-request.json");
    std::fs::write(&path, format!("{:#}\n", blocks::run_request(node, job, &block, &started_at)))
        .map_err(|error| host_io(&path, &error))?;
    if let Some(failure) = dependencies.failure.take() {
        let mut report = Report::never_ran(failure);
        report.timings.install_ms = dependencies.took_ms;
        return Ok(Executed { node, job, staging, started_at, dependencies, runner: Value::Null, report });
    }

    let identity = &job.identity;
    let mounts = dependencies.mounts();
    let name = container_name(&identity.job_id, identity.execution);
    let parts = Parts {
        identity,
        package: &job.package,
        inputs: &job.inputs,
        limits: &job.limits,
        network,
        dependencies: block,
        lock_sha256: dependencies.lock_sha256(),
        mounts: &mounts,
        egress: Grant::of(&job.network, Purpose::Run),
    };
    let ask = Ask {
        mode: "run",
        name: &name,
        started_at: &started_at,
        outputs: Arc::clone(staging),
        expected: &sandbox::archive::OUTPUTS,
    };
    let request = request(node, &parts, ask);
    let (notices, mut received) = mpsc::channel(256);
    let mut runner = Value::Null;
    let (report, ()) = tokio::join!(
        async {
            let report = sandbox::run(&node.pool, request, cancel, &notices).await;
            drop(notices);
            report
        },
        async {
            while let Some(notice) = received.recv().await {
                if let Notice::Ready { runner_version, python, .. } = &notice {
                    runner = json!({"runner_version": runner_version, "python": python});
                }
                recorder.notice(notice);
            }
        }
    );
    let mut report = match report {
        Ok(report) => {
            recorder.exited(&report.usage, report.timings);
            report
        }
        Err(failure) => Report::never_ran(failure),
    };
    report.timings.install_ms = dependencies.took_ms;
    Ok(Executed { node, job, staging, started_at, dependencies, runner, report })
}

impl Executed<'_> {
    /// How the container's work ended.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.report.outcome
    }

    /// CPU and memory of the container.
    #[must_use]
    pub const fn usage(&self) -> &ContainerUsage {
        &self.report.usage
    }

    /// Time by phase.
    #[must_use]
    pub const fn timings(&self) -> Timings {
        self.report.timings
    }

    /// Set when Docker did not remove the container: which it is, and what becomes of it.
    #[must_use]
    pub fn left_behind(&self) -> Option<&str> {
        self.report.left_behind.as_deref()
    }

    /// Puts the files of the job in place, for this outcome, and records the events from `collect` to `exit`.
    ///
    /// `outcome` is [`Self::outcome`], or what the caller has decided instead; only a success keeps its workbook. A success whose
    /// artifact cannot be used becomes `output_invalid`, so the outcome that counts is the report's.
    ///
    /// # Errors
    /// A [`Failure`] of kind `host_io` when the staging folder cannot be written, or when a success is claimed for a job that
    /// left no workbook.
    pub async fn conclude(self, mut outcome: Outcome, recorder: &mut Recorder<'_>) -> Result<JobReport, Failure> {
        if let Err(failure) = self.write_artifact(&outcome).await {
            if failure.kind == FailureKind::HostIo {
                return Err(failure);
            }
            outcome = Outcome::Failed(failure);
            self.write_artifact(&outcome).await?;
        }
        let mut files = vec!["artifact.json", "events.ndjson", "run-request.json"];
        files.extend(&self.dependencies.files);
        let workbook = self.staging.path().join("normalized.xlsx");
        if matches!(outcome, Outcome::Succeeded(_)) {
            std::fs::metadata(&workbook).map_err(|error| host_io(&workbook, &error))?;
            files.insert(0, "normalized.xlsx");
        } else if let Err(error) = std::fs::remove_file(&workbook)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(host_io(&workbook, &error));
        }
        let Report { usage, timings, left_behind, .. } = self.report;
        recorder.concluded(&outcome, timings, &files);
        Ok(JobReport { id: self.job.identity.job_id.clone(), outcome, usage, timings, files, left_behind })
    }

    /// Writes the final artifact in the place of the runner's.
    async fn write_artifact(&self, outcome: &Outcome) -> Result<(), Failure> {
        let dependencies = self.dependencies.block.to_value();
        let own = blocks::own(self.node, self.job, &self.runner, &dependencies, outcome, &self.started_at);
        let fallback = blocks::fallback(self.job);
        let written = self.report.collected.iter().any(|name| name == "artifact.json");
        let must_be_usable = matches!(outcome, Outcome::Succeeded(_));
        let staging = Arc::clone(self.staging);
        // An artifact may have 32 MiB, which takes longer to check than other jobs on this thread want to wait.
        let finalized = tokio::task::spawn_blocking(move || {
            artifact::finalize(&staging.path().join("artifact.json"), written, &own, &fallback, must_be_usable)
        });
        finalized
            .await
            .map_err(|error| Failure::new(FailureKind::HostIo, format!("finishing artifact.json failed: {error}")))?
    }
}
