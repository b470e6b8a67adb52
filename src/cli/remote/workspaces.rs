//! `ade workspaces`.

use super::{Listing, Remote, moment};
use crate::api::routes::workspaces::{ChangeWorkspace, CreateWorkspace, WorkspaceRecord};
use crate::cli::{Exit, Output};
use crate::client::ClientError;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
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
    /// Make a workspace
    Create {
        /// Its name in commands and URLs: lower-case letters, digits and hyphens
        slug: String,
        /// Its name for people [default: the slug]
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
    },
    /// List workspaces, the newest first
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a workspace: this one, or the one of --workspace
    Get,
    /// Change a workspace: this one, or the one of --workspace
    Set(Set),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Set {
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Its share of the machine against other workspaces that wait; 100 is the default
    #[arg(long, value_name = "NUMBER")]
    weight: Option<i64>,
    /// Bound on its waiting jobs, or `default`
    #[arg(long, value_name = "COUNT", value_parser = bound)]
    max_queued: Option<Bound>,
    /// Bound on its running jobs, 0 for none, or `default`
    #[arg(long, value_name = "COUNT", value_parser = bound)]
    max_running: Option<Bound>,
    /// Hand none of its jobs out
    #[arg(long, conflicts_with = "resume")]
    pause: bool,
    /// Hand its jobs out again
    #[arg(long)]
    resume: bool,
}

/// A number, or what the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(pub Option<i64>);

/// Reads a [`Bound`].
pub fn bound(text: &str) -> Result<Bound, String> {
    match (text, text.parse()) {
        ("default", _) => Ok(Bound(None)),
        (_, Ok(number)) => Ok(Bound(Some(number))),
        (_, Err(_)) => Err("must be a number or `default`".to_owned()),
    }
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    match command {
        Command::Create { slug, title } => {
            let request = remote.client.request(Method::POST, &["workspaces"]).json(&CreateWorkspace { slug, title });
            Ok(show(remote, &remote.client.json(request).await?))
        }
        Command::List { listing } => {
            let headers = ["WORKSPACE", "SLUG", "TITLE", "WEIGHT", "QUEUED", "RUNNING", "PAUSED"];
            remote
                .list(&["workspaces"], &[], listing, headers, |workspace: &WorkspaceRecord| {
                    [
                        workspace.workspace_id.to_string(),
                        plain(&workspace.slug, 100),
                        plain(&workspace.title, 40),
                        workspace.weight.to_string(),
                        workspace.queued.to_string(),
                        workspace.running.to_string(),
                        if workspace.paused { "paused".into() } else { String::new() },
                    ]
                })
                .await
        }
        Command::Get => {
            let request = remote.client.get(&["workspaces", remote.workspace().await?]);
            Ok(show(remote, &remote.client.json(request).await?))
        }
        Command::Set(set) => {
            let change = ChangeWorkspace {
                title: set.title,
                weight: set.weight,
                max_queued: set.max_queued.map(|bound| bound.0),
                max_running: set.max_running.map(|bound| bound.0),
                paused: (set.pause || set.resume).then_some(set.pause),
            };
            let path = ["workspaces", remote.workspace().await?];
            let request = remote.client.request(Method::PATCH, &path).json(&change);
            Ok(show(remote, &remote.client.json(request).await?))
        }
    }
}

fn show(remote: &Remote, workspace: &WorkspaceRecord) -> Exit {
    let or_setting = |bound: Option<i64>| bound.map_or("the setting".to_owned(), |bound| bound.to_string());
    remote.show(
        workspace,
        &[
            ("workspace", Some(workspace.workspace_id.to_string())),
            ("slug", Some(plain(&workspace.slug, 100))),
            ("title", Some(plain(&workspace.title, 255))),
            ("weight", Some(workspace.weight.to_string())),
            ("max queued", Some(or_setting(workspace.max_queued))),
            ("max running", Some(or_setting(workspace.max_running))),
            ("paused", Some(if workspace.paused { "yes" } else { "no" }.to_owned())),
            ("queued", Some(workspace.queued.to_string())),
            ("running", Some(workspace.running.to_string())),
            ("made", Some(moment(&workspace.created_at))),
        ],
    )
}
