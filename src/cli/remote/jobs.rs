//! `ade jobs`.

use super::wait::{Patience, WaitArgs};
use super::{Listing, Remote, explain, moment, submit, tail, wait};
use crate::api::routes::job_record::JobRecord;
use crate::cli::staging::Staging;
use crate::cli::style::{self, bytes, paint, seconds};
use crate::cli::{Exit, Output};
use crate::client::{Blame, ClientError};
use crate::ids::JobId;
use crate::queue::JobState;
use crate::settings::{ClientSettings, Settings};
use crate::text::plain;
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
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
    /// Upload workbooks and submit a job over them
    Submit(Box<submit::Args>),
    /// List jobs, the newest first
    List {
        /// In this state; may be given several times
        #[arg(long, value_name = "STATE", value_delimiter = ',')]
        status: Vec<JobState>,
        /// Of this config, by id or slug
        #[arg(long, value_name = "CONFIG")]
        config: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a job
    Get {
        /// The job
        job: JobId,
    },
    /// Wait for the end of a job; the exit code tells how it ended
    Wait {
        /// The job
        job: JobId,
        #[command(flatten)]
        patience: Patience,
    },
    /// Show a job's events as a timeline; `--json` gives them as they are, one object a line
    Tail(tail::Args),
    /// Say in a few sentences what became of a job, where its time went, and what to do
    Explain {
        /// The job
        job: JobId,
    },
    /// Cancel a job
    Cancel {
        /// The job
        job: JobId,
    },
    /// Try a job that has ended again, as a new job
    Retry {
        /// The job
        job: JobId,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Download a job's files
    Download {
        /// The job
        job: JobId,
        /// Files to download [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Folder for them; files of their names are replaced
        #[arg(long, short, value_name = "DIR", default_value = "ade-out")]
        out: PathBuf,
    },
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let command = args.command;
    super::run(args.client, settings, output, async |remote: &Remote| run(remote, command).await).await
}

async fn run(remote: &Remote, command: Command) -> Result<Exit, ClientError> {
    match command {
        Command::Submit(args) => submit::main(remote, &args).await,
        Command::List { status, config, listing } => list(remote, &status, config.as_deref(), listing).await,
        Command::Get { job } => {
            let workspace = remote.workspace().await?;
            let request = remote.client.get(&["workspaces", workspace, "jobs", job.as_str()]);
            Ok(show(remote, &remote.client.json(request).await?))
        }
        Command::Wait { job, patience } => wait::main(remote, &job, &patience).await,
        Command::Tail(args) => tail::main(remote, &args).await,
        Command::Explain { job } => explain::main(remote, &job).await,
        Command::Cancel { job } => {
            let record = post(remote, &job, "cancel").await?;
            if remote.output.json {
                println!("{}", json!(record));
            } else {
                anstream::println!("{}  {job}", paint(style::state(record.status.as_str()), record.status));
            }
            Ok(Exit::Success)
        }
        Command::Retry { job, wait } => {
            let staging = wait.out.as_deref().map(Staging::create).transpose()?;
            let record = post(remote, &job, "retry").await?;
            super::wait::accepted(remote, record, &wait, staging).await
        }
        Command::Download { job, names, out } => download(remote, &job, &names, out).await,
    }
}

async fn post(remote: &Remote, job: &JobId, what: &str) -> Result<JobRecord, ClientError> {
    let workspace = remote.workspace().await?;
    let request = remote.client.request(Method::POST, &["workspaces", workspace, "jobs", job.as_str(), what]);
    remote.client.json(request).await
}

async fn list(
    remote: &Remote,
    status: &[JobState],
    config: Option<&str>,
    listing: Listing,
) -> Result<Exit, ClientError> {
    let mut query = Vec::new();
    if !status.is_empty() {
        let states: Vec<&str> = status.iter().map(|state| state.as_str()).collect();
        query.push(("status", states.join(",")));
    }
    if let Some(config) = config {
        query.push(("config_id", submit::config(remote, config).await?.config_id.to_string()));
    }
    let path = ["workspaces", remote.workspace().await?, "jobs"];
    let headers = ["JOB", "STATUS", "CONFIG", "QUEUED", "TOOK", "ERROR"];
    remote
        .list(&path, &query, listing, headers, |job: &JobRecord| {
            [
                job.job_id.to_string(),
                job.status.to_string(),
                format!("{} {}", plain(&job.config_version.slug, 40), plain(&job.config_version.version, 10)),
                moment(&job.queued_at),
                job.timings.total_ms.map(seconds).unwrap_or_default(),
                wait::failure(job).map(|failure| failure.kind.to_string()).unwrap_or_default(),
            ]
        })
        .await
}

fn show(remote: &Remote, job: &JobRecord) -> Exit {
    let version = &job.config_version;
    let names: Vec<String> = job.documents.iter().map(|document| plain(&document.filename, 80)).collect();
    let status = paint(style::state(job.status.as_str()), job.status);
    let phase = job.phase.map(|phase| format!(", {phase}")).unwrap_or_default();
    let place = job.queue_position.map(|place| format!(", number {place} in the queue")).unwrap_or_default();
    let time = |time: &Option<String>| time.as_deref().map(moment);
    remote.show(
        job,
        &[
            ("job", Some(job.job_id.to_string())),
            ("status", Some(format!("{status}{phase}{place}"))),
            (
                "config",
                Some(format!("{} {} ({})", plain(&version.slug, 100), version.version, version.config_version_id)),
            ),
            ("documents", Some(names.join(", "))),
            ("attempt", Some(job.attempt.to_string())),
            ("retry of", job.retry_of_job_id.as_ref().map(ToString::to_string)),
            ("priority", Some(job.priority.to_string())),
            ("queued", Some(moment(&job.queued_at))),
            ("started", time(&job.started_at)),
            ("completed", time(&job.completed_at)),
            ("took", job.timings.total_ms.map(seconds)),
            ("memory", job.usage.peak_memory_bytes.map(bytes)),
            ("metadata", job.metadata.as_ref().map(|metadata| plain(&metadata.to_string(), 500))),
            ("error", wait::failure(job).map(|failure| failure.to_string())),
        ],
    )
}

async fn download(remote: &Remote, job: &JobId, names: &[String], out: PathBuf) -> Result<Exit, ClientError> {
    let outputs = remote.outputs(job).await?;
    if let Some(unknown) = names.iter().find(|name| outputs.iter().all(|file| file.name != **name)) {
        let known: Vec<&str> = outputs.iter().map(|file| file.name.as_str()).collect();
        let has = if known.is_empty() { "no files yet".to_owned() } else { known.join(", ") };
        let message = format!("{job} has no file {:?}; it has {has}", plain(unknown, 80));
        return Err(ClientError::new(Blame::Request, "not_found", message));
    }
    if outputs.is_empty() {
        let message = format!("{job} has not ended and has no files yet; `ade jobs wait {job}` waits for its end");
        return Err(ClientError::new(Blame::Request, "job_not_finished", message));
    }
    std::fs::create_dir_all(&out).map_err(|error| ClientError::unwritable(&out, error))?;
    let mut files = serde_json::Map::new();
    for file in outputs.iter().filter(|file| names.is_empty() || names.contains(&file.name)) {
        let (path, size) = remote.fetch(job, file, &out).await?;
        if !remote.output.json {
            anstream::println!("{}  {}", path.display(), paint(style::DIM, bytes(size)));
        }
        files.insert(file.name.clone(), path.display().to_string().into());
    }
    if remote.output.json {
        println!("{}", json!({"job_id": job, "files": files}));
    }
    Ok(Exit::Success)
}
