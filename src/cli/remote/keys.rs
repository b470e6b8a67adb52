//! `ade keys`.

use super::{Listing, Remote, moment};
use crate::api::routes::keys::{CreateAdminKey, CreateKey, KeyRecord};
use crate::cli::{Exit, Output};
use crate::client::ClientError;
use crate::ids::KeyId;
use crate::settings::{ClientSettings, Settings};
use crate::store::Role;
use crate::text::plain;
use reqwest::Method;
use serde_json::json;
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
    /// Make a key; it is printed once and never again
    Create {
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// What it may do in the workspace: viewer, editor or owner
        #[arg(long, value_name = "ROLE", required_unless_present = "admin", conflicts_with = "admin")]
        role: Option<Role>,
        /// Days until it stops working [default: it does not]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<i64>,
        /// Make an admin's key, which may do everything in every workspace
        #[arg(long)]
        admin: bool,
    },
    /// List keys, the newest first
    List {
        /// List admins' keys instead of the workspace's
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Revoke a key
    Revoke {
        /// The key's id
        key: KeyId,
        /// It is an admin's key, or of another workspace
        #[arg(long)]
        admin: bool,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

/// Where keys are: those of admins, or of the workspace.
async fn keys(remote: &Remote, admin: bool) -> Result<Vec<&str>, ClientError> {
    Ok(if admin { vec!["keys"] } else { vec!["workspaces", remote.workspace().await?, "keys"] })
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    match command {
        Command::Create { name, role, expires_in_days, admin } => {
            let request = remote.client.request(Method::POST, &keys(remote, admin).await?);
            let request = match role {
                Some(role) => request.json(&CreateKey { name, role, expires_in_days }),
                None => request.json(&CreateAdminKey { name, expires_in_days }),
            };
            let record: KeyRecord = remote.client.json(request).await?;
            if remote.output.json {
                println!("{}", json!(record));
            } else {
                // Alone on stdout, so that a script can take it from there.
                println!("{}", plain(record.key.as_deref().unwrap_or_default(), 200));
                remote.note(&format!(
                    "{}, {} of {}: keep it, it is not shown again",
                    record.key_id,
                    record.role,
                    record.workspace_id.as_ref().map_or("every workspace", |id| id.as_str())
                ));
            }
            Ok(Exit::Success)
        }
        Command::List { admin, listing } => {
            let headers = ["KEY", "PREFIX", "ROLE", "NAME", "MADE", "LAST USED", "STATE"];
            remote.list(&keys(remote, admin).await?, &[], listing, headers, row).await
        }
        Command::Revoke { key, admin } => {
            let path = [&keys(remote, admin).await?[..], &[key.as_str()]].concat();
            let record: KeyRecord = remote.client.json(remote.client.request(Method::DELETE, &path)).await?;
            if remote.output.json {
                println!("{}", json!(record));
            } else {
                anstream::println!("revoked  {key}  {}", plain(&record.name, 80));
            }
            Ok(Exit::Success)
        }
    }
}

fn row(key: &KeyRecord) -> [String; 7] {
    let state = match (&key.revoked_at, &key.expires_at) {
        (Some(revoked), _) => format!("revoked {}", moment(revoked)),
        (None, Some(expires)) => format!("until {}", moment(expires)),
        (None, None) => String::new(),
    };
    [
        key.key_id.to_string(),
        plain(&key.prefix, 20),
        key.role.to_string(),
        plain(&key.name, 40),
        moment(&key.created_at),
        key.last_used_at.as_deref().map(moment).unwrap_or_default(),
        state,
    ]
}
