//! `ade config validate`: everything that is wrong with a package, at once. What can be told without running any of it comes first; then
//! its scripts are tried out in a container.

use crate::cli::progress::Screen;
use crate::cli::{Exit, Output, cancel_on_signals, fail, node, style};
use crate::job::{self, Identity, Prepared};
use crate::network::{self, Access, Layers, Place};
use crate::packages::{Code, Diagnostic, Level, Manifest, Package};
use crate::sandbox::{Failure, FailureKind, Requested};
use crate::settings::Settings;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Run nothing, and use no Docker: manifest, requirements and scripts are read only
    #[arg(long = "static", conflicts_with = "require_dry_run")]
    static_only: bool,
    /// Fail when the scripts cannot be tried out, rather than warn
    #[arg(long)]
    require_dry_run: bool,
    /// Network for its dependencies, as of `ade run`
    #[arg(long, value_name = "inherit|deny|install_only|allow", default_value = "inherit", hide_default_value = true)]
    network: Access,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let caps = settings.caps();
    let path = args.package.clone();
    let opened = tokio::task::spawn_blocking(move || job::inspect(&path, &caps)).await;
    let (package, report) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(failure)) => return fail(&failure, &[], output),
        Err(error) => return fail(&Failure::new(FailureKind::HostIo, error.to_string()), &[], output),
    };
    let mut diagnostics = report.diagnostics;
    let mut tried = false;
    if !args.static_only {
        match report.manifest {
            // Nothing of a package with errors is run.
            None if args.require_dry_run => diagnostics.push(skipped("there are errors to mend first")),
            None => {}
            Some(manifest) => match dry_run(&args, package, manifest, settings, output).await {
                Ok(found) => {
                    tried = !found.iter().any(|one| one.code == Code::DryRunSkipped);
                    diagnostics.extend(found);
                }
                Err(failure) if failure.kind == FailureKind::Cancelled || args.require_dry_run => {
                    return fail(&failure, &job::to_values(&diagnostics), output);
                }
                Err(failure) => diagnostics.push(skipped(&failure.message)),
            },
        }
        diagnostics.sort_by_key(|diagnostic| diagnostic.level);
    }
    let count = |level: Level| diagnostics.iter().filter(|diagnostic| diagnostic.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let diagnostics = job::to_values(&diagnostics);
    if output.json {
        println!(
            "{}",
            json!({
                "valid": errors == 0, "errors": errors, "warnings": warnings, "dry_run": tried, "diagnostics": diagnostics
            })
        );
    } else {
        style::diagnostics(&diagnostics);
        style::verdict(errors == 0, &args.package.display(), errors, warnings, tried);
    }
    match (errors, args.require_dry_run && !tried) {
        (0, false) => Exit::Success.into(),
        (0, true) => Exit::Environment.into(),
        _ => Exit::BadRequest.into(),
    }
}

fn skipped(why: &str) -> Diagnostic {
    job::not_tried(why, "What was checked holds; --static leaves this out, and --require-dry-run insists on it.")
}

/// Tries out the scripts in a container, with the Python that will run them.
async fn dry_run(
    args: &Args,
    package: Package,
    manifest: Manifest,
    settings: &Settings,
    output: Output,
) -> Result<Vec<Diagnostic>, Failure> {
    let cancel = cancel_on_signals();
    let screen = Screen::new(output.quiet || output.json);
    let node = node::ready_unless(settings, &screen, cancel.clone()).await;
    screen.close();
    let node = node?;
    let limits = job::limits(&manifest, Requested::default(), &node.caps)?;
    let layers = Layers {
        instance: settings.runtime_network_access,
        workspace: Access::Inherit,
        package: args.network,
        allowed_hosts: Vec::new(),
        manifest: manifest.defaults.runtime_network_access,
    };
    let network = network::decide(&layers).at(Place::CommandLine);
    let prepared = Prepared::new(Arc::new(package), manifest, Vec::new(), limits, Identity::local(), network);
    let done = job::dry_run(&node, &prepared, cancel).await?;
    if let Some(container) = done.left_behind {
        anstream::eprintln!("ade: {container}");
    }
    Ok(done.diagnostics)
}
