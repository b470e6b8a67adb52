//! Following a job to its end, with what `ade run` shows.

use super::{Remote, duration};
use crate::api::routes::job_record::JobRecord;
use crate::cli::Exit;
use crate::cli::progress::Screen;
use crate::cli::staging::Staging;
use crate::cli::style::{self, WARN, paint, seconds};
use crate::cli::summary::{self, Ended, Summary};
use crate::client::{Blame, ClientError, Follower, News};
use crate::ids::JobId;
use crate::job::{FILES, Observer};
use crate::queue::JobState;
use crate::sandbox::protocol::ContainerUsage;
use crate::sandbox::{Failure, FailureKind};
use crate::text::plain;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest that one request waits for a change.
const ONE_WAIT: Duration = Duration::from_secs(50);
/// How long a service may be away, and the pause between two looks while it is.
const AWAY: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);

/// Whether to wait for a job that was just submitted.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// Wait for the end, and show the progress and the result as `ade run` does
    #[arg(long)]
    pub wait: bool,
    /// Folder for the job's files; files of their names are replaced
    #[arg(long, short, value_name = "DIR", requires = "wait")]
    pub out: Option<PathBuf>,
}

/// How long to wait at most.
#[derive(Debug, clap::Args)]
pub struct Patience {
    /// Give up after this time, such as 90s, 15m or 2h, with exit code 3 [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Shows a job that was just accepted, or follows it to its end.
pub async fn accepted(
    remote: &Remote,
    job: JobRecord,
    args: &WaitArgs,
    staging: Option<Staging>,
) -> Result<Exit, ClientError> {
    if !args.wait {
        if remote.output.json {
            println!("{}", json!(job));
        } else {
            anstream::println!("{}", job.job_id);
            let (status, id) = (job.status, &job.job_id);
            remote.note(&if status.is_final() {
                format!("{status}: this version has run over this content before; `ade jobs retry {id}` runs it again")
            } else {
                format!("{status}; `ade jobs wait {id}` waits for its end")
            });
        }
        return Ok(Exit::Success);
    }
    let id = job.job_id.clone();
    let mut screen = Screen::new(remote.output.quiet || remote.output.json);
    let followed = remote.unless_interrupted(follow(remote, &job, &mut screen), || stopped_waiting(&id)).await;
    screen.close();
    finish(remote, &followed?, args.out.as_deref(), staging).await
}

fn stopped_waiting(id: &JobId) -> ClientError {
    ClientError::interrupted(format!(
        "stopped waiting; {id} goes on: `ade jobs wait {id}` waits again, `ade jobs cancel {id}` cancels it"
    ))
    .of_job(id)
}

async fn follow(remote: &Remote, job: &JobRecord, screen: &mut Screen) -> Result<JobRecord, ClientError> {
    let workspace = remote.workspace().await?;
    screen.say(&format!("{} is {}", job.job_id, job.status));
    let mut follower = Follower::new(&remote.client, workspace, &job.job_id, 0);
    let mut lost = false;
    while let Some(news) = follower.next().await? {
        match news {
            News::Event(event, _) => {
                lost = false;
                screen.event(&event);
            }
            News::Progress(progress) => screen.progress(&progress),
            News::Lost(why) if !lost => {
                lost = true;
                screen.line(&paint(WARN, format!("  {why}; trying to get back")));
            }
            News::Lost(_) => {}
        }
    }
    // The last event comes a moment before the record says so.
    ended(remote, &job.job_id, None).await
}

/// Waits for the end of a job, over a service that is away for a while.
async fn ended(remote: &Remote, id: &JobId, timeout: Option<Duration>) -> Result<JobRecord, ClientError> {
    let workspace = remote.workspace().await?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let (mut tag, mut heard): (Option<String>, _) = (None, Instant::now());
    loop {
        let left = deadline.map_or(ONE_WAIT, |deadline| deadline.saturating_duration_since(Instant::now()));
        // Whole seconds, and rather one more.
        let wait = Duration::from_secs(left.min(ONE_WAIT).as_secs() + u64::from(left.subsec_nanos() > 0));
        match remote.client.watch_job(workspace, id, tag.as_deref(), wait).await {
            Ok(Some((job, _))) if job.status.is_final() => return Ok(job),
            Ok(looked) => {
                heard = Instant::now();
                tag = looked.map(|(_, tag)| tag).or(tag);
            }
            Err(error) if error.is_passing() && heard.elapsed() < AWAY => {
                tokio::time::sleep(error.retry_after.unwrap_or(PAUSE)).await;
            }
            Err(error) => return Err(error.of_job(id)),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let message = format!("{id} has not ended within the time given with --timeout; it goes on");
            return Err(ClientError::new(Blame::Environment, "wait_timeout", message).of_job(id));
        }
    }
}

/// `ade jobs wait`.
pub async fn main(remote: &Remote, id: &JobId, patience: &Patience) -> Result<Exit, ClientError> {
    let waiting = ended(remote, id, patience.timeout);
    let job = remote.unless_interrupted(waiting, || stopped_waiting(id)).await?;
    let failure = failure(&job);
    if remote.output.json {
        println!("{}", json!(job));
    } else {
        let took = seconds(job.timings.total_ms.unwrap_or_default());
        anstream::println!("{}  {id}  after {took}", paint(style::state(job.status.as_str()), job.status));
        if let Some(failure) = &failure {
            style::failure(failure);
        }
    }
    Ok(verdict(&job, failure.as_ref()))
}

/// Downloads what was asked for, and tells how the job ended.
async fn finish(
    remote: &Remote,
    job: &JobRecord,
    out: Option<&Path>,
    staging: Option<Staging>,
) -> Result<Exit, ClientError> {
    let again = |error: ClientError| error.of_job(&job.job_id);
    let outputs = remote.outputs(&job.job_id).await.map_err(again)?;
    let scratch;
    let (folder, wanted): (&Path, &[&str]) = match &staging {
        Some(staging) => (staging.folder().path(), &FILES),
        None => {
            scratch = tempfile::tempdir().map_err(|error| ClientError::unwritable(&std::env::temp_dir(), error))?;
            (scratch.path(), &["artifact.json"])
        }
    };
    let mut names = Vec::new();
    for name in wanted {
        if let Some(file) = outputs.iter().find(|file| file.name == *name) {
            remote.fetch(&job.job_id, file, folder).await.map_err(again)?;
            names.push(*name);
        }
    }
    let summary = Summary::read(&folder.join("artifact.json"));
    let mut files = Vec::new();
    if let (Some(staging), Some(out)) = (staging, out) {
        staging.commit(&names)?;
        files = names.iter().map(|name| ((*name).to_owned(), out.join(name))).collect();
    }
    let failure = failure(job);
    let ended = Ended {
        state: job.status.as_str(),
        id: &job.job_id,
        title: &job.config_version.title,
        version: &job.config_version.manifest_version,
        failure: failure.as_ref(),
        usage: &ContainerUsage { cpu_ms: job.usage.cpu_ms, peak_memory_bytes: job.usage.peak_memory_bytes },
        timings: &json!(job.timings),
        files,
        left_behind: None,
    };
    summary::tell(&ended, summary.as_ref(), remote.output);
    Ok(verdict(job, failure.as_ref()))
}

/// Why a job did not succeed; of a kind that this program does not know, as a failure of the job's own.
pub fn failure(job: &JobRecord) -> Option<Failure> {
    let error = job.error.as_ref()?;
    let read = serde_json::from_value::<Failure>(error.clone());
    let failure = read.unwrap_or_else(|_| {
        let message = job.error_message.clone().unwrap_or_else(|| error.to_string());
        Failure { detail: Some(error.clone()), ..Failure::new(FailureKind::RunnerCrashed, message) }
    });
    Some(Failure { message: plain(&failure.message, 4_000), ..failure })
}

/// The exit code of a job that has ended. One that was cancelled did not do its work; nothing here was interrupted.
fn verdict(job: &JobRecord, failure: Option<&Failure>) -> Exit {
    match (job.status, failure) {
        (JobState::Succeeded, _) => Exit::Success,
        (JobState::Failed, Some(failure)) => Exit::from(failure),
        _ => Exit::JobFailed,
    }
}
