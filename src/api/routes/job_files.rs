//! The files of a job.

use super::download;
use super::jobs::job;
use crate::api::Path;
use crate::api::app::{App, Caller};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::blob::{JobFile, Key};
use crate::ids::JobId;
use crate::store::{Role, Workspace};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(artifact))
        .routes(routes!(output))
        .routes(routes!(outputs))
        .routes(routes!(output_file))
        .routes(routes!(run_request))
}

/// A file of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutputFile {
    /// Its name.
    pub name: String,
    /// Its size; of `events.ndjson` once the log is stored, a moment after the end.
    pub bytes: Option<u64>,
    /// Its hash, lower-case hex; as the size.
    pub sha256: Option<String>,
    /// Path of its content.
    pub uri: String,
}

/// The files of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Outputs {
    /// The files.
    pub items: Vec<OutputFile>,
}

/// A job's artifact.
#[utoipa::path(
    get, path = "/jobs/{job_id}/artifact", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
    ),
    responses(
        (status = 200, description = "artifact.json", body = Object, content_type = "application/json"),
        (status = 206, description = "A part of it", content_type = "application/json"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 409, description = "The job has not ended", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn artifact(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    file(&app, &workspace, &id, JobFile::Artifact, &headers).await
}

/// A job's workbook; ranges are honoured.
#[utoipa::path(
    get, path = "/jobs/{job_id}/output", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "normalized.xlsx", content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (status = 206, description = "A part of it", content_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 409, description = "The job has not ended", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn output(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    file(&app, &workspace, &id, JobFile::Normalized, &headers).await
}

/// What a job's container was asked to do.
#[utoipa::path(
    get, path = "/jobs/{job_id}/run-request", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
    ),
    responses(
        (status = 200, description = "run-request.json", body = Object, content_type = "application/json"),
        (status = 206, description = "A part of it", content_type = "application/json"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 409, description = "The job has not ended", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn run_request(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    file(&app, &workspace, &id, JobFile::RunRequest, &headers).await
}

/// The files of a job that has ended.
#[utoipa::path(
    get, path = "/jobs/{job_id}/outputs", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
    ),
    responses((status = 200, description = "The files", body = Outputs))
)]
async fn outputs(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
) -> Result<Json<Outputs>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let row = job(&app, &workspace, &id).await?;
    let base = format!("/api/v1/workspaces/{}/jobs/{id}", workspace.id);
    let result = row.result.unwrap_or_default();
    let mut items: Vec<OutputFile> = result["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| {
            let name = file["name"].as_str()?.to_owned();
            let uri = format!("{base}/outputs/{name}");
            Some(OutputFile {
                bytes: file["bytes"].as_u64(),
                sha256: file["sha256"].as_str().map(str::to_owned),
                name,
                uri,
            })
        })
        .collect();
    if row.state.is_final() {
        let (name, uri) = (JobFile::Events.name().to_owned(), format!("{base}/events"));
        let file = row.events_file.filter(|_| row.events_stored);
        let (bytes, sha256) = file.map(|file| (file.bytes, file.sha256)).unzip();
        items.push(OutputFile { name, bytes, sha256, uri });
    }
    Ok(Json(Outputs { items }))
}

/// A file of a job, by its name in the list of outputs; ranges are honoured.
#[utoipa::path(
    get, path = "/jobs/{job_id}/outputs/{name}", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
        ("name" = String, Path, description = "A name from the list of outputs"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The file, with its own type", content_type = "*/*"),
        (status = 206, description = "A part of it", content_type = "*/*"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 409, description = "The job has not ended", body = ProblemBody, content_type = "application/problem+json"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn output_file(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id, name)): Path<(String, JobId, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let name = JobFile::named(&name).filter(|file| *file != JobFile::Events).ok_or_else(|| {
        Problem::new(Code::NotFound).detail("no job has a file of this name; /outputs lists those of a job")
    })?;
    file(&app, &workspace, &id, name, &headers).await
}

async fn file(
    app: &App,
    workspace: &Workspace,
    id: &JobId,
    file: JobFile,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let row = job(app, workspace, id).await?;
    let result = row.result.unwrap_or_default();
    let files = result["files"].as_array();
    let entry = files.and_then(|files| files.iter().find(|entry| entry["name"] == file.name()));
    let Some(entry) = entry else {
        return Err(if row.state.is_final() {
            Problem::new(Code::NotFound).detail(format!("{id} ended as {} and has no {}", row.state, file.name()))
        } else {
            Problem::new(Code::JobNotFinished)
                .detail(format!("{id} is {}; its files are there when it has ended", row.state))
                .retry_after(1)
        });
    };
    let content_type = match file {
        JobFile::Normalized => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        JobFile::Artifact | JobFile::RunRequest => "application/json",
        JobFile::Events => "application/x-ndjson",
        JobFile::Packages | JobFile::InstallLog => "text/plain; charset=utf-8",
    };
    let sha256 = entry["sha256"].as_str().unwrap_or_default();
    let key = Key::job_file(&workspace.id, id, row.execution, file);
    download::respond(app, &key, sha256, content_type, Some(file.name()), headers).await
}
