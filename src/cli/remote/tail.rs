//! `ade jobs tail`: a job's events, one a line.

use super::Remote;
use crate::api::routes::job_record::JobRecord;
use crate::cli::Exit;
use crate::cli::timeline::{Timeline, View};
use crate::client::{ClientError, Follower, News};
use crate::events::read::{Line, Lines};
use crate::ids::JobId;
use futures_util::StreamExt;
use std::io;

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
    #[command(flatten)]
    view: View,
}

/// Runs the command.
pub async fn main(remote: &Remote, args: &Args) -> Result<Exit, ClientError> {
    let workspace = remote.workspace().await?;
    // Without the first event, only the record knows when the job began.
    let mut start = None;
    if args.after > 0 && !args.view.absolute {
        let request = remote.client.get(&["workspaces", workspace, "jobs", args.job.as_str()]);
        start = crate::events::millis(&remote.client.json::<JobRecord>(request).await?.queued_at);
    }
    let mut timeline = Timeline::new(&args.view, remote.output, start);
    let mut printed = Ok(());
    if args.follow {
        let mut follower = Follower::new(&remote.client, workspace, &args.job, args.after);
        while let (Ok(()), Some(news)) = (&printed, follower.next().await?) {
            match news {
                News::Event(event, line) => printed = timeline.event(&event, &line),
                News::Lost(why) => timeline.note(&format!("{why}; trying to get back")),
                News::Progress(_) => {}
            }
        }
    } else {
        remote
            .events(&args.job, args.after, |line| {
                printed = timeline.line(&line);
                printed.is_ok()
            })
            .await?;
    }
    match printed.and_then(|()| timeline.close()) {
        // Whoever reads has read enough, as `head` has.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ClientError::unwritable("standard output".as_ref(), error))
        }
        _ => Ok(Exit::Success),
    }
}

impl Remote {
    /// Reads the events that a job has now, after the one with the number `after`, as long as `each` wants more.
    pub async fn events(&self, job: &JobId, after: u64, mut each: impl FnMut(Line) -> bool) -> Result<(), ClientError> {
        let events = self.client.get(&["workspaces", self.workspace().await?, "jobs", job.as_str(), "events"]);
        let request = events.query(&[("after", after)]).header("Accept", "application/x-ndjson");
        let mut content = self.client.send(request).await?.bytes_stream();
        let mut lines = Lines::default();
        while let Some(bytes) = content.next().await {
            let bytes = bytes.map_err(|error| {
                let message = format!("the events broke off: {error}");
                ClientError::new(crate::client::Blame::Environment, "connection_lost", message)
            })?;
            for line in lines.push(&bytes) {
                if !each(line) {
                    return Ok(());
                }
            }
        }
        lines.end().map(each);
        Ok(())
    }
}
