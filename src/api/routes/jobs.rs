//! Jobs: submit, look, wait, retry, cancel.

use super::job_record::JobRecord;
use crate::api::app::{App, Caller, VersionInfo};
use crate::api::headers::{self, ETag};
use crate::api::page::{Page, bounds, moment, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Body, Path, Query, extract};
use crate::ids::{ConfigId, DocumentId, JobId, VersionId, WorkspaceId};
use crate::job::MAX_INPUTS;
use crate::queue::{JobState, PRIORITIES};
use crate::store::{Admitted, Cancelled, DocumentRef, JobFilter, JobRow, Refused, Role, Scope, Submission, Workspace};
use axum::Json;
use axum::extract::State;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of `metadata` as JSON.
const MAX_METADATA: usize = 16 * 1024;
/// Characters of `input_hash`, and of an `Idempotency-Key`.
const MAX_HASH: usize = 255;
/// Longest wait in the queue that may be asked for, seconds: 30 days.
const MAX_QUEUE_TIMEOUT: i64 = 30 * 24 * 3600;
/// How often a waiting request looks by itself, where a hint from another process can be lost.
const LOOK: Duration = Duration::from_secs(2);

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(get))
        .routes(routes!(retry))
        .routes(routes!(cancel))
}

/// What to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// The version to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_version_id: Option<VersionId>,
    /// The config whose newest version to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_id: Option<ConfigId>,
    /// The one document to run it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_id: Option<DocumentId>,
    /// The documents to run it over, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub document_ids: Vec<DocumentId>,
    /// What makes two submissions of a version the same; from the documents' hashes when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub input_hash: Option<String>,
    /// From -10 to 10; higher goes first within the workspace. A step is worth a minute of waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -10, maximum = 10, default = 0)]
    pub priority: Option<i64>,
    /// How long the job may wait in the queue before it fails with `queue_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub queue_timeout_seconds: Option<i64>,
    /// The caller's own data, given back with the record; a JSON object of 16 KiB at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// Which jobs.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// In this state, or one of these, separated by commas.
    status: Option<String>,
    /// Of this config.
    config_id: Option<ConfigId>,
    /// With this document.
    document_id: Option<DocumentId>,
    /// Accepted after this time, RFC 3339.
    created_after: Option<String>,
    /// Entries at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Submits a job.
