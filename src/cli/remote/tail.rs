//! `ade jobs tail`: a job's events, one a line.

use super::Remote;
use crate::cli::Exit;
use crate::cli::style::{BAD, DIM, STRONG, WARN, paint, seconds};
use crate::client::{ClientError, Follower, News};
use crate::events::{Event, Level};
use crate::ids::JobId;
use crate::text::plain;
use futures_util::TryStreamExt;
use serde_json::Value;
use std::io::{self, Write};
use tokio::io::AsyncBufReadExt;
use tokio_util::io::StreamReader;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job
    job: JobId,
    /// Go on until the job has ended
    #[arg(long, short)]
    follow: bool,
    /// Only events with a higher number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
}

/// Runs the command.
pub async fn main(remote: &Remote, args: &Args) -> Result<Exit, ClientError> {
    let workspace = remote.workspace().await?;
    let printed = if args.follow {
        let mut follower = Follower::new(&remote.client, workspace, &args.job, args.after);
        let mut printed = Ok(());
        while let (Ok(()), Some(news)) = (&printed, follower.next().await?) {
            match news {
                News::Event(event, line) => printed = print(remote, &event, &line),
                News::Lost(why) => remote.note(&paint(WARN, format!("{why}; trying to get back"))),
                News::Progress(_) => {}
            }
        }
        printed
    } else {
        let events = remote.client.get(&["workspaces", workspace, "jobs", args.job.as_str(), "events"]);
        let request = events.query(&[("after", args.after)]).header("Accept", "application/x-ndjson");
        let content = remote.client.send(request).await?.bytes_stream().map_err(io::Error::other);
        let mut lines = StreamReader::new(content).lines();
        let mut printed = Ok(());
        while printed.is_ok() {
            let line = lines.next_line().await.map_err(|error| {
                ClientError::new(
                    crate::client::Blame::Environment,
                    "connection_lost",
                    format!("the events broke off: {error}"),
                )
            })?;
            let Some(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(event) => printed = print(remote, &event, &line),
                Err(_) => remote.note(&paint(WARN, "a line that is no event was left out")),
            }
        }
        printed
    };
    match printed {
        // Whoever reads has read enough, as `head` has.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ClientError::unwritable("standard output".as_ref(), error))
        }
        _ => Ok(Exit::Success),
    }
}

fn print(remote: &Remote, event: &Event, line: &str) -> io::Result<()> {
    if remote.output.json {
        return writeln!(io::stdout(), "{line}");
    }
    let style = match event.level {
        Level::Debug => DIM,
        Level::Info => STRONG,
        Level::Warning => WARN,
        Level::Error => BAD,
    };
    let time = plain(event.ts.get(11..23).unwrap_or(&event.ts), 40);
    // Padded before it is painted: the codes of colours have a length too.
    let name = format!("{:<16}", plain(&event.event, 40));
    let line = format!("{} {:>5}  {} {}", paint(DIM, time), event.seq, paint(style, name), about(event));
    writeln!(anstream::stdout(), "{}", line.trim_end())
}

/// What an event is about, in one line.
fn about(event: &Event) -> String {
    let text = |key: &str| event.detail.get(key).and_then(Value::as_str).map(|text| plain(text, 500));
    let mut parts: Vec<String> = match &*event.event {
        "log" => text("text").into_iter().collect(),
        "error" => [text("kind"), text("message")].into_iter().flatten().collect(),
        _ => event.detail.iter().filter_map(|(key, value)| scalar(key, value)).collect(),
    };
    if let Some(state) = &event.state {
        parts.insert(0, plain(state, 40));
    }
    parts.extend(event.duration_ms.map(|took| paint(DIM, format!("({})", seconds(took)))));
    parts.join(" ")
}

fn scalar(key: &str, value: &Value) -> Option<String> {
    let value = match value {
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
        Value::String(text) => plain(text, 200),
        other => other.to_string(),
    };
    Some(format!("{}={value}", plain(key, 40)))
}
