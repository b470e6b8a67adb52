//! `ade run`: one package over one or more workbooks.

use super::progress::Screen;
use super::staging::Staging;
use super::summary::{self, Ended, Summary};
use super::{Exit, Output, cancel_on_signals, fail, node};
use crate::egress::Egress;
use crate::job::{self, JobReport, Prepared};
use crate::network::{self, Access, Decision, HostPattern, Layers, Place, Switch};
use crate::sandbox::{Failure, FailureKind, Requested};
use crate::settings::Settings;
use serde_json::json;
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
    /// Network for this job: inherit leaves it to the manifest; install_only and allow install dependencies in any case, and
    /// with allow the scripts get network if the manifest asks for it
    #[arg(
        long,
        value_name = "inherit|deny|install_only|allow",
        default_value = "inherit",
        hide_default_value = true,
        help_heading = "Network"
    )]
    network: Access,
    /// Host that the scripts may reach, such as api.example.com or *.example.com:443; may be given several times [default:
    /// every public host]
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    allow_host: Vec<HostPattern>,
}

impl Args {
    /// The network policy of a local job: the setting is the instance, and the arguments are the package.
    fn decide(&self, instance: Switch) -> impl FnOnce(bool) -> Decision + use<> {
        let (package, allowed_hosts) = (self.network, self.allow_host.clone());
        move |manifest| {
            let layers = Layers { instance, workspace: Access::Inherit, package, allowed_hosts, manifest };
            network::decide(&layers).at(Place::CommandLine)
        }
    }
}

/// The network policy of a local job about which the caller says nothing.
pub fn undecided(instance: Switch, manifest: bool) -> Decision {
    let layers =
        Layers { instance, workspace: Access::Inherit, package: Access::Inherit, allowed_hosts: Vec::new(), manifest };
    network::decide(&layers).at(Place::CommandLine)
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let started = Instant::now();
    let caps = settings.caps();
    let asked = Requested { timeout_ms: args.timeout_ms, memory_mb: args.memory_mb };
    let (package, inputs) = (args.package.clone(), args.inputs.clone());
    let decide = args.decide(settings.runtime_network_access);
    let egress = match Egress::new(settings) {
        Ok(egress) => egress,
        Err(failure) => return fail(&failure, &[], output),
    };
    let prepared =
        tokio::task::spawn_blocking(move || job::prepare(&package, &inputs, asked, &caps, &egress, decide)).await;
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
    let report = job::run(&node, prepared, staging.folder(), cancel, screen).await?;
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
    let info = &prepared.manifest().info;
    summary::tell(
        &Ended {
            state: report.outcome.state(),
            id: &report.id,
            title: &info.title,
            version: &info.version,
            failure: report.outcome.failure(),
            usage: &report.usage,
            timings: &timings,
            files: report.files.iter().map(|name| ((*name).to_owned(), out.join(name))).collect(),
            left_behind: report.left_behind.as_deref(),
        },
        summary.as_ref(),
        output,
    );
    report.outcome.failure().map_or(Exit::Success, Exit::from).into()
}
