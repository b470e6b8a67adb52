//! `ade jobs submit`: uploads, submission, and the wait for the end.

use super::wait::{WaitArgs, accepted};
use super::{Remote, duration};
use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::job_record::JobRecord;
use crate::api::routes::jobs::SubmitJob;
use crate::cli::Exit;
use crate::cli::staging::Staging;
use crate::client::{Blame, ClientError, retrying};
use crate::ids::{ConfigId, DocumentId, VersionId};
use reqwest::Method;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Workbooks to upload and run over: xlsx, xlsm, xlsb, xls, ods, csv or tsv
    #[arg(value_name = "FILE", required_unless_present = "documents", conflicts_with = "documents")]
    files: Vec<PathBuf>,
    /// Document to run over that is uploaded already; may be given several times
    #[arg(long = "document", value_name = "ID")]
    documents: Vec<DocumentId>,
    /// Config whose newest version to run, by id or slug [default: the workspace's active version]
    #[arg(long, value_name = "CONFIG", conflicts_with = "config_version")]
    config: Option<String>,
    /// Version to run
    #[arg(long, value_name = "ID")]
    config_version: Option<VersionId>,
    /// From -10 to 10; higher goes first within the workspace
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-10..=10))]
    priority: Option<i64>,
    /// What makes two submissions of a version the same [default: from the documents' hashes]
    #[arg(long, value_name = "TEXT")]
    input_hash: Option<String>,
    /// Your own data, given back with the record: a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Map<String, Value>>,
    /// How long the job may wait in the queue before it fails
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..))]
    queue_timeout: Option<i64>,
    /// Text that makes a repeated submission give back the first one's job
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    /// Try again for this time, such as 90s or 15m, where the service is full and says when to come back
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    retry_for: Duration,
    #[command(flatten)]
    wait: WaitArgs,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

/// Runs the command.
pub async fn main(remote: &Remote, args: &Args) -> Result<Exit, ClientError> {
    // What cannot be written in the end is refused in the beginning.
    let staging = args.wait.out.as_deref().map(Staging::create).transpose()?;
    let workspace = remote.workspace().await?;
    let config_id = match &args.config {
        None => None,
        Some(named) => Some(config(remote, named).await?.config_id),
    };
    let mut document_ids = args.documents.clone();
    for file in &args.files {
        document_ids.push(remote.upload(file, args.retry_for).await?.document_id);
    }
    let request = SubmitJob {
        config_version_id: args.config_version.clone(),
        config_id,
        document_id: None,
        document_ids,
        input_hash: args.input_hash.clone(),
        priority: args.priority,
        queue_timeout_seconds: args.queue_timeout,
        metadata: args.metadata.clone(),
    };
    let job: JobRecord = retrying(
        args.retry_for,
        |text| remote.note(text),
        || {
            let mut post = remote.client.request(Method::POST, &["workspaces", workspace, "jobs"]).json(&request);
            if let Some(key) = &args.idempotency_key {
                post = post.header("Idempotency-Key", key);
            }
            remote.client.json(post)
        },
    )
    .await?;
    accepted(remote, job, &args.wait, staging).await
}

/// The config of this id or slug.
pub async fn config(remote: &Remote, named: &str) -> Result<ConfigRecord, ClientError> {
    let workspace = remote.workspace().await?;
    let configs = ["workspaces", workspace, "configs"];
    if let Ok(id) = named.parse::<ConfigId>() {
        return remote.client.json(remote.client.get(&[&configs[..], &[id.as_str()]].concat())).await;
    }
    let all = remote.client.list::<ConfigRecord>(&configs, &[], None).await?;
    all.items.into_iter().find(|config| config.slug == named).ok_or_else(|| {
        let named = crate::text::plain(named, 100);
        let message =
            format!("there is no config {named:?} in this workspace; `ade config list` shows those that there are");
        ClientError::new(Blame::Request, "config_not_found", message)
    })
}
