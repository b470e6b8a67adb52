//! `ade audit`.

use super::{Listing, Remote, moment};
use crate::api::routes::audit::AuditRecord;
use crate::api::routes::workspaces::Whoami;
use crate::cli::{Exit, Output};
use crate::client::ClientError;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only changes of this kind, such as network.set
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only changes after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    client: ClientSettings,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let Args { action, after, listing, client } = args;
    super::run(client, settings, output, async |remote: &Remote| list(remote, action, after, listing).await).await
}

async fn list(
    remote: &Remote,
    action: Option<String>,
    after: Option<String>,
    listing: Listing,
) -> Result<Exit, ClientError> {
    let workspace = match &remote.asked {
        Some(asked) => Some(asked.clone()),
        None => {
            let whoami: Whoami = remote.client.json(remote.client.get(&["whoami"])).await?;
            whoami.workspace_id.map(|own| own.to_string())
        }
    };
    let path = match &workspace {
        Some(workspace) => vec!["workspaces", workspace, "audit"],
        None => vec!["system", "audit"],
    };
    let query: Vec<(&str, String)> = [("action", action), ("created_after", after)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let headers = ["TIME", "KEY", "ACTION", "TARGET", "CHANGED"];
    remote
        .list(&path, &query, listing, headers, |entry: &AuditRecord| {
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