///
/// The job is stored durably before the answer. The same version with the same `input_hash` that is queued, running or
/// succeeded is given back instead of a new job. With an `Idempotency-Key`, the answer is remembered for 24 hours.
#[utoipa::path(
    post, path = "/jobs", tag = "jobs", request_body = SubmitJob,
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("Idempotency-Key" = Option<String>, Header, description = "Any text of at most 255 characters"),
    ),
    responses(
        (status = 202, description = "Accepted, or was there before", body = JobRecord, headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String, description = "`true` when the job was there before; absent for a new one"))),
        (status = 409, description = "The first request with this key is not answered yet", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn submit(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    headers: HeaderMap,
    Body(request): Body<SubmitJob>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let fingerprint = json!({"route": "submit", "request": request}).to_string();
    let key = Idempotency::of(&app, &workspace, &headers, &fingerprint)?;
    // Before anything else: the answer stays the same when what the request names has gone or changed meanwhile.
    if let Some(answer) = replay(&app, &workspace, key.as_ref()).await? {
        return Ok(answer);
    }
    let documents = documents(&app, &workspace, &request).await?;
    let version = version(&app, &workspace, &request).await?;
    let priority = request.priority.unwrap_or_default();
    if !PRIORITIES.contains(&priority) {
        return Err(invalid("/priority", &format!("{priority} is not from -10 to 10")));
    }
    if request.queue_timeout_seconds.is_some_and(|seconds| !(1..=MAX_QUEUE_TIMEOUT).contains(&seconds)) {
        return Err(invalid("/queue_timeout_seconds", "must be from 1 to 2592000 (30 days)"));
    }
    if request.input_hash.as_ref().is_some_and(|hash| hash.is_empty() || hash.chars().count() > MAX_HASH) {
        return Err(invalid("/input_hash", "must have 1 to 255 characters"));
    }
    if let Some(hash) = &request.input_hash {
        extract::storable("/input_hash", hash)?;
    }
    let metadata = request.metadata.clone().map(Value::Object);
    if metadata.as_ref().is_some_and(|metadata| metadata.to_string().len() > MAX_METADATA) {
        return Err(invalid("/metadata", "must have at most 16384 bytes as JSON"));
    }
    let submission = Submission {
        workspace_id: workspace.id.clone(),
        config_id: version.version.config_id.clone(),
        version_id: version.version.id.clone(),
        input_hash: request.input_hash.unwrap_or_else(|| input_hash(&documents)),
        documents,
        priority,
        metadata,
        retry_of: None,
        idempotency: None,
        queue_timeout_ms: request.queue_timeout_seconds.map(|seconds| seconds * 1000).or(app.options.queue_timeout_ms),
        by: caller.actor(),
    };
    enqueue(&app, &workspace, key, submission).await
}

/// Tries a finished job again, as a new job.
///
/// The same documents, version and `input_hash`; `attempt` is one more than that of the last attempt. When one waits or runs
/// already, that one is given back instead of a second.
#[utoipa::path(
    post, path = "/jobs/{job_id}/retry", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job to try again"),
        ("Idempotency-Key" = Option<String>, Header, description = "Any text of at most 255 characters"),
    ),
    responses(
        (status = 202, description = "The new job, or the attempt that waits or runs already", body = JobRecord, headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String, description = "`true` when the job was there before; absent for a new one"))),
        (status = 409, description = "The job has not finished", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The key came with another request before", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let job = job(&app, &workspace, &id).await?;
    let fingerprint = json!({"route": "retry", "job": id}).to_string();
    let key = Idempotency::of(&app, &workspace, &headers, &fingerprint)?;
    if let Some(answer) = replay(&app, &workspace, key.as_ref()).await? {
        return Ok(answer);
    }
    if !job.state.is_final() {
        return Err(Problem::new(Code::JobNotFinished)
            .detail(format!("{id} is {}; cancel it or wait for its end before you retry it", job.state)));
    }
    let submission = Submission {
        workspace_id: workspace.id.clone(),
        config_id: job.config_id,
        version_id: job.version_id,
        documents: job.documents,
        input_hash: job.input_hash,
        priority: job.priority,
        metadata: job.metadata,
        retry_of: Some((job.id, job.attempt)),
        idempotency: None,
        queue_timeout_ms: job.queue_deadline.map(|deadline| deadline - job.queued_at),
        by: caller.actor(),
    };
    enqueue(&app, &workspace, key, submission).await
}

async fn enqueue(
    app: &App,
    workspace: &Workspace,
    key: Option<Idempotency<'_>>,
    mut submission: Submission,
) -> Result<Response, Problem> {
    submission.idempotency = key.as_ref().map(|key| (key.text.clone(), key.fingerprint.clone()));
    app.admits().inspect_err(|problem| app.metrics.job_submitted(problem.code().as_str()))?;
    let priority = submission.priority;
    let answer = app.admissions.submit(submission).await?;
    match answer {
        Ok(Admitted { job, replayed }) => {
            app.metrics.job_submitted(if replayed { "replayed" } else { "accepted" });
            tracing::info!(job = %job.id, trace_id = job.trace_id, priority, replayed, "job accepted");
            accepted(app, workspace, job, replayed).await
        }
        Err(refused) => Err(refusal(app, workspace, refused)),
    }
}

async fn accepted(app: &App, workspace: &Workspace, job: JobRow, replayed: bool) -> Result<Response, Problem> {
    // Of the job, not of the request: a replayed answer is about what was asked for then.
    let version = app.version(&workspace.id, &job.version_id).await?;
    let etag = etag(&job);
    let record = JobRecord::of(job, &version, None);
    let location = format!("/api/v1/workspaces/{}/jobs/{}", record.workspace_id, record.job_id);
    let headers = [
        (LOCATION, HeaderValue::from_str(&location).ok()),
        (ETAG, Some(etag.header())),
        (headers::IDEMPOTENCY_REPLAYED, replayed.then(|| HeaderValue::from_static("true"))),
    ];
    let headers: HeaderMap = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Ok((StatusCode::ACCEPTED, headers, Json(record)).into_response())
}

