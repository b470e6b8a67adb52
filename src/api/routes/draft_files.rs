//! The files of a draft: listed, read, written and removed, with protection against overwriting what somebody else wrote.

use super::drafts::{etag, find_draft};
use super::package_form::{Opened, Purpose, apart, from_file, no_package};
use super::{download, drafts};
use crate::api::app::{App, Caller, storage_ready};
use crate::api::headers::ETag;
use crate::api::names;
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::room::Held;
use crate::api::{Path, Query, extract};
use crate::blob::{BlobError, Digest, Key, Stored};
use crate::events::at;
use crate::ids::{ConfigId, DraftFileId, DraftId, WorkspaceId};
use crate::job;
use crate::packages::{Files, Package, PackageCaps, PackageError, file_path, fit_together};
use crate::sandbox::{Failure, FailureKind};
use crate::store::{Draft, DraftFile, Edit, Edited, Role, Workspace, now_ms};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Files that are read from storage at a time.
const READS: usize = 8;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, delete))
}

/// A file of a draft.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DraftFileRecord {
    /// Where it is in the package.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash, lower-case hex.
    pub sha256: String,
    /// Since when its content is this, RFC 3339.
    pub updated_at: String,
}

impl From<DraftFile> for DraftFileRecord {
    fn from(file: DraftFile) -> Self {
        Self {
            path: file.path,
            bytes: u64::try_from(file.bytes).unwrap_or_default(),
            sha256: file.sha256,
            updated_at: at(file.updated_at),
        }
    }
}

/// All files of a draft.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DraftFiles {
    /// The draft's revision.
    pub revision: i64,
    /// Its files, by path.
    pub files: Vec<DraftFileRecord>,
}

/// What a change of a file has come to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DraftEdit {
    /// The draft's revision now.
    pub revision: i64,
    /// The file as it is now; none when it was removed.
    pub file: Option<DraftFileRecord>,
}

/// What a change expects.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EditQuery {
    /// Hash that the file must have now; else the answer is 409.
    #[param(value_type = Option<String>)]
    expected_sha256: Option<Digest>,
}

/// The files of a draft, by path.
#[utoipa::path(
    get, path = "/configs/{config_id}/drafts/{draft_id}/files", tag = "drafts", operation_id = "files",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses((status = 200, description = "The files", body = DraftFiles, headers(("ETag" = String))))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    let files = app.store.draft_files(&draft.id).await?.into_iter().map(DraftFileRecord::from).collect();
    Ok(([(ETAG, etag(&draft).header())], Json(DraftFiles { revision: draft.revision, files })).into_response())
}

fn unknown(path: &str) -> Problem {
    Problem::new(Code::FileNotFound).detail(format!("the draft has no file {:?}", crate::text::plain(path, 240)))
}

/// A file of a draft.
#[utoipa::path(
    get, path = "/configs/{config_id}/drafts/{draft_id}/files/{*path}", tag = "drafts", operation_id = "read_file",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
        ("path" = String, Path, description = "Path of the file in the package; its slashes may be written as they are"),
    ),
    responses(
        (status = 200, description = "The content", content_type = "application/octet-stream", headers(("ETag" = String))),
        (status = 206, description = "A part of it, where Range asks for one; all of it is an answer to that too", content_type = "application/octet-stream"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft, path)): Path<(String, ConfigId, DraftId, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    let find = async || -> Result<DraftFile, Problem> {
        let files = app.store.draft_files(&draft.id).await?;
        files.into_iter().find(|file| file.path == path).ok_or_else(|| unknown(&path))
    };
    let file = find().await?;
    match send(&app, &file, &headers).await {
        // It was written over in this moment: then it is what was written.
        Err(problem) if problem.code() == Code::NotFound => send(&app, &find().await?, &headers).await,
        answer => answer,
    }
}

