//! Uploads and downloads with something to see.

use super::Remote;
use crate::api::routes::documents::DocumentRecord;
use crate::api::routes::job_files::{OutputFile, Outputs};
use crate::blob::JobFile;
use crate::cli::style::bytes;
use crate::client::{Blame, ClientError, Local, retrying};
use crate::ids::JobId;
use crate::text::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Remote {
    /// A bar on a terminal; nothing elsewhere.
    fn bar(&self, name: &str, total: Option<u64>) -> ProgressBar {
        if self.output.json || self.output.quiet || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        measure(&bar, total);
        bar.with_message(plain(name, 40))
    }

    /// Uploads a file.
    pub async fn upload(&self, path: &Path, patience: Duration) -> Result<DocumentRecord, ClientError> {
        let local = Local::measure(path).await?;
        let workspace = self.workspace().await?;
        let record = retrying(
            patience,
            |text| self.note(text),
            || async {
                let bar = self.bar(&local.name, Some(local.bytes));
                let ticking = bar.clone();
                let result = self.client.upload(workspace, &local, move |count| ticking.inc(count)).await;
                bar.finish_and_clear();
                result
            },
        )
        .await?;
        self.note(&format!("uploaded {} ({})", plain(&record.filename, 80), bytes(record.bytes)));
        Ok(record)
    }

    /// The files that a job has.
    pub async fn outputs(&self, id: &JobId) -> Result<Vec<OutputFile>, ClientError> {
        let workspace = self.workspace().await?;
        let outputs = self.client.get(&["workspaces", workspace, "jobs", id.as_str(), "outputs"]);
        let Outputs { items } = self.client.json(outputs).await?;
        // A name becomes a path on this machine.
        if let Some(odd) = items.iter().find(|file| Path::new(&file.name).file_name() != Some(file.name.as_ref())) {
            let message = format!("the service names a file {:?}, which is no file name", plain(&odd.name, 80));
            return Err(ClientError::new(Blame::Environment, "unexpected_answer", message));
        }
        Ok(items)
    }

    /// Downloads a file of a job into a folder; gives its path and size.
    pub async fn fetch(&self, id: &JobId, file: &OutputFile, folder: &Path) -> Result<(PathBuf, u64), ClientError> {
        let workspace = self.workspace().await?;
        let job = ["workspaces", workspace, "jobs", id.as_str()];
        let request = if file.name == JobFile::Events.name() {
            // The log has a route of its own, and is no stored file while it is in the database.
            self.client.get(&[&job[..], &["events"]].concat()).header("Accept", "application/x-ndjson")
        } else {
            self.client.get(&[&job[..], &["outputs", &file.name]].concat())
        };
        let target = folder.join(&file.name);
        let bytes = self.save(request, &target, file.sha256.as_deref()).await?;
        Ok((target, bytes))
    }

    /// Downloads to a path.
    pub async fn save(
        &self,
        request: reqwest::RequestBuilder,
        target: &Path,
        sha256: Option<&str>,
    ) -> Result<u64, ClientError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bar = self.bar(&name, None);
        let begun = |total: Option<u64>| measure(&bar, total);
        let result = self.client.download(request, target, sha256, begun, |count| bar.inc(count)).await;
        bar.finish_and_clear();
        result
    }
}

/// Shows what is known: how far it is, or only how much has come.
fn measure(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(_) => "{msg}  {bar:30} {bytes} of {total_bytes}  {bytes_per_sec}",
        None => "{msg}  {bytes}  {bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if let Some(total) = total {
        bar.set_length(total);
    }
}
