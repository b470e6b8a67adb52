//! `ade wheelhouse`: folders of wheels for sites without network.

use super::progress::Screen;
use super::style::{self, GOOD, bytes, paint};
use super::{Exit, Output, cancel_on_signals, fail, node};
use crate::deps::{Deps, Failed, Locked, Want, Wheelhouse, download};
use crate::job::{self, Node};
use crate::network::{Access, Decision, Layers, Place, Switch, decide};
use crate::packages::Requirements;
use crate::sandbox::{Failure, FailureKind};
use crate::settings::Settings;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch the wheels that requirements come to, for this image's Python and platform; needs network
    Add {
        /// The requirements
        #[arg(long, short, value_name = "FILE", required_unless_present = "package")]
        requirements: Option<PathBuf>,
        /// Config package whose requirements are meant: a folder, or a zip of one
        #[arg(long, value_name = "PACKAGE", conflicts_with = "requirements")]
        package: Option<PathBuf>,
    },
    /// Say what a config package needs that the wheelhouse does not have, for this image's Python and platform
    Check {
        /// Config package: a folder, or a zip of one
        package: PathBuf,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let cancel = cancel_on_signals();
    let result = match args.command {
        Command::Add { requirements, package } => {
            add(settings, requirements.as_deref(), package.as_deref(), cancel, output).await
        }
        Command::Check { package } => check(settings, &package, cancel, output).await,
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => fail(&failure, &[], output),
    }
}

async fn add(
    settings: &Settings,
    requirements: Option<&Path>,
    package: Option<&Path>,
    cancel: watch::Receiver<bool>,
    output: Output,
) -> Result<Exit, Failure> {
    let Some(Wheelhouse::Folder(folder)) = &settings.wheelhouse else {
        return Err(Failure::new(
            FailureKind::InputMissing,
            "say which folder is the wheelhouse: --wheelhouse DIR (with a slash), or ADE_WHEELHOUSE",
        ));
    };
    let requirements = match (requirements, package) {
        (Some(path), _) => read(path)?,
        (None, Some(path)) => of_package(path)?,
        (None, None) => Requirements::default(),
    };
    if requirements.list.is_empty() {
        if output.json {
            println!("{}", json!({"wheelhouse": folder, "wheels": [], "fetched": []}));
        } else {
            anstream::println!("there is nothing to fetch: no requirements");
        }
        return Ok(Exit::Success);
    }
    std::fs::create_dir_all(folder).map_err(|error| host_io(folder, &error))?;
    let (screen, mut node) = ready(settings, cancel.clone(), output).await?;
    // What is in the wheelhouse already must not be taken for all that there is.
    node.deps = Deps::new(
        crate::deps::Index { wheelhouse: None, workspace_wheelhouses: None, ..node.deps.index().clone() },
        node.deps.sets().clone(),
    );
    let wanted =
        resolve(&node, requirements, Access::InstallOnly, settings.runtime_network_access, cancel, &screen).await;
    let wanted = wanted.map_err(|failed| failed.failure)?;
    let mut fetched = Vec::new();
    for wheel in &wanted {
        screen.say(&format!("fetching {}", wheel.filename));
        if download(&node.deps, settings.ca_bundle.as_deref(), wheel, folder).await? {
            fetched.push(wheel.filename.as_str());
        }
    }
    screen.close();
    if output.json {
        let all: Vec<&str> = wanted.iter().map(|wheel| wheel.filename.as_str()).collect();
        println!("{}", json!({"wheelhouse": folder, "wheels": all, "fetched": fetched}));
    } else {
        for name in &fetched {
            let size = std::fs::metadata(folder.join(name)).map(|metadata| metadata.len()).unwrap_or_default();
            anstream::println!("  {name}  {}", bytes(size));
        }
        let there = wanted.len() - fetched.len();
        anstream::println!("{} wheels fetched, {there} were there: {}", fetched.len(), folder.display());
    }
    Ok(Exit::Success)
}