async fn send(app: &App, file: &DraftFile, asked: &HeaderMap) -> Result<Response, Problem> {
    const BYTES: &str = "application/octet-stream";
    let Some(sha256) = &file.package_sha256 else {
        let key = Key::draft_file(&file.workspace_id, &file.id);
        return download::respond(app, &key, &file.sha256, BYTES, Some(&file.path), asked).await;
    };
    let etag = ETag::strong(&file.sha256);
    if etag.matched_by_if_none_match(asked) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag.header())]).into_response());
    }
    let (package, turn) = package(app, &file.workspace_id, sha256).await?;
    let content = in_package(&package, &file.path)?.to_vec();
    drop((package, turn));
    let (length, content) = from_file(app, move |file| file.write_all(&content)).await?;
    let headers = [
        (CONTENT_LENGTH, length),
        (CONTENT_TYPE, HeaderValue::from_static(BYTES)),
        (CONTENT_DISPOSITION, names::attachment(&file.path)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (ETAG, etag.header()),
    ];
    Ok((headers, content).into_response())
}

/// A package of a workspace that was published, and the turn that it takes as long as it is used.
///
/// # Errors
/// `storage_unavailable`, `packages_busy`.
pub(super) async fn package(
    app: &App,
    workspace: &WorkspaceId,
    sha256: &str,
) -> Result<(Arc<Package>, OwnedSemaphorePermit), Problem> {
    let digest: Digest = sha256.parse().map_err(|_| Problem::new(Code::Internal))?;
    let turn = app.room.turn().await?;
    let package = app.scheduler.package(workspace, &digest).await.map_err(|failure| {
        tracing::error!(%failure, "a published package cannot be read");
        let said = if failure.kind == FailureKind::HostIo { "try again later".to_owned() } else { failure.message };
        Problem::new(Code::StorageUnavailable).detail(said)
    })?;
    Ok((package, turn))
}

fn in_package<'a>(package: &'a Package, path: &str) -> Result<&'a [u8], Problem> {
    package.file(path).ok_or_else(|| {
        tracing::error!(path, package = package.package_sha256(), "a file of a draft is not in its package");
        Code::Internal.into()
    })
}

/// The files of a draft in memory, and the memory that was taken for them.
pub(super) struct Assembled {
    pub files: Files,
    pub held: Held,
}

impl Assembled {
    /// The package that they are, or why they are none.
    ///
    /// # Errors
    /// `internal`.
    pub(super) async fn into_package(self) -> Result<Result<Opened, Failure>, Problem> {
        let Self { files, held } = self;
        let package = apart(move || files.into_package()).await?;
        Ok(package.map(|package| Opened { package, held }).map_err(|error| job::no_package(&error)))
    }
}

/// The files of a draft, read whole, as soon as there is memory for them.
///
/// # Errors
/// `draft_changed` when one was changed meanwhile, `packages_busy`, or the storage's.
pub(super) async fn assemble(
    app: &App,
    workspace: &WorkspaceId,
    files: Vec<DraftFile>,
    purpose: Purpose,
) -> Result<Assembled, Problem> {
    let bytes = files.iter().map(|file| u64::try_from(file.bytes).unwrap_or_default()).sum();
    let held = app.room.take(workspace, purpose.memory(bytes)).await?;
    let mut whole = Files::new(&PackageCaps::default());
    let (packed, stored): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.package_sha256.is_some());
    // One package at a time: a draft that was published often has files of many.
    let mut by_package: BTreeMap<String, Vec<DraftFile>> = BTreeMap::new();
    for file in packed {
        by_package.entry(file.package_sha256.clone().unwrap_or_default()).or_default().push(file);
    }
    for (sha256, files) in by_package {
        let (package, _turn) = package(app, workspace, &sha256).await?;
        for file in files {
            let content = in_package(&package, &file.path)?.to_vec();
            whole.add(&file.path, content).map_err(|error| refused(&error))?;
        }
    }
    let contents = stream::iter(stored)
        .map(|file| async move {
            let content = blob(app, &file).await?;
            Ok::<_, Problem>((file.path, content))
        })
        .buffered(READS);
    let mut contents = std::pin::pin!(contents);
    while let Some((path, content)) = contents.try_next().await? {
        whole.add(&path, content).map_err(|error| refused(&error))?;
    }
    Ok(Assembled { files: whole, held })
}