/// The answer that an idempotency key has had already.
async fn replay(app: &App, workspace: &Workspace, key: Option<&Idempotency<'_>>) -> Result<Option<Response>, Problem> {
    let Some(key) = key else { return Ok(None) };
    match app.store.remembered(&workspace.id, &key.text).await? {
        None => Ok(None),
        Some((fingerprint, _)) if fingerprint != key.fingerprint => Err(refusal(app, workspace, Refused::OtherRequest)),
        Some((_, job)) => {
            app.metrics.job_submitted("replayed");
            accepted(app, workspace, job, true).await.map(Some)
        }
    }
}

fn refusal(app: &App, workspace: &Workspace, refused: Refused) -> Problem {
    let problem = match refused {
        Refused::Full { scope, queued, max } => {
            let (name, of) = match scope {
                Scope::Instance => ("instance", "this instance"),
                Scope::Workspace => ("workspace", "this workspace"),
            };
            let retry_after = app.admissions.retry_after(scope, &workspace.id);
            Problem::new(Code::QueueFull)
                .detail(format!(
                    "{queued} jobs of {of} wait, and the bound is {max}; nothing was stored. Submit again in {retry_after} s"
                ))
                .with("queue_size", queued)
                .with("max_size", max)
                .with("max_concurrency", app.scheduler.concurrency())
                .with("scope", name)
                .retry_after(u64::try_from(retry_after).unwrap_or(1))
        }
        Refused::QueueOff => Problem::new(Code::QueueOff).detail("an admin has turned the queue off"),
        Refused::SafeMode => {
            Problem::new(Code::SafeMode).detail("an admin has turned safe mode on: no scripts are run")
        }
        Refused::OtherRequest => Problem::new(Code::IdempotencyMismatch)
            .detail("this Idempotency-Key came with another request within the last 24 hours; use a new one"),
        Refused::DocumentGone(id) => {
            Problem::new(Code::DocumentNotFound).detail(format!("there is no document {id} in this workspace"))
        }
        Refused::Archived => super::configs::archived(),
        Refused::WorkspaceGone => Code::WorkspaceNotFound.into(),
    };
    app.metrics.job_submitted(problem.code().as_str());
    problem
}

/// A request with an idempotency key, until it is answered; there is one at a time for each key.
struct Idempotency<'a> {
    app: &'a App,
    workspace: WorkspaceId,
    text: String,
    fingerprint: String,
}

impl<'a> Idempotency<'a> {
    fn of(app: &'a App, workspace: &Workspace, headers: &HeaderMap, request: &str) -> Result<Option<Self>, Problem> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_HASH);
        let text = "must have 1 to 255 printable ASCII characters";
        let key = key.ok_or_else(|| {
            Problem::new(Code::InvalidParameter)
                .detail(format!("Idempotency-Key: {text}"))
                .field("Idempotency-Key", text)
        })?;
        let place = (workspace.id.clone(), key.to_owned());
        if app.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(place) {
            let fingerprint = format!("{:x}", Sha256::digest(request));
            return Ok(Some(Self { app, workspace: workspace.id.clone(), text: key.to_owned(), fingerprint }));
        }
        Err(Problem::new(Code::IdempotencyInProgress)
            .detail("the first request with this Idempotency-Key is being answered; ask again in a moment")
            .retry_after(1))
    }
}

impl Drop for Idempotency<'_> {
    fn drop(&mut self) {
        let place = (self.workspace.clone(), std::mem::take(&mut self.text));
        self.app.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
    }
}

fn invalid(pointer: &str, text: &str) -> Problem {
    Problem::new(Code::InvalidBody).detail(format!("{pointer}: {text}")).field(pointer, text)
}

