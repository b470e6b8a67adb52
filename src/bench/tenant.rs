//! Jobs as a client has them: a config and a document of the benchmark's own, submissions, and waits for their ends.

use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::documents::DocumentRecord;
use crate::api::routes::job_record::JobRecord;
use crate::api::routes::jobs::SubmitJob;
use crate::client::{Blame, Client, ClientError, retrying};
use crate::events::Event;
use crate::ids::{ConfigId, DocumentId, JobId, VersionId};
use crate::job::open_package;
use crate::queue::JobState;
use futures_util::{StreamExt, TryStreamExt, stream};
use include_dir::{Dir, include_dir};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ulid::Ulid;

/// The package of the large table.
static TABLE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/benches/package");
/// Requests that are under way at once.
const CLIENTS: usize = 64;
/// How long a service may put a request off.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long one request waits for a change.
const ONE_WAIT: Duration = Duration::from_secs(50);
/// The pause where a service refuses a wait and does not say for how long.
const PAUSE: Duration = Duration::from_millis(500);
/// Time for what a service was left with to be taken back.
const TIDYING: Duration = Duration::from_secs(60);

fn host_io(error: &std::io::Error) -> ClientError {
    ClientError::unwritable(&std::env::temp_dir(), error)
}

fn zip_of(folder: &Path) -> Result<Vec<u8>, ClientError> {
    let package = open_package(folder)?;
    package.canonical_zip().map_err(|error| host_io(&error))
}

/// The least package there is, of a version, as a zip.
///
/// # Errors
/// `host_io` when the temporary folder takes no files.
pub fn trivial_package(version: &str) -> Result<Vec<u8>, ClientError> {
    let manifest = json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "Bench", "version": version},
        "columns": {"order": ["name"], "meta": {"name": {"label": "Name"}}},
    });
    let folder = tempfile::tempdir().map_err(|error| host_io(&error))?;
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).map_err(|error| host_io(&error))?;
    zip_of(folder.path())
}

/// The package with six scripted columns, as a zip.
///
/// # Errors
/// `host_io` when the temporary folder takes no files.
pub fn table_package() -> Result<Vec<u8>, ClientError> {
    let folder = tempfile::tempdir().map_err(|error| host_io(&error))?;
    TABLE.extract(folder.path()).map_err(|error| host_io(&error))?;
    zip_of(folder.path())
}

/// What a service was given, for it to be taken back from one that goes on.
#[derive(Default)]
pub struct Traces(Mutex<Left>);

#[derive(Default)]
struct Left {
    /// Jobs that have not ended, as far as is known, with their workspaces.
    jobs: HashSet<(String, JobId)>,
    /// Paths of what can be deleted.
    things: Vec<[String; 3]>,
}

impl Traces {
    fn note(&self, change: impl FnOnce(&mut Left)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Cancels jobs that have not ended, deletes documents and archives configs. What is refused stays.
    pub(super) async fn remove(&self, client: &Client) {
        let mut left = Left::default();
        self.note(|noted| std::mem::swap(noted, &mut left));
        let removing = async {
            stream::iter(left.jobs)
                .for_each_concurrent(CLIENTS, |(workspace, job)| async move {
                    let path = ["workspaces", &workspace, "jobs", job.as_str(), "cancel"];
                    retrying(TIDYING, |_| {}, || client.send(client.request(Method::POST, &path))).await.ok();
                    // A document goes only when no job needs it any more.
                    ended(client, &workspace, &job, None).await.ok();
                })
                .await;
            for [workspace, kind, id] in &left.things {
                let path = ["workspaces", workspace, kind, id];
                retrying(TIDYING, |_| {}, || client.send(client.request(Method::DELETE, &path))).await.ok();
            }
        };
        tokio::time::timeout(TIDYING, removing).await.ok();
    }
}

/// A package and a document in a workspace.
#[derive(Clone)]
pub struct Tenant {
    client: Arc<Client>,
    traces: Arc<Traces>,
    workspace: String,
    config: ConfigId,
    version: VersionId,
    document: DocumentId,
    /// In the hash of every submission, so that no job of another time is given back.
    run: Ulid,
}

/// A job that has ended well.
pub struct Done {
    /// The job.
    pub record: JobRecord,
    /// From before its submission to its end, as a client sees them.
    pub wall: Duration,
}

impl Tenant {
    /// Registers the package (a zip) and uploads the document.
    ///
    /// # Errors
    /// What the service refused.
    pub async fn new(
        client: &Arc<Client>,
        traces: &Arc<Traces>,
        workspace: &str,
        package: Vec<u8>,
        document: (&str, reqwest::Body),
    ) -> Result<Self, ClientError> {
        let (run, (filename, content)) = (Ulid::new(), document);
        let upload = client
            .patient(Method::POST, &["workspaces", workspace, "documents"])
            .query(&[("filename", filename)])
            .header("Content-Type", "application/octet-stream")
            .body(content);
        let document: DocumentRecord = client.json(upload).await?;
        let thing = |kind: &str, id: &str| [workspace.to_owned(), kind.to_owned(), id.to_owned()];
        traces.note(|left| left.things.push(thing("documents", document.document_id.as_str())));
        let form = Form::new()
            .text("slug", format!("ade-bench-{}", run.to_string().to_lowercase()))
            .part("package", Part::bytes(package).file_name("package.zip"));
        let post = client.patient(Method::POST, &["workspaces", workspace, "configs"]).multipart(form);
        let config: ConfigRecord = client.json(post).await?;
        traces.note(|left| left.things.push(thing("configs", config.config_id.as_str())));
        let no_version = || ClientError::new(Blame::Environment, "unexpected_answer", "the new config has no version");
        Ok(Self {
            client: Arc::clone(client),
            traces: Arc::clone(traces),
            workspace: workspace.to_owned(),
            config: config.config_id,
            version: config.latest_version.ok_or_else(no_version)?.config_version_id,
            document: document.document_id,
            run,
        })
    }