async fn check(
    settings: &Settings,
    package: &Path,
    cancel: watch::Receiver<bool>,
    output: Output,
) -> Result<Exit, Failure> {
    let requirements = of_package(package)?;
    if requirements.list.is_empty() {
        report(&[], &[], output);
        return Ok(Exit::Success);
    }
    let (screen, node) = ready(settings, cancel.clone(), output).await?;
    let checked = resolve(&node, requirements, Access::Deny, Switch::Manifest, cancel, &screen).await;
    screen.close();
    match checked {
        Ok(wheels) => {
            report(&wheels, &[], output);
            Ok(Exit::Success)
        }
        Err(Failed { failure, .. }) if failure.kind == FailureKind::DependencyNetworkDenied => {
            let listed = failure.detail.as_ref().and_then(|detail| detail.get("missing")).and_then(Value::as_array);
            let missing = listed.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            report(&[], &missing.unwrap_or_else(|| vec![failure.message.clone()]), output);
            Ok(Exit::BadRequest)
        }
        Err(failed) => Err(failed.failure),
    }
}

fn report(wheels: &[Locked], missing: &[String], output: Output) {
    if output.json {
        let wheels: Vec<&str> = wheels.iter().map(|wheel| wheel.filename.as_str()).collect();
        println!("{}", json!({"complete": missing.is_empty(), "wheels": wheels, "missing": missing}));
        return;
    }
    for line in missing {
        // What network could do is not the question here.
        let line = line.split(", and the setting of the package").next().unwrap_or(line);
        anstream::println!("  {line}");
    }
    if missing.is_empty() {
        anstream::println!(
            "{}  the wheelhouse has all that the package needs ({} wheels)",
            paint(GOOD, "complete"),
            wheels.len()
        );
    } else {
        anstream::println!("{}  `ade wheelhouse add` fetches what is missing", paint(style::BAD, "incomplete"));
    }
}

async fn ready(settings: &Settings, cancel: watch::Receiver<bool>, output: Output) -> Result<(Screen, Node), Failure> {
    let screen = Screen::new(output.quiet || output.json);
    let node = node::ready_unless(settings, &screen, cancel).await?;
    Ok((screen, node))
}

async fn resolve(
    node: &Node,
    requirements: Requirements,
    package: Access,
    instance: Switch,
    cancel: watch::Receiver<bool>,
    screen: &Screen,
) -> Result<Vec<Locked>, Failed> {
    let layers = Layers { instance, workspace: Access::Inherit, package, allowed_hosts: Vec::new(), manifest: false };
    let network: Decision = decide(&layers).at(Place::CommandLine);
    let workspace_id = "local".to_owned();
    let place = job::place(node, &workspace_id);
    let want = Want { workspace_id, requirements, network, source_builds: false };
    screen.say("resolving the requirements");
    node.deps.resolve(&place, &want, cancel, &mut |_| {}).await
}

fn of_package(path: &Path) -> Result<Requirements, Failure> {
    let package = job::open_package(path)?;
    match package.file(crate::packages::REQUIREMENTS) {
        Some(bytes) => parse(bytes),
        None => Ok(Requirements::default()),
    }
}

fn read(path: &Path) -> Result<Requirements, Failure> {
    let failed = |error| Failure::new(FailureKind::InputMissing, format!("cannot read {}: {error}", path.display()));
    parse(&std::fs::read(path).map_err(failed)?)
}

fn parse(bytes: &[u8]) -> Result<Requirements, Failure> {
    Requirements::parse(bytes).map_err(|diagnostics| {
        let Some(first) = diagnostics.first() else {
            return Failure::new(FailureKind::RequirementsInvalid, "the requirements cannot be read");
        };
        let hint = first.hint.as_deref().unwrap_or_default();
        Failure {
            script: Some(first.path.clone()),
            line: first.line.and_then(|line| u32::try_from(line).ok()),
            ..Failure::new(FailureKind::RequirementsInvalid, format!("{} {hint}", first.message))
        }
    })
}

fn host_io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}", path.display()))
}