async fn documents(app: &App, workspace: &Workspace, request: &SubmitJob) -> Result<Vec<DocumentRef>, Problem> {
    let ids: Vec<&DocumentId> = request.document_id.iter().chain(&request.document_ids).collect();
    if request.document_id.is_some() && !request.document_ids.is_empty() {
        return Err(invalid("/document_id", "give document_id or document_ids, not both"));
    }
    if ids.is_empty() {
        return Err(Problem::new(Code::DocumentsRequired)
            .detail("name the documents to run over in document_ids")
            .field("/document_ids", "must have at least one entry"));
    }
    if ids.len() > MAX_INPUTS {
        return Err(invalid("/document_ids", &format!("has {} entries, the limit is {MAX_INPUTS}", ids.len())));
    }
    let mut found = Vec::with_capacity(ids.len());
    for (index, id) in ids.into_iter().enumerate() {
        let key = (workspace.id.clone(), id.clone());
        let document = match app.documents.get(&key) {
            Some(document) => document,
            None => {
                let document = app.store.document(&workspace.id, id).await?.ok_or_else(|| {
                    let pointer = match &request.document_id {
                        Some(_) => "/document_id".to_owned(),
                        None => format!("/document_ids/{index}"),
                    };
                    let text = format!("there is no document {id} in this workspace");
                    Problem::new(Code::DocumentNotFound).detail(text.clone()).field(pointer, text)
                })?;
                let document = Arc::new(DocumentRef {
                    document_id: document.id,
                    filename: document.filename,
                    sha256: document.sha256,
                    bytes: u64::try_from(document.bytes).unwrap_or_default(),
                });
                app.documents.insert(key, Arc::clone(&document));
                document
            }
        };
        found.push(DocumentRef::clone(&document));
    }
    Ok(found)
}

async fn version(app: &App, workspace: &Workspace, request: &SubmitJob) -> Result<Arc<VersionInfo>, Problem> {
    let id = match (&request.config_version_id, &request.config_id) {
        (Some(version), _) => version.clone(),
        (None, Some(config)) => {
            let unknown =
                || Problem::new(Code::ConfigNotFound).detail(format!("there is no config {config} in this workspace"));
            app.store.config(&workspace.id, config).await?.ok_or_else(unknown)?;
            app.store.newest_version(config).await?.map(|version| version.id).ok_or_else(|| {
                Problem::new(Code::VersionNotFound).detail(format!("{config} has no version that may run"))
            })?
        }
        (None, None) => {
            // As it is now: another node may have moved it since the workspace was last looked at.
            let workspace = app.store.workspace(&workspace.id).await?.ok_or(Code::WorkspaceNotFound)?;
            workspace.active_version_id.ok_or_else(|| {
                Problem::new(Code::NoActiveConfig)
                    .detail("this workspace has no active config version; name one in config_version_id or config_id")
            })?
        }
    };
    let info = app.version(&workspace.id, &id).await?;
    if request.config_id.as_ref().is_some_and(|config| *config != info.version.config_id) {
        return Err(invalid("/config_version_id", "is not a version of config_id"));
    }
    Ok(info)
}

/// The default hash: of the documents' hashes, in sorted order.
fn input_hash(documents: &[DocumentRef]) -> String {
    let mut hashes: Vec<&str> = documents.iter().map(|document| document.sha256.as_str()).collect();
    hashes.sort_unstable();
    format!("{:x}", Sha256::digest(hashes.join("\n")))
}

