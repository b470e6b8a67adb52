//! Commands that speak to a service.

pub mod audit;
pub mod config;
pub mod documents;
mod explain;
pub mod jobs;
pub mod keys;
pub mod network;
mod submit;
pub mod system;
mod tail;
mod transfer;
mod wait;
pub mod workspaces;

use super::style::{BAD, DIM, paint};
use super::{Exit, Output, cancel_on_signals};
use crate::api::page::Page;
use crate::api::routes::workspaces::{Whoami, WorkspaceRecord};
use crate::client::{Blame, Client, ClientError};
use crate::job::HookOutput;
use crate::sandbox::Failure;
use crate::settings::{ClientSettings, Settings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{OnceCell, watch};

/// Entries of a list unless told otherwise.
const LISTED: usize = 50;

/// A service, and how the caller wants to hear of it.
pub struct Remote {
    pub client: Client,
    pub output: Output,
    asked: Option<String>,
    workspace: OnceCell<String>,
    interrupted: watch::Receiver<bool>,
}

/// How much of a list.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Listing {
    /// Entries to show, the newest [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "all")]
    limit: Option<u32>,
    /// Show all
    #[arg(long)]
    all: bool,
}

/// Finds the service and runs a command on it.
pub async fn run(
    client: ClientSettings,
    settings: &Settings,
    output: Output,
    command: impl AsyncFnOnce(&Remote) -> Result<Exit, ClientError>,
) -> ExitCode {
    let mut interrupted = cancel_on_signals();
    let found = Client::find(&client, settings.ca_bundle.as_deref());
    let result = match found {
        Err(error) => Err(error),
        Ok(found) => {
            let remote = Remote::new(found, output, client.target.workspace, interrupted.clone());
            // The command first: where it has something to say about an interrupt, it says it itself.
            tokio::select! {
                biased;
                result = command(&remote) => result,
                Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => Err(ClientError::interrupted("interrupted")),
            }
        }
    };
    result.unwrap_or_else(|error| fail(&error, output)).into()
}

/// Reports an error, and gives its exit code.
pub fn fail(error: &ClientError, output: Output) -> Exit {
    if output.json {
        let mut said = json!({"error": {"kind": error.kind, "message": error.message}});
        if let Some(problem) = &error.problem {
            said["error"]["problem"] = json!(problem);
        }
        if let Some(id) = &error.job_id {
            said["job_id"] = json!(id);
        }
        println!("{said}");
    } else {
        anstream::eprintln!("{} {}", paint(BAD, format!("error[{}]:", error.kind)), error.message);
        for field in error.problem.iter().flat_map(|problem| &problem.errors) {
            anstream::eprintln!("  {} {}: {}", paint(DIM, "at"), field.pointer, field.detail);
        }
        let listed = error.problem.as_ref().and_then(|problem| problem.extensions.get("diagnostics")?.as_array());
        super::style::diagnostics(listed.map_or(&[], Vec::as_slice));
        if let Some(problem) = &error.problem {
            activation(&problem.extensions);
        }
        if let Some(id) = error.problem.as_ref().and_then(|problem| problem.request_id.as_ref()) {
            anstream::eprintln!("  {}", paint(DIM, format!("request {id}")));
        }
    }
    match error.blame {
        Blame::Request => Exit::BadRequest,
        Blame::Environment => Exit::Environment,
        Blame::Interrupted => Exit::Interrupted,
    }
}

/// What the problem of an activation says besides: where it failed, what the hooks printed, what the installer said.
fn activation(said: &serde_json::Map<String, serde_json::Value>) {
    if let Some(failure) = said.get("error").and_then(|failure| Failure::deserialize(failure).ok()) {
        super::style::place(&failure);
    }
    if let Some(output) = said.get("hook_output").and_then(|output| HookOutput::deserialize(output).ok()) {
        super::style::hook_output(&output);
    }
    super::style::install_log(said.get("install_log").and_then(|log| log.as_str()).unwrap_or_default());
}