async fn blob(app: &App, file: &DraftFile) -> Result<Vec<u8>, Problem> {
    let read = async {
        let content = app.blobs.get_range(&Key::draft_file(&file.workspace_id, &file.id), None).await?;
        let parts: Vec<Bytes> = content.stream.try_collect().await?;
        Ok::<_, BlobError>(parts.concat())
    };
    match read.await {
        Ok(bytes) if Digest::of_bytes(&bytes).as_str() == file.sha256 => Ok(bytes),
        Ok(_) => {
            tracing::error!(file = %file.id, "the stored content of a draft's file is damaged");
            Err(Problem::new(Code::StorageUnavailable)
                .detail(format!("the stored content of {:?} is damaged; write it again", file.path)))
        }
        Err(BlobError::NotFound { .. }) => {
            Err(Problem::new(Code::DraftChanged).detail("the draft was changed in this moment; look at it again"))
        }
        Err(error) => Err(error.into()),
    }
}

fn refused(error: &PackageError) -> Problem {
    no_package(&job::no_package(error))
}

/// Writes a file of a draft.
///
/// The body is the content, of any content type. `expected_sha256` or `If-Match` protect what somebody else wrote meanwhile;
/// `If-None-Match: *` writes only a file that is not there. Writing what is there already changes nothing.
#[utoipa::path(
    put, path = "/configs/{config_id}/drafts/{draft_id}/files/{*path}", tag = "drafts", operation_id = "write_file",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
        ("path" = String, Path, description = "Path of the file in the package; its slashes may be written as they are"),
        EditQuery,
        ("If-Match" = Option<String>, Header, description = "The file's tag, which is its hash in quotes"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when there is no such file"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Written", body = DraftEdit, headers(("ETag" = String))),
        (status = 201, description = "Written, and was not there before", body = DraftEdit, headers(("ETag" = String))),
        (status = 409, description = "The file has another hash", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "If-Match or If-None-Match does not hold", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft, path)): Path<(String, ConfigId, DraftId, String)>,
    Query(query): Query<EditQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    file_path(&path).map_err(|error| refused(&error))?;
    storage_ready(&app)?;
    let caps = PackageCaps::default();
    let headers = request.headers().clone();
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > caps.file_bytes) {
        return Err(extract::too_large(caps.file_bytes));
    }
    let mut file = DraftFile {
        id: DraftFileId::generate(),
        draft_id: draft.id.clone(),
        workspace_id: workspace.id.clone(),
        path,
        bytes: 0,
        sha256: String::new(),
        package_sha256: None,
        updated_at: now_ms(),
    };
    // The record first: what a crash leaves of the content is then known, and swept.
    app.store.begin_draft_file(&file).await?;
    let body = request.into_body().into_data_stream().map_err(io::Error::other);
    let key = Key::draft_file(&file.workspace_id, &file.id);
    let edited = match app.blobs.put_stream(&key, Box::pin(body), caps.file_bytes).await {
        Ok(Stored { bytes, sha256 }) => {
            file.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            sha256.as_str().clone_into(&mut file.sha256);
            edit(&app, &caller, &workspace, &draft, Edit::Put(file.clone()), &headers, &query).await
        }
        Err(error) => Err(error.into()),
    };
    let taken = edited.as_ref().is_ok_and(|edited| edited.after.as_ref().is_some_and(|after| after.id == file.id));
    if !taken {
        // Nobody is to have this content: it was refused, or is there already.
        app.store.abort_draft_file(&file.id).await?;
        discard(&app, &file).await;
    }
    let Edited { revision, before, after } = edited?;
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let tag = after.as_ref().map_or_else(|| ETag::strong(""), |file| ETag::strong(&file.sha256));
    let answer = DraftEdit { revision, file: after.map(DraftFileRecord::from) };
    Ok((status, [(ETAG, tag.header())], Json(answer)).into_response())
}

