//! `ade jobs explain`: what became of a job, where its time went, and what to do.

use super::Remote;
use crate::api::routes::job_record::JobRecord;
use crate::cli::Exit;
use crate::cli::explain::Account;
use crate::cli::summary::Summary;
use crate::client::{Blame, ClientError};
use crate::ids::JobId;

/// Runs the command.
pub async fn main(remote: &Remote, id: &JobId) -> Result<Exit, ClientError> {
    let workspace = remote.workspace().await?;
    let request = remote.client.get(&["workspaces", workspace, "jobs", id.as_str()]);
    let job: JobRecord = remote.client.json(request).await?;
    let mut account = Account::default();
    let heard = remote.events(id, 0, |line| {
        if let Ok((event, _)) = &line.event {
            account.event(event);
        }
        true
    });
    // Retention may have deleted them; the record says enough.
    match heard.await {
        Err(error) if error.blame == Blame::Request => account.finding("Its events are no longer kept.".into()),
        heard => heard?,
    }
    if let Some(file) = remote.outputs(id).await?.iter().find(|file| file.name == "artifact.json") {
        let scratch = tempfile::tempdir().map_err(|error| ClientError::unwritable(&std::env::temp_dir(), error))?;
        let (path, _) = remote.fetch(id, file, scratch.path()).await?;
        if let Some(summary) = Summary::read(&path) {
            account.artifact(&summary);
        }
    }
    account.record(&job);
    account.print(remote.output);
    Ok(Exit::Success)
}
