//! `ade config`: packages on this machine, and the configs of a service that are made of them.

mod validate;

use super::{Output, remote};
use crate::settings::{ClientSettings, Settings};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientSettings,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a package: every diagnostic at once, with file, line and hint
    Validate(validate::Args),
    #[command(flatten)]
    OnService(remote::configs::Command),
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    match args.command {
        Command::Validate(args) => validate::main(args, settings, output).await,
        Command::OnService(command) => remote::configs::main(command, args.client, settings, output).await,
    }
}