/// Removes a file of a draft.
#[utoipa::path(
    delete, path = "/configs/{config_id}/drafts/{draft_id}/files/{*path}", tag = "drafts", operation_id = "remove_file",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
        ("path" = String, Path, description = "Path of the file in the package; its slashes may be written as they are"),
        EditQuery,
        ("If-Match" = Option<String>, Header, description = "The file's tag, which is its hash in quotes"),
    ),
    responses(
        (status = 200, description = "Removed", body = DraftEdit),
        (status = 409, description = "The file has another hash", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "If-Match does not hold", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft, path)): Path<(String, ConfigId, DraftId, String)>,
    Query(query): Query<EditQuery>,
    headers: HeaderMap,
) -> Result<Json<DraftEdit>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    let edited = edit(&app, &caller, &workspace, &draft, Edit::Remove(path), &headers, &query).await?;
    Ok(Json(DraftEdit { revision: edited.revision, file: None }))
}

/// Changes a file, if what the request expects is so and the files can still be a package.
async fn edit(
    app: &App,
    caller: &Caller,
    workspace: &Workspace,
    draft: &Draft,
    edit: Edit,
    headers: &HeaderMap,
    query: &EditQuery,
) -> Result<Edited, Problem> {
    let (path, put) = match &edit {
        Edit::Put(file) => (file.path.clone(), Some(file.clone())),
        Edit::Remove(path) => (path.clone(), None),
    };
    let place = (&workspace.id, &draft.config_id, &draft.id);
    let by = caller.actor();
    let edited = app.store.edit_draft(place, edit, &by, |_, files| {
        let current = files.iter().find(|file| file.path == path);
        expected(headers, query, current)?;
        match put {
            None if current.is_none() => Err(unknown(&path)),
            None => Ok(()),
            Some(new) => {
                let others = files.iter().filter(|file| file.path != path).chain([&new]);
                let sizes = others.map(|file| (file.path.as_str(), u64::try_from(file.bytes).unwrap_or(u64::MAX)));
                fit_together(sizes, &PackageCaps::default()).map_err(|error| refused(&error))
            }
        }
    });
    let edited = edited.await?.ok_or_else(|| drafts::unknown(&draft.id))??;
    if let Some(old) = edited.before.as_ref().filter(|old| edited.after.as_ref().is_none_or(|new| new.id != old.id)) {
        discard(app, old).await;
    }
    Ok(edited)
}

/// # Errors
/// `draft_changed` for `expected_sha256`, `precondition_failed` for a header.
fn expected(headers: &HeaderMap, query: &EditQuery, current: Option<&DraftFile>) -> Result<(), Problem> {
    let state = current.map(|file| file.sha256.as_str());
    let now = match state {
        Some(sha256) => format!("the file has the sha256 {sha256} now; look at it again"),
        None => "there is no such file now; look at the draft again".to_owned(),
    };
    if query.expected_sha256.as_ref().is_some_and(|expected| Some(expected.as_str()) != state) {
        return Err(Problem::new(Code::DraftChanged).detail(now).with("sha256", json!(state)));
    }
    let tag = state.map(ETag::strong);
    let held = match &tag {
        // Without a file, every `If-Match` is wrong, and every `If-None-Match` right (RFC 9110, 13.1).
        None => !headers.contains_key(IF_MATCH),
        Some(tag) => tag.allowed_by_if_match(headers) && !tag.matched_by_if_none_match(headers),
    };
    if held {
        return Ok(());
    }
    Err(Problem::new(Code::PreconditionFailed).detail(now).with("sha256", json!(state)))
}

/// Removes a content that is at no path, now rather than with the next sweep, which comes for what cannot be removed here.
async fn discard(app: &App, file: &DraftFile) {
    if file.package_sha256.is_some() {
        return;
    }
    match app.blobs.delete(&Key::draft_file(&file.workspace_id, &file.id)).await {
        Ok(()) => drop(app.store.forget_draft_file(&file.id).await),
        Err(error) => tracing::debug!(file = %file.id, %error, "a content that was replaced is left to the sweep"),
    }
}
