//! `ade config`: packages on this machine, and the configs of a service that are made of them.

mod examples;
mod local;
mod new;
mod test;
mod try_out;
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
    /// Make a package that works at once, to be changed
    New(new::Args),
    /// Check a package: every diagnostic at once, with file, line and hint
    Validate(validate::Args),
    /// Run the examples of a package, and compare with what is expected of them
    Test(test::Args),
    /// Run a package over workbooks, and say why each column went where it went
    Try(try_out::Args),
    /// Show what differs between two packages, each a folder, a zip or a version of a config
    Diff(remote::config::diff::Args),
    #[command(flatten)]
    OnService(remote::config::Command),
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    match args.command {
        Command::New(args) => new::main(args, settings, output).await,
        Command::Test(args) => test::main(args, settings, output).await,
        Command::Try(args) => try_out::main(args, settings, output).await,
        Command::Validate(args) => validate::main(args, settings, output).await,
        Command::Diff(diff) => remote::config::diff::main(diff, args.client, settings, output).await,
        Command::OnService(command) => remote::config::main(command, args.client, settings, output).await,
    }
}
