//! `ade run`: one package over one or more workbooks.

use super::progress::Screen;
use super::summary::Summary;
use super::{Exit, Output, cancel_on_signals, fail, node, style};
use crate::job::{self, FILES, JobReport, Prepared};
use crate::sandbox::{Failure, FailureKind, Requested};
use crate::settings::Settings;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tokio::sync::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Workbooks: xlsx, xlsm, xlsb, xls, ods, csv or tsv
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Folder for normalized.xlsx, artifact.json, events.ndjson and run-request.json; files of these names are replaced
    #[arg(long, short, value_name = "DIR", default_value = "ade-out")]
    out: PathBuf,
    /// Wall-clock limit of this job, milliseconds [default: the manifest's, else the instance's cap]
    #[arg(long, value_name = "MS", help_heading = "Limits")]
    timeout_ms: Option<u64>,
    /// Memory limit of this job, MiB [default: the manifest's, else 512]
    #[arg(long, value_name = "MIB", help_heading = "Limits")]
    memory_mb: Option<u64>,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let started = Instant::now();
    let caps = settings.caps();
    let asked = Requested { timeout_ms: args.timeout_ms, memory_mb: args.memory_mb };
    let (package, inputs) = (args.package.clone(), args.inputs.clone());
    let prepared = tokio::task::spawn_blocking(move || job::prepare(&package, &inputs, asked, &caps)).await;
    let prepared = match prepared {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(refusal)) => return fail(&refusal.failure, &refusal.diagnostics, output),
        Err(error) => {
            return fail(
                &Failure::new(FailureKind::HostIo, format!("reading the package failed: {error}")),
                &[],
                output,
            );
        }
    };
    let mut screen = Screen::new(output.quiet || output.json);
    let result = run(&prepared, &args.out, settings, &mut screen, cancel_on_signals()).await;
    screen.close();
    match result {
        Err(failure) => fail(&failure, &[], output),
        Ok((report, prepare_ms)) => finish(&prepared, &report, &args.out, prepare_ms, started, output),
    }
}

/// Readies the node, runs the job, and puts its files in place. Returns the report and the milliseconds before the job.
async fn run(
    prepared: &Prepared,
    out: &Path,
    settings: &Settings,
    screen: &mut Screen,
    cancel: watch::Receiver<bool>,
) -> Result<(JobReport, u64), Failure> {
    let before = Instant::now();
    let staging = Staging::create(out)?;
    let node = node::ready_unless(settings, screen, cancel.clone()).await?;
    let prepare_ms = u64::try_from(before.elapsed().as_millis()).unwrap_or(u64::MAX);
    let report = job::run(&node, prepared, staging.path(), cancel, screen).await?;
    staging.commit(&report.files)?;
    Ok((report, prepare_ms))
}

fn finish(
    prepared: &Prepared,
    report: &JobReport,
    out: &Path,
    prepare_ms: u64,
    started: Instant,
    output: Output,
) -> ExitCode {
    let summary = Summary::read(&out.join("artifact.json"));
    let total_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let timings = json!({
        "prepare_ms": prepare_ms,
        "create_ms": report.timings.create_ms,
        "start_ms": report.timings.start_ms,
        "run_ms": report.timings.run_ms,
        "collect_ms": report.timings.collect_ms,
        "total_ms": total_ms,
    });
    if output.json {
        let files: serde_json::Map<String, Value> = report
            .files
            .iter()
            .map(|name| ((*name).to_owned(), Value::from(out.join(name).display().to_string())))
            .collect();
        let detail = report.outcome.failure().and_then(|failure| failure.detail.as_ref());
        let diagnostics = detail.and_then(|detail| detail.get("diagnostics")).cloned().unwrap_or_else(|| json!([]));
        let mut said = json!({
            "status": report.outcome.state(),
            "job_id": report.id,
            "error": report.outcome.failure(),
            "files": files,
            "summary": summary.as_ref().map(Summary::to_json),
            "usage": {"cpu_ms": report.usage.cpu_ms, "peak_memory_bytes": report.usage.peak_memory_bytes},
            "timings": timings,
            "diagnostics": diagnostics,
        });
        if let Some(left_behind) = &report.left_behind {
            said["left_behind"] = left_behind.as_str().into();
        }
        println!("{said}");
    } else {
        if let Some(failure) = report.outcome.failure() {
            let listed = failure.detail.as_ref().and_then(|detail| detail["diagnostics"].as_array());
            style::diagnostics(listed.map_or(&[], Vec::as_slice));
        }
        super::summary::print(prepared, report, summary.as_ref(), out, &timings, output.quiet);
        if let Some(failure) = report.outcome.failure() {
            style::failure(failure);
        }
        if let Some(left_behind) = &report.left_behind {
            style::warning(left_behind);
        }
    }
    report.outcome.failure().map_or(Exit::Success, Exit::from).into()
}

/// A hidden folder inside the output folder, so that every file can be moved into place by a rename on one file system.
struct Staging {
    folder: tempfile::TempDir,
    out: PathBuf,
    made: Vec<PathBuf>,
}

impl Staging {
    fn create(out: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                FailureKind::HostIo,
                format!("cannot write to {}: {error}; choose another folder with --out", out.display()),
            )
        };
        for path in FILES.map(|name| out.join(name)) {
            if path.is_dir() {
                let message =
                    format!("cannot write {}: it is a folder; choose another folder with --out", path.display());
                return Err(Failure::new(FailureKind::HostIo, message));
            }
        }
        let made: Vec<PathBuf> = out
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_owned)
            .collect();
        std::fs::create_dir_all(out).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix(".ade-").tempdir_in(out).map_err(failed)?;
        Ok(Self { folder, out: out.to_owned(), made })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves the job's files into place, and removes those of an earlier job that this one did not make. The workbook goes
    /// first and comes last: whenever there is one, the files beside it are of the same job.
    fn commit(mut self, files: &[&str]) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}", path.display()))
        };
        for name in FILES {
            let to = self.out.join(name);
            if name != "normalized.xlsx" && files.contains(&name) {
                continue;
            }
            std::fs::remove_file(&to)
                .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
                .map_err(|error| failed(&to, error))?;
        }
        for name in FILES.into_iter().rev().filter(|name| files.contains(name)) {
            let to = self.out.join(name);
            std::fs::rename(self.folder.path().join(name), &to).map_err(|error| failed(&to, error))?;
        }
        self.made.clear();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.folder.path()).ok();
        // Folders that this command made for nothing go again; one with anything in it stays.
        for folder in &self.made {
            std::fs::remove_dir(folder).ok();
        }
    }
}
