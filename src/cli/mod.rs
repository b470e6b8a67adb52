//! The command line: one file per command, one exit code per kind of failure.

mod bench;
mod config;
mod deps;
mod doctor;
mod events;
mod explain;
mod image;
mod node;
mod progress;
mod remote;
mod run;
mod serve;
mod settings;
mod staging;
mod style;
mod summary;
mod timeline;
mod wheelhouse;

use crate::sandbox::{Failure, FailureKind, Fault};
use crate::settings::Settings;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::json;
use std::process::ExitCode;
use tokio::sync::watch;

/// ADE turns messy spreadsheets into clean ones, inside hardened containers.
#[derive(Debug, Parser)]
#[command(name = "ade", version, propagate_version = true, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  succeeded
  1  the job failed; a test or a comparison found a difference
  2  bad usage, package or input; a service refused the request
  3  the environment: no Docker, no image, no disk, no service
  130  interrupted";

/// How to talk to the caller.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Output {
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Print no progress, only the result
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Colours: auto looks for a terminal, NO_COLOR and CLICOLOR_FORCE
    #[arg(long, value_name = "auto|always|never", global = true, default_value = "auto", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    color: Color,
}

/// Whether to print colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Holds for everything that is printed from here on.
    fn set(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a config package over workbooks
    Run(run::Args),
    /// Config packages: write, check, try, publish and compare them
    Config(Box<config::Args>),
    /// Build or show the base image of job containers
    Image(image::Args),
    /// Dependency sets of this machine: list, show, prune
    Deps(Box<deps::Args>),
    /// Wheels for sites without network: fetch them, and check what a package needs
    Wheelhouse(Box<wheelhouse::Args>),
    /// Check this machine: Docker, its features, disk, image, limits
    Doctor,
    /// Run the service: REST API, queue and scheduler
    Serve(Box<serve::Args>),
    /// Submit jobs to a service; look at, wait for, cancel, retry and download them
    Jobs(Box<remote::jobs::Args>),
    /// Show a job's events as a timeline, from an events.ndjson or from where `ade run` left its files
    Events(Box<events::Args>),
    /// Documents of a service: upload, list, download, delete
    Documents(Box<remote::documents::Args>),
    /// Workspaces of a service
    Workspaces(Box<remote::workspaces::Args>),
    /// API keys of a service
    Keys(Box<remote::keys::Args>),
    /// Who may reach what: the network policy of a service
    Network(Box<remote::network::Args>),
    /// Who changed what in a service, the newest first: in this workspace, or everywhere for an admin who names none
    Audit(Box<remote::audit::Args>),
    /// A service as a whole, for its admins
    System(Box<remote::system::Args>),
    /// Measure how fast this machine, or a service, runs jobs, and what is wanted of it
    Bench(Box<bench::Args>),
    /// Show every setting: its value, and where the value comes from
    Settings(Box<settings::Args>),
    /// Print the OpenAPI document of the service
    Openapi,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let matches = silent(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "ade", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if let Command::Openapi = cli.command {
        print!("{}", crate::api::openapi::published());
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("ade: cannot start: {error}");
            return Exit::Environment.into();
        }
    };
    let Cli { command, settings, output } = cli;
    output.color.set();
    runtime.block_on(async {
        match command {
            Command::Run(args) => run::main(args, &settings, output).await,
            Command::Config(args) => config::main(*args, &settings, output).await,
            Command::Image(args) => image::main(args, &settings, output).await,
            Command::Deps(args) => deps::main(*args, &settings, output).await,
            Command::Wheelhouse(args) => wheelhouse::main(*args, &settings, output).await,
            Command::Serve(args) => {
                let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
                serve::main(*args, matches, &settings, output).await
            }
            Command::Bench(args) => {
                let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
                bench::main(*args, matches, &settings, output).await
            }
            Command::Settings(args) => {
                let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
                settings::main(*args, matches, output)
            }
            Command::Events(args) => events::main(&args, output),
            Command::Jobs(args) => remote::jobs::main(*args, &settings, output).await,
            Command::Documents(args) => remote::documents::main(*args, &settings, output).await,
            Command::Workspaces(args) => remote::workspaces::main(*args, &settings, output).await,
            Command::Keys(args) => remote::keys::main(*args, &settings, output).await,
            Command::Network(args) => remote::network::main(*args, &settings, output).await,
            Command::Audit(args) => remote::audit::main(*args, &settings, output).await,
            Command::System(args) => remote::system::main(*args, &settings, output).await,
            Command::Doctor => doctor::main(&settings, output).await,
            Command::Completions { .. } | Command::Openapi => ExitCode::SUCCESS,
        }
    })
}

/// The command with a help that shows no values of the environment: some are secrets, or have one inside. `ade settings` shows
/// what may be shown.
fn silent(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| argument.hide_env_values(true)).mut_subcommands(silent)
}

/// True once SIGINT, SIGTERM or SIGHUP came. A second one does not hurry: the container is removed first.
fn cancel_on_signals() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if let Ok(mut stream) = signal(kind) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    sender.send_replace(true);
                }
            });
        }
    }
    receiver
}

/// Exit codes, as in [`EXIT_CODES`].
#[derive(Debug, Clone, Copy)]
enum Exit {
    Success,
    JobFailed,
    BadRequest,
    Environment,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::JobFailed => 1,
            Exit::BadRequest => 2,
            Exit::Environment => 3,
            Exit::Interrupted => 130,
        })
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        if failure.kind == FailureKind::Cancelled {
            return Self::Interrupted;
        }
        match failure.kind.fault() {
            Fault::Job => Self::JobFailed,
            Fault::Request => Self::BadRequest,
            Fault::Environment => Self::Environment,
        }
    }
}

/// Reports a failure without a job, and gives its exit code.
fn fail(failure: &Failure, diagnostics: &[serde_json::Value], output: Output) -> ExitCode {
    if output.json {
        println!(
            "{}",
            json!({"status": "failed", "error": failure, "files": {}, "summary": null, "usage": null, "diagnostics": diagnostics})
        );
    } else {
        style::diagnostics(diagnostics);
        style::failure(failure);
    }
    Exit::from(failure).into()
}