/// Lists jobs, newest first.
#[utoipa::path(
    get, path = "/jobs", tag = "jobs",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), ListQuery),
    responses((status = 200, description = "A page", body = Page<JobRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<JobRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (limit, before) = bounds(query.limit, query.cursor.as_deref())?;
    let wrong = |name: &str, text: String| {
        Problem::new(Code::InvalidParameter).detail(format!("query parameter {name}: {text}")).field(name, text)
    };
    let states =
        query.status.iter().flat_map(|text| text.split(',')).map(str::parse).collect::<Result<Vec<JobState>, _>>();
    let filter = JobFilter {
        states: states.map_err(|text| wrong("status", text))?,
        config_id: query.config_id,
        document_id: query.document_id,
        created_after: moment("created_after", query.created_after.as_deref())?,
        before,
    };
    let rows = app.store.jobs(&workspace.id, &filter, limit + 1).await?;
    let mut with_versions = Vec::with_capacity(rows.len());
    for row in rows {
        let version = app.version(&workspace.id, &row.version_id).await?;
        with_versions.push((row, version));
    }
    let place = |(row, _): &(JobRow, Arc<VersionInfo>)| (row.queued_at, row.id.to_string());
    Ok(Json(page(with_versions, limit, place, |(row, version)| JobRecord::of(row, &version, None))))
}

/// A job's record.
///
/// With `Prefer: wait=N` the answer comes when the record is no longer what `If-None-Match` names (or, without that, what it
/// was when the request came), at once for a job that has ended, and after N seconds (60 at most) in any case.
#[utoipa::path(
    get, path = "/jobs/{job_id}", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for a change"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags that need not be sent again"),
    ),
    responses(
        (status = 200, description = "The record", body = JobRecord, headers(("ETag" = String))),
        (status = 304, description = "The record is what If-None-Match names"),
    )
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let wait = headers::prefer_wait(&headers);
    let mut watch = app.signals.watch(&id);
    let mut row = job(&app, &workspace, &id).await?;
    if let Some(wait) = wait {
        let _place = app.stream(&caller)?;
        let deadline = Instant::now() + wait;
        let first = row.revision;
        let conditional = headers.contains_key(axum::http::header::IF_NONE_MATCH);
        let same = |row: &JobRow| match conditional {
            true => etag(row).matched_by_if_none_match(&headers),
            false => row.revision == first,
        };
        while same(&row) && !row.state.is_final() && Instant::now() < deadline {
            tokio::select! {
                _ = watch.next() => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
            }
            row = job(&app, &workspace, &id).await?;
        }
    }
    let mut answer_headers = HeaderMap::new();
    answer_headers.insert(ETAG, etag(&row).header());
    if let Some(wait) = wait {
        answer_headers.insert(headers::PREFERENCE_APPLIED, headers::wait_applied(wait));
    }
    if etag(&row).matched_by_if_none_match(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, answer_headers).into_response());
    }
    let position = match row.state {
        JobState::Queued => Some(app.store.queue_position(&row).await?),
        _ => None,
    };
    let version = app.version(&workspace.id, &row.version_id).await?;
    Ok((answer_headers, Json(JobRecord::of(row, &version, position))).into_response())
}

/// Cancels a job.
///
/// A waiting job is cancelled at once; a running one becomes `cancelling`, its scripts are stopped, `on_job_end` runs, and it
/// ends as `cancelled`. Once this is accepted the job will not end in any other way. Asking again changes nothing.
#[utoipa::path(
    post, path = "/jobs/{job_id}/cancel", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
    ),
    responses(
        (status = 202, description = "Accepted", body = JobRecord, headers(("ETag" = String))),
        (status = 409, description = "The job has ended otherwise, or is just ending", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    match app.store.cancel(&workspace.id, &id, &caller.actor()).await? {
        Cancelled::NotFound => Err(not_found(&id)),
        Cancelled::Finished(state) => {
            Err(Problem::new(Code::JobFinished)
                .detail(format!("{id} has ended as {state}; there is nothing to cancel")))
        }
        Cancelled::Finishing => Err(Problem::new(Code::JobFinishing)
            .detail(format!("{id} has just come to its end and its outcome is being stored; look at it in a moment"))
            .retry_after(1)),
        Cancelled::Accepted(row) => {
            app.scheduler.cancel(&id);
            app.signals.changed(&id);
            let etag = etag(&row);
            let version = app.version(&workspace.id, &row.version_id).await?;
            let record = JobRecord::of(*row, &version, None);
            Ok((StatusCode::ACCEPTED, [(ETAG, etag.header())], Json(record)).into_response())
        }
    }
}

/// A job of this workspace.
///
/// # Errors
/// `job_not_found`.
pub(super) async fn job(app: &App, workspace: &Workspace, id: &JobId) -> Result<JobRow, Problem> {
    app.store.job(&workspace.id, id).await?.ok_or_else(|| not_found(id))
}

fn not_found(id: &JobId) -> Problem {
    Problem::new(Code::JobNotFound).detail(format!("there is no job {id} in this workspace"))
}

fn etag(row: &JobRow) -> ETag {
    ETag::strong(&format!("{}-{}", row.id, row.revision))
}