impl Remote {
    /// A service, with the workspace that was asked for.
    pub fn new(client: Client, output: Output, asked: Option<String>, interrupted: watch::Receiver<bool>) -> Self {
        let asked = asked.filter(|workspace| !workspace.is_empty());
        Self { client, output, asked, workspace: OnceCell::new(), interrupted }
    }

    /// The workspace that the command is about, as it stands in paths.
    pub async fn workspace(&self) -> Result<&str, ClientError> {
        self.workspace.get_or_try_init(|| self.find_workspace()).await.map(String::as_str)
    }

    async fn find_workspace(&self) -> Result<String, ClientError> {
        if let Some(asked) = &self.asked {
            return Ok(asked.clone());
        }
        let whoami: Whoami = self.client.json(self.client.get(&["whoami"])).await?;
        if let Some(own) = whoami.workspace_id {
            return Ok(own.to_string());
        }
        let Page { items, .. } = self.client.list::<WorkspaceRecord>(&["workspaces"], &[], Some(2)).await?;
        if let [only] = items.as_slice() {
            return Ok(only.workspace_id.to_string());
        }
        let first = crate::service::FIRST_WORKSPACE;
        match self.client.json::<WorkspaceRecord>(self.client.get(&["workspaces", first])).await {
            Ok(workspace) => Ok(workspace.workspace_id.to_string()),
            Err(error) if error.kind == "workspace_not_found" => Err(ClientError::new(
                Blame::Request,
                "workspace_required",
                "there are several workspaces: name one with --workspace or ADE_WORKSPACE; `ade workspaces list` shows them",
            )),
            Err(error) => Err(error),
        }
    }

    /// Does something that the caller may interrupt, with something to say about it.
    pub async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
        otherwise: impl FnOnce() -> ClientError,
    ) -> Result<T, ClientError> {
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            biased;
            result = work => result,
            Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => Err(otherwise()),
        }
    }

    /// Lists entries of the workspace's, or of the service's where the path begins with something else.
    pub async fn list<T: DeserializeOwned + Serialize, const N: usize>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        listing: Listing,
        headers: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<Exit, ClientError> {
        let limit = listing.limit.map_or(LISTED, |limit| limit as usize);
        let page: Page<T> = self.client.list(segments, query, (!listing.all).then_some(limit)).await?;
        if self.output.json {
            println!("{}", json!(page));
            return Ok(Exit::Success);
        }
        super::style::table(headers, &page.items.iter().map(row).collect::<Vec<_>>());
        if page.next_cursor.is_some() && !self.output.quiet {
            anstream::eprintln!("{}", paint(DIM, "there are more: --limit COUNT or --all shows them"));
        }
        Ok(Exit::Success)
    }

    /// Shows one record.
    pub fn show<T: Serialize>(&self, record: &T, fields: &[(&str, Option<String>)]) -> Exit {
        if self.output.json {
            println!("{}", json!(record));
        } else {
            super::style::fields(fields);
        }
        Exit::Success
    }

    /// Says something that is beside the result.
    pub fn note(&self, text: &str) {
        if !self.output.json && !self.output.quiet {
            anstream::eprintln!("{text}");
        }
    }
}

/// A time of a record, for people: to the second.
fn moment(time: &str) -> String {
    crate::text::plain(time, 19).trim_end_matches('…').replace('T', " ")
}

/// `90`, `90s`, `15m` or `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(place) => text.split_at(place),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(factor));
    // A year is as good as ever, and can be added to any time.
    let seconds = seconds.filter(|seconds| factor > 0 && *seconds <= 366 * 24 * 3600);
    seconds.map(Duration::from_secs).ok_or_else(|| "must be a time such as 90, 90s, 15m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_a_unit_or_as_seconds() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "1d", "-1", "1.5s", "99999999999999999999", "9999999h", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