    /// With the trivial package, and a document of one name.
    ///
    /// # Errors
    /// What the service refused.
    pub async fn trivial(client: &Arc<Client>, traces: &Arc<Traces>, workspace: &str) -> Result<Self, ClientError> {
        Self::new(client, traces, workspace, trivial_package("1.0.0")?, ("names.csv", "Name\nAda\n".into())).await
    }

    /// The config.
    #[must_use]
    pub const fn config(&self) -> &ConfigId {
        &self.config
    }

    /// The version that its jobs run.
    #[must_use]
    pub const fn version(&self) -> &VersionId {
        &self.version
    }

    /// The same, with jobs that run another version of the config.
    #[must_use]
    pub fn with_version(&self, version: VersionId) -> Self {
        Self { version, ..self.clone() }
    }

    /// A submission that is like no other of this name.
    #[must_use]
    pub fn submission(&self, name: &str) -> SubmitJob {
        SubmitJob {
            config_version_id: Some(self.version.clone()),
            document_ids: vec![self.document.clone()],
            input_hash: Some(format!("{}-{}-{name}", self.run, self.config)),
            ..SubmitJob::default()
        }
    }

    /// Submits a job; its id, and the tag of its record.
    ///
    /// # Errors
    /// What the service refused, other than for a while.
    pub async fn submit(&self, name: &str) -> Result<(JobId, String), ClientError> {
        let submission = self.submission(name);
        let path = ["workspaces", &self.workspace, "jobs"];
        let response =
            retrying(PATIENCE, |_| {}, || self.client.send(self.client.request(Method::POST, &path).json(&submission)))
                .await?;
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or("\"\"").to_owned();
        let record: JobRecord = self.client.read(response).await?;
        self.traces.note(|left| {
            left.jobs.insert((self.workspace.clone(), record.job_id.clone()));
        });
        Ok((record.job_id, tag))
    }

    /// Submits jobs with these names, many at once.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_all(&self, names: Vec<String>) -> Result<Vec<JobId>, ClientError> {
        let submitting = stream::iter(names).map(|name| async move { self.submit(&name).await.map(|(id, _)| id) });
        submitting.buffered(CLIENTS).try_collect().await
    }

    /// Waits for the end of a job.
    ///
    /// # Errors
    /// `bench_job_failed` when it did not succeed; what the service refused, other than for a while.
    pub async fn end(&self, job: &JobId, tag: Option<String>) -> Result<JobRecord, ClientError> {
        let record = ended(&self.client, &self.workspace, job, tag).await?;
        self.traces.note(|left| {
            left.jobs.remove(&(self.workspace.clone(), job.clone()));
        });
        if record.status == JobState::Succeeded {
            return Ok(record);
        }
        let why = crate::text::plain(record.error_message.as_deref().unwrap_or("nobody said why"), 500);
        let message = format!("a job of the benchmark is {}: {why}", record.status);
        Err(ClientError::new(Blame::Environment, "bench_job_failed", message).of_job(job))
    }

    /// Submits a job and waits for its end.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`end`](Self::end).
    pub async fn run(&self, name: &str) -> Result<Done, ClientError> {
        let begun = Instant::now();
        let (job, tag) = self.submit(name).await?;
        let record = self.end(&job, Some(tag)).await?;
        Ok(Done { record, wall: begun.elapsed() })
    }

    /// How many of these jobs got a container that was parked, percent.
    ///
    /// # Errors
    /// What the service refused.
    pub async fn parked(&self, jobs: impl Iterator<Item = &JobId>) -> Result<f64, ClientError> {
        let asking = stream::iter(jobs).map(|job| async move {
            let path = ["workspaces", &self.workspace, "jobs", job.as_str(), "events"];
            let events = || self.client.send(self.client.get(&path).header("Accept", "application/x-ndjson"));
            let response = retrying(PATIENCE, |_| {}, events).await?;
            let text = response.text().await.unwrap_or_default();
            let mut events = text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok());
            Ok::<_, ClientError>(events.any(|event| {
                event.event == "worker.spawn" && event.detail.get("container").is_some_and(|how| how == "parked")
            }))
        });
        let parked: Vec<bool> = asking.buffered(8).try_collect().await?;
        let hits = parked.iter().filter(|parked| **parked).count();
        Ok(super::figures::count(hits) * 100.0 / super::figures::count(parked.len().max(1)))
    }
}

/// Waits for the end of a job, as clients do: each request waits for the record to change.
async fn ended(client: &Client, workspace: &str, job: &JobId, tag: Option<String>) -> Result<JobRecord, ClientError> {
    let (mut tag, begun) = (tag, Instant::now());
    loop {
        match client.watch_job(workspace, job, tag.as_deref(), ONE_WAIT).await {
            Ok(Some((record, _))) if record.status.is_final() => return Ok(record),
            Ok(looked) => tag = looked.map(|(_, tag)| tag).or(tag),
            Err(error) if error.is_passing() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(error.retry_after.unwrap_or(PAUSE)).await;
            }
            Err(error) => return Err(error.of_job(job)),
        }
    }
}
