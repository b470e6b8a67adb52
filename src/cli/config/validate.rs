//! `ade config validate`: everything that is wrong with a package, at once.

use crate::cli::progress::Screen;
use crate::cli::{Exit, Output, cancel_on_signals, fail, node, style};
use crate::job;
use crate::sandbox::Failure;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config package: a folder, or a zip of one
    package: PathBuf,
    /// Check the manifest and the files only, without Docker: scripts are not parsed
    #[arg(long)]
    manifest_only: bool,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let caps = settings.caps();
    let path = args.package.clone();
    let opened = tokio::task::spawn_blocking(move || job::inspect(&path, &caps)).await;
    let mut diagnostics = match opened {
        Ok(Ok(diagnostics)) => diagnostics,
        Ok(Err(failure)) => return fail(&failure, &[], output),
        Err(error) => return fail(&Failure::new(crate::sandbox::FailureKind::HostIo, error.to_string()), &[], output),
    };
    if !args.manifest_only {
        match check_scripts(&args, settings, output).await {
            // The runner reads the manifest too; what the engine has said of it with lines and hints is not said again.
            Ok(found) => diagnostics
                .extend(found.into_iter().filter(|diagnostic| diagnostic["path"] != crate::packages::MANIFEST)),
            Err(failure) => return fail(&failure, &diagnostics, output),
        }
    }
    let count = |level: &str| diagnostics.iter().filter(|diagnostic| diagnostic["level"] == level).count();
    let (errors, warnings) = (count("error"), count("warning"));
    if output.json {
        println!(
            "{}",
            json!({"valid": errors == 0, "errors": errors, "warnings": warnings, "diagnostics": diagnostics})
        );
    } else {
        style::diagnostics(&diagnostics);
        let verdict =
            if errors == 0 { style::paint(style::GOOD, "valid") } else { style::paint(style::BAD, "invalid") };
        let scope = if args.manifest_only { " (scripts were not parsed)" } else { "" };
        anstream::println!("{verdict}  {}  {errors} errors, {warnings} warnings{scope}", args.package.display());
    }
    if errors == 0 { Exit::Success.into() } else { Exit::BadRequest.into() }
}

/// Parses the scripts in a container, with the Python that will run them.
async fn check_scripts(args: &Args, settings: &Settings, output: Output) -> Result<Vec<Value>, Failure> {
    let cancel = cancel_on_signals();
    let screen = Screen::new(output.quiet || output.json);
    let node = node::ready_unless(settings, &screen, cancel.clone()).await?;
    screen.close();
    job::check(&node, &args.package, cancel).await
}
