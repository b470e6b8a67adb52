//! `ade audit`.

use super::{Listing, Remote, moment};
use crate::api::routes::audit::AuditRecord;
use crate::api::routes::workspaces::Whoami;
use crate::cli::style::bytes;
use crate::cli::{Exit, Output};
use crate::client::{Blame, ClientError};
use crate::ids::KeyId;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use futures_util::StreamExt;
use serde_json::Value;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    client: ClientSettings,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write all changes, a JSON object a line, the newest first
    Export {
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Which changes.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only changes of this kind, such as network.set, or of these, separated by commas
    #[arg(long, value_name = "ACTION", global = true)]
    action: Option<String>,
    /// Only changes with this key
    #[arg(long, value_name = "KEY", global = true)]
    key: Option<KeyId>,
    /// Only changes of this job, document, config, key or workspace, by id
    #[arg(long, value_name = "ID", global = true)]
    target: Option<String>,
    /// Only changes after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", global = true)]
    after: Option<String>,
    /// Only changes at this time or before
    #[arg(long, value_name = "TIME", global = true)]
    until: Option<String>,
}

impl Filter {
    fn query(self) -> Vec<(&'static str, String)> {
        let key = self.key.map(|key| key.to_string());
        [
            ("action", self.action),
            ("key_id", key),
            ("target_id", self.target),
            ("created_after", self.after),
            ("created_until", self.until),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let Args { command, filter, listing, client } = args;
    let run = async |remote: &Remote| match command {
        None => list(remote, filter, listing).await,
        Some(Command::Export { .. }) if listing.limit.is_some() || listing.all => {
            let message = "an export has all changes: leave out --limit and --all; --after and --until bound it";
            Err(ClientError::new(Blame::Request, "export_has_all", message))
        }
        Some(Command::Export { out }) => export(remote, filter, out.as_deref()).await,
    };
    super::run(client, settings, output, run).await
}

/// Where the audit is: of the workspace that was asked for or is the key's own, or of the instance.
async fn path(remote: &Remote) -> Result<Vec<String>, ClientError> {
    let workspace = match &remote.asked {
        Some(asked) => Some(asked.clone()),
        None => {
            let whoami: Whoami = remote.client.json(remote.client.get(&["whoami"])).await?;
            whoami.workspace_id.map(|own| own.to_string())
        }
    };
    Ok(match workspace {
        Some(workspace) => vec!["workspaces".into(), workspace, "audit".into()],
        None => vec!["system".into(), "audit".into()],
    })
}

async fn list(remote: &Remote, filter: Filter, listing: Listing) -> Result<Exit, ClientError> {
    let path = path(remote).await?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let headers = ["TIME", "KEY", "ACTION", "TARGET", "CHANGED"];
    remote
        .list(&path, &filter.query(), listing, headers, |entry: &AuditRecord| {
            [
                moment(&entry.created_at),
                plain(&entry.key_name, 30),
                plain(&entry.action, 40),
                plain(&entry.target_id, 40),
                plain(&changes(&entry.detail), 200),
            ]
        })
        .await
}

async fn export(remote: &Remote, filter: Filter, out: Option<&Path>) -> Result<Exit, ClientError> {
    let path = path(remote).await?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let request = remote.client.get(&path).query(&filter.query()).header("Accept", "application/x-ndjson");
    if let Some(out) = out {
        let size = remote.save(request, out, None).await?;
        remote.note(&format!("wrote {} ({})", out.display(), bytes(size)));
        return Ok(Exit::Success);
    }
    let mut content = remote.client.send(request).await?.bytes_stream();
    let mut stdout = std::io::stdout().lock();
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(|error| {
            let message = format!("the export broke off, and what was written is not all: {error}; export it again");
            ClientError::new(Blame::Environment, "connection_lost", message)
        })?;
        match stdout.write_all(&chunk).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // Whoever reads has read enough, as `head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Success),
            Err(error) => return Err(ClientError::unwritable("standard output".as_ref(), error)),
        }
    }
    Ok(Exit::Success)
}

/// What is another value now: `access: inherit -> deny`; all of it, where there was nothing before.
fn changes(detail: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (before, after) = (&detail["before"], &detail["after"]);
    let changed = after.as_object().into_iter().flatten().filter(|(name, value)| before[name.as_str()] != **value);
    let changed = changed.map(|(name, value)| match before {
        Value::Null => format!("{name}: {}", text(value)),
        before => format!("{name}: {} -> {}", text(&before[name.as_str()]), text(value)),
    });
    detail["path"].as_str().map(str::to_owned).into_iter().chain(changed).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_shown() {
        let detail = json!({"before": {"access": "inherit", "source_builds": false}, "after": {"access": "deny", "source_builds": false}});
        assert_eq!(changes(&detail), "access: inherit -> deny");
        assert_eq!(changes(&json!({"before": {"switch": null}, "after": {"switch": "off"}})), "switch: null -> off");
        let edit = json!({"path": "a.py", "before": null, "after": {"sha256": "ab"}});
        assert_eq!(changes(&edit), "a.py, sha256: ab");
        assert_eq!(changes(&json!({"path": "a.py", "before": {"sha256": "ab"}, "after": null})), "a.py");
        assert_eq!(changes(&json!(null)), "");
    }
}
