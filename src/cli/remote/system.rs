//! `ade system`.

use super::workspaces::{Bound, bound};
use super::{Remote, moment};
use crate::api::routes::system::{ChangeConcurrency, ChangeQueue, Concurrency, QueueStatus, SafeMode, SystemStatus};
use crate::cli::style::{self, BAD, GOOD, paint};
use crate::cli::{Exit, Output};
use crate::client::ClientError;
use crate::settings::{ClientSettings, Settings, Switch};
use crate::store::QueueState;
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
    /// Show how the service is: parts, queue, nodes
    Status,
    /// Show the queue, or turn it on, paused or off
    Queue {
        /// on; paused: jobs are taken and none is handed out; off: none is taken either
        #[arg(value_name = "on|paused|off")]
        state: Option<QueueState>,
    },
    /// Show or set how many containers run at once on each node
    Concurrency {
        /// A number, or `default` for each node's own setting
        #[arg(value_name = "NUMBER|default", value_parser = bound)]
        number: Option<Bound>,
    },
    /// Show safe mode, or turn it on or off; while it is on, no script is run
    SafeMode {
        /// on or off
        #[arg(value_name = "on|off")]
        switch: Option<Switch>,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    let get = |what: &str| remote.client.get(&["system", what]);
    let put = |what: &str| remote.client.request(Method::PUT, &["system", what]);
    match command {
        Command::Status => {
            let status: SystemStatus = remote.client.json(get("status")).await?;
            if remote.output.json {
                println!("{}", json!(status));
            } else {
                print(&status);
            }
            Ok(Exit::Success)
        }
        Command::Queue { state } => {
            let request = match state {
                Some(state) => put("queue").json(&ChangeQueue { state: Some(state), max_queued: None }),
                None => get("queue"),
            };
            let queue: QueueStatus = remote.client.json(request).await?;
            Ok(remote.show(&queue, &[("queue", Some(queue_line(&queue)))]))
        }
        Command::Concurrency { number } => {
            let request = match number {
                Some(Bound(max_concurrency)) => put("concurrency").json(&ChangeConcurrency { max_concurrency }),
                None => get("concurrency"),
            };
            let concurrency: Concurrency = remote.client.json(request).await?;
            let source = if concurrency.stored { "stored" } else { "from the settings" };
            let line = format!("{} on each node, {source}", concurrency.max_concurrency);
            Ok(remote.show(&concurrency, &[("concurrency", Some(line))]))
        }
        Command::SafeMode { switch } => {
            let request = match switch {
                Some(switch) => put("safe-mode").json(&SafeMode { enabled: switch == Switch::On }),
                None => get("safe-mode"),
            };
            let mode: SafeMode = remote.client.json(request).await?;
            Ok(remote.show(&mode, &[("safe mode", Some(on_off(mode.enabled)))]))
        }
    }
}

fn on_off(on: bool) -> String {
    if on { "on".into() } else { "off".into() }
}

fn queue_line(queue: &QueueStatus) -> String {
    format!("{}, {} of {} places taken, {} running", queue.state, queue.queued, queue.max_queued, queue.running)
}

fn print(status: &SystemStatus) {
    style::fields(&[
        ("instance", Some(status.instance_id.to_string())),
        ("version", Some(plain(&status.version, 40))),
        ("queue", Some(queue_line(&status.queue))),
        ("safe mode", Some(on_off(status.safe_mode))),
    ]);
    anstream::println!();
    for part in &status.parts {
        let mark = if part.ready { paint(GOOD, "ready    ") } else { paint(BAD, "not ready") };
        let reason = part.reason.as_deref().map(|reason| format!("  {}", plain(reason, 300))).unwrap_or_default();
        anstream::println!("{mark}  {}{reason}", plain(&part.name, 40));
    }
    anstream::println!();
    let rows: Vec<[String; 5]> = status
        .nodes
        .iter()
        .map(|node| {
            [
                node.node_id.to_string(),
                plain(&node.hostname, 60),
                format!("{} of {}", node.running, node.max_concurrency),
                moment(&node.last_heartbeat),
                if node.draining { "draining".into() } else { String::new() },
            ]
        })
        .collect();
    style::table(["NODE", "HOST", "RUNNING", "LAST SEEN", ""], &rows);
}
